//! Synproxy in the router: SYN cookies to clients, the SYN in a client's name, and the completed handshake when the server has answered.
use super::Router;
use super::drop_reason::DropReason;
use super::packet::InFlightPacket;
use crate::icmp_error;
use crate::synproxy::{HandshakeAcks, OutgoingSegment, SynproxyOptions};
use keepstate_engine::{Direction, TcpState};
use keepstate_rules::ast::SynproxyInfo;
use keepstate_wire::tcp::{TcpFlags, TcpSegment};
use keepstate_wire::{Packet, rewrite::PacketMut};

impl Router {
    /// A SYN, or its acknowledgement, that a rule passes to synproxy. It is dropped in any case; the reason tells what became of it.
    pub(crate) fn synproxy_answer(&mut self, rule: &SynproxyInfo, pkt: &InFlightPacket) -> DropReason {
        let Ok(packet) = pkt.packet() else { return DropReason::Malformed };
        let Ok(segment) = TcpSegment::parse(packet.transport(), packet.transport_len()) else {
            return DropReason::Malformed;
        };
        if !segment.flags.any(TcpFlags::SYN) {
            return self.recv_client_ack(&packet, &segment, segment.seq.wrapping_sub(1), pkt);
        }
        let synack = self.syn_cookies.syn_ack(&packet, &segment, rule, pkt.now);
        if let Some(synack) = build_packet(&synack) {
            self.send_reply(synack, pkt);
        }
        DropReason::SynproxyAnswered
    }

    /// An acknowledgement of a client whose initial sequence number was `first`.
    fn recv_client_ack(
        &mut self,
        packet: &Packet<'_>,
        segment: &TcpSegment<'_>,
        first: u32,
        pkt: &InFlightPacket,
    ) -> DropReason {
        let Some((syn, promise)) = self.syn_cookies.verify_ack(packet, segment, first, pkt.now) else {
            return DropReason::SynproxyBadCookie;
        };
        if let Some(syn) = build_packet(&syn) {
            self.local_out(syn, None, Some(promise), pkt.now);
        }
        DropReason::SynproxyAnswered
    }

    /// After the last rule: handles packets of connections that synproxy has begun, until the handshake is complete.
    pub(crate) fn synproxy_hook(&mut self, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        let Some(ctx) = &mut pkt.ctx else { return Ok(()) };
        let Some((promise, state)) = self.engine.synproxy_state(ctx) else { return Ok(()) };
        let (direction, lives) = (ctx.direction(), ctx.connection().is_some());
        let packet = pkt.packet()?;
        let segment =
            TcpSegment::parse(packet.transport(), packet.transport_len()).map_err(|_| DropReason::Malformed)?;
        let (syn, ack) = (segment.flags.any(TcpFlags::SYN), segment.flags.any(TcpFlags::ACK));
        match (state, direction) {
            // A retransmission before the server has answered. A keepalive is one behind.
            (TcpState::SynSent, Some(Direction::Original)) if ack && !syn => {
                self.syn_cookies.count_retransmission();
                Err(self.recv_client_ack(&packet, &segment, segment.seq, pkt))
            }
            (TcpState::SynRecv, Some(Direction::Reply)) if syn && ack => {
                let halves = HandshakeAcks::build(&packet, &segment, &promise);
                let (first, clock) = (segment.seq, SynproxyOptions::parse(&segment).timestamps.map(|(clock, _)| clock));
                self.complete_handshake(&halves, (first, clock), pkt);
                Err(DropReason::SynproxyAnswered)
            }
            // The server resets: the client expects the sequence number of the cookie.
            (TcpState::Close, Some(Direction::Reply)) if segment.flags.any(TcpFlags::RST) && !lives => {
                let mut rewrite = PacketMut::new(&mut pkt.bytes).map_err(|_| DropReason::Malformed)?;
                let next = promise.isn.wrapping_add(1);
                if rewrite.adjust_seq(|_| next, |ack| ack) { Ok(()) } else { Err(DropReason::Malformed) }
            }
            _ => Ok(()),
        }
    }

    /// Acknowledges to the server, and opens the client's window.
    fn complete_handshake(&mut self, halves: &HandshakeAcks, answered: (u32, Option<u32>), pkt: &mut InFlightPacket) {
        let Some(mut ctx) = pkt.ctx.take() else { return };
        if let Some(ack) = build_packet(&halves.to_server) {
            self.local_out(ack, None, None, pkt.now);
        }
        self.engine.synproxy_adjust_server(&mut ctx, answered.0, answered.1);
        if let Some(ack) = build_packet(&halves.to_client) {
            self.local_out(ack, Some(ctx.same_direction_ctx()), None, pkt.now);
        }
    }
}

fn build_packet(sending: &OutgoingSegment) -> Option<Vec<u8>> {
    icmp_error::build_tcp_segment(sending.from.0, sending.to.0, sending.to_bytes())
}
