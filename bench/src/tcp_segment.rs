//! Packets of numbered connections: connection `i` is 10.x.y.z:port → 192.168.0.1:1883, as in the kernel benchmark.
use keepstate_wire::checksum::Sum;

/// An IPv4 or IPv6 packet with a TCP segment or a UDP datagram of at most one byte of data.
#[derive(Clone, Copy)]
pub struct SegmentBuf {
    buffer: [u8; 64],
    length: usize,
}

/// The fields of a segment.
#[derive(Clone, Copy)]
pub struct SegmentSpec {
    /// From the server to the client.
    pub reply: bool,
    /// TCP flags.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement.
    pub ack: u32,
    /// With one byte of data.
    pub data: bool,
}

/// What the packets of a connection have in common.
#[derive(Clone, Copy, Default)]
pub struct FlowSpec {
    /// The number of the connection.
    pub connection: u32,
    pub ipv6: bool,
    pub udp: bool,
    /// Replies go to the address that [`translated_address`] gives.
    pub translated: bool,
}

/// The address in place of the client's in translated connections.
pub fn translated_address(connection: u32) -> [u8; 4] {
    let [host, a, b, c] = connection.to_be_bytes();
    [100 + host, a, b, c]
}

impl SegmentBuf {
    /// An empty packet.
    pub const EMPTY: SegmentBuf = SegmentBuf { buffer: [0; 64], length: 0 };

    /// The packet.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    /// Writes a packet of `flow`, with checksums. Of a UDP datagram only the direction and the data count.
    pub fn write(&mut self, flow: FlowSpec, say: SegmentSpec) {
        let FlowSpec { connection, ipv6, udp, translated } = flow;
        let [_, a, b, c] = connection.to_be_bytes();
        // At most ten million hosts; beyond that, ports distinguish the connections.
        let host = connection.to_be_bytes()[0];
        let port = 1024 + (connection.wrapping_mul(7919) % 60000) as u16;
        let (mut client, mut server) = ((port, [10 + host, a, b, c]), (1883, [192, 168, 0, 1]));
        if say.reply {
            if translated {
                client.1 = translated_address(connection);
            }
            (client, server) = (server, client);
        }
        let header = if ipv6 { 40 } else { 20 };
        let (protocol, transport_header) = if udp { (17, 8) } else { (6, 20) };
        let transport_len = transport_header + u16::from(say.data);
        self.length = header + usize::from(transport_len);
        self.buffer = [0; 64];
        let transport = transport_len.to_be_bytes();
        let bytes = &mut self.buffer;
        if ipv6 {
            bytes[..8].copy_from_slice(&[0x60, 0, 0, 0, transport[0], transport[1], protocol, 64]);
            bytes[8..10].copy_from_slice(&[0xfd, 0]);
            bytes[20..24].copy_from_slice(&client.1);
            bytes[24..26].copy_from_slice(&[0xfd, 0]);
            bytes[36..40].copy_from_slice(&server.1);
        } else {
            bytes[..12].copy_from_slice(&[0x45, 0, 0, 20 + transport[1], 0, 0, 0x40, 0, 64, protocol, 0, 0]);
            bytes[12..16].copy_from_slice(&client.1);
            bytes[16..20].copy_from_slice(&server.1);
            let check = Sum::new().add_bytes(&bytes[..20]).finish().to_be_bytes();
            bytes[10..12].copy_from_slice(&check);
        }
        let addresses = if ipv6 { 8..40 } else { 12..20 };
        let pseudo =
            Sum::new().add_bytes(&bytes[addresses]).add_u16(u16::from(protocol)).add_u16(u16::from_be_bytes(transport));
        let segment = &mut bytes[header..self.length];
        segment[0..2].copy_from_slice(&client.0.to_be_bytes());
        segment[2..4].copy_from_slice(&server.0.to_be_bytes());
        let check_at = if udp {
            segment[4..6].copy_from_slice(&transport);
            6
        } else {
            segment[4..8].copy_from_slice(&say.seq.to_be_bytes());
            segment[8..12].copy_from_slice(&say.ack.to_be_bytes());
            segment[12..16].copy_from_slice(&[0x50, say.flags, 0xff, 0xff]);
            16
        };
        let check = pseudo.add_bytes(segment).finish().to_be_bytes();
        segment[check_at..check_at + 2].copy_from_slice(&check);
    }
}
