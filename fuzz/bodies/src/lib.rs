//! What each fuzz target does with its input.
//!
//! A body takes any octets and returns; it panics when something that must hold does not. The targets of cargo-fuzz in
//! `fuzz/fuzz_targets` call these bodies, and so do the ordinary tests, with the corpus in `fuzz/corpus` and with random input of a
//! printed seed: what fuzzing has found once is looked at for ever, on stable Rust.

#![allow(clippy::expect_used, reason = "a body panics when something does not hold that must: that is how it speaks")]

mod ctnetlink;
mod engine;
mod forge;
mod ftp;
mod grammar;
mod invariants;
mod keep;
mod mqtt;
mod pcap_reader;
mod reassembly;
mod ruleset;
mod script;
mod sysctl;
mod tcp_options;
mod wire;

pub use ctnetlink::ctnetlink;
pub use engine::{Told, engine, tell};
pub use ftp::{converse, ftp};
pub use keep::keep;
pub use mqtt::mqtt;
pub use pcap_reader::pcap_reader;
pub use reassembly::reassembly;
pub use ruleset::ruleset;
pub use script::{Dice, Script};
pub use sysctl::sysctl;
pub use tcp_options::tcp_options;
pub use wire::wire;

/// One fuzz target: its name, which is that of its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("ctnetlink", ctnetlink),
    ("engine", engine),
    ("ftp", ftp),
    ("keep", keep),
    ("mqtt", mqtt),
    ("reassembly", reassembly),
    ("ruleset", ruleset),
    ("sysctl", sysctl),
    ("tcp_options", tcp_options),
    ("wire", wire),
];
