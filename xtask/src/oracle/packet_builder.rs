//! Builds packets, valid or deliberately not. It must share nothing with the crates under test, checksums least of all.
use std::net::IpAddr;

/// Protocol numbers.
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const FRAGMENT: u8 = 44;
pub const GRE: u8 = 47;
pub const ICMPV6: u8 = 58;
pub const SCTP: u8 = 132;
pub const UDPLITE: u8 = 136;

/// Source and destination of a packet, of the same family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketEndpoints {
    pub source: IpAddr,
    pub destination: IpAddr,
}

impl PacketEndpoints {
    /// Source and destination exchanged.
    pub fn reverse(self) -> PacketEndpoints {
        PacketEndpoints { source: self.destination, destination: self.source }
    }

    pub fn is_ipv6(self) -> bool {
        self.source.is_ipv6()
    }
}

/// The IP header around the transport part.
#[derive(Clone, Debug, Default)]
pub struct IpHeaderSpec {
    /// The IPv4 identification or the IPv6 flow label: identifies the packet when it is forwarded.
    pub ident: u32,
    /// IPv4 options, or IPv6 extension headers as (type, bytes of the header except the first).
    pub options: Vec<u8>,
    pub extensions: Vec<(u8, Vec<u8>)>,
}

pub fn sum_words(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum()
}

pub fn fold_checksum(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The bytes of an address.
pub fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The Internet checksum over the pseudo-header and `transport`.
pub fn checksum(ends: PacketEndpoints, protocol: u8, transport: &[u8]) -> u16 {
    if protocol == ICMP {
        fold_checksum(sum_words(transport))
    } else {
        checksum_over(ends, protocol, transport.len(), transport)
    }
}

/// The Internet checksum over `covered` and a pseudo-header with `protocol` and `length`.
pub fn checksum_over(ends: PacketEndpoints, protocol: u8, length: usize, covered: &[u8]) -> u16 {
    let addresses = sum_words(&address_bytes(ends.source)) + sum_words(&address_bytes(ends.destination));
    fold_checksum(sum_words(covered) + addresses + u64::from(protocol) + length as u64)
}

/// CRC32c, bit by bit: SCTP's checksum.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// A complete IP packet around `transport`.
pub fn ip_packet(ends: PacketEndpoints, protocol: u8, transport: &[u8], envelope: &IpHeaderSpec) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(60 + transport.len());
    if ends.is_ipv6() {
        let mut chain = Vec::new();
        for (at, (_, rest)) in envelope.extensions.iter().enumerate() {
            chain.push(envelope.extensions.get(at + 1).map_or(protocol, |next| next.0));
            chain.extend_from_slice(rest);
        }
        let first = envelope.extensions.first().map_or(protocol, |next| next.0);
        bytes.extend_from_slice(&(0x6000_0000 | envelope.ident & 0xf_ffff).to_be_bytes());
        bytes.extend_from_slice(&((chain.len() + transport.len()) as u16).to_be_bytes());
        bytes.extend_from_slice(&[first, 64]);
        bytes.extend(address_bytes(ends.source));
        bytes.extend(address_bytes(ends.destination));
        bytes.extend(chain);
    } else {
        let mut options = envelope.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let header = 20 + options.len();
        bytes.extend_from_slice(&[0x40 | (header / 4) as u8, 0]);
        bytes.extend_from_slice(&((header + transport.len()) as u16).to_be_bytes());
        bytes.extend_from_slice(&(envelope.ident as u16).to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 64, protocol, 0, 0]);
        bytes.extend(address_bytes(ends.source));
        bytes.extend(address_bytes(ends.destination));
        bytes.extend(options);
        update_header_checksum(&mut bytes);
    }
    bytes.extend_from_slice(transport);
    bytes
}

/// Writes the header checksum of an IPv4 packet; does nothing for IPv6.
pub fn update_header_checksum(bytes: &mut [u8]) {
    if bytes[0] >> 4 == 4 {
        bytes[10..12].fill(0);
        let header = usize::from(bytes[0] & 15) * 4;
        let check = fold_checksum(sum_words(&bytes[..header]));
        bytes[10..12].copy_from_slice(&check.to_be_bytes());
    }
}

/// Fragments a packet after each of `cuts` bytes (multiples of eight) of its payload. An IPv6 packet must have no extension headers.
pub fn fragment_packet(whole: &[u8], cuts: &[usize], ident: u32) -> Vec<Vec<u8>> {
    let v6 = whole[0] >> 4 == 6;
    let header = if v6 { 40 } else { usize::from(whole[0] & 15) * 4 };
    let payload = &whole[header..];
    let mut bounds = vec![0];
    bounds.extend(cuts.iter().copied().filter(|cut| *cut < payload.len()));
    bounds.push(payload.len());
    let pieces = bounds.windows(2).map(|pair| (pair[0], &payload[pair[0]..pair[1]], pair[1] < payload.len()));
    let cut = |(offset, data, more): (usize, &[u8], bool)| {
        let mut piece = whole[..header].to_vec();
        if v6 {
            piece[4..6].copy_from_slice(&((data.len() + 8) as u16).to_be_bytes());
            let next = piece[6];
            piece[6] = FRAGMENT;
            piece.extend_from_slice(&[next, 0]);
            piece.extend_from_slice(&(offset as u16 | u16::from(more)).to_be_bytes());
            piece.extend_from_slice(&ident.to_be_bytes());
        } else {
            piece[2..4].copy_from_slice(&((header + data.len()) as u16).to_be_bytes());
            piece[6..8].copy_from_slice(&((offset / 8) as u16 | u16::from(more) << 13).to_be_bytes());
            update_header_checksum(&mut piece);
        }
        piece.extend_from_slice(data);
        piece
    };
    pieces.map(cut).collect()
}

/// One TCP segment; `offset` overrides the data offset, in words.
#[derive(Clone, Debug, Default)]
pub struct OracleSegment {
    pub source: u16,
    pub destination: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub options: Vec<u8>,
    pub data_len: usize,
    pub data_offset: Option<u8>,
    pub bad_checksum: bool,
    /// Truncate the segment to this many bytes.
    pub truncate_to: Option<usize>,
}

impl OracleSegment {
    /// The transport part of a packet between `ends`.
    pub fn to_bytes(&self, ends: PacketEndpoints) -> Vec<u8> {
        let mut options = self.options.clone();
        options.truncate(40);
        options.resize(options.len().next_multiple_of(4), 0);
        let words = self.data_offset.unwrap_or((5 + options.len() / 4) as u8);
        let mut bytes = Vec::with_capacity(60 + self.data_len);
        bytes.extend_from_slice(&self.source.to_be_bytes());
        bytes.extend_from_slice(&self.destination.to_be_bytes());
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.ack.to_be_bytes());
        bytes.extend_from_slice(&[words << 4, self.flags]);
        bytes.extend_from_slice(&self.window.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend(options);
        bytes.resize(bytes.len() + self.data_len, b'k');
        bytes.truncate(self.truncate_to.unwrap_or(usize::MAX));
        write_checksum(&mut bytes, 16, ends, TCP, self.bad_checksum);
        bytes
    }
}

/// Writes the Internet checksum at `at`, or a wrong one.
pub fn write_checksum(bytes: &mut [u8], at: usize, ends: PacketEndpoints, protocol: u8, wrong: bool) {
    if bytes.len() < at + 2 {
        return;
    }
    bytes[at..at + 2].fill(0);
    let mut check = checksum(ends, protocol, bytes);
    if check == 0 && protocol == UDP {
        check = 0xffff;
    }
    if wrong {
        check = check.wrapping_add(1).max(1);
    }
    bytes[at..at + 2].copy_from_slice(&check.to_be_bytes());
}
