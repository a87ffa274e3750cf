//! The short way of nearly all packets: an ordinary segment of an established TCP connection, or a datagram of a UDP connection, that changes no state. IPv4 or IPv6,
//! translated or not, in any zone.
//!
//! The result must equal that of `lookup_or_create`, with as few instructions as possible; a property test checks this. A packet is tracked completely or not at
//! all: if the short way does not apply, nothing is changed.
use super::hints::LookupHint;
use crate::protocol::{FastPathTimeouts, Tcp};
use crate::table::key::PackedAddrs;
use crate::table::record::{HotRecord, Ipv6Addrs, RecordKind};
use crate::table::{Records, TupleRef};
use crate::time::Ticks;
use crate::track::account_packet;
use crate::{ConnId, CtInfo, Direction, Engine, Instant, Outcome, Status, Sysctl, Zone};
use keepstate_types::ipproto;
use keepstate_wire::tcp::TcpSegment;
use keepstate_wire::{Family, Packet, PlainTcp, udp};

/// Connections of which a packet needs more than the short way does.
const NEEDS_MORE: Status = Status::FIXED_TIMEOUT.union(Status::HELPER).union(Status::OFFLOAD).union(Status::SEQ_ADJUST);

/// The status of a connection whose segments change nothing but windows.
const OPEN: Status = Status::SEEN_REPLY.union(Status::ASSURED).union(Status::CONFIRMED);

/// What the shortest way did.
enum PlainStep {
    /// All of it.
    Passed { info: CtInfo, generation: u32 },
    /// Nothing: the packet is not ordinary.
    Refused,
    /// Nothing: the packet is of another form, or not of this record.
    Other,
}

/// A record whose deadline was set, and what is to be done beside it.
#[derive(Clone, Copy)]
struct Refreshed {
    deadline: u32,
    is_earlier: bool,
    is_counted: bool,
}

impl Refreshed {
    #[inline(always)]
    fn of(hot: &mut HotRecord, deadline: u32) -> Refreshed {
        let is_earlier = (deadline.wrapping_sub(hot.deadline) as i32) < 0;
        hot.deadline = deadline;
        Refreshed { deadline, is_earlier, is_counted: hot.kind.has(RecordKind::COUNTED) }
    }
}

impl Engine {
    /// Tracks a packet of a known connection. `None` if the packet is not known or not ordinary; then nothing was changed.
    #[inline(always)]
    pub(super) fn track_known(
        &mut self,
        packet: &Packet<'_>,
        zone: Zone,
        hint: &LookupHint,
        now: Instant,
    ) -> Option<Outcome> {
        let reference = hint.candidate?;
        let key = (hint.addresses, hint.keys());
        if self.events.has_change_of(reference.slot()) {
            return None;
        }
        let tick = now.tick();
        let (is_ipv4, protocol) = (packet.family() == Family::V4, packet.protocol());
        let step = if zone.id != 0 {
            self.track_plain_zoned(packet, reference, key, zone, tick)
        } else if is_ipv4 && protocol == ipproto::TCP {
            self.track_plain_segment(packet, reference, key, tick)
        } else if is_ipv4 && protocol == ipproto::UDP {
            self.track_plain_datagram(packet, reference, key, tick)
        } else if protocol == ipproto::TCP {
            self.track_plain_segment_v6(packet, reference, key.1, tick)
        } else if protocol == ipproto::UDP {
            self.track_plain_datagram_v6(packet, reference, key.1, tick)
        } else {
            PlainStep::Other
        };
        match step {
            PlainStep::Passed { info, generation } => {
                let id = ConnId { slot: reference.slot(), generation };
                return Some(Outcome::tracked(info, reference.direction(), id));
            }
            PlainStep::Refused => return None,
            PlainStep::Other => (),
        }
        let info = self.track_other(packet, reference, key, zone, now.tick())?;
        Some(Outcome::tracked(info, reference.direction(), self.conn_id(reference.slot())))
    }

    /// Tracks a TCP segment in an ordinary IPv4 packet, of a connection in the default zone. A function of its own, for the compiler's sake: it has registers enough
    /// for this alone.
    #[inline(never)]
    fn track_plain_segment(
        &mut self,
        packet: &Packet<'_>,
        reference: TupleRef,
        key: (u64, u32),
        tick: u32,
    ) -> PlainStep {
        let Some(plain) = packet.plain_tcp() else { return PlainStep::Other };
        // First, while few values are at hand: registers are what this function has least of.
        if self.sysctls.is_enabled(Sysctl::Checksum) && !plain.checksum_ok() {
            return PlainStep::Refused;
        }
        if !is_own_v4(&self.table.records, reference, key, RecordKind::is_tcp_v4) {
            return PlainStep::Other;
        }
        self.pass_segment(&plain, packet, reference, tick)
    }

    /// As [`Engine::track_plain_segment`], over IPv6.
    #[inline(never)]
    fn track_plain_segment_v6(&mut self, packet: &Packet<'_>, reference: TupleRef, keys: u32, tick: u32) -> PlainStep {
        let Some(plain) = packet.plain_tcp_v6() else { return PlainStep::Other };
        if self.sysctls.is_enabled(Sysctl::Checksum) && !plain.checksum_ok() {
            return PlainStep::Refused;
        }
        if !is_own_v6(&self.table.records, reference, (plain.addresses(), keys), RecordKind::is_tcp_v6) {
            return PlainStep::Other;
        }
        self.pass_segment(&plain, packet, reference, tick)
    }

    /// The end of both: the segment is one of this connection, and its checksum is right.
    #[inline(always)]
    fn pass_segment<const HEADERS: usize>(
        &mut self,
        plain: &PlainTcp<'_, HEADERS>,
        packet: &Packet<'_>,
        reference: TupleRef,
        tick: u32,
    ) -> PlainStep {
        let Some(hot) = self.table.records.hot_mut(reference.slot()) else { return PlainStep::Refused };
        let needs_more = hot.kind.has(RecordKind::HAS_EXTENSION)
            || hot.status() & OPEN.union(NEEDS_MORE) != OPEN
            || hot.is_expired(tick);
        if needs_more {
            return PlainStep::Refused;
        }
        let Some(segment) = plain.segment() else { return PlainStep::Refused };
        let (direction, sysctls) = (reference.direction(), (&self.fast_timeouts, &self.sysctls));
        let Some(timeout) = Tcp::from_record_mut(hot).track_established(&segment, direction, sysctls, self.secret)
        else {
            return PlainStep::Refused;
        };
        let refreshed = Refreshed::of(hot, tick.wrapping_add(timeout));
        self.pass(packet, reference, CtInfo::Established, refreshed)
    }

    /// As [`Engine::track_plain_segment`], of a UDP datagram.
    #[inline(never)]
    fn track_plain_datagram(
        &mut self,
        packet: &Packet<'_>,
        reference: TupleRef,
        key: (u64, u32),
        tick: u32,
    ) -> PlainStep {
        let Some(plain) = packet.plain_udp() else { return PlainStep::Other };
        if self.sysctls.is_enabled(Sysctl::Checksum) && !plain.checksum_ok() {
            return PlainStep::Refused;
        }
        if !is_own_v4(&self.table.records, reference, key, RecordKind::is_udp_v4) {
            return PlainStep::Other;
        }
        self.pass_datagram(packet, reference, tick)
    }

    /// As [`Engine::track_plain_datagram`], over IPv6.
    #[inline(never)]
    fn track_plain_datagram_v6(&mut self, packet: &Packet<'_>, reference: TupleRef, keys: u32, tick: u32) -> PlainStep {
        let Some(plain) = packet.plain_udp_v6() else { return PlainStep::Other };
        if self.sysctls.is_enabled(Sysctl::Checksum) && !plain.checksum_ok() {
            return PlainStep::Refused;
        }
        if !is_own_v6(&self.table.records, reference, (plain.addresses(), keys), RecordKind::is_udp_v6) {
            return PlainStep::Other;
        }
        self.pass_datagram(packet, reference, tick)
    }

    /// The end of both: the datagram is one of this connection, its length and its checksum are right.
    #[inline(always)]
    fn pass_datagram(&mut self, packet: &Packet<'_>, reference: TupleRef, tick: u32) -> PlainStep {
        let Some(hot) = self.table.records.hot_mut(reference.slot()) else { return PlainStep::Refused };
        let needs_more = hot.kind.has(RecordKind::HAS_EXTENSION)
            || hot.status() & Status::CONFIRMED.union(NEEDS_MORE) != Status::CONFIRMED
            || hot.is_expired(tick);
        if needs_more {
            return PlainStep::Refused;
        }
        let step = datagram_step(hot, reference.direction(), tick, &self.fast_timeouts);
        let Some((info, timeout)) = step else { return PlainStep::Refused };
        let refreshed = Refreshed::of(hot, tick.wrapping_add(timeout));
        self.pass(packet, reference, info, refreshed)
    }

    /// The end of all: the packet has passed.
    #[inline(always)]
    fn pass(&mut self, packet: &Packet<'_>, reference: TupleRef, info: CtInfo, refreshed: Refreshed) -> PlainStep {
        let slot = reference.slot();
        self.finish_refresh(packet, reference, refreshed);
        PlainStep::Passed { info, generation: self.table.records.generation(slot) }
    }

    #[inline(always)]
    fn finish_refresh(&mut self, packet: &Packet<'_>, reference: TupleRef, refreshed: Refreshed) {
        let Refreshed { deadline, is_earlier, is_counted } = refreshed;
        if is_earlier {
            self.table.lower_timer_bound(reference.slot(), deadline);
        }
        if is_counted {
            account_packet(&mut self.table.records, reference.slot(), reference.direction(), packet);
        }
    }

    /// As the functions above, of a connection over IPv4 in another zone.
    #[inline(never)]
    fn track_plain_zoned(
        &mut self,
        packet: &Packet<'_>,
        reference: TupleRef,
        key: (u64, u32),
        zone: Zone,
        tick: u32,
    ) -> PlainStep {
        let direction = reference.direction();
        if self.table.records.zone(reference.slot()).id_for(direction) != zone.id_for(direction) {
            return PlainStep::Other;
        }
        let (records, is_checked) = (&self.table.records, self.sysctls.is_enabled(Sysctl::Checksum));
        if packet.protocol() == ipproto::TCP {
            let Some(plain) = packet.plain_tcp() else { return PlainStep::Other };
            if !is_own_v4(records, reference, key, |kind| kind.in_default_zone().is_tcp_v4()) {
                return PlainStep::Other;
            }
            if is_checked && !plain.checksum_ok() {
                return PlainStep::Refused;
            }
            return self.pass_segment(&plain, packet, reference, tick);
        }
        let Some(plain) = packet.plain_udp() else { return PlainStep::Other };
        if !is_own_v4(records, reference, key, |kind| kind.in_default_zone().is_udp_v4()) {
            return PlainStep::Other;
        }
        if is_checked && !plain.checksum_ok() {
            return PlainStep::Refused;
        }
        self.pass_datagram(packet, reference, tick)
    }

    /// For all that the functions above do not decide: other protocols, IPv6 in zones, IP options, extension headers.
    #[inline(never)]
    fn track_other(
        &mut self,
        packet: &Packet<'_>,
        reference: TupleRef,
        key: (u64, u32),
        zone: Zone,
        tick: u32,
    ) -> Option<CtInfo> {
        if self.is_packet_of(packet, reference, key, zone) {
            self.track_packet_of(packet, reference, tick)
        } else {
            None
        }
    }

    /// Tracks a packet of the connection that `reference` names.
    #[inline(never)]
    fn track_packet_of(&mut self, packet: &Packet<'_>, reference: TupleRef, tick: u32) -> Option<CtInfo> {
        let (slot, direction) = (reference.slot(), reference.direction());
        let hot = self.table.records.hot_mut(slot)?;
        let (kind, status) = (hot.kind, hot.status());
        // An extension may hold a timeout policy, or segments that are checked leniently.
        if kind.has(RecordKind::HAS_EXTENSION) || hot.is_expired(tick) || !packet.ipv4_options_ok() {
            return None;
        }
        let mut info = CtInfo::Established;
        let timeout = if kind.is_tcp() {
            if status & OPEN.union(NEEDS_MORE) != OPEN {
                return None;
            }
            // Which flags are valid is not asked: the tracker takes plain ACKs only.
            let segment = TcpSegment::parse(packet.transport(), packet.transport_len()).ok()?;
            if self.sysctls.is_enabled(Sysctl::Checksum) && !packet.transport_checksum_ok() {
                return None;
            }
            let sysctls = (&self.fast_timeouts, &self.sysctls);
            Tcp::from_record_mut(hot).track_established(&segment, direction, sysctls, self.secret)?
        } else {
            if !kind.is_udp() || status & Status::CONFIRMED.union(NEEDS_MORE) != Status::CONFIRMED {
                return None;
            }
            udp::UdpHeader::parse(packet.transport(), packet.transport_len()).ok()?;
            if self.sysctls.is_enabled(Sysctl::Checksum) && !packet.transport_checksum_ok() {
                return None;
            }
            let (step, timeout) = datagram_step(hot, direction, tick, &self.fast_timeouts)?;
            info = step;
            timeout
        };
        let refreshed = Refreshed::of(hot, tick.wrapping_add(timeout));
        self.finish_refresh(packet, reference, refreshed);
        Some(info)
    }

    /// Is `reference` the packet's connection?
    #[inline(always)]
    fn is_packet_of(&self, packet: &Packet<'_>, reference: TupleRef, (word, keys): (u64, u32), zone: Zone) -> bool {
        let records = &self.table.records;
        let (slot, direction) = (reference.slot(), reference.direction());
        let Some(hot) = records.hot(slot) else { return false };
        let same_protocol = match packet.protocol() {
            ipproto::TCP => hot.kind.is_tcp(),
            ipproto::UDP => hot.kind.is_udp(),
            _ => false,
        };
        let own_zone = match hot.kind.has(RecordKind::ZONED) {
            true => records.zone(slot).id_for(direction),
            false => 0,
        };
        // The bytes of a freed slot are zero, which is a possible tuple.
        if !same_protocol || packet.fragment().is_some() || !hot.is_confirmed() || own_zone != zone.id_for(direction) {
            return false;
        }
        let Some(key) = records.key(reference) else { return false };
        let same_addresses = match (key.addresses, packet.flow_key_v6()) {
            (PackedAddrs::V4(own), None) => packet.family() == Family::V4 && own == word,
            (PackedAddrs::V6(addresses), Some((packet, _))) => addresses == packet,
            _ => false,
        };
        // A tuple that is its own reply has no direction here: see `Table::find`.
        same_addresses && key.keys == keys && !key.is_own_reply()
    }
}

/// The key as that of a packet in the original direction would be; `None` if it is its own reply, which has no direction here: see `Table::find`.
#[inline(always)]
fn as_original((word, keys): (u64, u32), direction: Direction) -> Option<(u64, u32)> {
    let (inverse_word, inverse_keys) = (word.rotate_left(32), keys.rotate_left(16));
    let own_reply = word == inverse_word && keys == inverse_keys;
    (!own_reply).then_some(match direction {
        Direction::Original => (word, keys),
        Direction::Reply => (inverse_word, inverse_keys),
    })
}

/// Does an IPv4 packet with this key belong to the connection that `reference` names? Of a freed slot it may say so: its status says no.
#[inline(always)]
fn is_own_v4(
    records: &Records,
    reference: TupleRef,
    key: (u64, u32),
    is_of_protocol: impl Fn(RecordKind) -> bool,
) -> bool {
    let Some(hot) = records.hot(reference.slot()) else { return false };
    let Some((word, keys)) = as_original(key, reference.direction()) else { return false };
    if !is_of_protocol(hot.kind) {
        return false;
    }
    if reference.direction() == Direction::Original || hot.kind.has(RecordKind::UNTRANSLATED) {
        return hot.addresses == word && hot.keys == keys;
    }
    records.translated_reply(reference.slot()) == Some(key)
}

/// As [`is_own_v4`], for IPv6.
#[inline(always)]
fn is_own_v6(
    records: &Records,
    reference: TupleRef,
    (addresses, keys): (Ipv6Addrs, u32),
    is_of_protocol: impl Fn(RecordKind) -> bool,
) -> bool {
    let Some(hot) = records.hot(reference.slot()) else { return false };
    let [source, destination] = addresses;
    // A tuple that is its own reply has no direction here.
    if !is_of_protocol(hot.kind) || keys == keys.rotate_left(16) && source == destination {
        return false;
    }
    let is_original = reference.direction() == Direction::Original;
    if !is_original && !hot.kind.has(RecordKind::UNTRANSLATED) {
        return records.translated_reply_v6(reference.slot()) == Some((addresses, keys));
    }
    let (wanted, keys) = if is_original { (addresses, keys) } else { ([destination, source], keys.rotate_left(16)) };
    hot.keys == keys && records.ipv6_original(reference.slot()) == Some(&wanted)
}

/// What a datagram of a confirmed connection is, and the timeout in ticks after it; `None` if it changes more than that: it is the first reply, or the first packet of a stream.
#[inline(always)]
fn datagram_step(
    hot: &HotRecord,
    direction: Direction,
    tick: u32,
    timeouts: &FastPathTimeouts,
) -> Option<(CtInfo, u32)> {
    let status = hot.status();
    if !status.contains(Status::SEEN_REPLY) {
        if direction == Direction::Reply {
            return None;
        }
        let info = if status.contains(Status::EXPECTED) { CtInfo::Related } else { CtInfo::New };
        return Some((info, timeouts.udp));
    }
    let stream_after = hot.words[0];
    if (tick.wrapping_sub(stream_after) as i32) <= 0 {
        return Some((CtInfo::Established, timeouts.udp));
    }
    // The first packet of a stream makes it assured.
    status.contains(Status::ASSURED).then_some((CtInfo::Established, timeouts.udp_stream))
}
