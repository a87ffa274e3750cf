//! How long packets of all threads have waited for the router at most, by what it did meanwhile.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the router's lock is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TurnKind {
    /// A batch of packets.
    Packets,
    /// Expiry, health of backends, the clock.
    Upkeep,
    /// Interfaces, addresses, routes as the kernel has changed them.
    Routes,
    /// Requests of control clients.
    Control,
    /// A new ruleset or new services.
    Reload,
    /// Changes handed to the state file's thread.
    State,
}

const KINDS: [(TurnKind, &str); 6] = [
    (TurnKind::Packets, "longest_packets_us"),
    (TurnKind::Upkeep, "longest_upkeep_us"),
    (TurnKind::Routes, "longest_routes_us"),
    (TurnKind::Control, "longest_control_us"),
    (TurnKind::Reload, "longest_reload_us"),
    (TurnKind::State, "longest_state_us"),
];

/// The longest turn of each kind since the start.
#[derive(Debug, Default)]
pub(super) struct TurnTimes {
    nanoseconds: [AtomicU64; KINDS.len()],
}

impl TurnTimes {
    /// Notes a turn.
    pub(super) fn record(&self, kind: TurnKind, length: Duration) {
        let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        if let Some(longest) = self.nanoseconds.get(kind as usize)
            && longest.load(Ordering::Relaxed) < length
        {
            longest.fetch_max(length, Ordering::Relaxed);
        }
    }

    /// The longest of all in microseconds, then that of each kind; by name.
    pub(super) fn values(&self) -> Vec<(&'static str, u64)> {
        let longest: Vec<u64> = self.nanoseconds.iter().map(|one| one.load(Ordering::Relaxed).div_ceil(1000)).collect();
        let of_all = longest.iter().copied().max().unwrap_or_default();
        let by_kind = KINDS.iter().zip(longest).map(|((_, name), value)| (*name, value));
        std::iter::once(("longest_turn_us", of_all)).chain(by_kind).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_turn_of_each_kind_is_kept() {
        let turns = TurnTimes::default();
        for (at, (kind, name)) in KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, at, "{name}");
        }
        turns.record(TurnKind::Packets, Duration::from_micros(70));
        turns.record(TurnKind::Packets, Duration::from_micros(20));
        turns.record(TurnKind::Reload, Duration::from_nanos(300_001));
        let values = turns.values();
        assert_eq!(values.first(), Some(&("longest_turn_us", 301)));
        assert!(values.contains(&("longest_packets_us", 70)) && values.contains(&("longest_state_us", 0)));
    }
}
