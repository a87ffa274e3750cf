//! Dumps and flushes the kernel's table by ctnetlink: only what the comparison needs.
use super::expectation_row::ExpectationRow;
use super::row::{ConnRow, ProtoRow};
use super::syscalls;
use anyhow::{Context, Result, bail};
use keepstate_engine::Tuple;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const CT_NEW: u16 = 0x100;
const CT_GET: u16 = 0x101;
pub const CT_DELETE: u16 = 0x102;
const CT_GET_STATS_CPU: u16 = 0x104;
const EXP_NEW: u16 = 0x200;
const EXP_GET: u16 = 0x201;
const EXP_GET_STATS_CPU: u16 = 0x203;
const NLMSG_DONE: u16 = 3;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;

/// A ctnetlink socket of the namespace it was opened in.
pub struct CtnetlinkDump {
    socket: File,
    buffer: Vec<u8>,
}

impl CtnetlinkDump {
    pub fn open() -> Result<CtnetlinkDump> {
        Ok(CtnetlinkDump {
            socket: syscalls::netfilter_socket().context("a netlink socket to conntrack")?,
            buffer: vec![0; 1 << 16],
        })
    }

    /// All connections that have not expired.
    pub fn connections(&mut self) -> Result<Vec<ConnRow>> {
        let mut rows = Vec::new();
        self.request(CT_GET, NLM_F_REQUEST | NLM_F_DUMP, |kind, body| {
            if kind == CT_NEW {
                rows.extend(parse_row(body));
            }
        })?;
        Ok(rows)
    }

    /// All expectations.
    pub fn expectations(&mut self) -> Result<Vec<ExpectationRow>> {
        let mut all = Vec::new();
        self.request(EXP_GET, NLM_F_REQUEST | NLM_F_DUMP, |kind, body| {
            if kind == EXP_NEW {
                all.extend(parse_expectation(body));
            }
        })?;
        Ok(all)
    }

    /// Removes all connections and their expectations.
    pub fn flush(&mut self) -> Result<()> {
        self.request(CT_DELETE, NLM_F_REQUEST | NLM_F_ACK, |_, _| {})
    }

    /// The counters of `conntrack -S` and those of expectations, summed over CPUs, by attribute number: see [`statistic`].
    pub fn statistics(&mut self) -> Result<HashMap<u16, u64>> {
        let mut sums = HashMap::new();
        self.request(CT_GET_STATS_CPU, NLM_F_REQUEST | NLM_F_DUMP, |_, body| {
            for (kind, value) in attributes(body) {
                *sums.entry(kind).or_default() += parse_number(value);
            }
        })?;
        self.request(EXP_GET_STATS_CPU, NLM_F_REQUEST | NLM_F_DUMP, |_, body| {
            for (kind, value) in attributes(body) {
                *sums.entry(kind | statistic::EXPECT_STATS).or_default() += parse_number(value);
            }
        })?;
        Ok(sums)
    }

    fn request(&mut self, kind: u16, flags: u16, mut each: impl FnMut(u16, &[u8])) -> Result<()> {
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
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
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
    /// The counters that traffic alone can change, with their names.
    pub const COMPARED: [(u16, &str); 9] = [
        (4, "invalid"),
        (12, "error"),
        (9, "insert_failed"),
        (10, "drop"),
        (11, "early_drop"),
        (14, "clash_resolve"),
        (EXPECT_STATS | 1, "expect_new"),
        (EXPECT_STATS | 2, "expect_create"),
        (EXPECT_STATS | 3, "expect_delete"),
    ];
    /// The expectation counters have their own attribute numbers, starting at 1.
    pub const EXPECT_STATS: u16 = 0x100;
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

fn attribute(body: &[u8], kind: u16) -> &[u8] {
    attributes(body).find(|(found, _)| *found == kind).map_or(&[], |(_, value)| value)
}

fn parse_number(value: &[u8]) -> u64 {
    value.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn attribute_number(body: &[u8], kind: u16) -> u64 {
    parse_number(attribute(body, kind))
}

/// One connection of a dump or of an event.
pub fn parse_row(body: &[u8]) -> Option<ConnRow> {
    let counters = |kind| {
        let body = attribute(body, kind);
        (!body.is_empty()).then(|| (attribute_number(body, 1), attribute_number(body, 2)))
    };
    let detail = attribute(body, 4);
    let (tcp, sctp) = (attribute(detail, 1), attribute(detail, 3));
    let byte = |body, kind| attribute(body, kind).first().copied().unwrap_or(0);
    let detail = if !tcp.is_empty() {
        ProtoRow::Tcp { state: byte(tcp, 1), scales: [byte(tcp, 2), byte(tcp, 3)], flags: [byte(tcp, 4), byte(tcp, 5)] }
    } else if !sctp.is_empty() {
        ProtoRow::Sctp {
            state: byte(sctp, 1),
            tags: [attribute_number(sctp, 2) as u32, attribute_number(sctp, 3) as u32],
        }
    } else {
        ProtoRow::None
    };
    Some(ConnRow {
        original: parse_tuple(attribute(body, 1))?,
        reply: parse_tuple(attribute(body, 2))?,
        status: attribute_number(body, 3) as u32,
        timeout: attribute_number(body, 7) as u32,
        detail,
        counters: counters(9).zip(counters(10)).map(|(original, reply)| [original, reply]),
        helper: parse_string(attribute(attribute(body, 5), 1)),
        master: parse_tuple(attribute(body, 14)),
        uses: attribute_number(body, 11) as u32,
    })
}

fn parse_expectation(body: &[u8]) -> Option<ExpectationRow> {
    let mask = parse_tuple(attribute(body, 3))?;
    Some(ExpectationRow {
        tuple: parse_tuple(attribute(body, 2))?,
        mask: (mask.source, mask.source_key),
        master: parse_tuple(attribute(body, 1))?,
        helper: parse_string(attribute(body, 6)),
        class: attribute_number(body, 9) as u8,
        timeout: attribute_number(body, 4) as u32,
    })
}

/// A NUL-terminated string.
fn parse_string(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

fn parse_tuple(body: &[u8]) -> Option<Tuple> {
    let (ip, transport) = (attribute(body, 1), attribute(body, 2));
    let address = |v4, v6| -> Option<IpAddr> {
        match attribute(ip, v4).first_chunk::<4>() {
            Some(bytes) => Some(IpAddr::V4(Ipv4Addr::from(*bytes))),
            None => Some(IpAddr::V6(Ipv6Addr::from(*attribute(ip, v6).first_chunk::<16>()?))),
        }
    };
    let protocol = attribute_number(transport, 1) as u8;
    let (source_key, destination_key) = match protocol {
        super::packet_builder::ICMP => {
            (attribute_number(transport, 4), attribute_number(transport, 5) << 8 | attribute_number(transport, 6))
        }
        super::packet_builder::ICMPV6 => {
            (attribute_number(transport, 7), attribute_number(transport, 8) << 8 | attribute_number(transport, 9))
        }
        _ => (attribute_number(transport, 2), attribute_number(transport, 3)),
    };
    Some(Tuple {
        source: address(1, 3)?,
        destination: address(2, 4)?,
        protocol,
        source_key: source_key as u16,
        destination_key: destination_key as u16,
    })
}
