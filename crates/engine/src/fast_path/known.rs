//! The short way of nearly all packets: an ordinary segment of an established TCP connection, or a datagram of a UDP connection, that changes no state. IPv4 or IPv6,
//! translated or not, in any zone.
//!
//! The result must equal that of `lookup_or_create`, with as few instructions as possible; a property test checks this. A packet is tracked completely or not at
//! all: if the short way does not apply, nothing is changed.
use super::hints::LookupHint;
use crate::protocol::Tcp;
use crate::table::key::PackedAddrs;
use crate::table::record::RecordKind;
use crate::table::{Records, TupleRef};
use crate::time::Ticks;
use crate::track::account_packet;
use crate::{ConnId, CtInfo, Direction, Engine, Instant, Outcome, Status, Sysctl, Zone};
use keepstate_types::ipproto;
use keepstate_wire::tcp::TcpSegment;
use keepstate_wire::{Family, Packet, udp};

/// Connections of which a packet needs more than the short way does.
const NEEDS_MORE: Status = Status::FIXED_TIMEOUT.union(Status::HELPER).union(Status::OFFLOAD).union(Status::SEQ_ADJUST);

/// The status of a connection whose segments change nothing but windows.
const OPEN: Status = Status::SEEN_REPLY.union(Status::ASSURED).union(Status::CONFIRMED);

/// What the shortest way did.
enum PlainStep {
    /// All of it.
    Passed { generation: u32 },
    /// Nothing: the packet is not ordinary.
    Refused,
    /// Nothing: the packet is of another form, or not of this record.
    Other,
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
        let in_default_zone = zone.id == 0 && packet.family() == Family::V4;
        if in_default_zone && packet.protocol() == ipproto::TCP {
            match self.track_plain_segment(packet, reference, key, now.tick()) {
                PlainStep::Passed { generation } => {
                    let id = ConnId { slot: reference.slot(), generation };
                    return Some(Outcome::tracked(CtInfo::Established, reference.direction(), id));
                }
                PlainStep::Refused => return None,
                PlainStep::Other => (),
            }
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
        let (slot, direction) = (reference.slot(), reference.direction());
        let Some(plain) = packet.plain_tcp() else { return PlainStep::Other };
        // First, while few values are at hand: registers are what this function has least of.
        if self.sysctls.is_enabled(Sysctl::Checksum) && !plain.checksum_ok() {
            return PlainStep::Refused;
        }
        if !is_segment_of(&self.table.records, reference, key) {
            return PlainStep::Other;
        }
        let Some(hot) = self.table.records.hot_mut(slot) else { return PlainStep::Refused };
        let needs_more = hot.kind.has(RecordKind::HAS_EXTENSION)
            || hot.status() & OPEN.union(NEEDS_MORE) != OPEN
            || hot.is_expired(tick);
        if needs_more {
            return PlainStep::Refused;
        }
        let Some(segment) = plain.segment() else { return PlainStep::Refused };
        let sysctls = (&self.fast_timeouts, &self.sysctls);
        let Some(timeout) = Tcp::from_record_mut(hot).track_established(&segment, direction, sysctls, self.secret)
        else {
            return PlainStep::Refused;
        };
        let deadline = tick.wrapping_add(timeout);
        let earlier = (deadline.wrapping_sub(hot.deadline) as i32) < 0;
        hot.deadline = deadline;
        let is_counted = hot.kind.has(RecordKind::COUNTED);
        if earlier {
            self.table.lower_timer_bound(slot, deadline);
        }
        if is_counted {
            account_packet(&mut self.table.records, slot, direction, packet);
        }
        PlainStep::Passed { generation: self.table.records.generation(slot) }
    }

    /// For all that [`Engine::track_plain_segment`] does not decide.
    #[inline(never)]
    fn track_other(
        &mut self,
        packet: &Packet<'_>,
        reference: TupleRef,
        key: (u64, u32),
        zone: Zone,
        tick: u32,
    ) -> Option<CtInfo> {
        let own = zone.id == 0 && is_plain_match(&self.table.records, packet, reference, key);
        if own || self.is_packet_of(packet, reference, key, zone) {
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
            if !status.contains(Status::SEEN_REPLY) {
                if direction == Direction::Reply {
                    return None;
                }
                info = if status.contains(Status::EXPECTED) { CtInfo::Related } else { CtInfo::New };
            }
            let stream_after = hot.words[0];
            let stream = status.contains(Status::SEEN_REPLY) && (tick.wrapping_sub(stream_after) as i32) > 0;
            // The first packet of a stream makes it assured.
            let becomes_assured = stream && !status.contains(Status::ASSURED);
            if !kind.is_udp() || becomes_assured || status & Status::CONFIRMED.union(NEEDS_MORE) != Status::CONFIRMED {
                return None;
            }
            udp::UdpHeader::parse(packet.transport(), packet.transport_len()).ok()?;
            if self.sysctls.is_enabled(Sysctl::Checksum) && !packet.transport_checksum_ok() {
                return None;
            }
            if stream { self.fast_timeouts.udp_stream } else { self.fast_timeouts.udp }
        };
        let deadline = tick.wrapping_add(timeout);
        let earlier = (deadline.wrapping_sub(hot.deadline) as i32) < 0;
        hot.deadline = deadline;
        if earlier {
            self.table.lower_timer_bound(slot, deadline);
        }
        if kind.has(RecordKind::COUNTED) {
            account_packet(&mut self.table.records, slot, direction, packet);
        }
        Some(info)
    }

    /// Is `reference` the packet's connection? For those that [`is_plain_match`] does not decide: IPv6, translated, in a zone.
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

/// Does a TCP segment over IPv4 in the default zone, with this key, belong to the connection that `reference` names? Of a freed slot it may say so: its status says no.
#[inline(always)]
fn is_segment_of(records: &Records, reference: TupleRef, key: (u64, u32)) -> bool {
    let Some(hot) = records.hot(reference.slot()) else { return false };
    let Some((word, keys)) = as_original(key, reference.direction()) else { return false };
    if !hot.kind.is_tcp_v4() {
        return false;
    }
    if reference.direction() == Direction::Original || hot.kind.has(RecordKind::UNTRANSLATED) {
        return hot.addresses == word && hot.keys == keys;
    }
    records.translated_reply(reference.slot()) == Some(key)
}

/// Does the packet belong to the connection that `reference` names, which is IPv4, not translated and in the default zone?
#[inline(always)]
fn is_plain_match(records: &Records, packet: &Packet<'_>, reference: TupleRef, key: (u64, u32)) -> bool {
    let Some(hot) = records.hot(reference.slot()) else { return false };
    packet.family() == Family::V4
        && as_original(key, reference.direction()) == Some((hot.addresses, hot.keys))
        && hot.kind.is_untranslated_v4(packet.protocol())
}
