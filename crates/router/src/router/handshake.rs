//! Handshakes that a faster data path forwards: once the first SYN of a connection has passed, the rules are asked what they would do with the packets that follow it.
//!
//! A probe is asked for each direction: a bare segment of the connection as if it were established, which passes the hooks but changes nothing. Only if both would pass, by rules that consult nothing but what
//! stays the same for the connection, it is offered to the data path. What that forwards of the handshake, and of the end, it tells, segment by segment and in order; the engine tracks them as if they had come here.
use super::{InFlightPacket, Router};
use crate::icmp_error::build_tcp_segment;
use crate::known_flow::{FlowSource, FlowTarget, FlowTracker, NotedWay};
use keepstate_engine::{ConnId, Direction, Instant, Tuple};
use keepstate_rules::PacketMeta;
use keepstate_wire::Packet;
use keepstate_wire::tcp::TcpFlags;

impl Router {
    /// The data path of [`Router::with_flow_offload`] forwards handshakes too, and tells their segments, and those that close a connection, by [`Router::note_segment`].
    #[must_use]
    pub fn with_handshake_offload(mut self) -> Router {
        self.flows.iter_mut().for_each(FlowTracker::allow_opening);
        self
    }

    /// The data path has forwarded a segment of a known connection that belongs to its handshake or its end: `headers` are its IP and TCP header. Tell them in their order, and before a packet of the connection that
    /// comes here after it.
    pub fn note_segment(&mut self, of: (ConnId, Direction), headers: &[u8], now: Instant) {
        let Some(packet) = parse_headers(headers) else { return };
        self.engine.note_segment(&packet, of, now);
        if let Some(flows) = &mut self.flows {
            flows.note_progress(of.0, &self.engine);
        }
    }

    /// Offers a connection to the data path whose first SYN has passed by this way, if it is plain, and the rules would let what follows pass.
    pub(super) fn offer_handshake(
        &mut self,
        conn_id: ConnId,
        pkt: &InFlightPacket,
        source: FlowSource,
        target: FlowTarget,
    ) {
        let may_offer = self.flows.as_ref().is_some_and(|flows| flows.may_offer_opening());
        let is_whole = pkt.gso_packet_len.is_none() && pkt.fragments.is_none();
        let syn = pkt.packet().ok().filter(|_| may_offer && is_whole);
        let Some(next_seq) = syn.and_then(|packet| seq_after_syn(&packet)) else { return };
        let Some(entry) = self.engine.entry(conn_id, pkt.now) else { return };
        // The kernel answers by the interface that the question came by, mostly; another one's packets are not the flow's.
        let answers_from = match (target, source) {
            (FlowTarget::Forward { oif, .. }, _) | (FlowTarget::LetOut, FlowSource::Host(oif)) => {
                FlowSource::Interface(oif)
            }
            (FlowTarget::Host | FlowTarget::LetOut, FlowSource::Interface(iif)) => FlowSource::Host(iif),
            (FlowTarget::Host, FlowSource::Host(_)) => return,
        };
        if let Some(ways) = self.ways_of_class(&entry.original, pkt, source, target) {
            let flows = self.flows.iter_mut();
            return flows
                .for_each(|flows| flows.offer_opening(conn_id, ways.clone(), next_seq, &mut self.engine, pkt.now));
        }
        let original = self.probe_way((conn_id, Direction::Original), &entry.original, source, pkt.now);
        let Some(original) = original.filter(|way| way.target() == target) else { return };
        let reply = self.probe_way((conn_id, Direction::Reply), &entry.reply, answers_from, pkt.now);
        if let (Some(reply), Some(flows)) = (reply, &mut self.flows) {
            let ways = [original, reply];
            let of_ends = Some(&ways).filter(|ways| ways.iter().all(NotedWay::is_of_ends)).cloned();
            flows.offer_opening(conn_id, ways, next_seq, &mut self.engine, pkt.now);
            if let Some(ways) = of_ends {
                self.learn_class(conn_id, pkt, target, ways);
            }
        }
    }

    /// The way that the next packet of a connection would take.
    fn probe_way(
        &mut self,
        (conn_id, direction): (ConnId, Direction),
        tuple: &Tuple,
        source: FlowSource,
        now: Instant,
    ) -> Option<NotedWay> {
        let mut segment = [0; 20];
        segment[..2].copy_from_slice(&tuple.source_key.to_be_bytes());
        segment[2..4].copy_from_slice(&tuple.destination_key.to_be_bytes());
        (segment[12], segment[13]) = (5 << 4, TcpFlags::ACK);
        let bytes = build_tcp_segment(tuple.source, tuple.destination, segment.to_vec())?;
        let probe_ctx = Some(self.engine.established_ctx(conn_id, direction));
        let meta = PacketMeta { is_probe: true, ..PacketMeta::default() };
        let mut pkt = InFlightPacket { bytes, meta, probe_ctx, now, ..InFlightPacket::default() };
        let passed = match source {
            FlowSource::Interface(iif) => {
                pkt.meta.iif = self.fib.device(iif);
                self.process_packet(&mut pkt)
            }
            FlowSource::Host(oif) => {
                pkt.meta.oif = self.fib.device(oif);
                (pkt.is_output, pkt.meta.is_sent) = (true, true);
                self.process_output(&mut pkt, oif)
            }
        };
        passed.ok().and(pkt.probed)
    }
}

/// The sequence number behind a plain SYN: without data, which would be a client's that does not wait for the answer.
fn seq_after_syn(packet: &Packet<'_>) -> Option<u32> {
    const KINDS: u8 = TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST | TcpFlags::ACK | TcpFlags::URG;
    let transport = packet.transport();
    let [_, _, _, _, s0, s1, s2, s3, _, _, _, _, length, flags, ..] = *transport else { return None };
    let is_plain = packet.protocol() == 6 && flags & KINDS == TcpFlags::SYN;
    let is_empty = packet.transport_len() == usize::from(length >> 4) * 4;
    (is_plain && is_empty).then(|| u32::from_be_bytes([s0, s1, s2, s3]).wrapping_add(1))
}

/// A segment of which there are the headers alone.
fn parse_headers(headers: &[u8]) -> Option<Packet<'_>> {
    let total = match *headers {
        [first, _, h, l, ..] if first >> 4 == 4 => usize::from(u16::from_be_bytes([h, l])),
        [_, _, _, _, h, l, ..] => 40 + usize::from(u16::from_be_bytes([h, l])),
        _ => return None,
    };
    Packet::parse_snapped(headers, total).ok().map(Packet::checksum_unnecessary)
}

#[cfg(test)]
mod tests;
