//! FTP: control connections whose commands are mostly complete and with correct addresses, and data connections, announced or not.
use super::generated_packet::{GeneratedPacket, endpoints_toward};
use crate::oracle::kernel::{FTP_PORT, Toward};
use crate::oracle::packet_builder::{self, OracleSegment, PacketEndpoints};
use crate::oracle::rng::OracleRng;
use std::net::IpAddr;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Announced ports: few, so that masters clash. One of them is the helper's own.
const PORTS: &[u16] = &[2000, 2001, 2002, 464, FTP_PORT, 0];

/// A control connection, or several in sequence, and their data connections.
pub struct FtpFlow {
    ends: PacketEndpoints,
    port: u16,
    /// Next sequence numbers of client and server.
    next: [u32; 2],
    /// Number of handshake segments sent.
    handshake_segments: u8,
    /// The last line of each side, and its sequence number.
    last_line: [(u32, Vec<u8>); 2],
    /// Announced data connections: the end that opens it, and the port.
    data_endpoints: Vec<(Toward, u16)>,
    /// A data connection: the end that opened it, and its ports.
    data: Option<(Toward, [u16; 2])>,
}

impl FtpFlow {
    pub fn new(ends: PacketEndpoints, random: &mut OracleRng) -> FtpFlow {
        FtpFlow {
            ends,
            port: 40_000 + random.below(12) as u16,
            next: [random.next_u32(), random.next_u32()],
            handshake_segments: 0,
            last_line: Default::default(),
            data_endpoints: Vec::new(),
            data: None,
        }
    }

    pub fn next_packet(&mut self, random: &mut OracleRng) -> GeneratedPacket {
        match random.below(1000) {
            0..3 => self.control_segment(Toward::Server, RST | ACK, b""),
            3..8 => self.control_segment(random.pick(&[Toward::Server, Toward::Client]), FIN | ACK, b""),
            8..14 => self.open_control(random),
            14..130 => self.data_segment(random),
            130..150 if self.handshake_segments == 3 => self.retransmit_line(random),
            _ => match self.handshake_segments {
                0 => self.open_control(random),
                1 => self.handshake_segment(Toward::Client, SYN | ACK),
                2 => self.handshake_segment(Toward::Server, ACK),
                _ => self.control_line(random),
            },
        }
    }

    fn open_control(&mut self, random: &mut OracleRng) -> GeneratedPacket {
        self.next = [random.next_u32(), random.next_u32()];
        self.handshake_segments = 0;
        self.handshake_segment(Toward::Server, SYN)
    }

    fn handshake_segment(&mut self, toward: Toward, flags: u8) -> GeneratedPacket {
        self.handshake_segments += 1;
        self.control_segment(toward, flags, b"")
    }

    /// A line from one side.
    fn control_line(&mut self, random: &mut OracleRng) -> GeneratedPacket {
        let toward = random.pick(&[Toward::Server, Toward::Client]);
        let mut line =
            if random.percent(40) { self.random_line(toward, random) } else { self.port_command(toward, random) };
        if random.percent(12) {
            mangle(&mut line, random);
        }
        self.last_line[side_index(toward)] = (self.next[side_index(toward)], line.clone());
        self.control_segment(toward, ACK | 8, &line)
    }

    fn random_line(&self, toward: Toward, random: &mut OracleRng) -> Vec<u8> {
        let line = match toward {
            Toward::Server => {
                random.pick(&["USER me\r\n", "NOOP\r\n", "PASV\r\n", "P", "port 1,2", "227 (10,1,0,1,8,1)\r\n", "\n"])
            }
            Toward::Client => {
                random.pick(&["220 hello\r\n", "200 fine\r\n", "2", "227", "PORT 10,2,0,1,8,1\r\n", "200-\r\n229\n"])
            }
        };
        line.as_bytes().to_vec()
    }

    /// A command or reply that announces a data connection, to the sender itself or now and then to another host.
    fn port_command(&mut self, toward: Toward, random: &mut OracleRng) -> Vec<u8> {
        let ends = endpoints_toward(self.ends, toward);
        let speaker = if random.percent(8) { ends.destination } else { ends.source };
        let port = random.pick(PORTS);
        // The sender listens: the other side opens the data connection.
        let opener = if toward == Toward::Server { Toward::Client } else { Toward::Server };
        self.data_endpoints.push((opener, port));
        if self.data_endpoints.len() > 3 {
            self.data_endpoints.remove(0);
        }
        let (high, low) = (port >> 8, port & 255);
        let line = match (toward, speaker) {
            (Toward::Server, IpAddr::V4(address)) if random.percent(60) => {
                format!("PORT {},{high},{low}\r\n", address.to_string().replace('.', ","))
            }
            (Toward::Server, address) => {
                format!("EPRT |{}|{address}|{port}|\r\n", if address.is_ipv4() { 1 } else { 2 })
            }
            (Toward::Client, IpAddr::V4(address)) if random.percent(60) => {
                format!("227 Passive ({},{high},{low}).\r\n", address.to_string().replace('.', ","))
            }
            (Toward::Client, _) => format!("229 Passive (|||{port}|)\r\n"),
        };
        if random.percent(10) { line.to_lowercase().into_bytes() } else { line.into_bytes() }
    }

    /// One side retransmits its last line, or sends another with the same sequence number.
    fn retransmit_line(&mut self, random: &mut OracleRng) -> GeneratedPacket {
        let toward = random.pick(&[Toward::Server, Toward::Client]);
        let (seq, line) = self.last_line[side_index(toward)].clone();
        let line = if random.percent(60) { line } else { self.port_command(toward, random) };
        let next = std::mem::replace(&mut self.next[side_index(toward)], seq);
        let packet = self.control_segment(toward, ACK, &line);
        let after = &mut self.next[side_index(toward)];
        if after.wrapping_sub(next) > 1 << 31 {
            *after = next;
        }
        packet
    }

    /// A segment of the control connection.
    fn control_segment(&mut self, toward: Toward, flags: u8, data: &[u8]) -> GeneratedPacket {
        let [client, server] = self.next;
        let (source, destination, seq, ack) = match toward {
            Toward::Server => (self.port, FTP_PORT, client, server),
            Toward::Client => (FTP_PORT, self.port, server, client),
        };
        let ack = if flags & ACK == 0 { 0 } else { ack };
        let length = data.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        self.next[side_index(toward)] = seq.wrapping_add(length);
        self.build_packet(
            toward,
            OracleSegment { source, destination, seq, ack, flags, ..OracleSegment::default() },
            data,
        )
    }

    /// A segment of a data connection: the first of a new one, mostly to an announced port, or the next of the existing one.
    fn data_segment(&mut self, random: &mut OracleRng) -> GeneratedPacket {
        let known = self.data.filter(|_| random.percent(50));
        let (toward, [source, destination], flags) = match known {
            Some((opener, ports)) if random.percent(50) => (opener, ports, random.pick(&[SYN, ACK, ACK | FIN, RST])),
            Some((opener, [from, to])) => {
                let answer = if opener == Toward::Server { Toward::Client } else { Toward::Server };
                (answer, [to, from], random.pick(&[SYN | ACK, ACK, RST | ACK]))
            }
            None => {
                let anywhere = (random.pick(&[Toward::Server, Toward::Client]), random.pick(PORTS));
                let at = random.below(self.data_endpoints.len() + 1);
                let (opener, port) = self.data_endpoints.get(at).copied().unwrap_or(anywhere);
                let ports = [random.weighted(&[(4, 20), (1, 50_000 + random.clone().below(40) as u16)]), port];
                self.data = Some((opener, ports));
                (opener, ports, random.weighted(&[(12, SYN), (2, ACK), (1, RST), (1, SYN | ACK)]))
            }
        };
        let (seq, ack) = if flags & SYN != 0 { (100, 100) } else { (101, 101) };
        let ack = if flags & ACK == 0 { 0 } else { ack };
        self.build_packet(
            toward,
            OracleSegment { source, destination, seq, ack, flags, ..OracleSegment::default() },
            b"",
        )
    }

    fn build_packet(&self, toward: Toward, segment: OracleSegment, data: &[u8]) -> GeneratedPacket {
        let ends = endpoints_toward(self.ends, toward);
        let mut transport = OracleSegment { window: 60_000, ..segment }.to_bytes(ends);
        transport.extend_from_slice(data);
        packet_builder::write_checksum(&mut transport, 16, ends, packet_builder::TCP, false);
        GeneratedPacket { toward, ends, protocol: packet_builder::TCP, transport }
    }
}

/// The sender's index.
const fn side_index(toward: Toward) -> usize {
    match toward {
        Toward::Server => 0,
        Toward::Client => 1,
    }
}

/// Makes one or two changes, or truncates the line.
fn mangle(line: &mut Vec<u8>, random: &mut OracleRng) {
    for _ in 0..=random.below(2) {
        let at = random.below(line.len().max(1));
        match random.below(5) {
            0 => line.truncate(at),
            1 => line.insert(at.min(line.len()), random.pick(b" ,|(.0129\r\nx")),
            2 if at < line.len() => drop(line.remove(at)),
            3 => line.extend_from_within(at.min(line.len())..),
            _ if at < line.len() => line[at] = random.pick(b" ,|(.0129\r\nx"),
            _ => {}
        }
    }
}
