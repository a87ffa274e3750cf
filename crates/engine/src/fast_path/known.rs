//! The short way of nearly all packets: an ordinary segment of an established TCP connection, or a datagram of a UDP connection, that changes no state. IPv4 or IPv6,
//! translated or not, in any zone.
//!
//! The result must equal that of `lookup_or_create`, with as few instructions as possible; a property test checks this. A packet is tracked completely or not at
//! all: if the short way does not apply, nothing is changed.
use super::hints::LookupHint;
use crate::protocol::Tcp;
use crate::table::TupleRef;
use crate::table::key::PackedAddrs;
use crate::table::record::{HotRecord, RecordKind};
use crate::time::Ticks;
use crate::track::account_packet;
use crate::{CtInfo, Direction, Engine, Instant, Status, Sysctl, Zone};
use keepstate_types::ipproto;
use keepstate_wire::tcp::TcpSegment;
use keepstate_wire::{Family, Packet, udp};

/// Connections of which a packet needs more than the short way does.
const NEEDS_MORE: Status = Status::FIXED_TIMEOUT.union(Status::HELPER).union(Status::OFFLOAD).union(Status::SEQ_ADJUST);

impl Engine {
    /// Tracks a packet of a known connection. `None` if the packet is not known or not ordinary; then nothing was changed.
    #[inline(always)]
    pub(super) fn track_known(
        &mut self,
        packet: &Packet<'_>,
        zone: Zone,
        hint: &LookupHint,
        now: Instant,
    ) -> Option<(CtInfo, TupleRef)> {
        let reference = hint.candidate?;
        if self.events.has_change_of(reference.slot()) {
            return None;
        }
        let hot = self.table.records.hot(reference.slot())?;
        let in_default_zone = zone.id == 0 && packet.family() == Family::V4;
        let info = match in_default_zone && is_plain_match(hot, reference.direction(), packet, hint) {
            true => self.track_packet_of(packet, reference, now.tick()),
            false => self.track_other(packet, reference, (hint.addresses, hint.keys()), zone, now.tick()),
        };
        info.map(|info| (info, reference))
    }

    /// For connections that [`is_plain_match`] does not decide.
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

    /// Tracks a packet of the connection that `reference` names. A function of its own, for the compiler's sake: it has registers enough for this alone.
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
            const OPEN: Status = Status::SEEN_REPLY.union(Status::ASSURED).union(Status::CONFIRMED);
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

/// Does the packet belong to `direction` of this connection, which is IPv4, not translated and in the default zone?
#[inline(always)]
fn is_plain_match(hot: &HotRecord, direction: Direction, packet: &Packet<'_>, hint: &LookupHint) -> bool {
    let (own_word, own_keys) = (hint.addresses, hint.keys());
    let (inverse_word, inverse_keys) = (own_word.rotate_left(32), own_keys.rotate_left(16));
    let (word, keys) = match direction {
        Direction::Original => (own_word, own_keys),
        Direction::Reply => (inverse_word, inverse_keys),
    };
    // A tuple that is its own reply has no direction here: see `Table::find`.
    let own_reply = own_word == inverse_word && own_keys == inverse_keys;
    hot.addresses == word && hot.keys == keys && !own_reply && hot.kind.is_untranslated_v4(packet.protocol())
}
