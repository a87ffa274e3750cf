//! What each generation of kernels would choose by itself on a machine with this memory, and what that would mean for the load.
use crate::size::hash_chains::{self, ChainLengths};
use crate::size::load::TableLoad;
use keepstate_engine::{KernelVersion, Sysctl, Sysctls};
use serde::Serialize;

/// One generation's own choice.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelDefaults {
    /// Which kernels.
    pub kernels: &'static str,
    /// Its `nf_conntrack_max`.
    pub max: u64,
    /// Its `nf_conntrack_buckets`.
    pub buckets: u64,
    /// Does the ordinary load fit?
    pub carries: bool,
    /// Does the surge fit too?
    pub carries_surge: bool,
    /// Its lists, with the load (or as much of it as fits).
    pub lists: ChainLengths,
    /// The rule it follows.
    pub why: &'static str,
}

/// Every generation, oldest first.
pub const KERNEL_VERSIONS: [KernelVersion; 4] =
    [KernelVersion::V3_10, KernelVersion::V4_19, KernelVersion::V5_15, KernelVersion::V6_18];

/// Which kernels a generation is of.
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
        KernelVersion::V3_10 => "memory / 131,072 buckets; above 1 GiB 16,384; four connections a bucket",
        KernelVersion::V4_19 => {
            "memory / 131,072 buckets; above 1 GiB 16,384, above 4 GiB 65,536; four connections a bucket"
        }
        KernelVersion::V5_15 | KernelVersion::V6_18 => {
            "memory / 131,072 buckets; above 1 GiB 65,536, above 4 GiB 262,144; one connection a bucket"
        }
    }
}

/// Each generation's own sizes with this memory, against a load.
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
