//! The flows that the programs at tc's hooks know: entered when the router offers them, counted once a second, taken out when the router revokes them. What the programs tell of handshakes and ends goes to the
//! router, before any packet that came to user space after it.
//!
//! ```text
//! known ── revoked: rules, sets, routes, its mark ──▶ leaving, parked ──▶ parked: no packet goes by it, but the next gateway adopts it ── offered again ──▶ known
//!   └───── revoked: it closes ──▶ leaving ──▶ gone                          └── closed, gone from the table ──▶ gone
//! ```
//! At the start the connections that an earlier gateway has left, known or parked, enter the router's table; all are parked before the first packet is judged, and so judged anew.
use super::entered::{EnteredConnection, EnteredConnections, FlowPhase, PLACES_PER_RUN};
use super::flow_entry::tc_flow;
use super::opened::{JudgedSyn, OpenedByClass};
use keepstate_engine::{
    Accounting, ConnId, ConnSnapshot, Direction, Instant, ProtocolInfo, SnapshotAge, Status, Sysctl, TcpState,
};
use keepstate_linux::tc::{AdoptedFlow, FlowCounts, FlowLine, FlowTable, TcError, TcHooks, now_ms};
use keepstate_router::{FlowReport, KnownFlow, MarkedEgress, Router};
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// What has been entered, and what was counted of it.
pub(super) struct TcFlows {
    table: FlowTable,
    /// The router's generation that the lines belong to; `None` before the first.
    generation: Option<u64>,
    entered: EnteredConnections,
    /// The place where this round of counting goes on, and when the next round begins.
    next_counted: u32,
    next_round: Instant,
    /// This round is late: so many connections take more turns than there would be.
    is_late: bool,
    /// Of this batch; kept for its memory.
    reports: Vec<FlowReport>,
    refused: u64,
    opened: OpenedByClass,
}

/// Between two rounds of counting.
const ROUND: u64 = 1_000_000_000;
/// What new lines have counted.
const NOTHING_COUNTED: [FlowCounts; 2] = [FlowCounts { packets: 0, bytes: 0, seen_ms: 0 }; 2];
/// Runs of places looked at in one turn.
const RUNS_PER_TURN: u32 = 32;
const DIRECTIONS: [Direction; 2] = [Direction::Original, Direction::Reply];

impl TcFlows {
    /// The table of these programs.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub(super) fn new(hooks: &mut TcHooks) -> Result<TcFlows, TcError> {
        let table = hooks.flow_table()?;
        Ok(TcFlows {
            entered: EnteredConnections::new(table.line_counts()),
            table,
            generation: None,
            next_counted: 0,
            next_round: Instant(0),
            is_late: false,
            reports: Vec::new(),
            refused: 0,
            opened: OpenedByClass::new(hooks)?,
        })
    }

    /// Makes the connections that an earlier gateway has left known to the router; once, before the first packet. Packets go by them until the first [`TcFlows::sync`]. Returns how many they are.
    pub(super) fn adopt(&mut self, router: &mut Router, now: Instant) -> usize {
        let left = self.table.take_left();
        let decoded = left.into_iter().map(|flow| (ConnSnapshot::decode(&flow.snapshot).ok(), flow));
        // Masters come before their children.
        let (children, masters): (Vec<_>, Vec<_>) =
            decoded.partition(|(snapshot, _)| snapshot.as_ref().is_some_and(|snapshot| snapshot.master.is_some()));
        for (snapshot, flow) in masters.into_iter().chain(children) {
            let AdoptedFlow { lines, record, written_ms, .. } = flow;
            let counts = lines.map(|line| self.table.counts(line));
            let conn_id =
                snapshot.and_then(|snapshot| self.adopt_one((snapshot, written_ms), lines, counts, router, now));
            let Some(conn_id) = conn_id.filter(|conn_id| self.entered.place_of(*conn_id).is_none()) else {
                lines.into_iter().for_each(|line| self.table.remove(line));
                self.table.remove_record(record);
                continue;
            };
            self.entered.insert(EnteredConnection {
                reported: counts,
                record: Some(record),
                ..EnteredConnection::new(conn_id, lines, None)
            });
        }
        // What has begun and ended meanwhile is told by the first sync, when the router knows its interfaces.
        self.entered.len()
    }

    fn adopt_one(
        &self,
        (mut snapshot, written_ms): (ConnSnapshot, u32),
        [original, reply]: [FlowLine; 2],
        counts: [FlowCounts; 2],
        router: &mut Router,
        now: Instant,
    ) -> Option<ConnId> {
        let is_its = |line, tuple: &keepstate_engine::Tuple| {
            self.table.has_ends(line, (tuple.source, tuple.source_key), (tuple.destination, tuple.destination_key))
        };
        if !is_its(original, &snapshot.original) || !is_its(reply, &snapshot.reply) {
            return None;
        }
        for (sum, counts) in snapshot.accounting.iter_mut().flatten().zip(&counts) {
            let Accounting { packets, bytes } = *sum;
            *sum =
                Accounting { packets: packets.wrapping_add(counts.packets), bytes: bytes.wrapping_add(counts.bytes) };
        }
        let now_ms = now_ms();
        let since_seen = counts.iter().map(|counts| counts.age_ms_at(now_ms)).min().unwrap_or(0);
        let [since_seen, since_taken] =
            [since_seen, now_ms.wrapping_sub(written_ms)].map(|ms| Duration::from_millis(ms.into()));
        router.engine_mut().adopt(&snapshot, SnapshotAge { since_taken, since_seen }, now).ok()
    }

    /// Brings the table to what the router says. Afterwards no packet goes by what has been changed since the last call.
    ///
    /// # Errors
    /// The programs cannot be told.
    pub(super) fn sync(&mut self, router: &mut Router, hooks: &mut TcHooks, now: Instant) -> Result<(), TcError> {
        // Before lines are used again.
        self.take_notes(router, now);
        if self.generation != Some(router.flow_generation()) {
            // Before anything else: one store, and all lines are stale.
            hooks.raise_generation(&mut self.table)?;
            if self.generation.replace(router.flow_generation()).is_none() {
                // Nobody has judged them under these rules.
                (0..self.entered.place_count()).for_each(|place| self.take_out(place, true));
            }
        }
        self.opened.void(router);
        self.enter_offered(router, now);
        while let Some(conn_id) = router.poll_revoked() {
            let place = self.entered.place_of(conn_id);
            match place.and_then(|place| Some((place, self.entered.get(place)?.phase))) {
                Some((place, FlowPhase::Known)) => self.take_out(place, is_established(router, conn_id, now)),
                Some((_, FlowPhase::Leaving(_))) => (),
                Some((_, FlowPhase::Parked)) | None => router.forget_flow(conn_id),
            }
        }
        for (line, counts) in self.table.poll_removed() {
            self.finish(line, counts, router, now);
        }
        self.look_after(router, now);
        self.opened.sync(router, now)
    }

    fn enter_offered(&mut self, router: &mut Router, now: Instant) {
        while let Some(flows) = router.poll_offload() {
            self.enter(flows, router, now);
        }
    }

    /// The interfaces stay closed from now on.
    pub(super) fn close(&mut self) {
        self.opened.close();
    }

    /// First SYNs that the programs have sent on, and to which neighbours.
    pub(super) fn take_gone_on(&mut self) -> Vec<((u32, IpAddr), Vec<u8>)> {
        self.opened.take_gone_on()
    }

    /// Packets that the router has given out meanwhile.
    pub(super) fn take_outputs(&mut self) -> Vec<MarkedEgress> {
        self.opened.take_outputs()
    }

    /// Readable when [`TcFlows::take_notes`] is to be called soon; [`TcFlows::hear`] ends that.
    pub(super) fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.table.bell()
    }

    pub(super) fn hear(&self) {
        self.table.hear();
    }

    /// Whether [`TcFlows::sync`] has more to do than one turn's.
    pub(super) fn is_busy(&self) -> bool {
        self.opened.is_busy() || self.is_late
    }

    /// Whether lines wait for being given back.
    pub(super) fn has_leaving(&self) -> bool {
        self.table.has_leaving()
    }

    /// Directions that are known now, and flows that found no place.
    pub(super) fn counts(&self) -> (usize, u64) {
        (self.table.len(), self.refused)
    }

    /// Tells the router of the segments that the programs have let go on. They came before every packet that has been read from the carrier.
    pub(super) fn take_notes(&mut self, router: &mut Router, now: Instant) {
        while let Some(note) = self.table.next_note() {
            if let Some(peer) = note.opens {
                self.open([note.line, peer], note.headers(), router, now);
                continue;
            }
            // Of a line that is nobody's: its connection is gone.
            let Some((place, direction)) = self.entered.owner_of(note.line) else { continue };
            let Some(entered) = self.entered.get_mut(place) else { continue };
            router.note_segment((entered.conn_id, direction), note.headers(), now);
            if entered.is_young && router.engine().is_assured(entered.conn_id) {
                entered.is_young = false;
                self.write_established(place, router, now);
            }
        }
    }

    /// The next gateway is told that a connection is established, or lasts.
    fn write_established(&mut self, place: u32, router: &Router, now: Instant) {
        let Some(EnteredConnection { conn_id, lines, reported, record: Some(record), .. }) = self.entered.get(place)
        else {
            return;
        };
        if let Some(snapshot) = snapshot_of(router, *conn_id, *reported, now) {
            self.table.update_record(record, *lines, &snapshot);
        }
    }

    fn enter(&mut self, flows: [KnownFlow; 2], router: &mut Router, now: Instant) {
        let (conn_id, opening) = (flows[0].conn_id, flows[0].opening);
        let [Some(original), Some(reply)] = flows.map(|flow| tc_flow(&flow)) else {
            return router.refuse_offload(conn_id, now);
        };
        self.opened.note_entered(&flows);
        let Some(lines) = self.table.insert([&original, &reply], opening) else {
            self.refused += 1;
            return router.refuse_offload(conn_id, now);
        };
        self.register(&flows, lines, router, now);
    }

    /// A connection that the programs have opened: the router judges its first SYN now. If it says what they have done, the lines are the connection's; else they go, and with them the connection.
    fn open(&mut self, lines: [FlowLine; 2], syn: &[u8], router: &mut Router, now: Instant) {
        let Some(source) = self.table.take_over(lines) else { return };
        // What was offered before is another's.
        self.enter_offered(router, now);
        let judged = self.opened.judge(syn, source, router, now);
        let flows = router.poll_offload();
        let as_entered = flows.map(|flows| flows.map(|flow| tc_flow(&flow)));
        match (flows, as_entered) {
            (Some(flows @ [KnownFlow { opening: Some(_), .. }, _]), Some([Some(original), Some(reply)]))
                if self.table.are_lines_of(lines, [&original, &reply]) =>
            {
                router.count_opened(false);
                self.register(&flows, lines, router, now);
            }
            // This is a start: nothing is offered yet, and all that is known will be judged anew.
            (None, _) if self.generation.is_none() && self.adopt_opened(lines, &judged, router, now) => (),
            _ => {
                lines.into_iter().for_each(|line| self.table.remove(line));
                self.opened.take_back(judged, flows.map(|[original, _]| original.conn_id), router, now);
            }
        }
    }

    /// A connection that the programs have opened when no gateway ran; false if these lines are not its own.
    fn adopt_opened(&mut self, lines: [FlowLine; 2], judged: &JudgedSyn, router: &Router, now: Instant) -> bool {
        let Some(entry) = judged.connection(router, now).and_then(|conn_id| router.engine().entry(conn_id, now)) else {
            return false;
        };
        let tuples = [&entry.original, &entry.reply];
        let are_its = lines.into_iter().zip(tuples).all(|(line, tuple)| {
            self.table.has_ends(line, (tuple.source, tuple.source_key), (tuple.destination, tuple.destination_key))
        });
        if are_its {
            let entered = EnteredConnection::new(entry.conn_id, lines, None);
            self.add(entered, router, now);
        }
        are_its
    }

    /// Lines of a connection that the router has offered are in the table.
    fn register(&mut self, flows: &[KnownFlow; 2], lines: [FlowLine; 2], router: &Router, now: Instant) {
        let entered = EnteredConnection::new(flows[0].conn_id, lines, Some(flows.map(|flow| flow.way)));
        self.add(entered, router, now);
    }

    fn add(&mut self, entered: EnteredConnection, router: &Router, now: Instant) {
        let EnteredConnection { conn_id, lines, .. } = entered;
        let snapshot = snapshot_of(router, conn_id, NOTHING_COUNTED, now);
        let record = snapshot.and_then(|bytes| self.table.add_record(lines, &bytes));
        if let Some(place) = self.entered.place_of(conn_id)
            && let Some(before) = self.entered.get_mut(place)
        {
            let (record, phase) = (before.record.take(), before.phase);
            record.into_iter().for_each(|record| self.table.remove_record(record));
            match phase {
                FlowPhase::Known => self.take_out(place, false),
                FlowPhase::Leaving(_) => (),
                FlowPhase::Parked => self.drop_lines(place),
            }
        }
        let is_young = !router.engine().is_assured(conn_id);
        self.entered.insert(EnteredConnection { record, is_young, ..entered });
    }

    /// A connection that no program counts for any more goes, with its lines.
    fn drop_lines(&mut self, place: u32) {
        let Some(gone) = self.entered.remove(place) else { return };
        gone.lines.into_iter().for_each(|line| self.table.remove(line));
        gone.record.into_iter().for_each(|record| self.table.remove_record(record));
    }

    /// No packet goes by a connection's lines any more; with `parks` they stay for the next gateway.
    fn take_out(&mut self, place: u32, parks: bool) {
        let Some(entered) = self.entered.get_mut(place) else { return };
        entered.phase = FlowPhase::Leaving(2);
        entered.parks = parks;
        for line in entered.lines {
            if parks { self.table.park(line) } else { self.table.remove(line) }
        }
        if !parks && let Some(record) = entered.record.take() {
            self.table.remove_record(record);
        }
    }

    /// The last counts of a line.
    fn finish(&mut self, line: FlowLine, counts: FlowCounts, router: &mut Router, now: Instant) {
        let Some((place, direction)) = self.entered.owner_of(line) else { return };
        let Some(entered) = self.entered.get_mut(place) else { return };
        let report = entered.report(direction, counts, now, now_ms());
        router.count_offloaded(report.as_slice());
        match entered.phase {
            FlowPhase::Leaving(left @ 2..) => entered.phase = FlowPhase::Leaving(left - 1),
            _ if entered.is_superseded => {
                entered.ways.into_iter().flatten().for_each(|way| router.release_flow_way(way));
                if entered.parks {
                    self.drop_lines(place);
                } else {
                    self.entered.remove(place);
                }
            }
            _ => {
                entered.phase = FlowPhase::Parked;
                router.forget_flow(entered.conn_id);
                if !entered.parks {
                    self.entered.remove(place);
                }
            }
        }
    }

    /// Counts a part of the known flows, and looks after a part of the parked ones.
    fn look_after(&mut self, router: &mut Router, now: Instant) {
        if self.next_counted >= self.entered.place_count() {
            if now < self.next_round {
                return;
            }
            self.next_round = Instant(now.0 + ROUND);
            self.next_counted = 0;
        }
        let (now_ms, mut runs) = (now_ms(), RUNS_PER_TURN);
        while self.next_counted < self.entered.place_count() && runs > 0 {
            let places = self.next_counted..self.entered.place_count().min(self.next_counted + PLACES_PER_RUN);
            self.next_counted = places.end;
            if !self.entered.is_empty_run(places.start / PLACES_PER_RUN) {
                runs -= 1;
                self.look_after_run(places, router, (now, now_ms));
            }
        }
        let (left, uncounted) =
            (self.next_round.0.saturating_sub(now.0), self.entered.place_count() - self.next_counted);
        self.is_late = u64::from(uncounted) * ROUND > left * u64::from(self.entered.place_count());
    }

    fn look_after_run(&mut self, places: Range<u32>, router: &mut Router, (now, now_ms): (Instant, u32)) {
        self.count(places.clone(), router, (now, now_ms));
        for place in places {
            let Some(entered) = self.entered.get_mut(place) else { continue };
            if entered.phase == FlowPhase::Parked {
                self.renew_parked(place, router, now);
            } else if entered.is_young && router.engine().is_assured(entered.conn_id) {
                entered.is_young = false;
                self.write_established(place, router, now);
            }
        }
    }

    /// Reports what the lines of these have counted since the last time. All are read before any is reported, so that the processor waits for many of them at once.
    fn count(&mut self, places: Range<u32>, router: &mut Router, (now, now_ms): (Instant, u32)) {
        let mut counted = [NOTHING_COUNTED; PLACES_PER_RUN as usize];
        let counts = |entered: &&mut EnteredConnection| entered.phase != FlowPhase::Parked;
        for (entered, counted) in self.entered.in_places(places.clone()).filter(counts).zip(&mut counted) {
            *counted = entered.lines.map(|line| self.table.counts(line));
        }
        self.reports.clear();
        for (entered, counted) in self.entered.in_places(places).filter(counts).zip(counted) {
            for (direction, counts) in DIRECTIONS.into_iter().zip(counted) {
                self.reports.extend(entered.report(direction, counts, now, now_ms));
            }
        }
        router.count_offloaded(&self.reports);
    }

    /// A parked connection as it is now; it goes when it closes.
    fn renew_parked(&mut self, place: u32, router: &Router, now: Instant) {
        let Some(conn_id) = self.entered.get(place).map(|entered| entered.conn_id) else { return };
        let snapshot = if is_established(router, conn_id, now) {
            snapshot_of(router, conn_id, NOTHING_COUNTED, now)
        } else {
            None
        };
        match (snapshot, self.entered.get(place)) {
            (Some(snapshot), Some(EnteredConnection { lines, record: Some(record), .. })) => {
                self.table.renew_record(record, *lines, &snapshot);
            }
            _ => self.drop_lines(place),
        }
    }
}

/// Is a connection worth knowing for the next gateway?
fn is_established(router: &Router, conn_id: ConnId, now: Instant) -> bool {
    router.engine().entry(conn_id, now).is_some_and(|entry| match entry.protocol {
        ProtocolInfo::Tcp { state, .. } => state == TcpState::Established && entry.status.contains(Status::ASSURED),
        _ => true,
    })
}

/// A connection as the next gateway is told of it. If its own timeouts (`ct timeout`) are too many for a record, those of the state that it is in while it is known are told; for the others it gets the
/// ordinary ones. What its lines have counted and reported already is left out, for they still have it.
fn snapshot_of(router: &Router, conn_id: ConnId, reported: [FlowCounts; 2], now: Instant) -> Option<Vec<u8>> {
    let mut snapshot = router.engine().export(conn_id, now)?;
    for (sum, counts) in snapshot.accounting.iter_mut().flatten().zip(reported) {
        sum.packets = sum.packets.saturating_sub(counts.packets);
        sum.bytes = sum.bytes.saturating_sub(counts.bytes);
    }
    let room = FlowTable::record_room(snapshot.original.source.is_ipv6());
    let encode = |snapshot: &ConnSnapshot| {
        let mut bytes = Vec::with_capacity(room);
        snapshot.encode(&mut bytes);
        bytes
    };
    let mut bytes = encode(&snapshot);
    if bytes.len() > room {
        let lasting = [Sysctl::TcpTimeoutEstablished, Sysctl::UdpTimeoutStream];
        snapshot.timeouts.retain(|(sysctl, _)| lasting.contains(sysctl));
        bytes = encode(&snapshot);
    }
    Some(bytes)
}
