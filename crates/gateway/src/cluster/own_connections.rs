//! The machine's own connections on a standby. Its engine's time stands still for the sake of those it was told of; these are nobody else's and must end nevertheless, so their time is taken off by hand.
//!
//! Bounded: some slots of the table a turn, a round of all of them every half minute. A packet gives a connection its timeout in full again, as always.
use keepstate_engine::{ConnUpdate, Engine, Entry, Instant};
use std::time::Duration;

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(30);
/// Slots looked at in one turn.
const SLOTS_PER_TURN: u32 = 2048;

/// Where the round is.
#[derive(Debug)]
pub(super) struct OwnConnections {
    began: Duration,
    next_slot: Option<u32>,
}

impl OwnConnections {
    /// The first round is one interval away.
    pub(super) fn new(now: Duration) -> OwnConnections {
        OwnConnections { began: now, next_slot: None }
    }

    /// Is there something to do?
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.next_slot.is_some() || now.saturating_sub(self.began) >= ROUND
    }

    /// A part of a round: those that `is_own` selects get older by the time between two rounds.
    pub(super) fn poll(&mut self, engine: &mut Engine, is_own: impl Fn(&Entry) -> bool, now: Duration, held: Instant) {
        if !self.is_due(now) {
            return;
        }
        let from = self.next_slot.take().unwrap_or_else(|| {
            self.began = now;
            0
        });
        let mut own = Vec::new();
        self.next_slot = engine.dump_range(from, SLOTS_PER_TURN, held, |entry| {
            if is_own(&entry) {
                own.push((entry.conn_id, entry.timeout));
            }
        });
        let round = u32::try_from(ROUND.as_secs()).unwrap_or(u32::MAX);
        for (conn_id, timeout) in own {
            let left = timeout.checked_sub(round).filter(|left| *left > 0);
            let changes = ConnUpdate { timeout: left, ..ConnUpdate::default() };
            if left.is_none() || engine.update(conn_id, &changes, held).is_err() {
                engine.remove(conn_id, held);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepstate_engine::{Secret, Sysctls, Zone};
    use keepstate_wire::Packet;
    use keepstate_wire::checksum::Sum;

    /// A datagram from this host, with source port 5000.
    fn datagram(host: u8) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, host, 192, 0, 2, 9];
        let sum = Sum::new().add_bytes(&packet).finish().to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
        packet.extend([0x13, 0x88, 0x13, 0x88, 0, 8, 0, 0]);
        packet
    }

    #[test]
    fn they_end_although_the_engines_time_stands() {
        let held = Instant(1_000_000_000);
        let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
        let send = |engine: &mut Engine, host| {
            let bytes = datagram(host);
            engine.handle(&Packet::parse(&bytes).unwrap(), Zone::default(), held);
        };
        (1..=3).for_each(|host| send(&mut engine, host));
        let is_own = |entry: &Entry| entry.original.source.to_string() != "10.0.0.3";
        let mut own = OwnConnections::new(Duration::ZERO);
        let hosts = |engine: &Engine| {
            let mut hosts: Vec<String> = engine.entries(held).map(|entry| entry.original.source.to_string()).collect();
            hosts.sort();
            hosts
        };
        // A whole round, however many turns it takes.
        let age = |own: &mut OwnConnections, engine: &mut Engine, now: Duration| {
            while own.is_due(now) {
                own.poll(engine, is_own, now, held);
            }
        };
        age(&mut own, &mut engine, ROUND - Duration::from_nanos(1));
        assert_eq!(hosts(&engine).len(), 3, "not yet");
        // Thirty seconds are all that an unanswered datagram has; the second host's has more.
        let conn_id =
            engine.entries(held).find(|entry| entry.original.source.to_string() == "10.0.0.2").unwrap().conn_id;
        engine.update(conn_id, &ConnUpdate { timeout: Some(100), ..ConnUpdate::default() }, held).unwrap();
        age(&mut own, &mut engine, ROUND);
        assert_eq!(hosts(&engine), ["10.0.0.2", "10.0.0.3"]);
        assert_eq!(engine.entry(conn_id, held).unwrap().timeout, 70);
        age(&mut own, &mut engine, ROUND);
        assert_eq!(engine.entry(conn_id, held).unwrap().timeout, 70, "once a round");
        (2..=4).for_each(|round| age(&mut own, &mut engine, ROUND * round));
        assert_eq!(hosts(&engine), ["10.0.0.3"], "what was told stays");
    }
}
