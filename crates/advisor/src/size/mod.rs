//! How large a connection table should be, and why.
//!
//! A [`Need`] (what is to be carried) and a [`Machine`] (where) go in, a [`Size`] comes out: max, buckets, memory, list lengths, timeouts, what
//! each kernel would choose by itself; every number with its reason. The needed places are first added up ([`load`]), with the timeouts
//! that are advised ([`timeouts`]); max is what the load needs and room above it, buckets follow max.
//! Nothing here measures anything, and nothing here is ever lower than the load it was given.

pub mod demand;
pub mod hash_chains;
pub mod kernel_defaults;
pub mod load;
pub mod machine;
pub mod memory;
pub mod timeouts;

use crate::kernel_constants::BUCKETS_PER_PAGE;
use crate::units::{Bytes, Count};
pub use demand::{Demand, ObservedLoad, Profile, Workload};
pub use hash_chains::HashChains;
pub use kernel_defaults::KernelDefaults;
pub use load::{LoadComponent, TableLoad};
pub use machine::{ObjectSizeSource, SizingMachine};
pub use memory::MemoryCost;
use serde::Serialize;
pub use timeouts::TimeoutAdvice;

/// A number, and why it is that number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReasonedValue {
    /// The number.
    pub value: u64,
    /// One sentence or two.
    pub why: String,
}

/// All that is advised.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SizeAdvice {
    /// What the table has to carry.
    pub load: TableLoad,
    /// `nf_conntrack_max`.
    pub max: ReasonedValue,
    /// `nf_conntrack_buckets`, and `hashsize=` for modprobe.
    pub buckets: ReasonedValue,
    /// Places above the ordinary load.
    pub headroom: ReasonedValue,
    /// What max would have to be if no timeout is changed; `None` if that is the same.
    pub max_with_present_timeouts: Option<ReasonedValue>,
    /// Memory.
    pub memory: MemoryCost,
    /// Lengths of the lists behind the buckets.
    pub lists: HashChains,
    /// Timeouts that matter for this load, those that hold most first.
    pub timeouts: Vec<TimeoutAdvice>,
    /// What each generation of kernels would choose by itself here.
    pub defaults: Vec<KernelDefaults>,
    /// What else should be known before these numbers are used.
    pub warnings: Vec<String>,
}

/// Ordinary load stays below this share of max: node_exporter's usual alarm is at 75 %.
const STEADY_FILL_PERCENT: u64 = 75;
/// The worst surge stays below this share: past 95 %, kernels begin to end closing connections early.
const PEAK_FILL_PERCENT: u64 = 95;
/// No table is advised smaller than what the smallest machine gets by default today.
const MIN_ENTRIES: u64 = 1024;
/// A timeout matters that holds one connection in so many.
const SIGNIFICANT_TIMEOUT_DIVISOR: u64 = 1000;
/// The largest value of both knobs that is a signed 32-bit number, as some kernels keep them, in whole pages.
const MAX_ENTRIES: u64 = (i32::MAX as u64) / BUCKETS_PER_PAGE * BUCKETS_PER_PAGE;

/// Sizes a table for `need` on `machine`.
pub fn size(need: &Workload, machine: &SizingMachine) -> SizeAdvice {
    let mut timeouts = timeouts::advise(need, &machine.knobs);
    let advised = timeouts::apply_advice(&timeouts, &machine.knobs);
    let load = load::estimate(need, &advised);
    timeouts.retain(|timeout| timeout.holds >= load.steady / SIGNIFICANT_TIMEOUT_DIVISOR);
    let present = load::estimate(need, &machine.knobs);
    let max = recommend_max(&load);
    let buckets = ReasonedValue {
        value: max.value,
        why: "one bucket for each connection, as kernels since 5.15 choose: with each connection entered twice, lists are of two entries \
              on average when the table is full; a bucket costs 8 octets, a long list costs every packet"
            .into(),
    };
    let unchanged = recommend_max(&present);
    let memory = memory::memory_cost(machine, need.has_extension(&machine.knobs), &load, max.value, buckets.value);
    let mut warnings = warnings(need, machine, &load, &max, &memory);
    warnings.extend(need.warnings(machine));
    SizeAdvice {
        headroom: headroom(&load, &max),
        max_with_present_timeouts: (unchanged.value != max.value).then_some(unchanged),
        lists: hash_chains::estimate(load.steady, max.value, buckets.value),
        defaults: kernel_defaults::all_defaults(machine.memory, &load),
        load,
        max,
        buckets,
        memory,
        timeouts,
        warnings,
    }
}

/// The rounded-up quotient, and no more than there can be.
fn recommend_max(load: &TableLoad) -> ReasonedValue {
    let calm = max_for_fill_percent(load.steady, STEADY_FILL_PERCENT);
    let surge = max_for_fill_percent(load.peak, PEAK_FILL_PERCENT);
    let wanted = calm.max(surge).max(MIN_ENTRIES);
    let value = wanted.checked_next_multiple_of(BUCKETS_PER_PAGE).unwrap_or(u64::MAX).min(MAX_ENTRIES);
    let (steady, peak) = (Count(load.steady), Count(load.peak));
    let why = match wanted {
        MIN_ENTRIES if calm.max(surge) < MIN_ENTRIES => format!("no kernel of today starts with less; {peak} would do"),
        _ if surge > calm => format!(
            "the surge of {peak} fills it to {PEAK_FILL_PERCENT} %: beyond that, kernels begin to end closing connections early; rounded up to a page of {BUCKETS_PER_PAGE} buckets"
        ),
        _ => format!(
            "the ordinary load of {steady} fills it to {STEADY_FILL_PERCENT} %, where the usual alarm is set (node_exporter's), and the surge of {peak} fits; rounded up to a page of {BUCKETS_PER_PAGE} buckets"
        ),
    };
    ReasonedValue { value, why }
}

/// So many, that `load` is `percent` of it.
fn max_for_fill_percent(load: u64, percent: u64) -> u64 {
    u64::try_from((u128::from(load) * 100).div_ceil(u128::from(percent))).unwrap_or(u64::MAX)
}

fn headroom(load: &TableLoad, max: &ReasonedValue) -> ReasonedValue {
    let value = max.value.saturating_sub(load.steady);
    let percent = (u128::from(value) * 100).checked_div(u128::from(load.steady)).unwrap_or(0);
    let surge = load.peak.saturating_sub(load.steady);
    ReasonedValue {
        value,
        why: format!(
            "{percent} % above the ordinary load: {} for the surge, the rest so that growth is seen before it hurts; places that are not used cost no memory but their bucket",
            Count(surge)
        ),
    }
}

fn warnings(
    need: &Workload,
    machine: &SizingMachine,
    load: &TableLoad,
    max: &ReasonedValue,
    cost: &MemoryCost,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if load.peak > max.value {
        warnings.push(format!(
            "{} connections are more than a table may hold ({}): spread them over several machines, or do not track them",
            Count(load.peak),
            Count(MAX_ENTRIES)
        ));
    }
    let budget = machine.available.unwrap_or(machine.memory);
    if cost.full > budget / 2 {
        warnings.push(format!(
            "full, this table takes {} of the {} this machine has {}: connections are kernel memory, not swapped and not charged to any container; shorten timeouts, exempt traffic (NOTRACK) or add memory",
            Bytes(cost.full),
            Bytes(budget),
            if machine.available.is_some() { "available" } else { "in all" },
        ));
    }
    if let Some(present) = machine.max.filter(|present| *present > max.value) {
        warnings.push(format!(
            "nf_conntrack_max is {} now, which is more: leave it unless the memory is wanted back (an unused place costs nothing), and never set it below the present count",
            Count(present)
        ));
    }
    if let Some(buckets) = machine.buckets {
        let present = hash_chains::chain_lengths(load.steady, buckets);
        if present.worst >= hash_chains::CHAIN_LIMIT[0] {
            warnings.push(format!(
                "with the {} buckets of now, this load makes lists of {:.0} entries on average and {} at worst: past {} to {} the kernel refuses connections (chaintoolong)",
                Count(buckets), present.average, present.worst, hash_chains::CHAIN_LIMIT[0], hash_chains::CHAIN_LIMIT[1],
            ));
        }
    }
    if machine.max == Some(0) {
        warnings.push("nf_conntrack_max is 0 now: that is no limit at all, and a flood may take all memory".into());
    }
    if machine.namespaces > 1 {
        warnings.push(format!(
            "{} network namespaces share the buckets; max limits each of them by itself. The load given is taken as that of all together",
            machine.namespaces
        ));
    }
    if let (Workload::Demand(demand), Some(cpus)) = (need, machine.cpus)
        && demand.profile == Some(Profile::KubernetesNode)
    {
        let kube = (cpus.saturating_mul(32_768)).max(131_072);
        warnings.push(format!(
            "kube-proxy sets nf_conntrack_max by itself, by cores and not by need (here {}): give the number to it, in conntrack.maxPerCore and conntrack.min, or it will put its own back",
            Count(kube)
        ));
    }
    warnings
}

#[cfg(test)]
mod tests;
