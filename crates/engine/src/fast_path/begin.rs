//! The short way of a connection's first packet, a plain SYN or a datagram. Where no rules are asked, its record is written into the table at once; for rules its tracker is made without a look
//! at anything but the packet.
//!
//! The result must equal that of `init_conntrack` and `confirm`; a property test checks this. A packet begins its connection completely or not at all: if the short
//! way does not apply, nothing is changed.
use super::hints::LookupHint;
use crate::protocol::stateless::Stateless;
use crate::protocol::{Tcp, Tracker};
use crate::table::key::{PackedAddrs, TupleKey};
use crate::table::record::{HotRecord, RecordKind};
use crate::table::{LookupKey, NewRecord};
use crate::time::Ticks;
use crate::track::InitialTracker;
use crate::{ConnId, CtInfo, Direction, Engine, EventKind, Instant, Outcome, Status, Sysctl, Zone, ZoneDirection};
use keepstate_types::ipproto;
use keepstate_wire::tcp::TcpSegment;
use keepstate_wire::{Family, Packet, PlainTcp, udp};

/// What the shortest way needs to know beside the packet.
#[derive(Clone, Copy)]
struct FirstPacket {
    /// The hashes of both tuples; 0 if unknown.
    hashes: [u64; 2],
    /// The most connections, or 0.
    limit: usize,
    now: Instant,
}

/// What the shortest way did.
enum PlainBegin {
    /// All of it.
    Begun(ConnId),
    /// Nothing: the packet is not ordinary, or there is no room.
    Refused,
    /// Nothing: the packet is of another form.
    Other,
}

impl Engine {
    /// Begins a connection with `packet`. `None` if the packet may belong to a known connection, is not ordinary, or finds the table full.
    #[inline(always)]
    pub(super) fn begin_plain(
        &mut self,
        packet: &Packet<'_>,
        zone: Zone,
        hint: &LookupHint,
        now: Instant,
    ) -> Option<Outcome> {
        // Others of the same group may have begun connections since the hint was made: ask again.
        if !self.may_begin_plainly(zone) || self.table.candidate(hint.hash).is_some() {
            return None;
        }
        // Without NAT the reply tuple is free if the original is.
        if self.nat.in_use {
            return None;
        }
        let limit = self.sysctls[Sysctl::Max] as usize;
        let needs_more = self.sysctls.is_enabled(Sysctl::Acct) || self.sysctls.is_enabled(Sysctl::Timestamp);
        if zone.id == 0 && !needs_more {
            let first = FirstPacket { hashes: hint.hashes(), limit, now };
            let step = match (packet.family(), packet.protocol()) {
                (Family::V4, ipproto::TCP) => self.begin_plain_segment(packet, (hint.addresses, hint.keys()), first),
                (Family::V4, ipproto::UDP) => self.begin_plain_datagram(packet, (hint.addresses, hint.keys()), first),
                (Family::V6, ipproto::TCP) => self.begin_plain_segment_v6(packet, hint.keys(), first),
                (Family::V6, ipproto::UDP) => self.begin_plain_datagram_v6(packet, hint.keys(), first),
                _ => PlainBegin::Other,
            };
            match step {
                PlainBegin::Begun(id) => return Some(Outcome::tracked(CtInfo::New, Direction::Original, id)),
                PlainBegin::Refused => return None,
                PlainBegin::Other => (),
            }
        }
        self.begin_other(packet, zone, hint, limit, now)
    }

    /// Is there room, and nothing that new connections are looked up in or limited by?
    #[inline(always)]
    fn may_begin_plainly(&self, zone: Zone) -> bool {
        let limit = self.sysctls[Sysctl::Max] as usize;
        let has_room = (limit == 0 || self.entries_in_use() < limit) && self.admission.is_none();
        let is_simple = self.expectations.is_empty() && self.auto_helpers.is_empty();
        has_room && is_simple && zone.direction == ZoneDirection::Both
    }

    /// For rules: the key and the tracker of the connection that `packet` begins, which nothing has to be asked about: a plain SYN or a datagram. `None` if the packet may belong to a known
    /// connection, is not ordinary, or finds the table full; nothing is changed.
    #[inline(always)]
    pub(super) fn open_plain(
        &self,
        packet: &Packet<'_>,
        zone: Zone,
        hint: &LookupHint,
        now: Instant,
    ) -> Option<(LookupKey, InitialTracker)> {
        if hint.candidate.is_some() || !self.may_begin_plainly(zone) {
            return None;
        }
        let is_checked = self.sysctls.is_enabled(Sysctl::Checksum);
        let v4 = PackedAddrs::V4(hint.addresses);
        let (addresses, segment) = match (packet.family(), packet.protocol()) {
            (Family::V4, ipproto::TCP) => {
                let plain = packet.plain_tcp().filter(|plain| !is_checked || plain.checksum_ok())?;
                (v4, Some(plain.segment()?))
            }
            (Family::V6, ipproto::TCP) => {
                let plain = packet.plain_tcp_v6().filter(|plain| !is_checked || plain.checksum_ok())?;
                (PackedAddrs::V6(plain.addresses()), Some(plain.segment()?))
            }
            (Family::V4, ipproto::UDP) => {
                packet.plain_udp().filter(|plain| !is_checked || plain.checksum_ok())?;
                (v4, None)
            }
            (Family::V6, ipproto::UDP) => {
                let plain = packet.plain_udp_v6().filter(|plain| !is_checked || plain.checksum_ok())?;
                (PackedAddrs::V6(plain.addresses()), None)
            }
            _ => return None,
        };
        let (tracker, timeout) = match segment {
            Some(segment) => {
                let (tcp, timeout) = Tcp::from_plain_syn(&segment, &self.sysctls)?;
                (Tracker::Tcp(tcp), timeout)
            }
            None => (Tracker::Stateless(Stateless::first_udp(now.tick())), self.fast_timeouts.udp),
        };
        let key = TupleKey { addresses, keys: hint.keys(), protocol: packet.protocol() };
        if !self.shard.owns(&key) {
            return None;
        }
        Some((hint.lookup_key(key, zone), InitialTracker { tracker, timeout, counted: true }))
    }

    /// Begins a connection with a SYN in an ordinary IPv4 packet, in the default zone.
    #[inline(never)]
    fn begin_plain_segment(&mut self, packet: &Packet<'_>, (word, keys): (u64, u32), first: FirstPacket) -> PlainBegin {
        let Some(plain) = packet.plain_tcp() else { return PlainBegin::Other };
        let key = TupleKey { addresses: PackedAddrs::V4(word), keys, protocol: ipproto::TCP };
        self.begin_segment(&plain, key, first)
    }

    /// As [`Engine::begin_plain_segment`], over IPv6.
    #[inline(never)]
    fn begin_plain_segment_v6(&mut self, packet: &Packet<'_>, keys: u32, first: FirstPacket) -> PlainBegin {
        let Some(plain) = packet.plain_tcp_v6() else { return PlainBegin::Other };
        let key = TupleKey { addresses: PackedAddrs::V6(plain.addresses()), keys, protocol: ipproto::TCP };
        self.begin_segment(&plain, key, first)
    }

    #[inline(always)]
    fn begin_segment<const HEADERS: usize>(
        &mut self,
        plain: &PlainTcp<'_, HEADERS>,
        key: TupleKey,
        first: FirstPacket,
    ) -> PlainBegin {
        if self.sysctls.is_enabled(Sysctl::Checksum) && !plain.checksum_ok() {
            return PlainBegin::Refused;
        }
        let begun = plain.segment().and_then(|segment| Tcp::from_plain_syn(&segment, &self.sysctls));
        let Some((tcp, timeout)) = begun else { return PlainBegin::Refused };
        let mut hot = HotRecord::default();
        tcp.store(&mut hot);
        self.begin_in_place(hot, key, timeout, first)
    }

    /// As [`Engine::begin_plain_segment`], with a UDP datagram.
    #[inline(never)]
    fn begin_plain_datagram(
        &mut self,
        packet: &Packet<'_>,
        (word, keys): (u64, u32),
        first: FirstPacket,
    ) -> PlainBegin {
        let Some(plain) = packet.plain_udp() else { return PlainBegin::Other };
        let key = TupleKey { addresses: PackedAddrs::V4(word), keys, protocol: ipproto::UDP };
        self.begin_datagram(plain.checksum_ok(), key, first)
    }

    /// As [`Engine::begin_plain_datagram`], over IPv6.
    #[inline(never)]
    fn begin_plain_datagram_v6(&mut self, packet: &Packet<'_>, keys: u32, first: FirstPacket) -> PlainBegin {
        let Some(plain) = packet.plain_udp_v6() else { return PlainBegin::Other };
        let key = TupleKey { addresses: PackedAddrs::V6(plain.addresses()), keys, protocol: ipproto::UDP };
        self.begin_datagram(plain.checksum_ok(), key, first)
    }

    #[inline(always)]
    fn begin_datagram(&mut self, checksum_ok: bool, key: TupleKey, first: FirstPacket) -> PlainBegin {
        if self.sysctls.is_enabled(Sysctl::Checksum) && !checksum_ok {
            return PlainBegin::Refused;
        }
        let mut hot = HotRecord::default();
        Stateless::first_udp(first.now.tick()).store(&mut hot);
        self.begin_in_place(hot, key, self.fast_timeouts.udp, first)
    }

    /// Writes the record of a connection in the default zone into the table. `hot` has what the protocol keeps.
    #[inline(always)]
    fn begin_in_place(&mut self, hot: HotRecord, original: TupleKey, timeout: u32, first: FirstPacket) -> PlainBegin {
        let TupleKey { addresses, keys, protocol } = original;
        let answer = match addresses {
            PackedAddrs::V4(word) => PackedAddrs::V4(word.rotate_left(32)),
            PackedAddrs::V6([source, destination]) => PackedAddrs::V6([destination, source]),
        };
        let reply = TupleKey { addresses: answer, keys: keys.rotate_left(16), protocol };
        if reply == original || !self.shard.owns(&original) {
            return PlainBegin::Refused;
        }
        let hashes = self.table.both_hashes([&original, &reply], first.hashes);
        let tick = first.now.tick();
        let hot = HotRecord {
            addresses: original.packed_addresses(),
            keys,
            deadline: tick.wrapping_add(timeout),
            status: Status::CONFIRMED.bits() as u16,
            kind: RecordKind::new(protocol, RecordKind::UNTRANSLATED | RecordKind::family(&original)),
            ..hot
        };
        if !self.shard.take_entry(first.limit) {
            return PlainBegin::Refused;
        }
        let slot = self.table.insert_plain(hot, (&original, None), hashes, tick);
        match self.begun(slot, first.now) {
            Some(id) => PlainBegin::Begun(id),
            None => PlainBegin::Refused,
        }
    }

    /// The end of every short beginning. `slot` is `None` if there was no memory.
    #[inline(always)]
    fn begun(&mut self, slot: Option<u32>, now: Instant) -> Option<ConnId> {
        let Some(slot) = slot else {
            self.shard.give_entry_back();
            return None;
        };
        self.dirty.mark_dirty(slot);
        if self.wants_event(EventKind::New) {
            self.emit_event(EventKind::New, slot, now);
        }
        Some(self.conn_id(slot))
    }

    /// Begins a connection with any other first packet: in a zone, with counters, with IP options or extension headers.
    #[inline(never)]
    fn begin_other(
        &mut self,
        packet: &Packet<'_>,
        zone: Zone,
        hint: &LookupHint,
        limit: usize,
        now: Instant,
    ) -> Option<Outcome> {
        if !matches!(packet.protocol(), ipproto::TCP | ipproto::UDP) || !packet.ipv4_options_ok() {
            return None;
        }
        let (addresses, answer) = match packet.flow_key_v4() {
            Some((word, _)) => (PackedAddrs::V4(word), PackedAddrs::V4(word.rotate_left(32))),
            None => {
                let ([source, destination], _) = packet.flow_key_v6()?;
                (PackedAddrs::V6([source, destination]), PackedAddrs::V6([destination, source]))
            }
        };
        let (keys, protocol) = (hint.keys(), packet.protocol());
        let original = TupleKey { addresses, keys, protocol };
        let reply = TupleKey { addresses: answer, keys: keys.rotate_left(16), protocol };
        if reply == original || !self.shard.owns(&original) {
            return None;
        }
        let tick = now.tick();
        let mut hot = HotRecord { status: Status::CONFIRMED.bits() as u16, ..HotRecord::default() };
        let timeout = match packet.protocol() {
            ipproto::TCP => {
                let segment = TcpSegment::parse(packet.transport(), packet.transport_len()).ok()?;
                let (tcp, timeout) = Tcp::from_plain_syn(&segment, &self.sysctls)?;
                tcp.store(&mut hot);
                timeout
            }
            _ => {
                udp::UdpHeader::parse(packet.transport(), packet.transport_len()).ok()?;
                Stateless::first_udp(tick).store(&mut hot);
                self.fast_timeouts.udp
            }
        };
        if self.sysctls.is_enabled(Sysctl::Checksum) && !packet.transport_checksum_ok() {
            return None;
        }
        hot.deadline = tick.wrapping_add(timeout);
        let record = NewRecord {
            original: &original,
            reply: &reply,
            zone,
            mark: 0,
            hot,
            kind: RecordKind::UNTRANSLATED,
            counts: self.sysctls.is_enabled(Sysctl::Acct).then_some([1, packet.total_len() as u64, 0, 0]),
            hashes: hint.hashes(),
            start: if self.sysctls.is_enabled(Sysctl::Timestamp) { now.to_unix(self.wall_clock_offset).0 } else { 0 },
        };
        if !self.shard.take_entry(limit) {
            return None;
        }
        let slot = self.table.insert(&record, tick);
        self.begun(slot, now).map(|id| Outcome::tracked(CtInfo::New, Direction::Original, id))
    }
}
