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
use change_log::ChangeLog;
use flow_way::{CountedWay, FlowWays};
use keepstate_engine::{ConnId, ConnIdMap, Direction, Engine, Instant, OffloadError, OffloadedFlow, Tuple, Zone};
use keepstate_rules::{EvalTrace, HoldReasons, LookupScope, MovedCounters, RuleCounters, SetLookup};
use keepstate_wire::keyed_hash::SipKey;
use keepstate_wire::tcp::TcpFlags;
use smallvec::{SmallVec, smallvec};
use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;

mod change_log;
mod flow;
mod flow_way;
mod offload_stats;

pub use flow::KnownFlow;
pub use flow_way::{FlowSource, FlowTarget, FlowWay};
pub use offload_stats::{FlowOffloadStats, FlowReport};

/// The way of one direction, as its last packet took it.
#[derive(Clone, Debug)]
pub(crate) struct NotedWay {
    source: FlowSource,
    target: FlowTarget,
    set_mark: Option<u32>,
    unmarked_only: bool,
    plain_tos_only: bool,
    counters: RuleCounters,
    /// Flags of TCP that rules have asked for.
    tcp_flags_read: u8,
    /// Rules have asked for routes.
    fib_read: bool,
    /// What rules have looked up in sets.
    lookups: Box<[SetLookup]>,
    /// The last change of routes and of sets before it was found.
    route_changes: u64,
    set_changes: u64,
    /// The connection's mark that it was judged by.
    conn_mark: u32,
    /// Another connection of the same ends may be judged otherwise.
    one_connection: bool,
}

/// One direction of a connection that is known.
#[derive(Debug)]
struct KnownWay {
    /// The addresses whose routes it depends on.
    addresses: RoutedAddresses,
    /// What its rules have looked up in sets.
    lookups: Box<[SetLookup]>,
    way: FlowWay,
}

/// A connection that may become known.
#[derive(Debug, Default)]
struct Candidate {
    ways: [Option<NotedWay>; 2],
    /// Packets since both ways were noted.
    packets: u8,
}

/// Where a packet came from and goes to; whether it came with a mark, and the one it has now; whether routes go by the type of service.
pub(crate) type PacketWay = (FlowSource, FlowTarget, (bool, u32), bool);

type RoutedAddresses = SmallVec<[IpAddr; 1]>;

impl NotedWay {
    /// Where its packets go to.
    pub(crate) fn target(&self) -> FlowTarget {
        self.target
    }

    /// Would the packets of every other connection of the same ends take it too, by what is known of them when they come?
    pub(crate) fn is_of_ends(&self) -> bool {
        !self.one_connection && self.set_mark.is_none() && self.conn_mark == 0
    }

    /// The addresses whose routes it depends on: where it was forwarded to, whom the machine itself speaks with, and all that rules may have asked for.
    fn routed_addresses(&self, tuple: &Tuple, translated: &Tuple) -> RoutedAddresses {
        let mut addresses: RoutedAddresses = match self.target {
            FlowTarget::Forward { .. } | FlowTarget::LetOut => smallvec![translated.destination],
            FlowTarget::Host => smallvec![tuple.source],
        };
        if self.fib_read {
            addresses.extend([tuple.source, tuple.destination, translated.source, translated.destination]);
        }
        addresses
    }
}

/// Connections that may become known, and what is needed of those that are.
#[derive(Debug)]
pub(crate) struct FlowTracker {
    candidates: ConnIdMap<Candidate>,
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
    by_address: BTreeSet<(IpAddr, ConnId)>,
    /// The connections whose rules have made a lookup.
    by_lookup: BTreeSet<(SetLookup, ConnId)>,
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
            candidates: ConnIdMap::default(),
            known: ConnIdMap::default(),
            ways: FlowWays::new(key),
            refused: ConnIdMap::default(),
            opening: None,
            young: ConnIdMap::default(),
            by_address: BTreeSet::new(),
            by_lookup: BTreeSet::new(),
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
    pub(crate) fn way_of(
        &self,
        (source, target, (came_marked, mark), plain_tos_only): PacketWay,
        trace: &EvalTrace,
        conn_mark: u32,
    ) -> Result<NotedWay, HoldReasons> {
        let unmarked_only = trace.mark_read;
        let by_mark = if unmarked_only && came_marked { HoldReasons::MARK } else { HoldReasons::empty() };
        let holds = trace.holds | by_mark;
        if !holds.is_empty() {
            return Err(holds);
        }
        Ok(NotedWay {
            source,
            target,
            set_mark: trace.mark_set.then_some(mark),
            unmarked_only,
            plain_tos_only,
            counters: trace.counters.clone(),
            tcp_flags_read: trace.tcp_flags_read,
            fib_read: trace.fib_read,
            lookups: trace.lookups.as_slice().into(),
            route_changes: self.route_changes.number(),
            set_changes: self.set_changes.number(),
            conn_mark,
            one_connection: trace.one_connection || trace.status_read,
        })
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
                self.candidates.remove(&conn_id);
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
        if self.candidates.len() >= MAX_CANDIDATES {
            // Those that never see an answer stay behind.
            self.candidates.clear();
        }
        let Candidate { ways, packets } = self.candidates.entry(conn_id).or_default();
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
                self.candidates.remove(&conn_id);
                return;
            }
        };
        let ways = self.candidates.remove(&conn_id).map(|candidate| candidate.ways);
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
        self.by_address.extend(addresses.iter().flatten().map(|address| (*address, conn_id)));
        let lookups = original.lookups.iter().chain(&reply.lookups);
        self.by_lookup.extend(lookups.map(|lookup| (*lookup, conn_id)));
        let [to_server, to_client] = addresses;
        let known = |addresses, way: NotedWay, counted| KnownWay { addresses, lookups: way.lookups, way: counted };
        let ways = [known(to_server, original, original_way), known(to_client, reply, reply_way)];
        // It may have been offered before, and its last packets be counted still: the data path says when it has reported all of them.
        self.known.insert(conn_id, ways);
    }

    /// Revokes the flows that depend on the routes to some destinations. False if they are too many: all are to be revoked.
    pub(crate) fn revoke_to(&mut self, scope: &RouteScope, engine: &mut Engine) -> bool {
        let RouteScope::Ranges(ranges) = scope else { return false };
        self.route_changes.push(scope.clone());
        let mut revoked = 0;
        for (first, last) in ranges {
            for (_, conn_id) in self.by_address.range((*first, ConnId::MIN)..=(*last, ConnId::MAX)) {
                revoked += 1;
                if revoked > MAX_REVOKED_SINGLY {
                    return false;
                }
                engine.revoke(*conn_id);
            }
        }
        true
    }

    /// Revokes the flows whose rules have made one of these lookups. False if they are too many: all are to be revoked.
    pub(crate) fn revoke_by(&mut self, scope: LookupScope, engine: &mut Engine) -> bool {
        let LookupScope::Ranges(ranges) = &scope else { return false };
        let mut visited = 0;
        for range in ranges {
            for (lookup, conn_id) in self.by_lookup.range((range.first, ConnId::MIN)..=(range.last, ConnId::MAX)) {
                visited += 1;
                if visited > MAX_REVOKED_SINGLY {
                    return false;
                }
                if range.contains(*lookup) {
                    engine.revoke(*conn_id);
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
        for way in self.known.remove(&conn_id).into_iter().flatten() {
            self.ways.release(way.way);
            for address in way.addresses {
                self.by_address.remove(&(address, conn_id));
            }
            for lookup in way.lookups {
                self.by_lookup.remove(&(lookup, conn_id));
            }
        }
    }

    /// Counters of rules have other indices now.
    pub(crate) fn move_rule_counters(&mut self, moved: &MovedCounters) {
        for way in self.candidates.values_mut().flat_map(|candidate| &mut candidate.ways).flatten() {
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
/// Connections that have passed in one direction, at most.
const MAX_CANDIDATES: usize = 262_144;
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
