//! The owner's counters as sums that only grow, and how fast each grows.
//!
//! The kernel keeps 32 bits a processor; a sum over the differences does not jump when one of them wraps.
use keepstate_linux::ctnetlink::CtCpuStats;
use std::collections::BTreeMap;
use std::time::Duration;

/// How many counters are kept at most: a gateway's list of reasons is closed and shorter.
const MAX_COUNTERS: usize = 512;

/// One counter.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedCounter {
    /// Its name, as `conntrack -S` or the gateway has it.
    pub name: String,
    /// Its sum.
    pub total: u64,
    /// Growth a second, between the last two readings.
    pub per_second: f64,
}

/// Sums of counters by name. A reading is added each second.
#[derive(Debug, Default)]
pub struct CounterSums {
    sums: BTreeMap<String, NamedCounter>,
    cpus: BTreeMap<(u16, &'static str), u32>,
    read_at: Option<Duration>,
}

impl CounterSums {
    /// Adds a reading of the kernel's counters.
    pub fn add_cpu_stats(&mut self, stats: &[CtCpuStats], now: Duration) {
        let mut grown: BTreeMap<&'static str, u64> = BTreeMap::new();
        for cpu in stats {
            for (name, value) in cpu.named() {
                let before = self.cpus.insert((cpu.cpu, name), value);
                let growth = before.map_or(value, |before| value.wrapping_sub(before));
                *grown.entry(name).or_default() += u64::from(growth);
            }
        }
        let first = self.read_at.is_none();
        self.record(grown.into_iter().map(|(name, growth)| (name, growth, first)), now);
    }

    /// Sets the counters to these sums: a gateway's, which have 64 bits.
    pub fn set(&mut self, values: &[(String, u64)], now: Duration) {
        let grown: Vec<(String, u64, bool)> = values
            .iter()
            .map(|(name, value)| {
                let before = self.sums.get(name).map(|counter| counter.total);
                // A gateway that was restarted counts from zero, and so does this.
                let restarted = before.is_some_and(|before| *value < before);
                if restarted && let Some(counter) = self.sums.get_mut(name) {
                    counter.total = 0;
                }
                (name.clone(), value - before.filter(|_| !restarted).unwrap_or(0), before.is_none())
            })
            .collect();
        self.record(grown.into_iter(), now);
    }

    fn record<N: AsRef<str>>(&mut self, grown: impl Iterator<Item = (N, u64, bool)>, now: Duration) {
        let seconds = self.read_at.map_or(0.0, |before| now.saturating_sub(before).as_secs_f64());
        for (name, growth, first) in grown {
            let name = name.as_ref();
            if self.sums.len() >= MAX_COUNTERS && !self.sums.contains_key(name) {
                continue;
            }
            let counter = self.sums.entry(name.to_owned()).or_insert_with(|| NamedCounter {
                name: name.to_owned(),
                total: 0,
                per_second: 0.0,
            });
            counter.total = counter.total.saturating_add(growth);
            counter.per_second = if first || seconds <= 0.0 { 0.0 } else { growth as f64 / seconds };
        }
        self.read_at = Some(now);
    }

    /// The counters, by name.
    pub fn iter(&self) -> impl Iterator<Item = &NamedCounter> {
        self.sums.values()
    }

    /// The sum of one counter.
    pub fn total(&self, name: &str) -> Option<u64> {
        self.sums.get(name).map(|counter| counter.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(number: u16, drop: u32) -> CtCpuStats {
        CtCpuStats { cpu: number, drop: Some(drop), ..CtCpuStats::default() }
    }

    #[test]
    fn a_processor_whose_counter_wraps_adds_what_it_counted() {
        let mut sums = CounterSums::default();
        sums.add_cpu_stats(&[cpu(0, u32::MAX - 9), cpu(1, 5)], Duration::from_secs(1));
        assert_eq!(sums.total("drop"), Some(u64::from(u32::MAX) - 4));
        sums.add_cpu_stats(&[cpu(0, 10), cpu(1, 5)], Duration::from_secs(3));
        assert_eq!(sums.total("drop"), Some(u64::from(u32::MAX) + 16));
        let rates: Vec<f64> = sums.iter().map(|counter| counter.per_second).collect();
        assert_eq!(rates, [10.0], "20 in two seconds");
    }

    #[test]
    fn the_first_reading_has_no_rate_and_a_restart_no_negative_one() {
        let mut sums = CounterSums::default();
        let reading = |value| [("table_full".to_owned(), value)];
        sums.set(&reading(500), Duration::from_secs(1));
        assert_eq!(sums.iter().next().map(|counter| counter.per_second), Some(0.0));
        sums.set(&reading(510), Duration::from_secs(2));
        assert_eq!(sums.iter().next().map(|counter| counter.per_second), Some(10.0));
        sums.set(&reading(3), Duration::from_secs(3));
        assert_eq!(sums.total("table_full"), Some(3));
    }
}
