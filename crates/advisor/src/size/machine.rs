//! The machine a table is sized for.
use keepstate_engine::{Generation, Knobs};
use serde::Serialize;

/// What is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Octets the kernel manages.
    pub memory: u64,
    /// Octets that could be given out now, if that is known.
    pub available: Option<u64>,
    /// Processors, if that is known.
    pub cpus: Option<u64>,
    /// Octets of one connection, and how that is known.
    pub object: (u64, Source),
    /// Whose rules this machine's kernel follows.
    pub generation: Generation,
    /// The kernel as it names itself, if that is known.
    pub release: Option<String>,
    /// Network namespaces; at least one.
    pub namespaces: u64,
    /// The limit now.
    pub max: Option<u64>,
    /// The buckets now.
    pub buckets: Option<u64>,
    /// All knobs as they are now, or as this kernel would have them.
    pub knobs: Knobs,
}

/// How a number is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Read from this machine.
    Measured,
    /// What kernels of that generation are known to have.
    Known,
}

impl Machine {
    /// A machine of which only the memory and the kernel's generation are known.
    pub fn new(generation: Generation, memory: u64) -> Machine {
        Machine {
            memory,
            available: None,
            cpus: None,
            object: (object(generation), Source::Known),
            generation,
            release: None,
            namespaces: 1,
            max: None,
            buckets: None,
            knobs: Knobs::as_linux(generation, memory),
        }
    }
}

/// Octets of a connection in its slab, by what kernels of that generation on 64 bits were seen to use.
pub const fn object(generation: Generation) -> u64 {
    match generation {
        Generation::V3_10 | Generation::V4_19 => 320,
        Generation::V5_15 | Generation::V6_18 => 256,
    }
}

/// Octets of the extension of a connection with NAT, accounting, events or timestamps.
pub const EXTENSION: u64 = 128;
/// Octets of a bucket: one pointer.
pub const BUCKET: u64 = 8;
