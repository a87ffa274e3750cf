//! The connections that have lines in the table of known flows, and whose each line is: asked for each segment that is told, and walked through once a second.
//!
//! ```text
//! Known ─▶ Leaving(2) ─▶ Leaving(1) ─▶ Parked, or gone: as the last counts of its two lines come
//! offered again while it leaves: it is superseded, and gone when its lines are
//! ```
use keepstate_engine::{ConnId, ConnIdMap, Direction, FlowStats, Instant};
use keepstate_linux::tc::{FlowCounts, FlowLine, FlowRecord};
use keepstate_router::{FlowReport, FlowWay};
use std::ops::Range;

/// A connection with lines.
pub(super) struct EnteredConnection {
    pub(super) conn_id: ConnId,
    /// Original, reply; and so the others.
    pub(super) lines: [FlowLine; 2],
    /// What its lines have counted and the router was told.
    pub(super) reported: [FlowCounts; 2],
    /// `None` if an earlier gateway has entered it, whose rules it has passed.
    pub(super) ways: Option<[FlowWay; 2]>,
    /// What the next gateway is told; `None` if it is too much.
    pub(super) record: Option<FlowRecord>,
    pub(super) phase: FlowPhase,
    /// It is not assured yet, for what the next gateway is told.
    pub(super) is_young: bool,
    /// It leaves, and is parked then.
    pub(super) parks: bool,
    /// It leaves, and its connection has other lines.
    pub(super) is_superseded: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FlowPhase {
    Known,
    /// Programs may still be counting on so many of its lines.
    Leaving(u8),
    Parked,
}

impl EnteredConnection {
    /// Known, with these lines, of which nothing was counted.
    pub(super) fn new(conn_id: ConnId, lines: [FlowLine; 2], ways: Option<[FlowWay; 2]>) -> EnteredConnection {
        EnteredConnection {
            conn_id,
            lines,
            reported: [FlowCounts::default(); 2],
            ways,
            record: None,
            phase: FlowPhase::Known,
            is_young: false,
            parks: false,
            is_superseded: false,
        }
    }

    /// What a line has counted since the last time, if anything. `now_ms` is the time in milliseconds of the programs' clock.
    pub(super) fn report(
        &mut self,
        direction: Direction,
        counts: FlowCounts,
        now: Instant,
        now_ms: u32,
    ) -> Option<FlowReport> {
        let reported = self.reported.get_mut(direction as usize).filter(|before| before.packets != counts.packets)?;
        let before = std::mem::replace(reported, counts);
        let age = u64::from(counts.age_ms_at(now_ms)) * 1_000_000;
        let stats = FlowStats {
            conn_id: self.conn_id,
            direction,
            packets: counts.packets.wrapping_sub(before.packets),
            bytes: counts.bytes.wrapping_sub(before.bytes),
            last_seen: Instant(now.0.saturating_sub(age)),
        };
        Some(FlowReport { stats, way: self.ways.and_then(|ways| ways.get(direction as usize).copied()) })
    }
}

/// Places that are looked at together.
pub(super) const PLACES_PER_RUN: u32 = 64;

/// All of them.
pub(super) struct EnteredConnections {
    places: Vec<Option<EnteredConnection>>,
    /// Of each run of places, how many are in use.
    in_use: Vec<u8>,
    free: Vec<u32>,
    by_conn_id: ConnIdMap<u32>,
    /// Of IPv4, of IPv6: each line's place, one more; nothing: it is nobody's.
    by_line: [Vec<u32>; 2],
}

impl EnteredConnections {
    /// Of a table with so many lines of IPv4, and of IPv6.
    pub(super) fn new(lines: [usize; 2]) -> EnteredConnections {
        EnteredConnections {
            places: Vec::new(),
            in_use: Vec::new(),
            free: Vec::new(),
            by_conn_id: ConnIdMap::default(),
            by_line: lines.map(|count| vec![0; count]),
        }
    }

    /// Enters a connection; returns its place. One of the same id is superseded.
    pub(super) fn insert(&mut self, entered: EnteredConnection) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() as u32 - 1
        });
        for line in entered.lines {
            self.by_line[usize::from(line.is_v6())].get_mut(line.place()).into_iter().for_each(|of| *of = place + 1);
        }
        if let Some(before) = self.by_conn_id.insert(entered.conn_id, place) {
            self.places.get_mut(before as usize).into_iter().flatten().for_each(|before| before.is_superseded = true);
        }
        if let Some(at) = self.places.get_mut(place as usize) {
            *at = Some(entered);
        }
        if self.in_use.len() <= (place / PLACES_PER_RUN) as usize {
            self.in_use.push(0);
        }
        self.in_use.get_mut((place / PLACES_PER_RUN) as usize).into_iter().for_each(|count| *count += 1);
        place
    }

    /// Where a connection is.
    pub(super) fn place_of(&self, conn_id: ConnId) -> Option<u32> {
        self.by_conn_id.get(&conn_id).copied()
    }

    /// Whose a line is, and of which direction.
    pub(super) fn owner_of(&self, line: FlowLine) -> Option<(u32, Direction)> {
        let place = self.by_line[usize::from(line.is_v6())].get(line.place())?.checked_sub(1)?;
        let is_original = self.get(place)?.lines[0] == line;
        Some((place, if is_original { Direction::Original } else { Direction::Reply }))
    }

    pub(super) fn get(&self, place: u32) -> Option<&EnteredConnection> {
        self.places.get(place as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut EnteredConnection> {
        self.places.get_mut(place as usize)?.as_mut()
    }

    /// Takes one out: its lines are nobody's.
    pub(super) fn remove(&mut self, place: u32) -> Option<EnteredConnection> {
        let entered = self.places.get_mut(place as usize)?.take()?;
        self.free.push(place);
        self.in_use.get_mut((place / PLACES_PER_RUN) as usize).into_iter().for_each(|count| *count -= 1);
        for line in entered.lines {
            let lines = &mut self.by_line[usize::from(line.is_v6())];
            lines.get_mut(line.place()).filter(|of| **of == place + 1).into_iter().for_each(|of| *of = 0);
        }
        if self.by_conn_id.get(&entered.conn_id) == Some(&place) {
            self.by_conn_id.remove(&entered.conn_id);
        }
        Some(entered)
    }

    /// How many connections there are.
    pub(super) fn len(&self) -> usize {
        self.by_conn_id.len()
    }

    /// How many places there are, in use or not.
    pub(super) fn place_count(&self) -> u32 {
        self.places.len() as u32
    }

    /// Is nobody in a run of places?
    pub(super) fn is_empty_run(&self, run: u32) -> bool {
        self.in_use.get(run as usize).is_none_or(|count| *count == 0)
    }

    /// Those in a part of the places.
    pub(super) fn in_places(&mut self, places: Range<u32>) -> impl Iterator<Item = &mut EnteredConnection> {
        self.places.get_mut(places.start as usize..places.end as usize).unwrap_or_default().iter_mut().flatten()
    }
}
