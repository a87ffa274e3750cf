#![doc = include_str!("../README.md")]
#![no_std]

mod event_kind;
pub mod ipproto;
mod state;
mod status;

pub use event_kind::EventKind;
pub use state::{SctpState, TcpState, UnknownName};
pub use status::Status;

#[cfg(test)]
mod tests;
