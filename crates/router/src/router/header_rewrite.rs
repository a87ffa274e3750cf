//! Header changes by rules, made when the packet leaves the hook.
use super::{DropReason, InFlightPacket, Router};
use keepstate_rules::Fib;
use keepstate_rules::HeaderRewrite;
use keepstate_rules::ast::{BitRange, Endpoint, PayloadBase};
use keepstate_wire::rewrite::{ChecksumMode, HeaderBase};

impl Router {
    /// Makes the header changes that rules have queued.
    pub(super) fn rewrite_headers(&self, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        if pkt.meta.rewrites.is_empty() {
            return Ok(());
        }
        let mtu = pkt.meta.oif.map_or(u32::MAX, |device| self.fib.mtu(device.index));
        let changes = std::mem::take(&mut pkt.meta.rewrites);
        let mut rewrite = pkt.rewrite()?;
        for change in changes {
            match change {
                HeaderRewrite::Dscp(class) => rewrite.set_dscp(class),
                HeaderRewrite::Ttl(ttl) => rewrite.set_hop_limit(ttl),
                HeaderRewrite::TcpMss(0) => {
                    let headers = if rewrite.bytes().first().is_some_and(|first| first >> 4 == 6) { 60 } else { 40 };
                    rewrite.clamp_mss(u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX));
                }
                HeaderRewrite::Address(Endpoint::Source, address) => {
                    rewrite.set_source(address);
                }
                HeaderRewrite::Address(Endpoint::Destination, address) => {
                    rewrite.set_destination(address);
                }
                HeaderRewrite::Port(Endpoint::Source, port) => {
                    rewrite.set_source_port(port);
                }
                HeaderRewrite::Port(Endpoint::Destination, port) => {
                    rewrite.set_destination_port(port);
                }
                HeaderRewrite::Payload(field, value) => {
                    let BitRange { offset: from, count } = field.bits;
                    // As in Linux, a raw payload expression (`@th,…`) leaves checksums as they are.
                    let is_named = field.protocol.is_some() || field.v6.is_some();
                    let checksums =
                        if is_named && !field.is_checksum() { ChecksumMode::Update } else { ChecksumMode::Keep };
                    let base =
                        if field.base == PayloadBase::Transport { HeaderBase::Transport } else { HeaderBase::Network };
                    let from = usize::from(from);
                    rewrite.set_bits(base, from..from + usize::from(count), value, checksums);
                }
                HeaderRewrite::TcpOptStrip(kind) => {
                    rewrite.strip_tcp_option(kind);
                }
                HeaderRewrite::TcpMss(most) => {
                    rewrite.clamp_mss(most);
                }
            }
        }
        Ok(())
    }
}
