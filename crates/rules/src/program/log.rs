//! The log line of a packet, similar to the kernel's.
use super::context::EvalCtx;
use super::header_bits::packet_address;
use crate::ast::{Endpoint, Log};
use crate::fib::InterfaceInfo;
use std::fmt::Write;

/// The line: prefix, interfaces, addresses, length, protocol, ports.
pub(super) fn format_log_line(log: &Log, ctx: &EvalCtx<'_, '_>) -> String {
    let packet = ctx.packet;
    let name = |device: Option<InterfaceInfo>| device.map(|device| device.display_name()).unwrap_or_default();
    let mut line = format!(
        "{}IN={} OUT={} SRC={} DST={} LEN={} TTL={} PROTO={}",
        log.prefix,
        name(ctx.meta.iif),
        name(ctx.meta.oif),
        packet_address(packet, Endpoint::Source),
        packet_address(packet, Endpoint::Destination),
        packet.total_len(),
        packet.hop_limit(),
        packet.protocol(),
    );
    if let (6 | 17 | 132 | 136, Some((source, destination))) = (packet.protocol(), packet.ports()) {
        // Writing to a String does not fail.
        let _ = write!(line, " SPT={source} DPT={destination}");
    }
    if let Some(group) = log.group {
        let _ = write!(line, " GROUP={group}");
    }
    if ctx.meta.mark != 0 {
        let _ = write!(line, " MARK={:#x}", ctx.meta.mark);
    }
    line
}
