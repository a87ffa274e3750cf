//! The machine a table is sized for.
use crate::kernel_constants::OBJECT_BYTES;
use keepstate_engine::{KernelVersion, Sysctls};
use serde::Serialize;

/// What is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct SizingMachine {
    /// Octets the kernel manages.
    pub memory: u64,
    /// Octets that could be given out now, if that is known.
    pub available: Option<u64>,
    /// Processors, if that is known.
    pub cpus: Option<u64>,
    /// Octets of one connection, and how that is known.
    pub object_size: (u64, ObjectSizeSource),
    /// Whose rules this machine's kernel follows.
    pub kernel_version: KernelVersion,
    /// The kernel as it names itself, if that is known.
    pub release: Option<String>,
    /// Network namespaces; at least one.
    pub namespaces: u64,
    /// The limit now.
    pub max: Option<u64>,
    /// The buckets now.
    pub buckets: Option<u64>,
    /// All knobs as they are now, or as this kernel would have them.
    pub knobs: Sysctls,
}

/// How a number is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectSizeSource {
    /// Read from this machine.
    Measured,
    /// What kernels of that generation are known to have.
    Known,
}

impl SizingMachine {
    /// A machine of which only the memory and the kernel's generation are known.
    pub fn new(kernel_version: KernelVersion, memory: u64) -> SizingMachine {
        SizingMachine {
            memory,
            available: None,
            cpus: None,
            object_size: (conntrack_object_size(kernel_version), ObjectSizeSource::Known),
            kernel_version,
            release: None,
            namespaces: 1,
            max: None,
            buckets: None,
            knobs: Sysctls::kernel_defaults(kernel_version, memory),
        }
    }
}

/// Octets of a connection in its slab, by what kernels of that generation on 64 bits were seen to use.
pub const fn conntrack_object_size(generation: KernelVersion) -> u64 {
    match generation {
        KernelVersion::V3_10 | KernelVersion::V4_19 => 320,
        KernelVersion::V5_15 | KernelVersion::V6_18 => OBJECT_BYTES,
    }
}
