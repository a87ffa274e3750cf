//! What each fuzz target does with its input.
//!
//! A body accepts any bytes and returns; it must panic if and only if an invariant does not hold. The cargo-fuzz targets in
//! `fuzz/fuzz_targets` call these bodies, and so do the ordinary tests, with the corpus in `fuzz/corpus` and with random input from a
//! printed seed: inputs once found by fuzzing are tested from then on, on stable Rust.

#![allow(clippy::expect_used, reason = "a body panics when something does not hold that must: that is how it speaks")]

mod control;
mod ctnetlink;
mod engine;
mod ftp;
mod fuzz_input;
mod grammar;
mod invariants;
mod keep;
mod mqtt;
mod packet_gen;
mod pcap_reader;
mod reassembly;
mod ruleset;
mod sysctl;
mod tcp_options;
mod wire;

pub use control::control;
pub use ctnetlink::ctnetlink;
pub use engine::{EngineCoverage, engine, run_engine};
pub use ftp::{ftp, run_ftp};
pub use fuzz_input::{FuzzInput, Rng};
pub use keep::keep;
pub use mqtt::mqtt;
pub use pcap_reader::pcap_reader;
pub use reassembly::reassembly;
pub use ruleset::ruleset;
pub use sysctl::sysctl;
pub use tcp_options::tcp_options;
pub use wire::wire;

/// One fuzz target: its name, which is also that of its corpus, and its body.
pub type FuzzTarget = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[FuzzTarget] = &[
    ("control", control),
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
