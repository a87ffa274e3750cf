//! The end of a proxied handshake: the two acknowledgements after the server's SYN+ACK.
use super::segment::{OutgoingSegment, SynproxyOptions, endpoints};
use keepstate_engine::SynproxyState;
use keepstate_wire::Packet;
use keepstate_wire::tcp::{TcpFlags, TcpSegment};

/// The acknowledgements to the server and to the client.
pub(crate) struct HandshakeAcks {
    pub(crate) to_server: OutgoingSegment,
    pub(crate) to_client: OutgoingSegment,
}

impl HandshakeAcks {
    pub(crate) fn build(packet: &Packet<'_>, segment: &TcpSegment<'_>, state: &SynproxyState) -> HandshakeAcks {
        let [server, client] = endpoints(packet, segment);
        let parsed = SynproxyOptions::parse(segment);
        let options = |clocks| SynproxyOptions { timestamps: clocks, ..SynproxyOptions::default() };
        let to_server = OutgoingSegment {
            from: client,
            to: server,
            seq: segment.ack,
            ack: segment.seq.wrapping_add(1),
            flags: TcpFlags::ACK,
            window: state.window.max(1),
            options: options(parsed.timestamps.map(|(clock, echo)| (echo, clock))),
        };
        let to_client = OutgoingSegment {
            from: server,
            to: client,
            seq: state.isn.wrapping_add(1),
            ack: segment.ack,
            flags: TcpFlags::ACK,
            window: segment.window >> parsed.wscale.unwrap_or(0),
            // The server's timestamps, as the client sees them, begin with the one sent with the cookie.
            options: options(parsed.timestamps.map(|(_, echo)| (state.initial_timestamp, echo))),
        };
        HandshakeAcks { to_server, to_client }
    }
}
