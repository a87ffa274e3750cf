//! Connections that may become known: those of which packets have passed, and what is noted of them.
//!
//! There are two generations: when the younger one is full, the older one is forgotten, and with it what has seen no packet since. So connections that never see an answer stay behind, however many they are.
use super::noted_way::NotedWay;
use keepstate_engine::{ConnId, ConnIdMap};

/// A connection that may become known.
#[derive(Debug, Default)]
pub(super) struct Candidate {
    /// Original, reply.
    pub(super) ways: [Option<NotedWay>; 2],
    /// Packets since both ways were noted.
    pub(super) packets: u8,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Candidates {
    young: ConnIdMap<Candidate>,
    old: ConnIdMap<Candidate>,
    /// Of each generation, at most.
    limit: usize,
}

impl Candidates {
    pub(super) fn new() -> Candidates {
        Candidates { young: ConnIdMap::default(), old: ConnIdMap::default(), limit: MAX_YOUNG }
    }

    /// A connection of which a packet has passed.
    pub(super) fn note(&mut self, conn_id: ConnId) -> &mut Candidate {
        if self.young.len() >= self.limit && !self.young.contains_key(&conn_id) {
            self.old = std::mem::take(&mut self.young);
        }
        let old = &mut self.old;
        self.young.entry(conn_id).or_insert_with(|| old.remove(&conn_id).unwrap_or_default())
    }

    pub(super) fn remove(&mut self, conn_id: ConnId) -> Option<Candidate> {
        self.young.remove(&conn_id).or_else(|| self.old.remove(&conn_id))
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    /// What was noted of all.
    pub(super) fn ways_mut(&mut self) -> impl Iterator<Item = &mut NotedWay> {
        self.young.values_mut().chain(self.old.values_mut()).flat_map(|candidate| &mut candidate.ways).flatten()
    }
}

/// Connections of the younger generation, at most.
const MAX_YOUNG: usize = 131_072;

#[cfg(test)]
mod tests {
    use super::super::tests::{SERVER, at, datagram};
    use super::*;
    use keepstate_engine::{Engine, Secret, Sysctls, Zone};
    use keepstate_wire::Packet;

    #[test]
    fn connections_are_forgotten_by_age() {
        let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
        let ids: Vec<ConnId> = (0..9_u8)
            .map(|number| {
                let bytes = datagram([192, 0, 2, number].into(), SERVER);
                let ctx = engine.track(&Packet::parse(&bytes).unwrap(), Zone::default(), at(1000));
                engine.confirm(ctx, at(1000)).connection.unwrap()
            })
            .collect();
        let mut candidates = Candidates { limit: 3, ..Candidates::new() };
        candidates.note(ids[0]).packets = 3;
        candidates.note(ids[1]).packets = 4;
        for id in &ids[2..5] {
            candidates.note(*id);
        }
        assert_eq!(candidates.note(ids[0]).packets, 3, "it is of the older generation");
        for id in &ids[5..7] {
            candidates.note(*id);
        }
        assert!(candidates.young.len() <= 3 && candidates.old.len() <= 3);
        assert!(candidates.remove(ids[1]).is_none(), "it has seen no packet for so long");
        assert_eq!(candidates.remove(ids[0]).map(|candidate| candidate.packets), Some(3));
        assert!(candidates.remove(ids[0]).is_none());
        // Nothing changes while those that are there go on.
        let full: Vec<ConnId> = candidates.young.keys().copied().collect();
        for id in full.iter().cycle().take(9) {
            candidates.note(*id);
        }
        assert_eq!(candidates.young.len(), full.len());
    }
}
