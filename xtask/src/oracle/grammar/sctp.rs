//! SCTP: associations that mostly follow RFC 9260, with errors in tags, chunk order and checksums.
use super::generated_packet::{GeneratedPacket, endpoints_toward, ports_between};
use crate::oracle::kernel::Toward;
use crate::oracle::packet_builder::{self, PacketEndpoints};
use crate::oracle::rng::OracleRng;

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

/// An association.
pub struct SctpFlow {
    ends: PacketEndpoints,
    ports: (u16, u16),
    /// The tags chosen by client and server.
    tags: [u32; 2],
    stage: usize,
    error_percent: usize,
}

/// The packets of an association in order: chunk kind, and whether the client sends it.
const ASSOCIATION_SEQUENCE: &[(u8, bool)] = &[
    (INIT, true),
    (INIT_ACK, false),
    (COOKIE_ECHO, true),
    (COOKIE_ACK, false),
    (DATA, true),
    (SACK, false),
    (HEARTBEAT, true),
    (HEARTBEAT_ACK, false),
    (DATA, false),
    (SACK, true),
    (SHUTDOWN, true),
    (SHUTDOWN_ACK, false),
    (SHUTDOWN_COMPLETE, true),
];

impl SctpFlow {
    pub fn new(ends: PacketEndpoints, random: &mut OracleRng) -> SctpFlow {
        SctpFlow {
            ends,
            ports: ports_between(ends, (40000 + random.below(8) as u16, random.pick(&[36412, 40001]))),
            tags: [random.next_u32() | 1, random.next_u32() | 1],
            stage: random.weighted(&[(80, 0), (10, 4), (5, 6), (5, 10)]),
            error_percent: random.pick(&[0, 5, 15, 40]),
        }
    }

    pub fn next_packet(&mut self, random: &mut OracleRng) -> GeneratedPacket {
        let (mut kind, mut client) = ASSOCIATION_SEQUENCE[self.stage];
        let strays = random.percent(self.error_percent);
        if strays && random.percent(60) {
            kind = random.pick(&[
                DATA,
                INIT,
                INIT_ACK,
                SACK,
                HEARTBEAT,
                HEARTBEAT_ACK,
                ABORT,
                SHUTDOWN,
                SHUTDOWN_ACK,
                9,
                COOKIE_ECHO,
                COOKIE_ACK,
                12,
                13,
                SHUTDOWN_COMPLETE,
                15,
                64,
                128,
                130,
                192,
                255,
            ]);
        }
        if strays && random.percent(30) {
            client = !client;
        }
        if !strays || random.percent(30) {
            self.next_stage(random);
        }
        let mine = usize::from(!client);
        let mut tag = if kind == INIT { 0 } else { self.tags[1 - mine] };
        if strays && random.percent(30) {
            tag = random.pick(&[0, 1, self.tags[mine], self.tags[1 - mine], tag ^ 1]);
        }
        let (source, destination) = if client { self.ports } else { (self.ports.1, self.ports.0) };
        let mut bytes = Vec::new();
        bytes.extend(source.to_be_bytes());
        bytes.extend(destination.to_be_bytes());
        bytes.extend(tag.to_be_bytes());
        bytes.extend([0; 4]);
        push_chunk(&mut bytes, kind, self.tags[mine], random);
        if random.percent(10) {
            let second = random.pick(&[DATA, SACK, COOKIE_ECHO, COOKIE_ACK, HEARTBEAT, ABORT]);
            push_chunk(&mut bytes, second, self.tags[mine], random);
        }
        if strays && random.percent(12) {
            self.corrupt_packet(&mut bytes, random);
        }
        if bytes.len() >= 12 {
            let crc = packet_builder::crc32c(&bytes) ^ u32::from(strays && random.percent(8));
            bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        }
        let toward = if client { Toward::Server } else { Toward::Client };
        GeneratedPacket {
            toward,
            ends: endpoints_toward(self.ends, toward),
            protocol: packet_builder::SCTP,
            transport: bytes,
        }
    }

    fn next_stage(&mut self, random: &mut OracleRng) {
        self.stage = match self.stage {
            9 if random.percent(75) => 4,
            12 if random.percent(50) => {
                self.tags = [random.next_u32() | 1, random.next_u32() | 1];
                0
            }
            12 => 12,
            stage => stage + 1,
        };
    }

    fn corrupt_packet(&self, bytes: &mut Vec<u8>, random: &mut OracleRng) {
        match random.below(4) {
            0 => bytes.truncate(random.below(bytes.len())),
            1 => bytes[14..16].copy_from_slice(&random.pick(&[0u16, 1, 3, 4, 5, 1000]).to_be_bytes()),
            2 => bytes[4..8].fill(0),
            _ => bytes[13] = random.next_u8(),
        }
    }
}

/// Appends a chunk of the usual size.
fn push_chunk(bytes: &mut Vec<u8>, kind: u8, tag: u32, random: &mut OracleRng) {
    let mut body = match kind {
        INIT | INIT_ACK => {
            let mut body = tag.to_be_bytes().to_vec();
            body.extend([0, 0, 0xff, 0xff, 0, 10, 0, 10, 0, 0, 0, 1]);
            body
        }
        DATA => vec![b's'; 12 + random.pick(&[1, 4, 100])],
        SACK => vec![0; 12],
        SHUTDOWN => vec![0; 4],
        HEARTBEAT | HEARTBEAT_ACK => vec![0, 1, 0, 8, 1, 2, 3, 4],
        COOKIE_ECHO => vec![b'c'; 16],
        _ => Vec::new(),
    };
    let flags = if matches!(kind, ABORT | SHUTDOWN_COMPLETE) && random.percent(30) { 1 } else { 0 };
    let flags = if kind == DATA { 3 } else { flags };
    bytes.extend([kind, flags]);
    bytes.extend((4 + body.len() as u16).to_be_bytes());
    body.resize(body.len().next_multiple_of(4), 0);
    bytes.extend(body);
}
