//! The payload for a connection's helper while its packet traverses the rules: Linux runs a helper only after the last rule has accepted the packet.
//!
//! A [`HelperPacket`] is a copy of one segment's payload. It is created when the segment is tracked, if the connection has a helper; it is owned by the packet, and
//! parsed when the packet is confirmed. A datagram that begins a connection is parsed then, too. If a rule drops the packet, the helper does not run. If the connection is translated, the announcement is rewritten
//! in the packet, and the sequence numbers of later segments are adjusted.
use crate::{ConnId, Direction, Status};
use alloc::boxed::Box;
use keepstate_types::ipproto;
use keepstate_wire::{Packet, tcp};

const UDP_HEADER_LEN: usize = 8;

/// Payload from one end of a connection with a helper; empty if only sequence numbers are to be adjusted.
#[derive(Debug)]
pub(crate) struct HelperPacket {
    pub(crate) connection: ConnId,
    pub(crate) direction: Direction,
    pub(crate) seq: u32,
    pub(crate) data: Box<[u8]>,
}

impl HelperPacket {
    #[cold]
    pub(crate) fn copy_payload(
        packet: &Packet<'_>,
        connection: ConnId,
        direction: Direction,
        status: Status,
    ) -> Option<HelperPacket> {
        if packet.protocol() == ipproto::UDP {
            let data = packet.transport().get(UDP_HEADER_LEN..).filter(|_| status.contains(Status::HELPER))?;
            return Some(HelperPacket { connection, direction, seq: 0, data: data.into() });
        }
        if packet.protocol() != ipproto::TCP {
            return None;
        }
        let segment = tcp::TcpSegment::parse(packet.transport(), packet.transport_len()).ok()?;
        let complete = segment.data.len() == segment.data_len;
        let complete = complete && status.contains(Status::HELPER);
        let wanted = complete && !segment.data.is_empty() || status.contains(Status::SEQ_ADJUST);
        let data = if complete { segment.data } else { &[] };
        wanted.then(|| HelperPacket { connection, direction, seq: segment.seq, data: data.into() })
    }
}
