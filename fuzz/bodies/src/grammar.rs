//! The grammar of a scenario: TCP, UDP, ICMP, SCTP and GRE flows that are mostly valid, with errors.

use crate::FuzzInput;
use crate::packet_gen::{self, HostPort};

/// The state of the flows, so that the next packet can follow, repeat or contradict an earlier one.
pub struct PacketGrammar {
    /// Next sequence numbers of each side of each flow: original, reply.
    next_seq: [[u32; 2]; FLOWS],
    /// Number of chunks sent so far by the SCTP association of each address family.
    sctp_step: [usize; 2],
    /// The last packets, for repetition or for ICMP errors about them.
    sent: Vec<Vec<u8>>,
    /// First port of the flows; advanced to create many flows.
    base_port: u16,
}

/// Number of concurrent flows: few, so that packets collide.
const FLOWS: usize = 8;

impl PacketGrammar {
    /// The state before any packet.
    pub fn new() -> Self {
        PacketGrammar { next_seq: [[1_000, 9_000]; FLOWS], sctp_step: [0; 2], sent: Vec::new(), base_port: 40_000 }
    }

    /// The next packet of the scenario.
    pub fn packet(&mut self, script: &mut FuzzInput<'_>) -> Vec<u8> {
        let kind = script.next_byte().unwrap_or(0);
        let packet = match kind {
            0..=127 => self.tcp(script),
            128..=159 => self.udp(script),
            160..=175 => self.icmp_query(script),
            176..=199 => self.icmp_error(script),
            200..=219 => self.sctp(script),
            220..=223 => self.other_protocol(script),
            224..=239 => self.repeat_packet(script),
            _ => script.take_bytes(96).to_vec(),
        };
        if self.sent.len() == 16 {
            self.sent.remove(0);
        }
        self.sent.push(packet.clone());
        packet
    }

    /// Advances to fresh ports.
    pub fn use_new_ports(&mut self) {
        self.base_port = self.base_port.wrapping_add(FLOWS as u16);
    }

    /// A flow and a direction from one byte: is it IPv6, its number, source, destination, is it a reply.
    fn flow(&self, script: &mut FuzzInput<'_>) -> (bool, usize, HostPort, HostPort, bool) {
        let choice = script.next_byte().unwrap_or(0);
        let number = usize::from(choice) % FLOWS;
        // The number selects the hosts, so that the flow's state matches them; every fourth flow is IPv6.
        let (ipv6, answer) = (number % 4 == 3, choice & 0x40 != 0);
        let client = HostPort { host: 2 + number as u8 % 2 * 2, port: self.base_port.wrapping_add(number as u16) };
        let server = HostPort { host: 1, port: if number < 4 { 1883 } else { 80 } };
        let (from, to) = if answer { (server, client) } else { (client, server) };
        (ipv6, number, from, to, answer)
    }

    fn tcp(&mut self, script: &mut FuzzInput<'_>) -> Vec<u8> {
        let (ipv6, number, from, to, answer) = self.flow(script);
        let flags = match script.next_byte().unwrap_or(0) {
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
        let [seq, ack] = [self.next_seq[number][own], self.next_seq[number][other]];
        let stray = script.next_byte().unwrap_or(0);
        let seq = seq.wrapping_add(perturb_seq(stray & 15, script));
        let ack = ack.wrapping_add(perturb_seq(stray >> 4, script));
        let data = if flags & SYN == 0 { script.choose(&[0, 0, 0, 1, 100, 1400]) } else { 0 };
        let window = script.choose(&[64_240, 64_240, 502, 0, 1, 65_535]);
        let options: &[u8] = match script.next_byte().unwrap_or(0) {
            0..=127 if flags & SYN != 0 => &SYN_OPTIONS,
            0..=199 => &[],
            200..=227 => &TIMESTAMP_OPTIONS,
            _ => script.take_bytes(20),
        };
        let length = data as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        self.next_seq[number][own] = seq.wrapping_add(length);
        let segment =
            packet_gen::TcpSegmentSpec { ports: (from.port, to.port), seq, ack, flags, window, options, data };
        packet_gen::ip_packet(ipv6, from.host, to.host, 6, segment.to_bytes())
    }

    fn udp(&mut self, script: &mut FuzzInput<'_>) -> Vec<u8> {
        let (ipv6, _, from, to, _) = self.flow(script);
        let (protocol, mut bytes) =
            (script.choose(&[17, 17, 17, 136]), packet_gen::udp((from.port, to.port), script.choose(&[0, 4, 512])));
        if protocol == 136 {
            // Checksum coverage of the whole packet; the checksum stays wrong, which is accepted or not by `nf_conntrack_checksum`.
            bytes[4..8].copy_from_slice(&[0, 0, 1, 1]);
        }
        packet_gen::ip_packet(ipv6, from.host, to.host, protocol, bytes)
    }

    /// An ICMP query or its reply.
    fn icmp_query(&mut self, script: &mut FuzzInput<'_>) -> Vec<u8> {
        let (ipv6, number, from, to, answer) = self.flow(script);
        let kinds = if ipv6 { [[128, 128, 139, 135], [129, 129, 140, 136]] } else { [[8, 8, 13, 17], [0, 0, 14, 18]] };
        let kind = script.choose(&kinds[usize::from(answer)]);
        let message = packet_gen::icmp(kind, 0, number as u16, &[0x6b; 16]);
        packet_gen::ip_packet(ipv6, from.host, to.host, if ipv6 { 58 } else { 1 }, message)
    }

    /// An ICMP error about one of the last packets, or about random bytes.
    fn icmp_error(&mut self, script: &mut FuzzInput<'_>) -> Vec<u8> {
        let (ipv6, _, from, to, _) = self.flow(script);
        let kind = if ipv6 { script.choose(&[1, 2, 3, 4, 0, 137]) } else { script.choose(&[3, 11, 12, 4, 5, 6]) };
        let most = script.choose(&[28, 48, 64, 8, 548]);
        let which = usize::from(script.next_byte().unwrap_or(0));
        let mut quoted = match self.sent.get(which % self.sent.len().max(1)) {
            Some(packet) => packet[..packet.len().min(most)].to_vec(),
            None => script.take_bytes(most).to_vec(),
        };
        let (at, change) = (usize::from(script.next_byte().unwrap_or(0)), script.next_byte().unwrap_or(0));
        if change < 64
            && let Some(byte) = quoted.get_mut(at)
        {
            *byte ^= change;
        }
        let message = packet_gen::icmp(kind, script.choose(&[3, 0, 4, 1]), 0, &quoted);
        packet_gen::ip_packet(ipv6, from.host, to.host, if ipv6 { 58 } else { 1 }, message)
    }

    fn sctp(&mut self, script: &mut FuzzInput<'_>) -> Vec<u8> {
        let choice = script.next_byte().unwrap_or(0);
        let (ipv6, mut answer) = (choice < 64, choice & 0x10 != 0);
        // Only two associations: each has to progress before its short timeouts end it.
        let (client, server) = (HostPort { host: 2, port: 36_412 }, HostPort { host: 1, port: 38_412 });
        let mut kind = script.choose(&SCTP_CHUNKS).0;
        if script.next_byte().unwrap_or(0) < 192 {
            // The next chunk of a valid association.
            let step = &mut self.sctp_step[usize::from(ipv6)];
            (kind, answer) = SCTP_CHUNKS[*step % SCTP_SEQUENCE_LEN];
            *step += 1;
        }
        let (from, to) = if answer { (server, client) } else { (client, server) };
        let tag = match kind {
            INIT => 0,
            _ if script.next_byte().unwrap_or(0) > 240 => script.next_u32(),
            _ => 77 + u32::from(answer),
        };
        let mut value = (77 + u32::from(!answer)).to_be_bytes().to_vec();
        value.extend([0, 0, 0x10, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
        let packet =
            packet_gen::sctp((from.port, to.port), tag, kind, u8::from(script.next_byte().unwrap_or(0) > 250), &value);
        packet_gen::ip_packet(ipv6, from.host, to.host, 132, packet)
    }

    /// GRE, plain or of PPTP, or a protocol without a tracker.
    fn other_protocol(&mut self, script: &mut FuzzInput<'_>) -> Vec<u8> {
        let (ipv6, number, from, to, _) = self.flow(script);
        let (protocol, bytes) = match script.next_byte().unwrap_or(0) {
            0..=99 => (47, vec![0, 0, 8, 0, 0x45, 0, 0, 0]),
            100..=199 => (47, vec![0x30, 1, 0x88, 0x0b, 0, 4, 0, number as u8, 0x6b, 0x6b]),
            _ => (script.next_byte().unwrap_or(89), script.take_bytes(24).to_vec()),
        };
        packet_gen::ip_packet(ipv6, from.host, to.host, protocol, bytes)
    }

    /// One of the last packets again, possibly with a byte changed or truncated.
    fn repeat_packet(&mut self, script: &mut FuzzInput<'_>) -> Vec<u8> {
        let which = usize::from(script.next_byte().unwrap_or(0));
        let Some(packet) = self.sent.get(which % self.sent.len().max(1)) else { return Vec::new() };
        let mut packet = packet.clone();
        let (at, change) = (usize::from(script.next_byte().unwrap_or(0)), script.next_byte().unwrap_or(0));
        match change {
            0..=127 => {}
            128..=191 => packet.truncate(at),
            _ => {
                if let Some(byte) = packet.get_mut(at) {
                    *byte ^= change;
                }
            }
        }
        packet
    }
}

/// An error of a sequence number: mostly none, sometimes small, sometimes outside every window.
fn perturb_seq(how: u8, script: &mut FuzzInput<'_>) -> u32 {
    match how {
        0..=10 => 0,
        11 => script.choose(&[1, u32::MAX]),
        12 => 1400,
        13 => 70_000,
        14 => 70_000u32.wrapping_neg(),
        _ => script.next_u32(),
    }
}

const INIT: u8 = 1;
/// The number of [`SCTP_CHUNKS`] that make a complete association.
const SCTP_SEQUENCE_LEN: usize = 8;
/// The chunks of an SCTP association in order, and whether the server sends them: INIT, INIT ACK, COOKIE ECHO, COOKIE ACK, DATA, SHUTDOWN,
/// SHUTDOWN ACK, SHUTDOWN COMPLETE; then those without a fixed position: SACK, HEARTBEAT and its ACK, ABORT, ERROR, an unknown one.
const SCTP_CHUNKS: [(u8, bool); 14] = [
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

/// MSS 1460, SACK permitted, timestamps, window scale 7, as Linux sends them.
const SYN_OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
const TIMESTAMP_OPTIONS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 2, 0, 0, 0, 1];
