//! The engine in virtual time under a traffic model: how the table fills, when it is full, which clients are refused.
//!
//! Every packet is a real one and goes through the real engine. Clients connect, send and disconnect as the [`TrafficModel`] says;
//! their next events wait in a queue, earliest first. A [`Simulation`] is created, advanced to any later time as often as needed, and
//! read at the end. It has no clock: the same model, sysctls and secret give the same result.
//!
//! **The shortcut.** A million clients that ping each minute send more than a thousand million packets a day, and nearly all of them
//! only refresh a timeout that is five days long. So only messages that could matter are sent: the next one when half of the
//! established timeout has passed since the last one sent, and always the last before a client falls silent, at its own time. In
//! between its entry cannot expire, and being ASSURED it is never evicted, so the table is the same at every moment; a test compares
//! both. A client that sends less often than half of the timeout, an entry that was forgotten, or `every_packet`: each message is sent.
mod advance;
mod choices;
mod conversation;
mod model;
mod packet_builder;
pub mod rng;
mod simulation;
mod stats;
pub mod summary;
pub mod timeseries;
mod traffic;

pub use choices::{ChoiceOutcome, OPERATOR_PORT, TableChoice};
pub use model::{MAX_CLIENTS, MAX_DURATION, MAX_MESSAGE_BYTES, ReconnectStorm, StormCause, TrafficModel};
pub use simulation::Simulation;
pub use stats::ClientStats;
pub use summary::summarize;
pub use timeseries::{Timeseries, engine_instant};

#[cfg(test)]
mod tests;
