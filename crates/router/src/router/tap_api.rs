//! Packets shown to taps.
use super::packet_tap::{PacketTap, TappedPacket};
use super::{DropReason, InFlightPacket, Router};
use keepstate_engine::{ConnId, PacketCtx, packet_tuple};
use keepstate_wire::Packet;

/// What is kept of a packet for the taps, while it is routed.
pub(super) struct TapNote {
    received: Vec<u8>,
    /// Packets that were queued before it.
    queued: usize,
}

impl Router {
    /// Shows every packet to this tap from now on, until it [is closed](PacketTap::is_closed). Flows that a faster data path knows come back once, so that the tap sees those that it wants.
    pub fn add_tap(&mut self, tap: Box<dyn PacketTap>) {
        self.taps.0.push(tap);
        self.revoke_flows();
    }

    /// Removes taps that are closed, also when no packets come.
    pub fn sweep_taps(&mut self) {
        self.taps.0.retain(|tap| !tap.is_closed());
    }

    pub(super) fn note_for_taps(&mut self, pkt: &mut InFlightPacket) -> Option<TapNote> {
        if self.taps.is_empty() {
            return None;
        }
        pkt.meta.rule_trace = self.taps.want_rules().then(Box::default);
        Some(TapNote { received: pkt.bytes.clone(), queued: self.output.len() })
    }

    pub(super) fn tell_taps(&mut self, note: TapNote, pkt: &InFlightPacket, dropped: Option<DropReason>) {
        let TapNote { received, queued } = note;
        let conn_id = pkt.conn_id.or_else(|| pkt.ctx.as_ref().and_then(PacketCtx::connection));
        let (first, second) = self.output.as_slices();
        let outputs = first.get(queued..).unwrap_or_default();
        let more_outputs = second.get(queued.saturating_sub(first.len())..).unwrap_or_default();
        let seen = TappedPacket {
            received: &received,
            iif: pkt.meta.iif.filter(|_| !pkt.is_output).map(|device| device.index),
            sent_by: pkt.sent_by,
            entry: conn_id.and_then(|conn_id| self.engine.entry(conn_id, pkt.now)),
            tuple: Packet::parse(&received).ok().and_then(|packet| packet_tuple(&packet)),
            dropped,
            rules: pkt.meta.rule_trace.as_deref(),
            program: &self.program,
            fib: &self.fib,
            now: pkt.now,
            time: pkt.now.to_unix(self.wall_clock.utc_offset),
            outputs,
            more_outputs,
        };
        self.taps.0.iter_mut().for_each(|tap| tap.see(&seen));
        self.sweep_taps();
    }

    /// Does a tap want to see every packet of this connection?
    pub(super) fn is_tapped(&self, conn_id: ConnId, pkt: &InFlightPacket) -> bool {
        !self.taps.is_empty()
            && self.engine.entry(conn_id, pkt.now).is_some_and(|entry| self.taps.want_connection(&entry))
    }
}
