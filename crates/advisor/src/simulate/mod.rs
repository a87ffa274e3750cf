//! The engine in virtual time under a traffic model: how the table fills, when it is full, who is refused.
//!
//! Every packet is a real one and goes through the real engine. Clients connect, speak, and go as the [`Model`] says; what they do next
//! waits in an agenda, earliest first. A simulation is made, moved on to any later time as often as its owner likes, and told at the end.
//! It has no clock: the same model, knobs and secret give the same record.
//!
//! **The shortcut.** A million clients that ping each minute send thousands of millions of packets a day, and nearly all of them change
//! nothing but a deadline that is five days away. So of a client's words only those are sent that could matter: the next one whenever half of the
//! established timeout has passed since the last that was sent, and always the last before it falls silent, at its own time. In between
//! its entry cannot expire, and being ASSURED it is never pushed out, so that the table is the same at every moment; a test compares
//! both ways. Where a client speaks more rarely than half of the timeout, where its entry was forgotten, or with `every_packet`, each is sent.
mod advance;
mod conversation;
mod model;
mod packet_builder;
pub mod rng;
mod simulation;
mod stats;
pub mod summary;
pub mod timeseries;
mod traffic;

pub use model::{MAX_CLIENTS, MAX_DURATION, MAX_MESSAGE_BYTES, ReconnectStorm, StormCause, TrafficModel};
pub use simulation::Simulation;
pub use stats::ClientStats;
pub use summary::summarize;
pub use timeseries::{Timeseries, engine_instant};

#[cfg(test)]
mod tests;
