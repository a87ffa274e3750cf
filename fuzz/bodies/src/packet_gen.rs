//! Builds packets with correct checksums.

use keepstate_wire::checksum::{self, Sum};

/// Source or destination of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Number of the host, of a few in a scenario; odd hosts are servers.
    pub host: u8,
    /// Its port.
    pub port: u16,
}

/// A packet of `protocol` from `source` to `destination`, over IPv6 or IPv4.
pub fn ip_packet(ipv6: bool, source: u8, destination: u8, protocol: u8, mut transport: Vec<u8>) -> Vec<u8> {
    let (source, destination) = (address(ipv6, source), address(ipv6, destination));
    let len = transport.len() as u16;
    let pseudo = Sum::new().add_bytes(&source).add_bytes(&destination).add_u16(len).add_u16(u16::from(protocol));
    match protocol {
        6 => write_checksum(&mut transport, 16, pseudo),
        17 => write_checksum(&mut transport, 6, pseudo),
        1 => write_checksum(&mut transport, 2, Sum::new()),
        58 => write_checksum(&mut transport, 2, pseudo),
        132 => {
            if let (Some(crc), Some(field)) = (checksum::sctp_crc32c(&transport), transport.get_mut(8..12)) {
                field.copy_from_slice(&crc.to_le_bytes());
            }
        }
        _ => {}
    }
    let mut bytes = Vec::with_capacity(40 + transport.len());
    if ipv6 {
        bytes.extend([0x60, 0, 0, 0]);
        bytes.extend(len.to_be_bytes());
        bytes.extend([protocol, 64]);
        bytes.extend(source);
        bytes.extend(destination);
    } else {
        bytes.extend([0x45, 0]);
        bytes.extend((20 + len).to_be_bytes());
        bytes.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
        bytes.extend(source);
        bytes.extend(destination);
        write_checksum(&mut bytes, 10, Sum::new());
    }
    bytes.extend(transport);
    bytes
}

/// The fields of a TCP segment.
pub struct TcpSegmentSpec<'a> {
    /// Source and destination port.
    pub ports: (u16, u16),
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// The flag byte.
    pub flags: u8,
    /// The window field.
    pub window: u16,
    /// TCP options; anything over forty bytes, or not a multiple of four, is cut off.
    pub options: &'a [u8],
    /// Number of data bytes.
    pub data: usize,
}

impl TcpSegmentSpec<'_> {
    /// The segment, without checksum.
    pub fn to_bytes(&self) -> Vec<u8> {
        let options = &self.options[..self.options.len().min(40) / 4 * 4];
        let mut bytes = ports(self.ports);
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.extend([((20 + options.len()) / 4 * 16) as u8, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(options);
        bytes.resize(bytes.len() + self.data, 0x6b);
        bytes
    }
}

/// A UDP packet, without checksum.
pub fn udp(between: (u16, u16), data: usize) -> Vec<u8> {
    let mut bytes = ports(between);
    bytes.extend(((8 + data) as u16).to_be_bytes());
    bytes.extend([0; 2]);
    bytes.resize(8 + data, 0x6b);
    bytes
}

/// An SCTP packet with one chunk, without checksum.
pub fn sctp(between: (u16, u16), tag: u32, kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = ports(between);
    bytes.extend(tag.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend([kind, flags]);
    bytes.extend(((4 + value.len()) as u16).to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An ICMP or ICMPv6 message, without checksum.
pub fn icmp(kind: u8, code: u8, id: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(id.to_be_bytes());
    bytes.extend([0; 2]);
    bytes.extend(body);
    bytes
}

fn ports((source, destination): (u16, u16)) -> Vec<u8> {
    [source.to_be_bytes(), destination.to_be_bytes()].concat()
}

/// Writes the checksum of `bytes` into the two bytes at `at`, which must be zero before.
fn write_checksum(bytes: &mut [u8], at: usize, sum: Sum) {
    let check = sum.add_bytes(bytes).finish();
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&check.to_be_bytes());
    }
}

fn address(ipv6: bool, host: u8) -> Vec<u8> {
    if ipv6 {
        // 2001:db8::/32 is for documentation (RFC 3849), as is 192.0.2.0/24 (RFC 5737).
        let mut address = vec![0x20, 0x01, 0x0d, 0xb8];
        address.resize(15, 0);
        address.push(host);
        address
    } else {
        vec![192, 0, 2, host]
    }
}

/// A fragment of packet `id` from host 2 to host 1: `bytes` at offset `start`, and whether more follow.
pub fn fragment(ipv6: bool, id: u8, start: u16, more: bool, bytes: Vec<u8>) -> Vec<u8> {
    const EXPERIMENT: u8 = 253;
    if ipv6 {
        let mut transport = vec![EXPERIMENT, 0];
        transport.extend((start | u16::from(more)).to_be_bytes());
        transport.extend([0, 0, 0, id]);
        transport.extend(bytes);
        return ip_packet(true, 2, 1, 44, transport);
    }
    let mut bytes = ip_packet(false, 2, 1, EXPERIMENT, bytes);
    bytes[4..6].copy_from_slice(&[0, id]);
    let place = (start / 8) | u16::from(more) << 13;
    bytes[6..8].copy_from_slice(&place.to_be_bytes());
    bytes[10..12].fill(0);
    write_checksum(&mut bytes[..20], 10, Sum::new());
    bytes
}
