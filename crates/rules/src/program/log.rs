//! The log line of a packet: what the kernel writes for it (nf_log_syslog), byte for byte, so that programs which read the kernel's lines read ours.
//!
//! The line has the kernel's space at its end. It has no more bytes than the kernel's, so a packet of a thousand headers makes no long line.
use super::context::EvalCtx;
use super::log_buf::LogBuf;
use super::log_packet::LogDump;
use crate::ast::{Log, LogFlags};
use crate::fib::InterfaceInfo;
use keepstate_wire::Family;
use std::fmt::{self, Write};

/// ARPHRD_ETHER.
const LINK_TYPE_ETHERNET: u16 = 1;

/// The line of `log` for this packet.
pub(super) fn format_log_line(log: &Log, ctx: &EvalCtx<'_, '_>) -> String {
    let mut line = LogBuf::default();
    // An error means that the line is full.
    let _ = write_line(&mut line, log, ctx);
    line.into_text()
}

/// The record of the kernel's audit log (`audit_tg` and `nft_log_eval_audit`).
fn write_audit_record(line: &mut LogBuf, ctx: &EvalCtx<'_, '_>) -> fmt::Result {
    let packet = ctx.current_packet();
    let addresses = packet.addresses();
    let (from, to) = (addresses.source(), addresses.destination());
    write!(line, "type=NETFILTER_PKT mark={:#x} saddr={from} daddr={to} proto={}", ctx.meta.mark, packet.protocol())
}

fn write_line(line: &mut LogBuf, log: &Log, ctx: &EvalCtx<'_, '_>) -> fmt::Result {
    if log.audit {
        return write_audit_record(line, ctx);
    }
    let name = |device: Option<InterfaceInfo>| device.map(|device| device.display_name()).unwrap_or_default();
    write!(line, "{}IN={} OUT={} ", log.prefix, name(ctx.meta.iif), name(ctx.meta.oif))?;
    if let Some(iif) = ctx.meta.iif {
        // As in the kernel, a packet that leaves shows it only if the interface it leaves by has such headers.
        let device = if ctx.meta.is_leaving { ctx.meta.oif.unwrap_or(iif) } else { iif };
        let header = ctx.meta.link_header.filter(|_| device.link_type == LINK_TYPE_ETHERNET);
        write_link_header(line, log.flags, header)?;
    }
    let mut dump = LogDump { line: &mut *line, flags: log.flags };
    let packet = ctx.current_packet();
    let ended = match packet.family() {
        Family::V4 => dump.ipv4(packet.bytes(), true)?,
        Family::V6 => dump.ipv6(packet.bytes(), true)?,
    };
    // As in the kernel, a packet that cannot be read to its end has no mark.
    if ended && ctx.meta.mark != 0 {
        write!(line, "MARK={:#x} ", ctx.meta.mark)?;
    }
    match log.group {
        Some(group) => write!(line, "GROUP={group} "),
        None => Ok(()),
    }
}

/// The Ethernet header; `MAC= ` if the packet came without one.
fn write_link_header(line: &mut LogBuf, flags: LogFlags, header: Option<[u8; 14]>) -> fmt::Result {
    let Some(header) = header else { return line.write_str("MAC= ") };
    let [destination @ .., _, _, _, _, _, _, _, _] = header;
    let [_, _, _, _, _, _, source @ .., high, low] = header;
    if !flags.ether {
        line.write_str("MAC=")?;
        write_colon_hex(line, &header)?;
        return line.write_char(' ');
    }
    line.write_str("MACSRC=")?;
    write_colon_hex(line, &source)?;
    line.write_str(" MACDST=")?;
    write_colon_hex(line, &destination)?;
    write!(line, " MACPROTO={high:02x}{low:02x} ")
}

fn write_colon_hex(line: &mut LogBuf, bytes: &[u8]) -> fmt::Result {
    for (at, byte) in bytes.iter().enumerate() {
        let before = if at == 0 { "" } else { ":" };
        write!(line, "{before}{byte:02x}")?;
    }
    Ok(())
}
