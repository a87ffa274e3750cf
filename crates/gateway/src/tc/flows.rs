//! The flows that the programs at tc's hooks know: entered when the router offers them, counted once a second, taken out when the router revokes them. What the programs tell of handshakes and ends goes to the
//! router, before any packet that came to user space after it.
//!
//! ```text
//! known ── revoked: rules, sets, routes, its mark ──▶ leaving, parked ──▶ parked: no packet goes by it, but the next gateway adopts it ── offered again ──▶ known
//!   └───── revoked: it closes ──▶ leaving ──▶ gone                          └── closed, gone from the table ──▶ gone
//! ```
//! At the start the connections that an earlier gateway has left, known or parked, enter the router's table; all are parked before the first packet is judged, and so judged anew.
use super::flow_entry::tc_flow;
use super::opened::{JudgedSyn, OpenedByClass};
use keepstate_engine::{
    Accounting, ConnId, ConnSnapshot, Direction, FlowStats, Instant, ProtocolInfo, Status, Sysctl, TcpState,
};
use keepstate_linux::tc::{AdoptedFlow, FlowCounts, FlowLine, FlowRecord, FlowTable, TcError, TcHooks};
use keepstate_router::{KnownFlow, MarkedEgress, Router};
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// What has been entered, and what was counted of it.
pub(super) struct TcFlows {
    table: FlowTable,
    /// The router's generation that the lines belong to; `None` before the first.
    generation: Option<u64>,
    connections: HashMap<ConnId, EnteredConnection>,
    /// The lines that may still count.
    counting: HashMap<FlowLine, CountingLine>,
    /// What is still to be looked at in this round, and when the next round begins.
    to_count: Vec<ConnId>,
    next_round: Instant,
    refused: u64,
    opened: OpenedByClass,
}

struct EnteredConnection {
    /// Original, reply.
    lines: [FlowLine; 2],
    /// What the next gateway is told; `None` if it is too much.
    record: Option<FlowRecord>,
    phase: FlowPhase,
    /// Its handshake goes on.
    is_opening: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FlowPhase {
    Known,
    /// Programs may still be counting on so many of its lines.
    Leaving(u8),
    Parked,
}

struct CountingLine {
    conn_id: ConnId,
    direction: Direction,
    reported: FlowCounts,
    /// Was it entered by an earlier gateway, whose rules it has passed?
    is_adopted: bool,
    is_parked: bool,
}

/// Between two rounds of counting.
const ROUND: u64 = 1_000_000_000;
/// What new lines have counted.
const NOTHING_COUNTED: [FlowCounts; 2] = [FlowCounts { packets: 0, bytes: 0, seen_ms: 0 }; 2];
/// Connections counted in one turn.
const COUNTS_PER_TURN: usize = 2048;

impl TcFlows {
    /// The table of these programs.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub(super) fn new(hooks: &mut TcHooks) -> Result<TcFlows, TcError> {
        Ok(TcFlows {
            table: hooks.flow_table()?,
            generation: None,
            connections: HashMap::new(),
            counting: HashMap::new(),
            to_count: Vec::new(),
            next_round: Instant(0),
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
            let AdoptedFlow { lines, record, .. } = flow;
            let counts = lines.map(|line| self.table.counts(line));
            let conn_id = snapshot.and_then(|snapshot| self.adopt_one(snapshot, lines, counts, router, now));
            let Some(conn_id) = conn_id.filter(|conn_id| !self.connections.contains_key(conn_id)) else {
                lines.into_iter().for_each(|line| self.table.remove(line));
                self.table.remove_record(record);
                continue;
            };
            self.count_from(conn_id, lines, counts, true);
            self.connections.insert(
                conn_id,
                EnteredConnection { lines, record: Some(record), phase: FlowPhase::Known, is_opening: false },
            );
        }
        // What has begun and ended meanwhile is told by the first sync, when the router knows its interfaces.
        self.connections.len()
    }

    fn adopt_one(
        &self,
        mut snapshot: ConnSnapshot,
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
        let age = counts.iter().map(FlowCounts::age_ms).min().unwrap_or(0);
        router.engine_mut().adopt(&snapshot, Duration::from_millis(age.into()), now).ok()
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
                let adopted: Vec<ConnId> = self.connections.keys().copied().collect();
                adopted.into_iter().for_each(|conn_id| self.take_out(conn_id, true));
            }
        }
        self.opened.void(router);
        self.enter_offered(router, now);
        while let Some(conn_id) = router.poll_revoked() {
            match self.connections.get(&conn_id).map(|connection| connection.phase) {
                Some(FlowPhase::Known) => self.take_out(conn_id, is_established(router, conn_id, now)),
                Some(FlowPhase::Leaving(_)) => (),
                Some(FlowPhase::Parked) | None => router.forget_flow(conn_id),
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
        self.opened.is_busy()
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
            let Some(CountingLine { conn_id, direction, .. }) = self.counting.get(&note.line) else { continue };
            let conn_id = *conn_id;
            router.note_segment((conn_id, *direction), note.headers(), now);
            let connection = self.connections.get_mut(&conn_id).filter(|connection| connection.is_opening);
            if let Some(connection) = connection.filter(|_| router.engine().is_assured(conn_id)) {
                connection.is_opening = false;
                self.write_established(conn_id, router, now);
            }
        }
    }

    /// The next gateway is told that a connection is established.
    fn write_established(&mut self, conn_id: ConnId, router: &Router, now: Instant) {
        let Some(EnteredConnection { lines, record: Some(record), .. }) = self.connections.get(&conn_id) else {
            return;
        };
        let reported = lines.map(|line| self.counting.get(&line).map_or(FlowCounts::default(), |of| of.reported));
        if let Some(snapshot) = snapshot_of(router, conn_id, reported, now) {
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
        self.register((conn_id, lines), opening.is_some(), router, now);
    }

    /// A connection that the programs have opened: the router judges its first SYN now. If it says what they have done, the lines are the connection's; else they go, and with them the connection.
    fn open(&mut self, lines: [FlowLine; 2], syn: &[u8], router: &mut Router, now: Instant) {
        if !self.table.take_over(lines) {
            return;
        }
        // What was offered before is another's.
        self.enter_offered(router, now);
        let judged = self.opened.judge(syn, self.table.ifindex(lines[0]), router, now);
        let flows = router.poll_offload();
        let as_entered = flows.map(|flows| flows.map(|flow| tc_flow(&flow)));
        match (flows, as_entered) {
            (Some([KnownFlow { conn_id, opening: Some(_), .. }, _]), Some([Some(original), Some(reply)]))
                if self.table.are_lines_of(lines, [&original, &reply]) =>
            {
                router.count_opened(false);
                self.register((conn_id, lines), true, router, now);
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
            self.register((entry.conn_id, lines), true, router, now);
        }
        are_its
    }

    /// Lines of a connection are in the table.
    fn register(&mut self, (conn_id, lines): (ConnId, [FlowLine; 2]), is_opening: bool, router: &Router, now: Instant) {
        let record =
            snapshot_of(router, conn_id, NOTHING_COUNTED, now).and_then(|bytes| self.table.add_record(lines, &bytes));
        self.count_from(conn_id, lines, NOTHING_COUNTED, false);
        let entered = EnteredConnection { lines, record, phase: FlowPhase::Known, is_opening };
        if let Some(before) = self.connections.insert(conn_id, entered) {
            if before.phase == FlowPhase::Parked {
                before.lines.into_iter().for_each(|line| self.table.remove(line));
            }
            before.record.into_iter().for_each(|record| self.table.remove_record(record));
        }
    }

    fn count_from(&mut self, conn_id: ConnId, lines: [FlowLine; 2], counts: [FlowCounts; 2], is_adopted: bool) {
        for ((line, direction), reported) in lines.into_iter().zip([Direction::Original, Direction::Reply]).zip(counts)
        {
            self.counting.insert(line, CountingLine { conn_id, direction, reported, is_adopted, is_parked: false });
        }
    }

    /// No packet goes by a connection's lines any more; with `parks` they stay for the next gateway.
    fn take_out(&mut self, conn_id: ConnId, parks: bool) {
        let Some(connection) = self.connections.get_mut(&conn_id) else { return };
        connection.phase = FlowPhase::Leaving(2);
        for line in connection.lines {
            if parks {
                self.table.park(line)
            } else {
                self.table.remove(line)
            }
            self.counting.entry(line).and_modify(|counting| counting.is_parked = parks);
        }
        if !parks && let Some(record) = connection.record.take() {
            self.table.remove_record(record);
        }
    }

    /// The last counts of a line.
    fn finish(&mut self, line: FlowLine, counts: FlowCounts, router: &mut Router, now: Instant) {
        self.report(line, counts, router, now);
        let Some(CountingLine { conn_id, is_parked, .. }) = self.counting.remove(&line) else { return };
        let connection = self.connections.get_mut(&conn_id).filter(|connection| connection.lines.contains(&line));
        let Some(connection) = connection else {
            // It was offered again meanwhile, and has other lines.
            if is_parked {
                self.table.remove(line);
            }
            return;
        };
        match connection.phase {
            FlowPhase::Leaving(left @ 2..) => connection.phase = FlowPhase::Leaving(left - 1),
            _ => {
                connection.phase = FlowPhase::Parked;
                router.forget_flow(conn_id);
                if !is_parked {
                    self.connections.remove(&conn_id);
                }
            }
        }
    }

    /// Counts a part of the known flows, and looks after a part of the parked ones.
    fn look_after(&mut self, router: &mut Router, now: Instant) {
        if self.to_count.is_empty() {
            if now < self.next_round {
                return;
            }
            self.next_round = Instant(now.0 + ROUND);
            self.to_count.extend(self.connections.keys());
        }
        for _ in 0..COUNTS_PER_TURN {
            let Some(conn_id) = self.to_count.pop() else { return };
            let Some(EnteredConnection { lines, phase, .. }) = self.connections.get(&conn_id) else { continue };
            let lines = *lines;
            if *phase == FlowPhase::Parked {
                self.renew_parked(conn_id, router, now);
                continue;
            }
            for line in lines {
                let counts = self.table.counts(line);
                self.report(line, counts, router, now);
            }
        }
    }

    /// A parked connection as it is now; it goes when it closes.
    fn renew_parked(&mut self, conn_id: ConnId, router: &Router, now: Instant) {
        let snapshot = if is_established(router, conn_id, now) {
            snapshot_of(router, conn_id, NOTHING_COUNTED, now)
        } else {
            None
        };
        match (snapshot, self.connections.get(&conn_id)) {
            (Some(snapshot), Some(EnteredConnection { lines, record: Some(record), .. })) => {
                self.table.renew_record(record, *lines, &snapshot);
            }
            _ => {
                let Some(connection) = self.connections.remove(&conn_id) else { return };
                connection.lines.into_iter().for_each(|line| self.table.remove(line));
                connection.record.into_iter().for_each(|record| self.table.remove_record(record));
            }
        }
    }

    /// Reports what a line has counted since the last time.
    fn report(&mut self, line: FlowLine, counts: FlowCounts, router: &mut Router, now: Instant) {
        let counting = self.counting.get_mut(&line);
        let Some(counting) = counting.filter(|counting| counting.reported.packets != counts.packets) else { return };
        let age = u64::from(counts.age_ms());
        let stats = FlowStats {
            conn_id: counting.conn_id,
            direction: counting.direction,
            packets: counts.packets.wrapping_sub(counting.reported.packets),
            bytes: counts.bytes.wrapping_sub(counting.reported.bytes),
            last_seen: Instant(now.0.saturating_sub(age * 1_000_000)),
        };
        counting.reported = counts;
        if counting.is_adopted {
            router.engine_mut().update_stats([stats], now);
        } else {
            router.count_offloaded(stats, now);
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
        let mut bytes = Vec::new();
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
