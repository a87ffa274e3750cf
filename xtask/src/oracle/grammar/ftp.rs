//! FTP: control conversations whose commands are mostly whole and mostly honest, and data connections, announced or not.
use super::Emission;
use crate::oracle::craft::{self, Ends, Segment};
use crate::oracle::kernel::{HELPED, Toward};
use crate::oracle::random::Random;
use std::net::IpAddr;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Ports that are announced: few, so that masters get in each other's way. One of them is the helper's own.
const PORTS: &[u16] = &[2000, 2001, 2002, 464, HELPED, 0];

/// A control connection, or several in a row, and the data connections around it.
pub struct Flow {
    ends: Ends,
    port: u16,
    /// What client and server will send next.
    next: [u32; 2],
    /// Segments of the handshake that were sent.
    shaken: u8,
    /// What each side said last, and where.
    last: [(u32, Vec<u8>); 2],
    /// Where data connections were announced: who opens them, and to which port.
    announced: Vec<(Toward, u16)>,
    /// A data connection: who opened it, its ports.
    data: Option<(Toward, [u16; 2])>,
}

impl Flow {
    pub fn new(ends: Ends, random: &mut Random) -> Flow {
        Flow {
            ends,
            port: 40_000 + random.below(12) as u16,
            next: [random.word(), random.word()],
            shaken: 0,
            last: Default::default(),
            announced: Vec::new(),
            data: None,
        }
    }

    pub fn next(&mut self, random: &mut Random) -> Emission {
        match random.below(1000) {
            0..3 => self.control(Toward::Server, RST | ACK, b""),
            3..8 => self.control(random.pick(&[Toward::Server, Toward::Client]), FIN | ACK, b""),
            8..14 => self.open(random),
            14..130 => self.data(random),
            130..150 if self.shaken == 3 => self.again(random),
            _ => match self.shaken {
                0 => self.open(random),
                1 => self.shake(Toward::Client, SYN | ACK),
                2 => self.shake(Toward::Server, ACK),
                _ => self.line(random),
            },
        }
    }

    fn open(&mut self, random: &mut Random) -> Emission {
        self.next = [random.word(), random.word()];
        self.shaken = 0;
        self.shake(Toward::Server, SYN)
    }

    fn shake(&mut self, toward: Toward, flags: u8) -> Emission {
        self.shaken += 1;
        self.control(toward, flags, b"")
    }

    /// What one side says.
    fn line(&mut self, random: &mut Random) -> Emission {
        let toward = random.pick(&[Toward::Server, Toward::Client]);
        let mut line =
            if random.percent(40) { self.chatter(toward, random) } else { self.announcement(toward, random) };
        if random.percent(12) {
            mangle(&mut line, random);
        }
        self.last[side(toward)] = (self.next[side(toward)], line.clone());
        self.control(toward, ACK | 8, &line)
    }

    fn chatter(&self, toward: Toward, random: &mut Random) -> Vec<u8> {
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

    /// A command or an answer that announces a data connection, to the speaker itself or now and then to somebody else.
    fn announcement(&mut self, toward: Toward, random: &mut Random) -> Vec<u8> {
        let ends = super::facing(self.ends, toward);
        let speaker = if random.percent(8) { ends.destination } else { ends.source };
        let port = random.pick(PORTS);
        // Who listens is who speaks: the other side opens.
        let opener = if toward == Toward::Server { Toward::Client } else { Toward::Server };
        self.announced.push((opener, port));
        if self.announced.len() > 3 {
            self.announced.remove(0);
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

    /// One side says again what it said last, or something else in its place.
    fn again(&mut self, random: &mut Random) -> Emission {
        let toward = random.pick(&[Toward::Server, Toward::Client]);
        let (seq, said) = self.last[side(toward)].clone();
        let said = if random.percent(60) { said } else { self.announcement(toward, random) };
        let next = std::mem::replace(&mut self.next[side(toward)], seq);
        let emission = self.control(toward, ACK, &said);
        let after = &mut self.next[side(toward)];
        if after.wrapping_sub(next) > 1 << 31 {
            *after = next;
        }
        emission
    }

    /// A segment of the control connection.
    fn control(&mut self, toward: Toward, flags: u8, data: &[u8]) -> Emission {
        let [client, server] = self.next;
        let (source, destination, seq, ack) = match toward {
            Toward::Server => (self.port, HELPED, client, server),
            Toward::Client => (HELPED, self.port, server, client),
        };
        let ack = if flags & ACK == 0 { 0 } else { ack };
        let length = data.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        self.next[side(toward)] = seq.wrapping_add(length);
        self.emit(toward, Segment { source, destination, seq, ack, flags, ..Segment::default() }, data)
    }

    /// A segment of a data connection: a new one's first, mostly where it was announced, or the next of the one there is.
    fn data(&mut self, random: &mut Random) -> Emission {
        let known = self.data.filter(|_| random.percent(50));
        let (toward, [source, destination], flags) = match known {
            Some((opener, ports)) if random.percent(50) => (opener, ports, random.pick(&[SYN, ACK, ACK | FIN, RST])),
            Some((opener, [from, to])) => {
                let answer = if opener == Toward::Server { Toward::Client } else { Toward::Server };
                (answer, [to, from], random.pick(&[SYN | ACK, ACK, RST | ACK]))
            }
            None => {
                let anywhere = (random.pick(&[Toward::Server, Toward::Client]), random.pick(PORTS));
                let at = random.below(self.announced.len() + 1);
                let (opener, port) = self.announced.get(at).copied().unwrap_or(anywhere);
                let ports = [random.weighted(&[(4, 20), (1, 50_000 + random.clone().below(40) as u16)]), port];
                self.data = Some((opener, ports));
                (opener, ports, random.weighted(&[(12, SYN), (2, ACK), (1, RST), (1, SYN | ACK)]))
            }
        };
        let (seq, ack) = if flags & SYN != 0 { (100, 100) } else { (101, 101) };
        let ack = if flags & ACK == 0 { 0 } else { ack };
        self.emit(toward, Segment { source, destination, seq, ack, flags, ..Segment::default() }, b"")
    }

    fn emit(&self, toward: Toward, segment: Segment, data: &[u8]) -> Emission {
        let ends = super::facing(self.ends, toward);
        let mut transport = Segment { window: 60_000, ..segment }.bytes(ends);
        transport.extend_from_slice(data);
        craft::put_checksum(&mut transport, 16, ends, craft::TCP, false);
        Emission { toward, ends, protocol: craft::TCP, transport }
    }
}

/// The place of who sends.
const fn side(toward: Toward) -> usize {
    match toward {
        Toward::Server => 0,
        Toward::Client => 1,
    }
}

/// One or two changes, or an end too soon.
fn mangle(line: &mut Vec<u8>, random: &mut Random) {
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
