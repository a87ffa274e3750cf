//! Random traffic for the rulesets: clients inside and outside, and replies made from the packets that leave.
//!
//! The traffic is generated from a seed. A packet that leaves through an interface may get a reply, as from the program at the other end; so both routers receive the
//! same packets as long as their output is the same.

use keepstate_test_support::SplitMix64;

/// The random choices of the traffic.
pub struct TrafficRng {
    numbers: SplitMix64,
    /// Number of requests to the router's own addresses.
    local_requests: u16,
}

impl TrafficRng {
    pub fn new(seed: u64) -> TrafficRng {
        TrafficRng { numbers: SplitMix64(seed), local_requests: 0 }
    }

    pub fn below(&mut self, below: usize) -> usize {
        self.numbers.below(below)
    }

    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        self.numbers.pick(list)
    }
}

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

pub type Address = [u8; 16];

/// A packet that begins a flow, and the interface it arrives on.
pub fn new_packet(dice: &mut TrafficRng) -> (usize, Vec<u8>) {
    let v6 = dice.below(5) == 0;
    let inside = dice.below(3) > 0;
    let (near, far) = if v6 {
        (
            pick_v6(&["fd00:1::2", "fd00:1::3", "fd00:1::9"], dice),
            pick_v6(&["2001:db8:f::9", "2001:db8::7", "fc00::5"], dice),
        )
    } else {
        (
            pick_v4(&["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.77", "100.64.0.5"], dice),
            pick_v4(
                &["198.51.100.9", "192.0.2.7", "203.0.113.5", "169.254.3.4", "10.96.0.1", "10.96.0.10", "10.96.0.99"],
                dice,
            ),
        )
    };
    let us = if v6 {
        pick_v6(&["2001:db8::1", "fd00:1::1"], dice)
    } else {
        pick_v4(&["192.0.2.1", "192.0.2.1", "10.1.0.1", "192.0.2.5"], dice)
    };
    let (device, source, destination) = match (inside, dice.below(6)) {
        (true, 0) => (0, near, us),
        (true, _) => (0, near, far),
        (false, 0) => (1, far, near),
        (false, _) => (1, far, us),
    };
    let (source, destination) = maybe_martian(v6, source, destination, dice);
    let port = dice.pick(&[
        7, 9, 22, 22, 53, 53, 72, 80, 80, 81, 82, 83, 84, 443, 443, 2222, 5005, 5353, 8050, 8080, 8443, 30443, 546,
    ]);
    // Each host has its own source ports: the port that resolves a clash is random.
    let host = u16::from(source[if v6 { 15 } else { 3 }]) << 4 | u16::from(source[if v6 { 1 } else { 2 }]) & 15;
    // Flows that bypass a translation have their own ports too, or they would clash with translated ones.
    let past = u16::from(!inside && destination == near) * 2048;
    let from = if destination == us {
        // Linux's own stack replies to packets for the router, which changes its table; ours has no stack. So every such request has a new source port.
        dice.local_requests = dice.local_requests % 20_000 + 1;
        12_000 + dice.local_requests
    } else {
        past + dice.pick(&[1024, 40_000]) + host + u16::from(dice.pick(&[0_u8, 1, 2])) * 4096
    };
    let hops = if dice.below(30) == 0 { 1 } else { 64 };
    let length = dice.pick(&[0, 0, 10, 100, 1300, 1480, 3000]);
    let message = match dice.below(10) {
        0..=4 => {
            let flags = dice.pick(&[SYN, SYN, SYN, SYN, SYN, SYN, SYN, ACK, RST, FIN | ACK, SYN | FIN]);
            let first = dice.pick(&[1000, 1000, 900_000_000]);
            tcp(from, port, first, 0, flags, if flags & SYN == 0 { length } else { 0 })
        }
        5..=7 => udp(from, port, length),
        8 => echo(v6, true, host << 2 | dice.below(4) as u16),
        _ => other_protocol(dice),
    };
    let mut packet = ip_packet(v6, source, destination, hops, &message);
    if !v6 && dice.below(3) == 0 {
        // Allow fragmentation.
        packet[6] = 0;
        packet[10..12].fill(0);
        let sum = checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    if dice.below(8) == 0 {
        packet = with_more_headers(v6, packet, dice);
    }
    (device, packet)
}

/// Now and then a martian address.
fn maybe_martian(v6: bool, source: Address, destination: Address, dice: &mut TrafficRng) -> (Address, Address) {
    const SOURCES: [&str; 8] =
        ["127.0.0.1", "0.0.0.0", "0.1.2.3", "224.0.0.9", "255.255.255.255", "240.0.0.9", "10.1.0.1", "10.1.0.255"];
    const SOURCES6: [&str; 4] = ["::1", "::", "ff02::9", "fd00:1::1"];
    const DESTINATIONS: [&str; 4] = ["127.0.0.1", "0.0.0.5", "240.0.0.9", "0.0.0.0"];
    const DESTINATIONS6: [&str; 2] = ["::1", "::"];
    match (dice.below(40), v6) {
        (0, false) => (pick_v4(&SOURCES, dice), destination),
        (0, true) => (pick_v6(&SOURCES6, dice), destination),
        (1, false) => (source, pick_v4(&DESTINATIONS, dice)),
        (1, true) => (source, pick_v6(&DESTINATIONS6, dice)),
        _ => (source, destination),
    }
}

/// Adds an IPv4 option, or up to three IPv6 extension headers.
fn with_more_headers(v6: bool, mut packet: Vec<u8>, dice: &mut TrafficRng) -> Vec<u8> {
    const PADDING: [u8; 6] = [1, 4, 0, 0, 0, 0];
    /// Router alert; no-operation; record route, empty, full, malformed; source route; timestamps; an option of invalid length.
    const OPTIONS: [&[u8]; 15] = [
        &[148, 4, 0, 0],
        &[148, 4, 0, 0],
        &[1, 1, 1, 0],
        &[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[1, 7, 7, 8, 9, 9, 9, 9],
        &[7, 7, 3, 0, 0, 0, 0, 0],
        &[131, 7, 4, 10, 1, 0, 9, 0],
        &[137, 7, 8, 10, 1, 0, 9, 0],
        &[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[68, 12, 13, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        &[68, 12, 5, 3, 198, 51, 100, 9, 0, 0, 0, 0],
        &[68, 12, 5, 3, 10, 1, 0, 1, 0, 0, 0, 0],
        &[68, 12, 5, 2, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0, 7, 1, 1],
        &[148, 9, 0, 0],
    ];
    if !v6 {
        let short = packet.len() < 200;
        // An ICMP error about a long packet includes less of it, by the length of its own options.
        let option = if short { dice.pick(&OPTIONS) } else { OPTIONS[0] };
        packet.splice(20..20, option.iter().copied());
        packet[0] = 0x45 + (option.len() / 4) as u8;
        let length = packet.len() as u16;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[10..12].fill(0);
        let sum = checksum(&packet[..20 + option.len()]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        return packet;
    }
    // Segments left is zero, so the destination does not change.
    let visited = [dice.pick(&[2_u8, 3, 4]), 0, 0, 0, 0, 0];
    let wanted = [(0_u8, PADDING), (60, PADDING), (43, visited)].into_iter().filter(|_| dice.below(2) == 0);
    let headers: Vec<(u8, [u8; 6])> = wanted.collect();
    for (kind, rest) in headers.into_iter().rev() {
        let mut header = vec![packet[6], 0];
        header.extend(rest);
        packet[6] = kind;
        packet.splice(40..40, header);
    }
    let length = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet
}

/// The transport protocol and its offset, after any IPv6 extension headers.
pub fn transport(packet: &[u8]) -> (u8, usize) {
    if packet[0] >> 4 == 4 {
        return (packet[9], usize::from(packet[0] & 15) * 4);
    }
    let (mut next, mut at) = (packet[6], 40);
    while matches!(next, 0 | 43 | 44 | 60) {
        let length = if next == 44 { 8 } else { 8 + usize::from(packet[at + 1]) * 8 };
        next = packet[at];
        at += length;
    }
    (next, at)
}

/// Does it have a record route or timestamp option, or one after the end of options?
pub fn has_recording_options(packet: &[u8]) -> bool {
    packet[0] >> 4 == 4 && packet[0] > 0x45 && (matches!(packet[20], 7 | 68) || matches!(packet[20..22], [0 | 1, 7]))
}

/// Are there options or extension headers?
fn has_more_headers(packet: &[u8]) -> bool {
    if packet[0] >> 4 == 6 { matches!(packet[6], 0 | 43 | 60) } else { packet[0] != 0x45 }
}

/// The other end's reply to `packet`, if any.
pub fn reply_to(packet: &[u8], dice: &mut TrafficRng) -> Option<Vec<u8>> {
    if has_more_headers(packet) {
        return None;
    }
    let v6 = packet[0] >> 4 == 6;
    let (protocol, at) = if v6 { (packet[6], 40) } else { (packet[9], usize::from(packet[0] & 15) * 4) };
    if !v6 && u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0 {
        // A fragment: the other end waits for the rest.
        return None;
    }
    let (source, destination) = endpoints(packet);
    let body = packet.get(at..)?;
    let word = |at: usize| Some(u16::from_be_bytes(*body.get(at..)?.first_chunk()?));
    let long = |at: usize| Some(u32::from_be_bytes(*body.get(at..)?.first_chunk()?));
    if dice.below(8) == 0 {
        return None;
    }
    if dice.below(12) == 0 && !matches!(protocol, 1 | 58) {
        return Some(ip_packet(v6, destination, source, 64, &icmp_error(v6, packet, dice)));
    }
    let message = match protocol {
        6 => {
            let flags = *body.get(13)?;
            let offset = usize::from(*body.get(12)? >> 4) * 4;
            let data = body.len().checked_sub(offset)? as u32;
            let (seq, ack) = (long(4)?, long(8)?);
            let next = seq
                .wrapping_add(data)
                .wrapping_add(u32::from(flags & SYN != 0))
                .wrapping_add(u32::from(flags & FIN != 0));
            let (flags, seq, length) = match flags & (SYN | ACK | FIN | RST) {
                SYN if dice.below(6) == 0 => (RST | ACK, 0, 0),
                SYN => (SYN | ACK, 5000, 0),
                flags if flags & RST != 0 => return None,
                flags if flags & FIN != 0 => (dice.pick(&[FIN | ACK, ACK]), ack, 0),
                _ if dice.below(4) == 0 => (FIN | ACK, ack, 0),
                _ => (ACK | PSH, ack, dice.pick(&[0, 5, 200, 1200])),
            };
            tcp(word(2)?, word(0)?, seq, next, flags, length)
        }
        17 => udp(word(2)?, word(0)?, dice.pick(&[4, 40, 400])),
        1 if body.first() == Some(&8) => echo(v6, false, word(4)?),
        58 if body.first() == Some(&128) => echo(v6, false, word(4)?),
        _ => return None,
    };
    Some(ip_packet(v6, destination, source, 64, &message))
}

/// The packet in fragments of equal length except the last, in random order.
pub fn fragment(packet: &[u8], dice: &mut TrafficRng) -> Vec<Vec<u8>> {
    if has_more_headers(packet) {
        return vec![packet.to_vec()];
    }
    let v6 = packet[0] >> 4 == 6;
    let (head, body) = packet.split_at(if v6 { 40 } else { 20 });
    // IPv6 fragments are not shorter than 1280 bytes, except the last; Linux merges some shorter ones.
    let size =
        if v6 { dice.pick(&[1232, 1400, 1448, 1456]) } else { dice.pick(&[24, 40, 200, 552, 1232, 1440, 1480, 1600]) };
    if body.len() > 40 * size {
        return vec![packet.to_vec()];
    }
    let number = dice.below(1 << 16) as u16;
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    for (at, data) in body.chunks(size).enumerate() {
        let (offset, more) = (at * size, (at + 1) * size < body.len());
        let mut piece = head.to_vec();
        if v6 {
            piece[6] = 44;
            piece[4..6].copy_from_slice(&(8 + data.len() as u16).to_be_bytes());
            piece.extend([head[6], 0]);
            piece.extend((offset as u16 | u16::from(more)).to_be_bytes());
            piece.extend([0, 0]);
            piece.extend(number.to_be_bytes());
        } else {
            let word = u16::from(head[6]) << 8 & 0x4000 | (offset / 8) as u16 | if more { 0x2000 } else { 0 };
            piece[2..4].copy_from_slice(&(20 + data.len() as u16).to_be_bytes());
            piece[4..6].copy_from_slice(&number.to_be_bytes());
            piece[6..8].copy_from_slice(&word.to_be_bytes());
            piece[10..12].fill(0);
            let sum = checksum(&piece);
            piece[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        piece.extend(data);
        pieces.insert(dice.below(pieces.len() + 1), piece);
    }
    pieces
}

/// The bytes after the IP header, and the position of their checksum.
pub struct Message {
    pub protocol: u8,
    pub bytes: Vec<u8>,
    pub check_at: Option<usize>,
}

pub fn tcp(from: u16, to: u16, seq: u32, ack: u32, flags: u8, length: usize) -> Message {
    let mut bytes = Vec::new();
    bytes.extend(from.to_be_bytes());
    bytes.extend(to.to_be_bytes());
    bytes.extend(seq.to_be_bytes());
    bytes.extend(ack.to_be_bytes());
    // The ports select the options, so that both directions and every run have all of them.
    let options: &[u8] = match (flags & SYN != 0, (from ^ to) % 4) {
        (false, 0) => &[1, 1, 8, 10, 0, 0, 0, 5, 0, 0, 0, 6],
        (false, _) => &[],
        (true, 0 | 1) => &[2, 4, 5, 180, 1, 3, 3, 7],
        (true, 2) => &[2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 5, 0, 0, 0, 0, 1, 3, 3, 9],
        // An option longer than the space left.
        (true, _) => &[2, 4, 2, 0, 34, 2, 3, 9],
    };
    bytes.extend([((20 + options.len()) as u8 / 4) << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(options);
    bytes.extend(std::iter::repeat_n(b'x', length));
    Message { protocol: 6, bytes, check_at: Some(16) }
}

/// A packet that is neither TCP, UDP nor an echo; SCTP has two chunks and an invalid header.
fn other_protocol(dice: &mut TrafficRng) -> Message {
    let protocol = dice.pick(&[47, 50, 132, 132, 89]);
    let mut bytes = vec![0x20; 24];
    if protocol == 132 {
        bytes.truncate(12);
        bytes.extend([dice.pick(&[4, 10, 3]), 1, 0, 7, 1, 2, 3, 0]);
        bytes.extend([dice.pick(&[0, 0, 9]), 3, 0, dice.pick(&[20, 20, 40])]);
        bytes.extend([0, 0, 0, 77, 0, 5, 0, 6, 0, 0, 0, 9, 1, 2, 3, 4]);
    }
    Message { protocol, bytes, check_at: None }
}

pub fn udp(from: u16, to: u16, length: usize) -> Message {
    let mut bytes = Vec::new();
    for word in [from, to, 8 + length as u16, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(std::iter::repeat_n(b'u', length));
    Message { protocol: 17, bytes, check_at: Some(6) }
}

pub fn echo(v6: bool, request: bool, id: u16) -> Message {
    let kind = match (v6, request) {
        (false, true) => 8,
        (false, false) => 0,
        (true, true) => 128,
        (true, false) => 129,
    };
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend(id.to_be_bytes());
    bytes.extend([0, 1, 1, 2, 3, 4]);
    Message { protocol: if v6 { 58 } else { 1 }, bytes, check_at: Some(2) }
}

pub fn icmp_error(v6: bool, about: &[u8], dice: &mut TrafficRng) -> Message {
    let (kind, code) =
        if v6 { dice.pick(&[(1, 4), (2, 0), (3, 0)]) } else { dice.pick(&[(3, 3), (3, 1), (11, 0), (3, 4)]) };
    let mut bytes = vec![kind, code, 0, 0, 0, 0, 5, 0];
    bytes.extend(&about[..about.len().min(if dice.below(2) == 0 { 60 } else { 500 })]);
    Message { protocol: if v6 { 58 } else { 1 }, bytes, check_at: Some(2) }
}

pub fn ip_packet(v6: bool, source: Address, destination: Address, hops: u8, message: &Message) -> Vec<u8> {
    let mut body = message.bytes.clone();
    let width = if v6 { 16 } else { 4 };
    let (source, destination) = (&source[..width], &destination[..width]);
    if let Some(at) = message.check_at {
        let mut covered = Vec::new();
        if v6 || message.protocol != 1 {
            covered.extend(source);
            covered.extend(destination);
            covered.extend([0, message.protocol]);
            covered.extend((body.len() as u16).to_be_bytes());
        }
        covered.extend(&body);
        let sum = checksum(&covered);
        let sum = if sum == 0 && message.protocol == 17 { 0xffff } else { sum };
        body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let mut packet = if v6 {
        let mut header = vec![0x60, 0, 0, 0];
        header.extend((body.len() as u16).to_be_bytes());
        header.extend([message.protocol, hops]);
        header
    } else {
        let mut header = vec![0x45, 0];
        header.extend((20 + body.len() as u16).to_be_bytes());
        header.extend([0, 1, 0x40, 0, hops, message.protocol, 0, 0]);
        header
    };
    packet.extend(source);
    packet.extend(destination);
    if !v6 {
        let sum = checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet.extend(body);
    packet
}

/// Gives an IPv4 packet without options these, a multiple of four bytes.
pub fn insert_ipv4_options(packet: &mut Vec<u8>, options: &[u8]) {
    packet.splice(20..20, options.iter().copied());
    packet[0] = 0x45 + (options.len() / 4) as u8;
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[10..12].fill(0);
    let sum = checksum(&packet[..20 + options.len()]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
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

fn endpoints(packet: &[u8]) -> (Address, Address) {
    let (at, width) = if packet[0] >> 4 == 6 { (8, 16) } else { (12, 4) };
    let mut both = [[0; 16]; 2];
    for (end, address) in both.iter_mut().enumerate() {
        address[..width].copy_from_slice(&packet[at + end * width..at + (end + 1) * width]);
    }
    (both[0], both[1])
}

fn pick_v4(list: &[&str], dice: &mut TrafficRng) -> Address {
    let address: std::net::Ipv4Addr = dice.pick(list).parse().unwrap();
    let mut wide = [0; 16];
    wide[..4].copy_from_slice(&address.octets());
    wide
}

fn pick_v6(list: &[&str], dice: &mut TrafficRng) -> Address {
    dice.pick(list).parse::<std::net::Ipv6Addr>().unwrap().octets()
}
