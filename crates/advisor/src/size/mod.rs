//! How large a conntrack table should be, and why.
//!
//! A [`Workload`] and a [`SizingMachine`] go in, a [`SizeAdvice`] comes out: limit, buckets, memory, chain lengths, timeouts, and the
//! defaults of each kernel version; every number with its reason. The entries are first added up ([`load`]) under the recommended
//! timeouts ([`timeouts`]); the limit is that load and headroom, and the buckets follow the limit.
//! Nothing here measures anything, and no advice is ever below the load it was given.

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
    /// One or two sentences.
    pub why: String,
}

/// The advice.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SizeAdvice {
    /// The load of the table.
    pub load: TableLoad,
    /// `nf_conntrack_max`.
    pub max: ReasonedValue,
    /// `nf_conntrack_buckets`, and `hashsize=` for modprobe.
    pub buckets: ReasonedValue,
    /// Entries above the normal load.
    pub headroom: ReasonedValue,
    /// The limit needed if no timeout is changed; `None` if it is the same.
    pub max_with_present_timeouts: Option<ReasonedValue>,
    /// Memory.
    pub memory: MemoryCost,
    /// Lengths of the hash chains.
    pub lists: HashChains,
    /// Timeouts that matter for this load, the ones that hold the most entries first.
    pub timeouts: Vec<TimeoutAdvice>,
    /// The defaults of each kernel version on this machine.
    pub defaults: Vec<KernelDefaults>,
    /// What to know before using these numbers.
    pub warnings: Vec<String>,
}

/// The normal load stays below this share of the limit: the usual alert (node_exporter) is at 75 %.
const STEADY_FILL_PERCENT: u64 = 75;
/// The worst surge stays below this share: above 95 %, kernels evict closing connections early.
const PEAK_FILL_PERCENT: u64 = 95;
/// No smaller table is recommended: the smallest machine gets this by default.
const MIN_ENTRIES: u64 = 1024;
/// A timeout matters if it holds one in this many connections.
const SIGNIFICANT_TIMEOUT_DIVISOR: u64 = 1000;
/// The largest value of both sysctls in whole pages: some kernels keep a signed 32-bit number.
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
        why: "one bucket per connection, as kernels since 5.15 do: each connection is entered twice, so chains average two entries when \
              the table is full. A bucket costs 8 bytes; a long chain costs time for every packet"
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

/// The limit for a load, rounded up, at most what a kernel takes.
fn recommend_max(load: &TableLoad) -> ReasonedValue {
    let calm = max_for_fill_percent(load.steady, STEADY_FILL_PERCENT);
    let surge = max_for_fill_percent(load.peak, PEAK_FILL_PERCENT);
    let wanted = calm.max(surge).max(MIN_ENTRIES);
    let value = wanted.checked_next_multiple_of(BUCKETS_PER_PAGE).unwrap_or(u64::MAX).min(MAX_ENTRIES);
    let (steady, peak) = (Count(load.steady), Count(load.peak));
    let why = match wanted {
        MIN_ENTRIES if calm.max(surge) < MIN_ENTRIES => {
            format!("the smallest default of current kernels; {peak} would be enough")
        }
        _ if surge > calm => format!(
            "the surge of {peak} fills it to {PEAK_FILL_PERCENT} %; above that kernels evict closing connections early. Rounded up to {BUCKETS_PER_PAGE}"
        ),
        _ => format!(
            "the normal load of {steady} fills it to {STEADY_FILL_PERCENT} %, the usual alert level (node_exporter), and the surge of {peak} fits. Rounded up to {BUCKETS_PER_PAGE}"
        ),
    };
    ReasonedValue { value, why }
}

/// The limit of which `load` is `percent`.
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
            "{percent} % above the normal load: {} for the surge, the rest to see growth in time. Unused entries cost no memory except their bucket",
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
            "{} connections are more than a table can hold ({}): use several machines, or do not track them",
            Count(load.peak),
            Count(MAX_ENTRIES)
        ));
    }
    let budget = machine.available.unwrap_or(machine.memory);
    if cost.full > budget / 2 {
        warnings.push(format!(
            "a full table takes {} of {} {} memory. This is kernel memory: not swapped, charged to no container. Shorten timeouts, exempt traffic (notrack) or add memory",
            Bytes(cost.full),
            Bytes(budget),
            if machine.available.is_some() { "available" } else { "total" },
        ));
    }
    if let Some(present) = machine.max.filter(|present| *present > max.value) {
        warnings.push(format!(
            "nf_conntrack_max is {} now, which is more: keep it (unused entries cost no memory), and never set it below the current count",
            Count(present)
        ));
    }
    if let Some(buckets) = machine.buckets {
        let present = hash_chains::chain_lengths(load.steady, buckets);
        if present.worst >= hash_chains::CHAIN_LIMIT[0] {
            warnings.push(format!(
                "with the current {} buckets, chains have {:.0} entries on average and {} at worst; above {} to {} the kernel drops new connections (chaintoolong)",
                Count(buckets), present.average, present.worst, hash_chains::CHAIN_LIMIT[0], hash_chains::CHAIN_LIMIT[1],
            ));
        }
    }
    if machine.max == Some(0) {
        warnings.push("nf_conntrack_max is 0 now, which means unlimited: a flood can use all memory".into());
    }
    if machine.namespaces > 1 {
        warnings.push(format!(
            "{} network namespaces share the buckets, and the limit applies to each separately. The load given is taken as the sum of all",
            machine.namespaces
        ));
    }
    if let (Workload::Demand(demand), Some(cpus)) = (need, machine.cpus)
        && demand.profile == Some(Profile::KubernetesNode)
    {
        let kube = (cpus.saturating_mul(32_768)).max(131_072);
        warnings.push(format!(
            "kube-proxy sets nf_conntrack_max itself, from the number of cores (here {}): configure the limit there (conntrack.maxPerCore, conntrack.min), or it will overwrite yours",
            Count(kube)
        ));
    }
    warnings
}

#[cfg(test)]
mod tests;
