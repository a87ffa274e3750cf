//! The kernel's connection table, over netlink.
//!
//! A [`Flow`] is a connection as the kernel tells of it (everything optional, because the kernel leaves out what is not so) and as it
//! is told to the kernel. [`decode`] and [`encode`] are a codec without IO, each the other's inverse; [`Table`] asks and tells the kernel.

pub mod decode;
pub mod encode;
mod events;
pub mod expectation;
mod flow;
pub mod number;
mod restriction;
mod state;
mod statistics;
mod table;
mod tuple;

pub use events::{Event, Events, Happening, Subject};
pub use expectation::Expectation;
pub use flow::{Correction, Counts, Family, Flow, Labels, Protocol, SctpInfo, Synproxy, TcpInfo, Translation, status};
pub use restriction::Restriction;
pub use state::{SctpState, TcpState};
pub use statistics::{ExpectationStatistics, Statistics};
pub use table::{Listing, Table, flows_in};
pub use tuple::{Tuple, protocol};
