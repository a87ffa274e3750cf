//! The two ends of an FTP control connection. Each tracks what it received from the other, since NAT may change everything.
use std::net::{IpAddr, SocketAddr};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

/// One end of a TCP connection.
#[derive(Clone, Debug)]
pub struct TcpPeer {
    /// The router interface that the peer is behind.
    pub device: usize,
    pub own: SocketAddr,
    pub other: SocketAddr,
    /// Next sequence number to send.
    pub next_seq: u32,
    /// Next sequence number expected from the other end.
    pub rcv_next: u32,
}

impl TcpPeer {
    /// Builds a segment from this peer; with a SACK option unless `sacks` is empty.
    pub fn segment(&self, seq: u32, flags: u8, data: &[u8], sacks: &[(u32, u32)]) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend(self.own.port().to_be_bytes());
        body.extend(self.other.port().to_be_bytes());
        body.extend(seq.to_be_bytes());
        body.extend((if flags & ACK == 0 { 0 } else { self.rcv_next }).to_be_bytes());
        let mut options = Vec::new();
        if flags & SYN != 0 {
            options.extend([2, 4, 5, 180, 1, 1, 4, 2]);
        } else if !sacks.is_empty() {
            options.extend([1, 1, 5, 2 + 8 * sacks.len() as u8]);
            for (left, right) in sacks {
                options.extend(left.to_be_bytes());
                options.extend(right.to_be_bytes());
            }
        }
        body.extend([((20 + options.len()) as u8 / 4) << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        body.extend(options);
        body.extend(data);
        ip_packet(self.own.ip(), self.other.ip(), body)
    }

    /// Receives a segment. False if it is not from the other end.
    pub fn receive(&mut self, segment: &ParsedSegment<'_>) -> bool {
        let end = segment.seq.wrapping_add(segment.data.len() as u32).wrapping_add(u32::from(segment.flags & SYN != 0));
        if (end.wrapping_sub(self.rcv_next) as i32) > 0 || segment.flags & SYN != 0 {
            self.rcv_next = end;
        }
        segment.source == self.other && segment.destination == self.own
    }
}

/// A parsed segment.
#[derive(Debug)]
pub struct ParsedSegment<'a> {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub seq: u32,
    pub flags: u8,
    pub data: &'a [u8],
}

pub fn parse_segment(bytes: &[u8]) -> ParsedSegment<'_> {
    let v6 = bytes[0] >> 4 == 6;
    let (source, destination, at): (IpAddr, IpAddr, usize) = match v6 {
        false => {
            let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap());
            (address(12), address(16), 20)
        }
        true => {
            let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap());
            (address(8), address(24), 40)
        }
    };
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    ParsedSegment {
        source: SocketAddr::new(source, port(at)),
        destination: SocketAddr::new(destination, port(at + 2)),
        seq: u32::from_be_bytes(bytes[at + 4..at + 8].try_into().unwrap()),
        flags: bytes[at + 13],
        data: &bytes[at + usize::from(bytes[at + 12] >> 4) * 4..],
    }
}

fn ip_packet(source: IpAddr, destination: IpAddr, mut body: Vec<u8>) -> Vec<u8> {
    let (mut packet, mut covered) = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = vec![0x45, 0];
            header.extend((20 + body.len() as u16).to_be_bytes());
            header.extend([0, 1, 0x40, 0, 64, 6, 0, 0]);
            let both = [source.octets(), destination.octets()].concat();
            header.extend(&both);
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            (header, both)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend((body.len() as u16).to_be_bytes());
            header.extend([6, 64]);
            let both = [source.octets(), destination.octets()].concat();
            header.extend(&both);
            (header, both)
        }
        _ => unreachable!("of two families"),
    };
    covered.extend([0, 6]);
    covered.extend((body.len() as u16).to_be_bytes());
    covered.extend(&body);
    let sum = checksum(&covered);
    body[16..18].copy_from_slice(&sum.to_be_bytes());
    packet.extend(body);
    packet
}

pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
