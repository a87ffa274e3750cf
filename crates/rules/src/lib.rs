//! The nftables language: text in, a checked ruleset out, and what it says of a packet.
//!
//! [`parse`] reads what people have in `/etc/nftables.conf` into a [`tree`]. What is not supported is refused with file, line and column,
//! and with what to write instead; nothing is ever silently left out. There is no IO, no clock and no randomness in this crate.
mod fault;
pub mod kind;
mod parse;
mod program;
mod source;
mod token;
pub mod tree;

pub use fault::{Fault, Refused};
pub use parse::{parse, parse_with};
pub use program::{AddressType, Change, Device, Fate, Ground, Program, Scene, Way, compile};
pub use source::{Library, NoLibrary, Position, Sources, Span};
