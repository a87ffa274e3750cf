//! The scenario file format: one line per packet, with a description and its bytes, so that the scenario can be run again from the file.
//!
//! ```text
//! set nf_conntrack_tcp_loose 0
//! wait 1500
//! >  S    0   1000     -   64240
//! <  SA   0   9000  1001   65160
//! > 450000...                          any packet, in hexadecimal
//! ```
//! `>` is from the clients' network to the servers', `<` is back. `#` begins a comment. TCP lines are between one client and one server.
use super::grammar::generated_packet::{endpoints_toward, host_pair};
use super::kernel::Toward;
use super::packet_builder::{self, IpHeaderSpec, OracleSegment};
use super::scenario::OracleScenario;
use super::step::{OracleStep, RawPacketView};
use anyhow::{Context, Result, bail};
use keepstate_engine::Sysctl;
use std::fmt::Write;

const TCP_FLAG_LETTERS: [(u8, char); 8] =
    [(2, 'S'), (16, 'A'), (1, 'F'), (4, 'R'), (8, 'P'), (32, 'U'), (64, 'E'), (128, 'C')];

/// Describes one packet.
pub fn describe(step: &OracleStep) -> String {
    let arrow = if step.toward == Toward::Server { '>' } else { '<' };
    let mut line = format!("{arrow}  ");
    if let Some(about) = describe_fragment(&step.bytes) {
        line.push_str(&about);
        return line;
    }
    match RawPacketView::parse(&step.bytes) {
        Some(view) => describe_transport(&mut line, &view),
        None => line.push_str("not an IP packet"),
    }
    line
}

/// Describes a fragment; `None` if it is none.
fn describe_fragment(bytes: &[u8]) -> Option<String> {
    let (id, field, unit, protocol) = match bytes.first()? >> 4 {
        4 => (u32::from(be16(bytes, 4)), be16(bytes, 6) & 0x3fff, 8, *bytes.get(9)?),
        6 if *bytes.get(6)? == packet_builder::FRAGMENT => {
            (be32(bytes, 44), be16(bytes, 42).rotate_right(3), 8, *bytes.get(40)?)
        }
        _ => return None,
    };
    // IPv4 has the more-fragments bit above the offset, IPv6 below it; after the rotation it is bit 13 for both.
    let (offset, more) = (field & 0x1fff, field & 0x2000 != 0);
    let header = if bytes[0] >> 4 == 4 { usize::from(bytes[0] & 15) * 4 } else { 48 };
    let length = bytes.len().saturating_sub(header);
    let whole = offset == 0 && !more && bytes[0] >> 4 == 4;
    let more = if more { "more" } else { "last" };
    (!whole).then(|| format!("fragment {id} of protocol {protocol} at {} length {length} {more}", offset * unit))
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |pair| u16::from(pair[0]) << 8 | u16::from(pair[1]))
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from(be16(bytes, at)) << 16 | u32::from(be16(bytes, at + 2))
}

fn describe_transport(line: &mut String, view: &RawPacketView<'_>) {
    let bytes = view.transport;
    let ports = |bytes: &[u8]| format!("{}>{}", be16(bytes, 0), be16(bytes, 2));
    let _ = match view.protocol {
        packet_builder::TCP if bytes.len() >= 20 => {
            let flags: String =
                TCP_FLAG_LETTERS.iter().filter(|(bit, _)| bytes[13] & bit != 0).map(|(_, letter)| letter).collect();
            let header = usize::from(bytes[12] >> 4) * 4;
            let data = bytes.len() as i64 - header as i64;
            let ack = if bytes[13] & 16 != 0 { be32(bytes, 8).to_string() } else { "-".to_string() };
            let (flags, seq, window) = (if flags.is_empty() { "0" } else { &flags }, be32(bytes, 4), be16(bytes, 14));
            let _ = write!(line, "{flags:4} {data:4} {seq:>10} {ack:>10} {window:>6}");
            match bytes.get(20..header) {
                Some([]) | None => {}
                Some(options) => line.push_str(&format!("  options {}", hex_compact(options))),
            }
            write!(line, "  ({})", ports(bytes))
        }
        packet_builder::UDP => write!(
            line,
            "udp {} length {} check {:#06x}, {} bytes",
            ports(bytes),
            be16(bytes, 4),
            be16(bytes, 6),
            bytes.len()
        ),
        packet_builder::UDPLITE => write!(
            line,
            "udplite {} coverage {} check {:#06x}, {} bytes",
            ports(bytes),
            be16(bytes, 4),
            be16(bytes, 6),
            bytes.len()
        ),
        packet_builder::ICMP | packet_builder::ICMPV6 => {
            let _ = write!(
                line,
                "icmp {}/{} id {}, {} bytes",
                be16(bytes, 0) >> 8,
                be16(bytes, 0) & 255,
                be16(bytes, 4),
                bytes.len()
            );
            if let Some(quoted) = view.inner_packet() {
                let _ = write!(line, " {}->{} about [", view.source, view.destination);
                match RawPacketView::parse(quoted) {
                    Some(inner) => {
                        let _ = write!(line, "{}->{} ", inner.source, inner.destination);
                        describe_transport(line, &inner);
                    }
                    None => line.push_str("nothing readable"),
                }
                line.push(']');
            }
            Ok(())
        }
        packet_builder::SCTP => {
            let _ = write!(line, "sctp {} tag {:#x}", ports(bytes), be32(bytes, 4));
            let mut at = 12;
            while at + 4 <= bytes.len() {
                let _ = write!(line, " chunk {} flags {:#x} length {}", bytes[at], bytes[at + 1], be16(bytes, at + 2));
                at += usize::from(be16(bytes, at + 2)).max(4).next_multiple_of(4);
            }
            Ok(())
        }
        protocol => {
            write!(line, "protocol {protocol}, {} bytes {}", bytes.len(), hex_compact(&bytes[..bytes.len().min(16)]))
        }
    };
}

/// Bytes in hexadecimal; a long run of the last byte is written once, with its count: `4500+1000*6b`.
pub fn hex_compact(bytes: &[u8]) -> String {
    let last = bytes.last().copied().unwrap_or(0);
    let same = bytes.iter().rev().take_while(|byte| **byte == last).count();
    let digits = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    if same < 8 { digits(bytes) } else { format!("{}+{same}*{last:02x}", digits(&bytes[..bytes.len() - same])) }
}

/// Writes the scenario as a file.
pub fn write_scenario(scenario: &OracleScenario, title: &str, remarks: &[String]) -> String {
    let mut text = String::new();
    for line in title.lines() {
        let _ = writeln!(text, "# {line}");
    }
    for (sysctl, value) in &scenario.sysctls {
        let _ = writeln!(text, "set {} {value}", sysctl.name());
    }
    let mut time = 0;
    for (at, step) in scenario.steps.iter().enumerate() {
        if step.not_before > time {
            let _ = writeln!(text, "wait {}", step.not_before - time);
            time = step.not_before;
        }
        let remark = remarks.get(at).map_or("", String::as_str);
        let _ = writeln!(text, "# {}   {remark}", describe(step));
        let arrow = if step.toward == Toward::Server { '>' } else { '<' };
        let _ = writeln!(text, "{arrow} {}", hex_compact(&step.bytes));
    }
    text
}

/// Parses a scenario file.
pub fn read_scenario(text: &str) -> Result<OracleScenario> {
    let mut scenario = OracleScenario::default();
    let mut time = 0;
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let place = || format!("line {}: {line}", at + 1);
        match words.as_slice() {
            [] => {}
            ["set", name, value] => {
                let sysctl = Sysctl::from_name(name).with_context(place)?;
                scenario.sysctls.push((sysctl, value.parse().with_context(place)?));
            }
            ["wait", milliseconds] => {
                time += milliseconds.parse::<u64>().with_context(place)?;
                scenario.slow = true;
            }
            [arrow @ (">" | "<"), rest @ ..] => {
                let toward = if *arrow == ">" { Toward::Server } else { Toward::Client };
                let number = 1 + scenario.steps.len() as u32;
                let mut step = read_packet(toward, rest, number).with_context(place)?;
                step.not_before = time;
                scenario.steps.push(step);
            }
            _ => bail!("{}", place()),
        }
    }
    Ok(scenario)
}

fn read_packet(toward: Toward, words: &[&str], number: u32) -> Result<OracleStep> {
    match words {
        [hex] => Ok(OracleStep::from_packet(toward, parse_hex(hex)?)),
        [flags, data, seq, ack, window, options @ ..] => {
            let bits = |letter| TCP_FLAG_LETTERS.iter().find(|(_, name)| *name == letter).map(|(bit, _)| bit);
            let number_of = |word: &str| if word == "-" { Ok(0) } else { word.parse::<u32>() };
            let flags = if *flags == "0" {
                0
            } else {
                flags.chars().map(bits).try_fold(0, |sum, bit| Some(sum | bit?)).context("flags")?
            };
            let (source, destination) = if toward == Toward::Server { (40000, 80) } else { (80, 40000) };
            let segment = OracleSegment {
                source,
                destination,
                seq: number_of(seq)?,
                ack: number_of(ack)?,
                flags,
                window: window.parse()?,
                options: parse_hex(options.first().unwrap_or(&""))?,
                data_len: data.parse()?,
                ..OracleSegment::default()
            };
            let ends = endpoints_toward(host_pair(false, 1, 1), toward);
            let envelope = IpHeaderSpec { ident: number, ..IpHeaderSpec::default() };
            Ok(OracleStep::from_packet(
                toward,
                packet_builder::ip_packet(ends, packet_builder::TCP, &segment.to_bytes(ends), &envelope),
            ))
        }
        _ => bail!("expected a packet in hexadecimal, or flags, length, seq, ack, window"),
    }
}

fn parse_hex(hex: &str) -> Result<Vec<u8>> {
    if let Some((start, (count, last))) =
        hex.split_once('+').and_then(|(start, rest)| Some((start, rest.split_once('*')?)))
    {
        let mut bytes = parse_hex(start)?;
        let last = parse_hex(last)?.first().copied().context("missing byte to repeat")?;
        bytes.resize(bytes.len() + count.parse::<u16>()? as usize, last);
        return Ok(bytes);
    }
    let digits: Option<Vec<u8>> = hex.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0).context("expected hexadecimal digits, two a byte")?;
    Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
