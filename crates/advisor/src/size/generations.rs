//! What each generation of kernels would choose by itself on a machine with this memory, and what that would mean for the load.
use crate::size::lists::{self, Lengths};
use crate::size::load::Load;
use keepstate_engine::{Generation, Knob, Knobs};
use serde::Serialize;

/// One generation's own choice.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
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
    pub lists: Lengths,
    /// The rule it follows.
    pub why: &'static str,
}

/// Every generation, oldest first.
pub const GENERATIONS: [Generation; 4] = [Generation::V3_10, Generation::V4_19, Generation::V5_15, Generation::V6_18];

/// Which kernels a generation is of.
pub const fn kernels(generation: Generation) -> &'static str {
    match generation {
        Generation::V3_10 => "up to 3.19",
        Generation::V4_19 => "4.0 to 5.14",
        Generation::V5_15 => "5.15 to 6.17",
        Generation::V6_18 => "6.18",
    }
}

const fn rule(generation: Generation) -> &'static str {
    match generation {
        Generation::V3_10 => "memory / 131,072 buckets; above 1 GiB 16,384; four connections a bucket",
        Generation::V4_19 => {
            "memory / 131,072 buckets; above 1 GiB 16,384, above 4 GiB 65,536; four connections a bucket"
        }
        Generation::V5_15 | Generation::V6_18 => {
            "memory / 131,072 buckets; above 1 GiB 65,536, above 4 GiB 262,144; one connection a bucket"
        }
    }
}

/// Each generation's own sizes with this memory, against a load.
pub fn all(memory: u64, load: &Load) -> Vec<Choice> {
    let one = |generation: Generation| {
        let knobs = Knobs::as_linux(generation, memory);
        let (max, buckets) = (u64::from(knobs[Knob::Max]), u64::from(knobs[Knob::Buckets]));
        Choice {
            kernels: kernels(generation),
            max,
            buckets,
            carries: load.steady <= max,
            carries_surge: load.peak <= max,
            lists: lists::lengths(load.steady.min(max), buckets),
            why: rule(generation),
        }
    };
    GENERATIONS.into_iter().map(one).collect()
}

/// The generation that a release like `5.15.0-91-generic` belongs to; `None` if it is no such number.
pub fn of_release(release: &str) -> Option<Generation> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let (major, minor): (u32, u32) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    Some(match (major, minor) {
        (..=3, _) => Generation::V3_10,
        (4, _) | (5, ..=14) => Generation::V4_19,
        (5, _) | (6, ..=17) => Generation::V5_15,
        _ => Generation::V6_18,
    })
}
