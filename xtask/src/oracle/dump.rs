//! The kernel's own table, read and flushed by ctnetlink: just enough of that protocol to compare.
use super::expected::Expected;
use super::row::{Detail, Row};
use super::system;
use anyhow::{Context, Result, bail};
use keepstate_engine::Tuple;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const NEW: u16 = 0x100;
const READ: u16 = 0x101;
const DELETE: u16 = 0x102;
const STATISTICS: u16 = 0x104;
const EXPECT_NEW: u16 = 0x200;
const EXPECT_READ: u16 = 0x201;
const EXPECT_STATISTICS: u16 = 0x203;
const DONE: u16 = 3;
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const WHOLE: u16 = 0x300;

/// A socket to the table of the namespace it was opened in.
pub struct Dump {
    socket: File,
    buffer: Vec<u8>,
}

impl Dump {
    pub fn open() -> Result<Dump> {
        Ok(Dump {
            socket: system::netfilter_socket().context("a netlink socket to conntrack")?,
            buffer: vec![0; 1 << 16],
        })
    }

    /// Every connection that has not expired.
    pub fn rows(&mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        self.ask(READ, REQUEST | WHOLE, |kind, body| {
            if kind == NEW {
                rows.extend(row(body));
            }
        })?;
        Ok(rows)
    }

    /// Every expectation.
    pub fn expected(&mut self) -> Result<Vec<Expected>> {
        let mut all = Vec::new();
        self.ask(EXPECT_READ, REQUEST | WHOLE, |kind, body| {
            if kind == EXPECT_NEW {
                all.extend(expected(body));
            }
        })?;
        Ok(all)
    }

    /// Removes every connection, and with each what it expects.
    pub fn flush(&mut self) -> Result<()> {
        self.ask(DELETE, REQUEST | ACKNOWLEDGE, |_, _| {})
    }

    /// The counters of `conntrack -S` and those of expectations, summed over processors, by attribute number: see [`statistic`].
    pub fn statistics(&mut self) -> Result<HashMap<u16, u64>> {
        let mut sums = HashMap::new();
        self.ask(STATISTICS, REQUEST | WHOLE, |_, body| {
            for (kind, value) in attributes(body) {
                *sums.entry(kind).or_default() += number(value);
            }
        })?;
        self.ask(EXPECT_STATISTICS, REQUEST | WHOLE, |_, body| {
            for (kind, value) in attributes(body) {
                *sums.entry(kind | statistic::OF_EXPECTATIONS).or_default() += number(value);
            }
        })?;
        Ok(sums)
    }

    fn ask(&mut self, kind: u16, flags: u16, mut each: impl FnMut(u16, &[u8])) -> Result<()> {
        let mut request = Vec::new();
        request.extend_from_slice(&20u32.to_ne_bytes());
        request.extend_from_slice(&kind.to_ne_bytes());
        request.extend_from_slice(&flags.to_ne_bytes());
        request.extend_from_slice(&[0; 12]);
        self.socket.write_all(&request)?;
        loop {
            let length = match self.socket.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                length => length.context("reading the kernel's table")?,
            };
            let mut rest = &self.buffer[..length];
            while rest.len() >= 16 {
                let size = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                let Some(body) = rest.get(16..size) else { bail!("a netlink message that is cut short") };
                match kind {
                    DONE => return Ok(()),
                    ERROR => {
                        let code = body.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
                        if code == 0 {
                            return Ok(());
                        }
                        bail!("conntrack answers {}", io::Error::from_raw_os_error(-code));
                    }
                    _ => each(kind, body.get(4..).unwrap_or_default()),
                }
                rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// Counters of `conntrack -S`, by the kernel's attribute numbers.
pub mod statistic {
    /// Those that traffic alone can move, with their names.
    pub const COMPARED: [(u16, &str); 9] = [
        (4, "invalid"),
        (12, "error"),
        (9, "insert_failed"),
        (10, "drop"),
        (11, "early_drop"),
        (14, "clash_resolve"),
        (OF_EXPECTATIONS | 1, "expect_new"),
        (OF_EXPECTATIONS | 2, "expect_create"),
        (OF_EXPECTATIONS | 3, "expect_delete"),
    ];
    /// Those of expectations have numbers of their own, from 1 on again.
    pub const OF_EXPECTATIONS: u16 = 0x100;
}

fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn inside(body: &[u8], kind: u16) -> &[u8] {
    attributes(body).find(|(found, _)| *found == kind).map_or(&[], |(_, value)| value)
}

fn number(value: &[u8]) -> u64 {
    value.iter().fold(0, |sum, octet| sum << 8 | u64::from(*octet))
}

fn field(body: &[u8], kind: u16) -> u64 {
    number(inside(body, kind))
}

fn row(body: &[u8]) -> Option<Row> {
    let counters = |kind| {
        let body = inside(body, kind);
        (!body.is_empty()).then(|| (field(body, 1), field(body, 2)))
    };
    let detail = inside(body, 4);
    let (tcp, sctp) = (inside(detail, 1), inside(detail, 3));
    let octet = |body, kind| inside(body, kind).first().copied().unwrap_or(0);
    let detail = if !tcp.is_empty() {
        Detail::Tcp {
            state: octet(tcp, 1),
            scales: [octet(tcp, 2), octet(tcp, 3)],
            flags: [octet(tcp, 4), octet(tcp, 5)],
        }
    } else if !sctp.is_empty() {
        Detail::Sctp { state: octet(sctp, 1), tags: [field(sctp, 2) as u32, field(sctp, 3) as u32] }
    } else {
        Detail::None
    };
    Some(Row {
        original: tuple(inside(body, 1))?,
        reply: tuple(inside(body, 2))?,
        status: field(body, 3) as u32,
        timeout: field(body, 7) as u32,
        detail,
        counters: counters(9).zip(counters(10)).map(|(original, reply)| [original, reply]),
        helper: text(inside(inside(body, 5), 1)),
        master: tuple(inside(body, 14)),
        uses: field(body, 11) as u32,
    })
}

fn expected(body: &[u8]) -> Option<Expected> {
    let mask = tuple(inside(body, 3))?;
    Some(Expected {
        tuple: tuple(inside(body, 2))?,
        mask: (mask.source, mask.source_key),
        master: tuple(inside(body, 1))?,
        helper: text(inside(body, 6)),
        class: field(body, 9) as u8,
        timeout: field(body, 4) as u32,
    })
}

/// A string that ends with a zero.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

fn tuple(body: &[u8]) -> Option<Tuple> {
    let (ip, transport) = (inside(body, 1), inside(body, 2));
    let address = |v4, v6| -> Option<IpAddr> {
        match inside(ip, v4).first_chunk::<4>() {
            Some(octets) => Some(IpAddr::V4(Ipv4Addr::from(*octets))),
            None => Some(IpAddr::V6(Ipv6Addr::from(*inside(ip, v6).first_chunk::<16>()?))),
        }
    };
    let protocol = field(transport, 1) as u8;
    let (source_key, destination_key) = match protocol {
        super::craft::ICMP => (field(transport, 4), field(transport, 5) << 8 | field(transport, 6)),
        super::craft::ICMPV6 => (field(transport, 7), field(transport, 8) << 8 | field(transport, 9)),
        _ => (field(transport, 2), field(transport, 3)),
    };
    Some(Tuple {
        source: address(1, 3)?,
        destination: address(2, 4)?,
        protocol,
        source_key: source_key as u16,
        destination_key: destination_key as u16,
    })
}
