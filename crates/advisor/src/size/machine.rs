//! The machine a table is sized for.
use crate::kernel_constants::OBJECT_BYTES;
use keepstate_engine::{KernelVersion, Sysctls};
use serde::Serialize;

/// What is known of the machine.
#[derive(Clone, Debug, PartialEq)]
pub struct SizingMachine {
    /// Bytes of memory the kernel manages.
    pub memory: u64,
    /// Bytes of available memory, if known.
    pub available: Option<u64>,
    /// CPUs, if known.
    pub cpus: Option<u64>,
    /// Bytes of one connection, and how that is known.
    pub object_size: (u64, ObjectSizeSource),
    /// The kernel version whose defaults apply.
    pub kernel_version: KernelVersion,
    /// The kernel release, if known.
    pub release: Option<String>,
    /// Network namespaces; at least one.
    pub namespaces: u64,
    /// The current limit.
    pub max: Option<u64>,
    /// The current buckets.
    pub buckets: Option<u64>,
    /// All sysctls, current or default.
    pub knobs: Sysctls,
}

/// How a number is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectSizeSource {
    /// Read from this machine.
    Measured,
    /// The usual value of this kernel version.
    Known,
}

impl SizingMachine {
    /// A machine of which only the memory and the kernel version are known.
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

/// Bytes of a connection in its slab on 64-bit kernels of this version.
pub const fn conntrack_object_size(generation: KernelVersion) -> u64 {
    match generation {
        KernelVersion::V3_10 | KernelVersion::V4_19 => 320,
        KernelVersion::V5_15 | KernelVersion::V6_18 => OBJECT_BYTES,
    }
}
