//! Which connections a faster data path may know: those whose packets the ruleset provably judges alike.
//!
//! ```text
//! a packet of an established connection has passed ─▶ note: by which way, and what the rules have consulted
//! both directions have passed, and nothing that may differ for the next packet was consulted; once the connection is assured (of TCP: by its third segment), or of UDP lasts for some packets
//!      ─▶ the engine offloads the connection ─▶ Router::poll_offload: a KnownFlow for each direction
//! or, where the data path can forward handshakes (router/handshake.rs): the first SYN has passed, and the rules would let the packets that follow pass in both directions ─▶ the same
//! the connection closes, or rules, sets or routes change ─▶ Router::poll_revoked
//! ```
//! It never decides what becomes of a packet: it only remembers what has become of one.
use crate::route_scope::RouteScope;
use candidates::{Candidate, Candidates};
use change_log::ChangeLog;
use dependents::Dependents;
use flow_way::{CountedWay, FlowWays};
use keepstate_engine::{ConnId, ConnIdMap, Direction, Engine, Instant, OffloadError, OffloadedFlow, Zone};
use keepstate_rules::{EvalTrace, HoldReasons, LookupScope, MovedCounters, SetLookup};
use keepstate_wire::keyed_hash::SipKey;
use keepstate_wire::tcp::TcpFlags;
use noted_way::RoutedAddresses;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::net::IpAddr;

mod candidates;
mod change_log;
mod dependents;
mod flow;
mod flow_way;
mod noted_way;
mod offload_stats;

pub use flow::KnownFlow;
pub use flow_way::{FlowSource, FlowTarget, FlowWay};
pub(crate) use noted_way::{NotedWay, PacketWay};
pub use offload_stats::{FlowOffloadStats, FlowReport};

/// One direction of a connection that is known.
#[derive(Debug)]
struct KnownWay {
    /// The addresses whose routes it depends on.
    addresses: RoutedAddresses,
    /// What its rules have looked up in sets.
    lookups: Box<[SetLookup]>,
    way: FlowWay,
}

/// Connections that may become known, and what is needed of those that are.
#[derive(Debug)]
pub(crate) struct FlowTracker {
    candidates: Candidates,
    /// What is needed of each direction.
    known: ConnIdMap<[KnownWay; 2]>,
    ways: FlowWays,
    /// Connections that the data path had no place for, until when they are not offered again.
    refused: ConnIdMap<Instant>,
    /// Known ones whose handshake goes on; `None` if the data path forwards none.
    opening: Option<ConnIdMap<()>>,
    /// Known ones of UDP that are not assured yet.
    young: ConnIdMap<()>,
    /// The connections that depend on the routes to an address.
    by_address: Dependents<IpAddr>,
    /// The connections whose rules have made a lookup.
    by_lookup: Dependents<SetLookup>,
    /// Ways that were noted before a change are checked.
    route_changes: ChangeLog<RouteScope>,
    set_changes: ChangeLog<LookupScope>,
    ready: VecDeque<[KnownFlow; 2]>,
    /// Packets of established connections that the rules keep here, by the reasons' bits.
    held: [u64; REASONS],
    /// Packets that the data path has forwarded.
    offloaded_packets: u64,
    sent_at_xdp: u64,
}

impl FlowTracker {
    pub(crate) fn new(key: SipKey) -> FlowTracker {
        FlowTracker {
            candidates: Candidates::new(),
            known: ConnIdMap::default(),
            ways: FlowWays::new(key),
            refused: ConnIdMap::default(),
            opening: None,
            young: ConnIdMap::default(),
            by_address: Dependents::new(),
            by_lookup: Dependents::new(),
            route_changes: ChangeLog::new(),
            set_changes: ChangeLog::new(),
            ready: VecDeque::new(),
            held: [0; REASONS],
            offloaded_packets: 0,
            sent_at_xdp: 0,
        }
    }

    /// The data path forwards handshakes too.
    pub(crate) fn allow_opening(&mut self) {
        self.opening = Some(ConnIdMap::default());
    }

    /// May a connection whose first SYN has passed be offered?
    pub(crate) fn may_offer_opening(&self) -> bool {
        self.opening.as_ref().is_some_and(|opening| opening.len() < MAX_OPENING)
    }

    /// The way of a packet that has passed, or what keeps its connection here.
    pub(crate) fn way_of(&self, way: PacketWay, trace: &EvalTrace, conn_mark: u32) -> Result<NotedWay, HoldReasons> {
        NotedWay::new(way, trace, conn_mark, self.changes())
    }

    /// The last change of routes, and of sets.
    fn changes(&self) -> [u64; 2] {
        [self.route_changes.number(), self.set_changes.number()]
    }

    /// A way that nothing has changed since it was noted, as if it were noted now.
    pub(crate) fn renewed(&self, way: &NotedWay) -> NotedWay {
        let [route_changes, set_changes] = self.changes();
        NotedWay { route_changes, set_changes, ..way.clone() }
    }

    /// Notes that a packet of an established connection has passed.
    pub(crate) fn note(
        &mut self,
        (conn_id, direction): (ConnId, Direction),
        packet_way: PacketWay,
        trace: &EvalTrace,
        engine: &mut Engine,
        now: Instant,
    ) {
        let conn_mark = engine.connection_mark(conn_id);
        let noted = match self.way_of(packet_way, trace, conn_mark) {
            Ok(noted) => noted,
            Err(holds) => {
                self.candidates.remove(conn_id);
                for (bit, count) in self.held.iter_mut().enumerate() {
                    *count += u64::from(holds.bits() >> bit & 1);
                }
                return;
            }
        };
        if self.known.contains_key(&conn_id) || self.refused.get(&conn_id).is_some_and(|until| now < *until) {
            return;
        }
        let is_assured = engine.is_assured(conn_id);
        if !is_assured && trace.status_read {
            // It changes still.
            return;
        }
        let Candidate { ways, packets } = self.candidates.note(conn_id);
        ways.iter_mut().for_each(|way| _ = way.take_if(|way| way.conn_mark != conn_mark));
        if let Some(way) = ways.get_mut(direction as usize) {
            *way = Some(noted);
        }
        if ways.iter().any(Option::is_none) {
            return;
        }
        *packets = packets.saturating_add(1);
        // A question and its answer are not worth it.
        if !is_assured && (*packets < YOUNG_PACKETS || self.young.len() >= MAX_YOUNG) {
            return;
        }
        let flow = match engine.offload(conn_id, now) {
            Ok(flow) => flow,
            // Its handshake goes on.
            Err(OffloadError::NotEstablished) => return,
            Err(_) => {
                self.candidates.remove(conn_id);
                return;
            }
        };
        let ways = self.candidates.remove(conn_id).map(|candidate| candidate.ways);
        let Some([Some(original), Some(reply)]) = ways else { return };
        if !is_assured {
            self.young.insert(conn_id, ());
        }
        self.offer(flow, [original, reply], None, engine);
    }

    /// Offers a connection of which only the first SYN has passed, by the ways that its packets would take; `next_seq` is the sequence number of the client's next segment.
    pub(crate) fn offer_opening(
        &mut self,
        conn_id: ConnId,
        ways: [NotedWay; 2],
        next_seq: u32,
        engine: &mut Engine,
        now: Instant,
    ) {
        let Some(opening) = &mut self.opening else { return };
        if let Ok(flow) = engine.offload_opening(conn_id, now) {
            opening.insert(conn_id, ());
            self.offer(flow, ways, Some(next_seq), engine);
        }
    }

    /// What was offered last, if it is this connection.
    pub(crate) fn last_offered(&self, conn_id: ConnId) -> Option<&[KnownFlow; 2]> {
        self.ready.back().filter(|[original, _]| original.conn_id == conn_id)
    }

    /// How many further connections may be offered while their handshake goes on.
    pub(crate) fn opening_room(&self) -> usize {
        self.opening.as_ref().map_or(0, |opening| MAX_OPENING.saturating_sub(opening.len()))
    }

    /// A connection has got on in its handshake, or is closing.
    pub(crate) fn note_progress(&mut self, conn_id: ConnId, engine: &Engine) {
        if let Some(opening) = &mut self.opening
            && engine.is_assured(conn_id)
        {
            opening.remove(&conn_id);
        }
    }

    fn offer(&mut self, flow: OffloadedFlow, ways: [NotedWay; 2], opening: Option<u32>, engine: &mut Engine) {
        let (conn_id, [original, reply]) = (flow.conn_id, ways);
        let [original_tuple, reply_tuple] = flow.tuples;
        let translated = original_tuple.invert().zip(reply_tuple.invert());
        // Tuples alone do not tell connections of zones apart.
        let Some((as_client, as_server)) = translated.filter(|_| flow.zone == Zone::default()) else {
            engine.revoke(conn_id);
            return;
        };
        let addresses =
            [original.routed_addresses(&original_tuple, &as_server), reply.routed_addresses(&reply_tuple, &as_client)];
        let is_stale = |(way, addresses): (&NotedWay, &RoutedAddresses)| {
            let of_routes = |scope: &RouteScope| addresses.iter().any(|address| scope.concerns(*address));
            let of_sets = |scope: &LookupScope| way.lookups.iter().any(|lookup| scope.contains(*lookup));
            self.route_changes.any_since(way.route_changes, of_routes)
                || self.set_changes.any_since(way.set_changes, of_sets)
        };
        if [&original, &reply].into_iter().zip(&addresses).any(is_stale) {
            engine.revoke(conn_id);
            return;
        }
        let [original_way, reply_way] = [&original, &reply].map(|way| {
            let (source, target, counters) = (way.source, way.target, way.counters.clone());
            self.ways.hold(CountedWay { source, target, counters })
        });
        let known = |direction, way: &NotedWay, counted: FlowWay, tuple, translated| KnownFlow {
            conn_id,
            direction,
            way: counted,
            source: way.source,
            tuple,
            translated,
            target: way.target,
            set_mark: way.set_mark,
            unmarked_only: way.unmarked_only,
            plain_tos_only: way.plain_tos_only,
            fin_read: way.tcp_flags_read & TcpFlags::FIN != 0,
            opening,
        };
        self.ready.push_back([
            known(Direction::Original, &original, original_way, original_tuple, as_server),
            known(Direction::Reply, &reply, reply_way, reply_tuple, as_client),
        ]);
        // It may have been offered before, and its last packets be counted still: the data path says when it has reported all of them.
        self.remove_known(conn_id);
        addresses.iter().flatten().for_each(|address| self.by_address.add(*address, conn_id));
        original.lookups.iter().chain(&reply.lookups).for_each(|lookup| self.by_lookup.add(*lookup, conn_id));
        let [to_server, to_client] = addresses;
        let known = |addresses, way: NotedWay, counted| KnownWay { addresses, lookups: way.lookups, way: counted };
        let ways = [known(to_server, original, original_way), known(to_client, reply, reply_way)];
        self.known.insert(conn_id, ways);
    }

    /// Revokes the flows that depend on the routes to some destinations. False if they are too many: all are to be revoked.
    pub(crate) fn revoke_to(&mut self, scope: &RouteScope, engine: &mut Engine) -> bool {
        let RouteScope::Ranges(ranges) = scope else { return false };
        self.route_changes.push(scope.clone());
        let mut revoked = 0;
        for (first, last) in ranges {
            for (_, conn_id) in self.by_address.of(*first..=*last) {
                revoked += 1;
                if revoked > MAX_REVOKED_SINGLY {
                    return false;
                }
                engine.revoke(conn_id);
            }
        }
        true
    }

    /// Revokes the flows whose rules have made one of these lookups. False if they are too many: all are to be revoked.
    pub(crate) fn revoke_by(&mut self, scope: LookupScope, engine: &mut Engine) -> bool {
        let LookupScope::Ranges(ranges) = &scope else { return false };
        let mut visited = 0;
        for range in ranges {
            for (lookup, conn_id) in self.by_lookup.of(range.first..=range.last) {
                visited += 1;
                if visited > MAX_REVOKED_SINGLY {
                    return false;
                }
                if range.contains(lookup) {
                    engine.revoke(conn_id);
                }
            }
        }
        if ranges.len() > MAX_COMPARED_RANGES {
            // To compare each of them with every way that was noted takes longer than to note those anew.
            self.candidates.clear();
        } else if !ranges.is_empty() {
            self.set_changes.push(scope);
        }
        true
    }

    pub(crate) fn pop_ready(&mut self) -> Option<[KnownFlow; 2]> {
        self.ready.pop_front()
    }

    /// Everything has to be judged anew.
    pub(crate) fn forget_candidates(&mut self) {
        self.candidates.clear();
        self.ready.clear();
    }

    /// Counts packets that the data path has forwarded. Gives the way that they have gone, if that is still known.
    pub(crate) fn count(&mut self, report: &FlowReport, engine: &Engine) -> Option<&CountedWay> {
        let way = report.way?;
        self.offloaded_packets += report.stats.packets;
        let conn_id = report.stats.conn_id;
        if !self.young.is_empty() && self.young.contains_key(&conn_id) && engine.is_assured(conn_id) {
            self.young.remove(&conn_id);
        }
        self.ways.get(way)
    }

    /// The data path has no place for a connection now: it is offered again later.
    pub(crate) fn refuse(&mut self, conn_id: ConnId, now: Instant) {
        if self.refused.len() >= MAX_REFUSED {
            self.refused.clear();
        }
        self.refused.insert(conn_id, Instant(now.0.saturating_add(RETRY_INTERVAL)));
    }

    /// All was reported of lines whose connection has others now.
    pub(crate) fn release(&mut self, way: FlowWay) {
        self.ways.release(way);
    }

    pub(crate) fn forget(&mut self, conn_id: ConnId) {
        self.opening.iter_mut().for_each(|opening| _ = opening.remove(&conn_id));
        self.young.remove(&conn_id);
        for way in self.remove_known(conn_id) {
            self.ways.release(way);
        }
    }

    /// Nothing is needed of a connection any more but the ways that its last packets are counted by.
    fn remove_known(&mut self, conn_id: ConnId) -> SmallVec<[FlowWay; 2]> {
        let known = self.known.remove(&conn_id).into_iter().flatten();
        known
            .map(|KnownWay { addresses, lookups, way }| {
                addresses.into_iter().for_each(|address| self.by_address.remove(address, conn_id));
                lookups.into_iter().for_each(|lookup| self.by_lookup.remove(lookup, conn_id));
                way
            })
            .collect()
    }

    /// Counters of rules have other indices now.
    pub(crate) fn move_rule_counters(&mut self, moved: &MovedCounters) {
        for way in self.candidates.ways_mut() {
            way.counters = way.counters.iter().filter_map(|counter| moved.get(counter).copied()).collect();
        }
        self.ways.move_rule_counters(moved);
    }

    /// Counters of rules mean other rules now.
    pub(crate) fn forget_rule_counters(&mut self) {
        self.ways.forget_rule_counters();
    }

    pub(crate) fn set_sent_at_xdp(&mut self, packets: u64) {
        self.sent_at_xdp = packets;
    }

    pub(crate) fn stats(&self) -> FlowOffloadStats {
        let reason = |(bit, count): (usize, &u64)| (HoldReasons::from_bits_truncate(1 << bit), *count);
        FlowOffloadStats {
            flows: self.known.len(),
            packets: self.offloaded_packets,
            sent_at_xdp: self.sent_at_xdp,
            held: self.held.iter().enumerate().map(reason).filter(|(_, count)| *count > 0).collect(),
            opened: 0,
            taken_back: 0,
        }
    }
}

const REASONS: usize = HoldReasons::all().bits().count_ones() as usize;
/// Known connections whose handshake goes on, at most: a flood of SYNs leaves the table's other places to connections that are one.
const MAX_OPENING: usize = 16_384;
/// Packets that a UDP connection has had since both ways were noted, before it is offered although it is not assured, and how many such connections at most: what ends soon takes no place from what lasts.
const YOUNG_PACKETS: u8 = 4;
const MAX_YOUNG: usize = 16_384;
/// Connections without a place that are remembered, at most, and for how many nanoseconds.
const MAX_REFUSED: usize = 65_536;
const RETRY_INTERVAL: u64 = 1_000_000_000;
/// Lookups of a change that ways noted before are compared with.
const MAX_COMPARED_RANGES: usize = 64;
/// Flows that a change of routes or of sets revokes one by one.
const MAX_REVOKED_SINGLY: usize = 2048;

#[cfg(test)]
pub(crate) mod hold_tests;
#[cfg(test)]
mod set_tests;
#[cfg(test)]
pub(crate) mod tests;
