//! Connection tracking, faithful to Linux packet for packet; bytes and `now` in, outcome out.
//!
//! The story is in [`Engine`]: a packet is looked up by its tuple, judged by its protocol, and confirmed into the table, where the
//! connection stands twice, by its original and by its reply tuple. A [`Helper`] hears what a control channel announces; what is announced is
//! an [`Expectation`], and what then comes is RELATED. There is no clock, no randomness and no IO in this crate.
#![no_std]

extern crate alloc;

mod confirm;
mod connection;
mod counters;
mod engine;
mod entry;
mod event;
mod expectation;
mod expire;
mod export;
mod extras;
mod full;
mod handle;
mod helper;
mod identity;
mod knob;
mod log;
mod master;
mod nat;
mod offload;
mod outcome;
mod passage;
mod promise;
mod protocol;
mod related;
mod request;
mod saying;
mod show;
mod status;
pub mod sysctl_conf;
mod table;
mod time;
mod timeouts;
mod track;
mod tuple;
mod why;

pub use connection::Connection;
pub use counters::Counters;
pub use engine::{Engine, Handle, Secret};
pub use entry::{Accounting, Entry, ProtocolInfo, SctpState, TcpSide, TcpState};
pub use event::{Event, EventKind, EventMask};
pub use expectation::Expectation;
pub use export::{Description, Refused, Trust, Undecodable};
pub use helper::Helper;
pub use knob::{Generation, Knob, KnobError, Knobs};
pub use nat::{
    Behaviour, BlockChange, Choice, Deterministic, Edits, Filtering, Manip, Mapping, Range, Shortage, Shortfall,
    Translated,
};
pub use offload::{Flow, Held, Seen};
pub use outcome::{Direction, Info, Outcome, Verdict};
pub use passage::{Passage, Unconfirmed};
pub use promise::Promise;
pub use request::{Draft, Family, Knowledge, Refusal, Wish};
pub use status::Status;
pub use time::Instant;
pub use timeouts::Timeouts;
pub use tuple::{Tuple, Zone, ZoneDirection};
pub use why::Why;
