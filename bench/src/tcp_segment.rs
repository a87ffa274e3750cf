//! TCP segments of numbered connections: connection `i` is 10.x.y.z:port → 192.168.0.1:1883, as in Linux's bench.
use keepstate_wire::checksum::Sum;

/// An IPv4 or IPv6 datagram with a TCP segment of at most one octet of data.
#[derive(Clone, Copy)]
pub struct SegmentBuf {
    buffer: [u8; 64],
    length: usize,
}

/// What a segment says.
#[derive(Clone, Copy)]
pub struct SegmentSpec {
    /// From the server?
    pub reply: bool,
    /// TCP flags.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement.
    pub ack: u32,
    /// Carry one octet?
    pub data: bool,
}

impl SegmentBuf {
    /// A place for one.
    pub const EMPTY: SegmentBuf = SegmentBuf { buffer: [0; 64], length: 0 };

    /// The datagram.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    /// Writes the segment `say` of `connection`, checksums and all.
    pub fn write(&mut self, connection: u32, ipv6: bool, say: SegmentSpec) {
        let [_, a, b, c] = connection.to_be_bytes();
        // Ten million hosts at most; beyond, the port tells connections apart.
        let host = connection.to_be_bytes()[0];
        let port = 1024 + (connection.wrapping_mul(7919) % 60000) as u16;
        let (mut client, mut server) = ((port, [10 + host, a, b, c]), (1883, [192, 168, 0, 1]));
        if say.reply {
            (client, server) = (server, client);
        }
        let header = if ipv6 { 40 } else { 20 };
        self.length = header + 20 + usize::from(say.data);
        self.buffer = [0; 64];
        let transport = (20 + u16::from(say.data)).to_be_bytes();
        let octets = &mut self.buffer;
        if ipv6 {
            octets[..8].copy_from_slice(&[0x60, 0, 0, 0, transport[0], transport[1], 6, 64]);
            octets[8..10].copy_from_slice(&[0xfd, 0]);
            octets[20..24].copy_from_slice(&client.1);
            octets[24..26].copy_from_slice(&[0xfd, 0]);
            octets[36..40].copy_from_slice(&server.1);
        } else {
            octets[..12].copy_from_slice(&[0x45, 0, 0, 20 + transport[1], 0, 0, 0x40, 0, 64, 6, 0, 0]);
            octets[12..16].copy_from_slice(&client.1);
            octets[16..20].copy_from_slice(&server.1);
            let check = Sum::new().add_bytes(&octets[..20]).finish().to_be_bytes();
            octets[10..12].copy_from_slice(&check);
        }
        let addresses = if ipv6 { 8..40 } else { 12..20 };
        let pseudo = Sum::new().add_bytes(&octets[addresses]).add_u16(6).add_u16(u16::from_be_bytes(transport));
        let segment = &mut octets[header..self.length];
        segment[0..2].copy_from_slice(&client.0.to_be_bytes());
        segment[2..4].copy_from_slice(&server.0.to_be_bytes());
        segment[4..8].copy_from_slice(&say.seq.to_be_bytes());
        segment[8..12].copy_from_slice(&say.ack.to_be_bytes());
        segment[12..16].copy_from_slice(&[0x50, say.flags, 0xff, 0xff]);
        let check = pseudo.add_bytes(segment).finish().to_be_bytes();
        segment[16..18].copy_from_slice(&check);
    }
}
