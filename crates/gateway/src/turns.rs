//! How long packets of all threads have waited for the router at most, by what it did meanwhile.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant as Clock};

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
    /// Changes sent to other gateways, or taken over from them.
    Cluster,
}

const KINDS: [(TurnKind, &str); 7] = [
    (TurnKind::Packets, "longest_packets_us"),
    (TurnKind::Upkeep, "longest_upkeep_us"),
    (TurnKind::Routes, "longest_routes_us"),
    (TurnKind::Control, "longest_control_us"),
    (TurnKind::Reload, "longest_reload_us"),
    (TurnKind::State, "longest_state_us"),
    (TurnKind::Cluster, "longest_cluster_us"),
];

/// The longest turn of each kind since the start, and how the last turn of the state file went.
#[derive(Debug, Default)]
pub(super) struct TurnTimes {
    nanoseconds: [AtomicU64; KINDS.len()],
    state_file: Mutex<Option<StateFileHealth>>,
}

/// Whether the state file can be written.
#[derive(Clone, Copy, Debug)]
struct StateFileHealth {
    /// The last turn after which the file had everything.
    good_at: Clock,
    failed: bool,
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

    /// Notes whether the state file was written in this turn, or needed no change.
    pub(super) fn note_state_file(&self, failed: bool) {
        let mut health = self.state_file.lock().unwrap_or_else(PoisonError::into_inner);
        let good_at = health.filter(|_| failed).map_or_else(Clock::now, |before| before.good_at);
        *health = Some(StateFileHealth { good_at, failed });
    }

    /// Can the state file not be written, and for how many milliseconds? Empty without one.
    pub(super) fn state_file_values(&self) -> Vec<(&'static str, u64)> {
        let health = *self.state_file.lock().unwrap_or_else(PoisonError::into_inner);
        health.map_or_else(Vec::new, |health| {
            let age = u64::try_from(health.good_at.elapsed().as_millis()).unwrap_or(u64::MAX);
            vec![("state_file_failed", health.failed.into()), ("state_file_age_ms", age)]
        })
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
    fn a_state_file_that_cannot_be_written_grows_old() {
        let turns = TurnTimes::default();
        assert_eq!(turns.state_file_values(), []);
        turns.note_state_file(false);
        assert_eq!(turns.state_file_values()[0], ("state_file_failed", 0));
        let good_at = turns.state_file.lock().unwrap().unwrap().good_at;
        turns.note_state_file(true);
        assert_eq!(turns.state_file_values()[0], ("state_file_failed", 1));
        assert_eq!(turns.state_file.lock().unwrap().unwrap().good_at, good_at, "the age goes on");
        turns.note_state_file(false);
        assert!(turns.state_file.lock().unwrap().unwrap().good_at >= good_at);
    }

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
