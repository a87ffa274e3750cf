//! What a control channel says, on its way through the rules: Linux lets a helper hear a packet only after the last rule has passed it.
//!
//! A [`HelperPacket`] is a copy of one segment's data. It is made when the segment of a connection with a helper was tracked, owned by the packet, and
//! heard when the packet is confirmed; if a rule drops the packet, nobody has heard it. Where the connection is translated, what was announced is written anew
//! into the packet, and the numbers of all that follows are shifted.
use crate::{ConnId, Direction, Status};
use alloc::boxed::Box;
use keepstate_types::ipproto;
use keepstate_wire::{Packet, tcp};

/// Said by one end of a connection with a helper; nothing, perhaps, where only its numbers are to be shifted.
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
        if packet.protocol() != ipproto::TCP {
            return None;
        }
        let segment = tcp::TcpSegment::parse(packet.transport(), packet.transport_len()).ok()?;
        let whole = segment.data.len() == segment.data_len;
        let whole = whole && status.contains(Status::HELPER);
        let wanted = whole && !segment.data.is_empty() || status.contains(Status::SEQ_ADJUST);
        let data = if whole { segment.data } else { &[] };
        wanted.then(|| HelperPacket { connection, direction, seq: segment.seq, data: data.into() })
    }
}
