//! A connection as a line of `/proc/net/nf_conntrack`: nearly the line of `conntrack -L -o extended`, but programs that read one may not read the other.
//!
//! Observed on Linux 6.18: IPv6 addresses are written in full, the zone is always shown, GRE shows its timeouts, helpers and ids are not shown,
//! and the reader counts as a use. A connection that a flow table forwards shows neither timeout nor state.
use keepstate_conntrack::format::engine_flow;
use keepstate_conntrack::format::{protocol_name, state_name};
use keepstate_engine::{Entry, UnixTime};
use keepstate_linux::ctnetlink::{CtFlow, CtTuple, Status, protocol};
use std::io::{self, Write};
use std::net::IpAddr;

/// Writes one line; `gre` are GRE's two timeouts, in seconds.
///
/// # Errors
/// Those of the writer.
pub(super) fn write_line(out: &mut impl Write, entry: &Entry, gre: [u32; 2], now: UnixTime) -> io::Result<()> {
    let flow = engine_flow::from_entry(entry);
    let number = entry.original.protocol;
    let (name, family) = if entry.original.is_ipv6() { ("ipv6", 10) } else { ("ipv4", 2) };
    write!(out, "{name:<8} {family} {:<8} {number} ", proc_protocol_name(number))?;
    let has = |bit: Status| flow.status.unwrap_or_default().contains(bit);
    if !has(Status::OFFLOAD) {
        write!(out, "{} ", entry.timeout)?;
        if let Some(state) = state_name(&flow.protoinfo) {
            write!(out, "{state} ")?;
        }
    }
    if number == protocol::GRE {
        write!(out, "timeout={}, stream_timeout={} ", gre[0], gre[1])?;
    }
    write_tuple(out, &flow.original)?;
    write_zone(out, "zone-orig", flow.original.zone)?;
    write_counters(out, &flow, 0)?;
    if !has(Status::SEEN_REPLY) {
        out.write_all(b"[UNREPLIED] ")?;
    }
    write_tuple(out, &flow.reply)?;
    write_zone(out, "zone-reply", flow.reply.zone)?;
    write_counters(out, &flow, 1)?;
    if has(Status::HW_OFFLOAD) {
        out.write_all(b"[HW_OFFLOAD] ")?;
    } else if has(Status::OFFLOAD) {
        out.write_all(b"[OFFLOAD] ")?;
    } else if has(Status::ASSURED) {
        out.write_all(b"[ASSURED] ")?;
    }
    write!(out, "mark={} ", entry.mark)?;
    if flow.original.zone.is_none() && flow.reply.zone.is_none() {
        write!(out, "zone={} ", flow.zone.unwrap_or(0))?;
    }
    if let Some(start) = entry.start {
        write!(out, "delta-time={} ", now.since(start).as_secs())?;
    }
    writeln!(out, "use={}", entry.uses + 1)
}

/// The kernel knows fewer names than conntrack.
fn proc_protocol_name(number: u8) -> &'static str {
    match number {
        protocol::DCCP => "unknown",
        number => protocol_name(number).unwrap_or("unknown"),
    }
}

fn write_tuple(out: &mut impl Write, tuple: &CtTuple) -> io::Result<()> {
    for (name, address) in [("src", tuple.source), ("dst", tuple.destination)] {
        match address {
            Some(IpAddr::V4(address)) => write!(out, "{name}={address} ")?,
            Some(IpAddr::V6(address)) => {
                let words: Vec<String> = address.segments().iter().map(|word| format!("{word:04x}")).collect();
                write!(out, "{name}={} ", words.join(":"))?;
            }
            None => (),
        }
    }
    let port = |port: Option<u16>| port.unwrap_or(0);
    match tuple.protocol {
        Some(protocol::ICMP | protocol::ICMPV6) => {
            let byte = |byte: Option<u8>| byte.unwrap_or(0);
            write!(out, "type={} code={} id={} ", byte(tuple.icmp_type), byte(tuple.icmp_code), port(tuple.icmp_id))
        }
        Some(protocol::GRE) => {
            write!(out, "srckey=0x{:x} dstkey=0x{:x} ", port(tuple.source_port), port(tuple.destination_port))
        }
        Some(protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP) => {
            write!(out, "sport={} dport={} ", port(tuple.source_port), port(tuple.destination_port))
        }
        _ => Ok(()),
    }
}

fn write_zone(out: &mut impl Write, name: &str, zone: Option<u16>) -> io::Result<()> {
    zone.map_or(Ok(()), |zone| write!(out, "{name}={zone} "))
}

fn write_counters(out: &mut impl Write, flow: &CtFlow, direction: usize) -> io::Result<()> {
    let counts = flow.counters.get(direction).copied().flatten();
    counts.map_or(Ok(()), |counts| write!(out, "packets={} bytes={} ", counts.packets, counts.bytes))
}
