//! The default sizes of each kernel version on a machine with this memory, compared with the load.
use crate::size::hash_chains::{self, ChainLengths};
use crate::size::load::TableLoad;
use keepstate_engine::{KernelVersion, Sysctl, Sysctls};
use serde::Serialize;

/// The defaults of one kernel version.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelDefaults {
    /// The range of kernel versions.
    pub kernels: &'static str,
    /// Its `nf_conntrack_max`.
    pub max: u64,
    /// Its `nf_conntrack_buckets`.
    pub buckets: u64,
    /// Does the normal load fit?
    pub carries: bool,
    /// Does the surge fit too?
    pub carries_surge: bool,
    /// Its chain lengths with the load, or as much of it as fits.
    pub lists: ChainLengths,
    /// The rule it uses.
    pub why: &'static str,
}

/// Every version with its own defaults, oldest first.
pub const KERNEL_VERSIONS: [KernelVersion; 4] =
    [KernelVersion::V3_10, KernelVersion::V4_19, KernelVersion::V5_15, KernelVersion::V6_18];

/// The range of kernels with these defaults.
pub const fn kernel_range(generation: KernelVersion) -> &'static str {
    match generation {
        KernelVersion::V3_10 => "up to 3.19",
        KernelVersion::V4_19 => "4.0 to 5.14",
        KernelVersion::V5_15 => "5.15 to 6.17",
        KernelVersion::V6_18 => "6.18",
    }
}

const fn sizing_rule(generation: KernelVersion) -> &'static str {
    match generation {
        KernelVersion::V3_10 => "memory / 131,072 buckets; above 1 GiB 16,384; four connections per bucket",
        KernelVersion::V4_19 => {
            "memory / 131,072 buckets; above 1 GiB 16,384, above 4 GiB 65,536; four connections per bucket"
        }
        KernelVersion::V5_15 | KernelVersion::V6_18 => {
            "memory / 131,072 buckets; above 1 GiB 65,536, above 4 GiB 262,144; one connection per bucket"
        }
    }
}

/// The default sizes of each version with this memory, compared with a load.
pub fn all_defaults(memory: u64, load: &TableLoad) -> Vec<KernelDefaults> {
    let one = |generation: KernelVersion| {
        let knobs = Sysctls::kernel_defaults(generation, memory);
        let (max, buckets) = (u64::from(knobs[Sysctl::Max]), u64::from(knobs[Sysctl::Buckets]));
        KernelDefaults {
            kernels: kernel_range(generation),
            max,
            buckets,
            carries: load.steady <= max,
            carries_surge: load.peak <= max,
            lists: hash_chains::chain_lengths(load.steady.min(max), buckets),
            why: sizing_rule(generation),
        }
    };
    KERNEL_VERSIONS.into_iter().map(one).collect()
}

/// The generation that a release like `5.15.0-91-generic` belongs to; `None` if it is no such number.
pub fn version_of_release(release: &str) -> Option<KernelVersion> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let (major, minor): (u32, u32) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    Some(match (major, minor) {
        (..=3, _) => KernelVersion::V3_10,
        (4, _) | (5, ..=14) => KernelVersion::V4_19,
        (5, _) | (6, ..=17) => KernelVersion::V5_15,
        _ => KernelVersion::V6_18,
    })
}
