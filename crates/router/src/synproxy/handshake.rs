//! Both halves of a proxied handshake, put together when the server has answered.
use super::segment::{OutgoingSegment, SynproxyOptions, endpoints};
use keepstate_engine::SynproxyState;
use keepstate_wire::Packet;
use keepstate_wire::tcp::{TcpFlags, TcpSegment};

/// What both ends are told when the server has answered.
pub(crate) struct HandshakeAcks {
    pub(crate) to_server: OutgoingSegment,
    pub(crate) to_client: OutgoingSegment,
}

impl HandshakeAcks {
    pub(crate) fn build(packet: &Packet<'_>, segment: &TcpSegment<'_>, promise: &SynproxyState) -> HandshakeAcks {
        let [server, client] = endpoints(packet, segment);
        let said = SynproxyOptions::parse(segment);
        let options = |clocks| SynproxyOptions { timestamps: clocks, ..SynproxyOptions::default() };
        let to_server = OutgoingSegment {
            from: client,
            to: server,
            seq: segment.ack,
            ack: segment.seq.wrapping_add(1),
            flags: TcpFlags::ACK,
            window: promise.window.max(1),
            options: options(said.timestamps.map(|(clock, echo)| (echo, clock))),
        };
        let to_client = OutgoingSegment {
            from: server,
            to: client,
            seq: promise.isn.wrapping_add(1),
            ack: segment.ack,
            flags: TcpFlags::ACK,
            window: segment.window >> said.wscale.unwrap_or(0),
            // The server's clock as it will be shown from now on begins with what was promised.
            options: options(said.timestamps.map(|(_, echo)| (promise.initial_timestamp, echo))),
        };
        HandshakeAcks { to_server, to_client }
    }
}
