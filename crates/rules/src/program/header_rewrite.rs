//! Header changes by rules: made at once, on a copy of the packet that the rules and chains behind read.
use super::context::EvalCtx;
use super::header_bits::packet_address;
use super::header_fields::inner_offset;
use crate::ast::{BitRange, Endpoint, PayloadBase, PayloadField};
use keepstate_wire::rewrite::{ChecksumMode, HeaderBase, PacketMut};
use keepstate_wire::{Family, Packet};
use std::net::IpAddr;

/// A change of a packet's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderRewrite {
    /// DSCP.
    Dscp(u8),
    /// TTL or hop limit.
    Ttl(u8),
    /// MSS of a SYN, never raised. 0 stands for the MTU of the route.
    TcpMss(u16),
    /// Bits of the TCP option of this number.
    TcpOption(u8, BitRange, u32),
    /// An address, without NAT of the connection.
    Address(Endpoint, IpAddr),
    /// A port, without NAT of the connection.
    Port(Endpoint, u16),
    /// Bits of a header.
    Payload(PayloadField, u128),
    /// Replaces the TCP option of this number by no-operations.
    TcpOptStrip(u8),
}

impl EvalCtx<'_, '_> {
    /// The packet as the rules so far have changed it.
    pub(super) fn current_packet(&self) -> Packet<'_> {
        if self.meta.rewritten.is_empty() {
            return *self.packet;
        }
        // No change has another length, so there is a view.
        self.packet.layout().and_then(|layout| layout.view(&self.meta.rewritten)).unwrap_or(*self.packet)
    }

    /// The largest TCP segment that fits into the MTU of the packet's route and of the route back to its source, as in Linux (nft_rt.c).
    pub(super) fn route_mss(&self) -> u16 {
        // TCP_MSS_DEFAULT.
        const DEFAULT: u16 = 536;
        let headers = if self.packet.family() == Family::V6 { 60 } else { 40 };
        let back = self.fib.route_lookup(packet_address(&self.current_packet(), Endpoint::Source), None);
        let mtu = self.meta.oif.into_iter().chain(back).map(|device| self.fib.mtu(device.index)).min();
        let mtu = mtu.unwrap_or(u32::from(u16::MAX));
        u16::try_from(mtu).ok().and_then(|mtu| mtu.checked_sub(headers)).filter(|mss| *mss > 0).unwrap_or(DEFAULT)
    }

    /// Changes the packet; `None` if it does not have the field.
    pub(super) fn rewrite_header(&mut self, change: HeaderRewrite) -> Option<()> {
        let layout = self.packet.layout()?;
        if self.meta.rewritten.is_empty() {
            self.meta.rewritten.extend_from_slice(self.packet.bytes());
        }
        let of_route = self.route_mss();
        // Bits of the transport header before the ones that the change counts from.
        let before = match change {
            HeaderRewrite::Payload(PayloadField { base: PayloadBase::Inner, .. }, _) => inner_offset(self.packet)? * 8,
            _ => 0,
        };
        let mut rewrite = PacketMut::from_layout(&mut self.meta.rewritten, layout)?;
        let changed = match change {
            HeaderRewrite::Dscp(class) => {
                rewrite.set_dscp(class);
                true
            }
            HeaderRewrite::Ttl(hops) => {
                rewrite.set_hop_limit(hops);
                true
            }
            HeaderRewrite::TcpMss(_) if self.packet.protocol() != 6 => false,
            HeaderRewrite::TcpMss(most) => {
                // As in Linux, a segment without the option, or with a lower value, goes on to the next statement.
                rewrite.clamp_mss(if most == 0 { of_route } else { most });
                true
            }
            HeaderRewrite::TcpOption(..) if self.packet.protocol() != 6 => false,
            HeaderRewrite::TcpOption(number, bits, value) => rewrite.set_tcp_option_bits(number, bits.range(), value),
            HeaderRewrite::Address(Endpoint::Source, address) => rewrite.set_source(address),
            HeaderRewrite::Address(Endpoint::Destination, address) => rewrite.set_destination(address),
            HeaderRewrite::Port(Endpoint::Source, port) => rewrite.set_source_port(port),
            HeaderRewrite::Port(Endpoint::Destination, port) => rewrite.set_destination_port(port),
            HeaderRewrite::Payload(field, value) => {
                let BitRange { offset: from, count } = field.bits;
                // As in Linux, a raw payload expression (`@th,…`) leaves checksums as they are.
                let is_named = field.protocol.is_some() || field.v6.is_some();
                let checksums =
                    if is_named && !field.is_checksum() { ChecksumMode::Update } else { ChecksumMode::Keep };
                let base = if field.base == PayloadBase::Network { HeaderBase::Network } else { HeaderBase::Transport };
                let from = before + usize::from(from);
                rewrite.set_bits(base, from..from + usize::from(count), value, checksums)
            }
            HeaderRewrite::TcpOptStrip(kind) => {
                rewrite.strip_tcp_option(kind);
                true
            }
        };
        changed.then_some(())
    }
}
