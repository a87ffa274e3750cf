//! A router between devices: tracked by the engine, ruled by a ruleset, answering as a router must.
//!
//! A [`Router`] takes datagrams and the time, and gives datagrams back with the device each leaves by. It knows the machine by its [`Map`] of devices,
//! addresses and routes, and touches none of it: whoever drives it reads and writes.
mod fib;
mod icmp_error;
mod icmp_ratelimit;
mod ip_fragment;
mod ipv4_options;
mod router;
pub mod service;
mod synproxy;

pub use fib::{FibTable, Interface, Route};
pub use router::{DropReason, Egress, LogLine, Router, RouterCounters};
pub use synproxy::SynproxyStats;
