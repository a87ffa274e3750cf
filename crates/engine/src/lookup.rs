//! Looks up a packet's connection or creates one, and counts packets that have none (`nf_conntrack_in`, `resolve_normal_ct`).
use crate::classify::{Classification, is_icmp_of_family};
use crate::packet_ctx::Pending;
use crate::table::LookupKey;
use crate::{CtInfo, Engine, Instant, Outcome, PacketCtx, Reason};
use keepstate_wire::{LinuxAction, Packet, ParseError};

impl Engine {
    /// Handles the packet in its known connection or in a new one. Looks up again if the known connection had expired or is restarted.
    #[inline(never)]
    pub(crate) fn lookup_or_create(
        &mut self,
        packet: &Packet<'_>,
        identity: Classification,
        probe: &LookupKey,
        now: Instant,
    ) -> PacketCtx {
        match identity {
            Classification::Tuple => (),
            Classification::IcmpError => {
                let outcome = self.track_icmp_error(packet, probe.zone, now);
                return PacketCtx { is_icmp_error: true, ..self.finish_icmp(outcome) };
            }
            Classification::Invalid(reason) if is_icmp_of_family(packet) && reason != Reason::IcmpUnpaired => {
                return self.finish_icmp(Outcome::invalid(reason));
            }
            Classification::Invalid(reason) => return self.finish_untracked(Outcome::invalid(reason)),
            Classification::Untracked(reason) => return self.finish_untracked(Outcome::untracked(reason)),
        }
        while let Some(reference) = self.table.find(probe) {
            if let Some(outcome) = self.handle_known(packet, reference, now) {
                let pending = self.helper_packet(packet, &outcome).map_or(Pending::Nothing, Pending::HelperPacket);
                return PacketCtx { outcome, pending, is_icmp_error: false, ended: self.nat.ended.take() };
            }
        }
        self.init_conntrack(packet, probe, now)
    }

    /// Counts a packet without a connection and finishes it.
    pub(crate) fn finish_untracked(&mut self, outcome: Outcome) -> PacketCtx {
        self.counters.invalid += u64::from(outcome.info == CtInfo::Invalid);
        self.finish_with_reason(outcome)
    }

    fn finish_with_reason(&mut self, outcome: Outcome) -> PacketCtx {
        if let Some(reason) = outcome.reason {
            self.count_reason(reason);
        }
        PacketCtx::finished(outcome)
    }

    /// As [`Engine::finish_untracked`], for ICMP errors: Linux counts bad ones in `error`, not in `invalid`.
    fn finish_icmp(&mut self, outcome: Outcome) -> PacketCtx {
        self.counters.error += u64::from(outcome.info == CtInfo::Invalid);
        self.finish_with_reason(outcome)
    }

    pub(crate) fn count_reason(&mut self, reason: Reason) {
        if let Some(count) = self.reason_counts.get_mut(reason.index()) {
            *count += 1;
        }
    }

    /// Counts a packet that could not be parsed (or reassembled by the driver) and was never tracked. It counts as invalid if Linux's
    /// tracking would have called it invalid.
    pub fn count_parse_error(&mut self, error: ParseError) {
        self.counters.invalid += u64::from(error.linux_action() == LinuxAction::Invalid);
        self.count_reason(Reason::ParseError(error));
    }
}
