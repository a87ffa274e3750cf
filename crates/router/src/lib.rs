//! A router between devices: tracked by the engine, ruled by a ruleset, answering as a router must.
//!
//! A [`Router`] takes datagrams and the time, and gives datagrams back with the device each leaves by. It knows the machine by its [`Map`] of devices,
//! addresses and routes, and touches none of it: whoever drives it reads and writes.
mod answer;
mod fragment;
mod map;
mod options;
mod pace;
mod router;
pub mod service;
mod synproxy;

pub use map::{Interface, Map, Route};
pub use router::{Counters, Loss, Out, Router};
pub use synproxy::Handshakes;
