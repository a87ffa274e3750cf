//! The grammar of a story: hosts that speak TCP, UDP, ICMP, SCTP and GRE well enough to get somewhere, and badly enough to get lost.

use crate::Script;
use crate::forge::{self, Peer};

/// What the story remembers of what it has sent, so that the next packet can follow, repeat or contradict it.
pub struct Grammar {
    /// What each side of each flow will send next: original, reply.
    next: [[u32; 2]; FLOWS],
    /// How many words of its conversation the SCTP association of each family has said.
    said: [usize; 2],
    /// The last packets, to be repeated or quoted.
    sent: Vec<Vec<u8>>,
    /// The first port of the flows; moved on to make many.
    base: u16,
}

/// Flows at a time: few, so that packets meet.
const FLOWS: usize = 8;

impl Grammar {
    /// Nothing has been sent.
    pub fn new() -> Self {
        Grammar { next: [[1_000, 9_000]; FLOWS], said: [0; 2], sent: Vec::new(), base: 40_000 }
    }

    /// The next packet of the story.
    pub fn packet(&mut self, script: &mut Script<'_>) -> Vec<u8> {
        let kind = script.octet().unwrap_or(0);
        let packet = match kind {
            0..=127 => self.tcp(script),
            128..=159 => self.udp(script),
            160..=175 => self.query(script),
            176..=199 => self.error(script),
            200..=219 => self.sctp(script),
            220..=223 => self.other(script),
            224..=239 => self.again(script),
            _ => script.take(96).to_vec(),
        };
        if self.sent.len() == 16 {
            self.sent.remove(0);
        }
        self.sent.push(packet.clone());
        packet
    }

    /// Moves on to fresh ports.
    pub fn move_on(&mut self) {
        self.base = self.base.wrapping_add(FLOWS as u16);
    }

    /// A flow and a direction from one octet: is it IPv6, its number, from whom, to whom, is it an answer.
    fn flow(&self, script: &mut Script<'_>) -> (bool, usize, Peer, Peer, bool) {
        let choice = script.octet().unwrap_or(0);
        let number = usize::from(choice) % FLOWS;
        // The number decides the peers, so that what is remembered of a flow is true of it; every fourth flow is of IPv6.
        let (ipv6, answer) = (number % 4 == 3, choice & 0x40 != 0);
        let client = Peer { host: 2 + number as u8 % 2 * 2, port: self.base.wrapping_add(number as u16) };
        let server = Peer { host: 1, port: if number < 4 { 1883 } else { 80 } };
        let (from, to) = if answer { (server, client) } else { (client, server) };
        (ipv6, number, from, to, answer)
    }

    fn tcp(&mut self, script: &mut Script<'_>) -> Vec<u8> {
        let (ipv6, number, from, to, answer) = self.flow(script);
        let flags = match script.octet().unwrap_or(0) {
            0..=63 => ACK,
            64..=95 => SYN,
            96..=143 => SYN | ACK,
            144..=175 => ACK | PSH,
            176..=207 => FIN | ACK,
            208..=223 => RST,
            224..=231 => RST | ACK,
            odd => odd.rotate_left(3),
        };
        let (own, other) = (usize::from(answer), usize::from(!answer));
        let [seq, ack] = [self.next[number][own], self.next[number][other]];
        let stray = script.octet().unwrap_or(0);
        let seq = seq.wrapping_add(astray(stray & 15, script));
        let ack = ack.wrapping_add(astray(stray >> 4, script));
        let data = if flags & SYN == 0 { script.pick(&[0, 0, 0, 1, 100, 1400]) } else { 0 };
        let window = script.pick(&[64_240, 64_240, 502, 0, 1, 65_535]);
        let options: &[u8] = match script.octet().unwrap_or(0) {
            0..=127 if flags & SYN != 0 => &HANDSHAKE,
            0..=199 => &[],
            200..=227 => &TIMESTAMPS,
            _ => script.take(20),
        };
        let length = data as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        self.next[number][own] = seq.wrapping_add(length);
        let segment = forge::Segment { ports: (from.port, to.port), seq, ack, flags, window, options, data };
        forge::datagram(ipv6, from.host, to.host, 6, segment.octets())
    }

    fn udp(&mut self, script: &mut Script<'_>) -> Vec<u8> {
        let (ipv6, _, from, to, _) = self.flow(script);
        let (protocol, mut bytes) =
            (script.pick(&[17, 17, 17, 136]), forge::udp((from.port, to.port), script.pick(&[0, 4, 512])));
        if protocol == 136 {
            // Coverage of the whole; the checksum is left wrong, which `nf_conntrack_checksum` decides about.
            bytes[4..8].copy_from_slice(&[0, 0, 1, 1]);
        }
        forge::datagram(ipv6, from.host, to.host, protocol, bytes)
    }

    /// An ICMP query or an answer to one.
    fn query(&mut self, script: &mut Script<'_>) -> Vec<u8> {
        let (ipv6, number, from, to, answer) = self.flow(script);
        let kinds = if ipv6 { [[128, 128, 139, 135], [129, 129, 140, 136]] } else { [[8, 8, 13, 17], [0, 0, 14, 18]] };
        let kind = script.pick(&kinds[usize::from(answer)]);
        let message = forge::icmp(kind, 0, number as u16, &[0x6b; 16]);
        forge::datagram(ipv6, from.host, to.host, if ipv6 { 58 } else { 1 }, message)
    }

    /// An ICMP error that quotes one of the last packets, or pretends to.
    fn error(&mut self, script: &mut Script<'_>) -> Vec<u8> {
        let (ipv6, _, from, to, _) = self.flow(script);
        let kind = if ipv6 { script.pick(&[1, 2, 3, 4, 0, 137]) } else { script.pick(&[3, 11, 12, 4, 5, 6]) };
        let most = script.pick(&[28, 48, 64, 8, 548]);
        let which = usize::from(script.octet().unwrap_or(0));
        let mut quoted = match self.sent.get(which % self.sent.len().max(1)) {
            Some(packet) => packet[..packet.len().min(most)].to_vec(),
            None => script.take(most).to_vec(),
        };
        let (at, change) = (usize::from(script.octet().unwrap_or(0)), script.octet().unwrap_or(0));
        if change < 64
            && let Some(octet) = quoted.get_mut(at)
        {
            *octet ^= change;
        }
        let message = forge::icmp(kind, script.pick(&[3, 0, 4, 1]), 0, &quoted);
        forge::datagram(ipv6, from.host, to.host, if ipv6 { 58 } else { 1 }, message)
    }

    fn sctp(&mut self, script: &mut Script<'_>) -> Vec<u8> {
        let choice = script.octet().unwrap_or(0);
        let (ipv6, mut answer) = (choice < 64, choice & 0x10 != 0);
        // Two associations only: a conversation has to get on before its short timeouts end it.
        let (client, server) = (Peer { host: 2, port: 36_412 }, Peer { host: 1, port: 38_412 });
        let mut kind = script.pick(&ASSOCIATION).0;
        if script.octet().unwrap_or(0) < 192 {
            // The next word of a conversation that gets on.
            let said = &mut self.said[usize::from(ipv6)];
            (kind, answer) = ASSOCIATION[*said % WORDS];
            *said += 1;
        }
        let (from, to) = if answer { (server, client) } else { (client, server) };
        let tag = match kind {
            INIT => 0,
            _ if script.octet().unwrap_or(0) > 240 => script.long(),
            _ => 77 + u32::from(answer),
        };
        let mut value = (77 + u32::from(!answer)).to_be_bytes().to_vec();
        value.extend([0, 0, 0x10, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
        let packet = forge::sctp((from.port, to.port), tag, kind, u8::from(script.octet().unwrap_or(0) > 250), &value);
        forge::datagram(ipv6, from.host, to.host, 132, packet)
    }

    /// GRE, plain or of PPTP, or a protocol nobody tracks closer.
    fn other(&mut self, script: &mut Script<'_>) -> Vec<u8> {
        let (ipv6, number, from, to, _) = self.flow(script);
        let (protocol, bytes) = match script.octet().unwrap_or(0) {
            0..=99 => (47, vec![0, 0, 8, 0, 0x45, 0, 0, 0]),
            100..=199 => (47, vec![0x30, 1, 0x88, 0x0b, 0, 4, 0, number as u8, 0x6b, 0x6b]),
            _ => (script.octet().unwrap_or(89), script.take(24).to_vec()),
        };
        forge::datagram(ipv6, from.host, to.host, protocol, bytes)
    }

    /// One of the last packets once more, perhaps with an octet changed or its tail cut off.
    fn again(&mut self, script: &mut Script<'_>) -> Vec<u8> {
        let which = usize::from(script.octet().unwrap_or(0));
        let Some(packet) = self.sent.get(which % self.sent.len().max(1)) else { return Vec::new() };
        let mut packet = packet.clone();
        let (at, change) = (usize::from(script.octet().unwrap_or(0)), script.octet().unwrap_or(0));
        match change {
            0..=127 => {}
            128..=191 => packet.truncate(at),
            _ => {
                if let Some(octet) = packet.get_mut(at) {
                    *octet ^= change;
                }
            }
        }
        packet
    }
}

/// How far a sequence number strays: mostly not at all, sometimes by a little, sometimes out of every window.
fn astray(how: u8, script: &mut Script<'_>) -> u32 {
    match how {
        0..=10 => 0,
        11 => script.pick(&[1, u32::MAX]),
        12 => 1400,
        13 => 70_000,
        14 => 70_000u32.wrapping_neg(),
        _ => script.long(),
    }
}

const INIT: u8 = 1;
/// How many of [`ASSOCIATION`] make a whole conversation.
const WORDS: usize = 8;
/// The chunks of an SCTP conversation in their order, and whether the server says them: INIT, INIT ACK, COOKIE ECHO, COOKIE ACK, DATA, SHUTDOWN,
/// SHUTDOWN ACK, SHUTDOWN COMPLETE; and those of no certain place: SACK, HEARTBEAT and its ACK, ABORT, ERROR, one that nobody knows.
const ASSOCIATION: [(u8, bool); 14] = [
    (INIT, false),
    (2, true),
    (10, false),
    (11, true),
    (0, false),
    (7, false),
    (8, true),
    (14, false),
    (3, true),
    (4, false),
    (5, true),
    (6, true),
    (9, false),
    (192, true),
];

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// MSS 1460, SACK permitted, timestamps, window scale 7: what Linux sends.
const HANDSHAKE: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 2, 0, 0, 0, 1];
