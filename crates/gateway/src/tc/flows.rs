//! The flows that the programs at tc's hooks know: entered when the router offers them, counted once a second, taken out when the router revokes them.
use keepstate_engine::{ConnId, Direction, FlowStats, Instant};
use keepstate_linux::tc::{FlowCounts, FlowLine, FlowTable, HookSecrets, TcError, TcFlow, TcFlowTarget, TcHooks};
use keepstate_router::{FlowSource, FlowTarget, KnownFlow, Router};
use std::collections::HashMap;

/// What has been entered, and what was counted of it.
pub(super) struct TcFlows {
    table: FlowTable,
    /// The router's generation that the lines belong to.
    generation: u64,
    known: HashMap<ConnId, [EnteredFlow; 2]>,
    by_line: HashMap<FlowLine, (ConnId, Direction)>,
    /// What is still to be counted in this round, and when the next round begins.
    to_count: Vec<ConnId>,
    next_round: Instant,
    refused: u64,
}

struct EnteredFlow {
    line: FlowLine,
    reported: FlowCounts,
    /// Its last counts are reported.
    done: bool,
}

/// Between two rounds of counting.
const ROUND: u64 = 1_000_000_000;
/// Connections counted in one turn.
const COUNTS_PER_TURN: usize = 2048;

impl TcFlows {
    /// The table of these programs.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub(super) fn new(hooks: &TcHooks, secrets: HookSecrets) -> Result<TcFlows, TcError> {
        Ok(TcFlows {
            table: hooks.flow_table(secrets)?,
            generation: 0,
            known: HashMap::new(),
            by_line: HashMap::new(),
            to_count: Vec::new(),
            next_round: Instant(0),
            refused: 0,
        })
    }

    /// Brings the table to what the router says. Afterwards no packet goes by what has been changed since the last call.
    ///
    /// # Errors
    /// The programs cannot be told.
    pub(super) fn sync(&mut self, router: &mut Router, hooks: &mut TcHooks, now: Instant) -> Result<(), TcError> {
        if router.flow_generation() != self.generation {
            // Before anything else: one store, and all lines are stale.
            hooks.raise_generation(&mut self.table)?;
            self.generation = router.flow_generation();
        }
        while let Some(flows) = router.poll_offload() {
            self.enter(flows, router, now);
        }
        while let Some(conn_id) = router.poll_revoked() {
            match self.known.get(&conn_id) {
                Some(flows) => flows.iter().for_each(|flow| self.table.remove(flow.line)),
                None => router.forget_flow(conn_id),
            }
        }
        for (line, counts) in self.table.poll_removed() {
            self.finish(line, counts, router, now);
        }
        self.count(router, now);
        Ok(())
    }

    /// Whether lines wait for being given back.
    pub(super) fn has_leaving(&self) -> bool {
        self.table.has_leaving()
    }

    /// Directions that are known now, and flows that found no place.
    pub(super) fn counts(&self) -> (usize, u64) {
        (self.table.len(), self.refused)
    }

    fn enter(&mut self, flows: [KnownFlow; 2], router: &mut Router, now: Instant) {
        let conn_id = flows[0].conn_id;
        let [Some(original), Some(reply)] = flows.map(|flow| tc_flow(&flow)) else {
            return router.refuse_offload(conn_id, now);
        };
        let Some(line) = self.table.insert(&original) else {
            self.refused += 1;
            return router.refuse_offload(conn_id, now);
        };
        let Some(reply_line) = self.table.insert(&reply) else {
            self.refused += 1;
            self.table.remove(line);
            return router.refuse_offload(conn_id, now);
        };
        self.by_line.insert(line, (conn_id, Direction::Original));
        self.by_line.insert(reply_line, (conn_id, Direction::Reply));
        let entered = |line| EnteredFlow { line, reported: FlowCounts::default(), done: false };
        self.known.insert(conn_id, [entered(line), entered(reply_line)]);
    }

    /// The last counts of a line.
    fn finish(&mut self, line: FlowLine, counts: FlowCounts, router: &mut Router, now: Instant) {
        let Some((conn_id, direction)) = self.by_line.remove(&line) else { return };
        self.report(conn_id, direction, counts, router, now);
        let Some(flows) = self.known.get_mut(&conn_id) else { return };
        if let Some(flow) = flows.get_mut(direction as usize) {
            flow.done = true;
        }
        if flows.iter().all(|flow| flow.done) {
            self.known.remove(&conn_id);
            router.forget_flow(conn_id);
        }
    }

    /// Counts a part of the flows.
    fn count(&mut self, router: &mut Router, now: Instant) {
        if self.to_count.is_empty() {
            if now < self.next_round {
                return;
            }
            self.next_round = Instant(now.0 + ROUND);
            self.to_count.extend(self.known.keys());
        }
        for _ in 0..COUNTS_PER_TURN {
            let Some(conn_id) = self.to_count.pop() else { return };
            for direction in [Direction::Original, Direction::Reply] {
                let flow = self.known.get(&conn_id).and_then(|flows| flows.get(direction as usize));
                if let Some(flow) = flow.filter(|flow| !flow.done) {
                    let counts = self.table.counts(flow.line);
                    self.report(conn_id, direction, counts, router, now);
                }
            }
        }
    }

    /// Reports what a direction has counted since the last time.
    fn report(&mut self, conn_id: ConnId, direction: Direction, counts: FlowCounts, router: &mut Router, now: Instant) {
        let flow = self.known.get_mut(&conn_id).and_then(|flows| flows.get_mut(direction as usize));
        let Some(flow) = flow.filter(|flow| flow.reported.packets != counts.packets) else { return };
        let age = u64::from(counts.age_ms());
        let stats = FlowStats {
            conn_id,
            direction,
            packets: counts.packets.wrapping_sub(flow.reported.packets),
            bytes: counts.bytes.wrapping_sub(flow.reported.bytes),
            last_seen: Instant(now.0.saturating_sub(age * 1_000_000)),
        };
        flow.reported = counts;
        router.count_offloaded(stats, now);
    }
}

/// A flow as the programs take it; `None` if they cannot.
fn tc_flow(flow: &KnownFlow) -> Option<TcFlow> {
    let (ifindex, is_egress) = match flow.source {
        FlowSource::Interface(ifindex) => (ifindex, false),
        FlowSource::Host(ifindex) => (ifindex, true),
    };
    let target = match flow.target {
        FlowTarget::Forward { oif, next_hop } => TcFlowTarget::Forward(oif, next_hop),
        FlowTarget::Host => TcFlowTarget::Host,
        FlowTarget::LetOut => TcFlowTarget::LetOut,
    };
    Some(TcFlow {
        source: (flow.tuple.source, flow.tuple.source_key),
        destination: (flow.tuple.destination, flow.tuple.destination_key),
        new_source: (flow.translated.source, flow.translated.source_key),
        new_destination: (flow.translated.destination, flow.translated.destination_key),
        protocol: Some(flow.tuple.protocol).filter(|protocol| [6, 17].contains(protocol))?,
        is_egress,
        ifindex: u16::try_from(ifindex).ok()?,
        target,
        set_mark: flow.set_mark,
        unmarked_only: flow.unmarked_only,
    })
}
