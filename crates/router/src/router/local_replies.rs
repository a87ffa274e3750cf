//! What the router itself answers on its own addresses (RFC 1812, 4.3.3.6; RFC 9293, 3.10.7.1; RFC 1122, 3.2.2.1), where no host stands behind it: echo replies, resets and port
//! unreachable from closed ports, protocol unreachable.
//!
//! An answer is a packet of our own: it is tracked, filtered and translated at output, so a redirected connection gets it from the address that it asked. It never asks for an answer itself.
use super::output::is_link_local;
use super::{InFlightPacket, Router};
use crate::icmp_error;
use keepstate_rules::{AddressType, Fib};
use keepstate_wire::{Addresses, Family, Packet, protocol};
use std::net::IpAddr;

/// ICMP destination unreachable: protocol, port.
const UNREACHABLE: u8 = 3;
const PROTOCOL_UNREACHABLE: u8 = 2;
const PORT_UNREACHABLE: u8 = 3;
/// ICMPv6 destination unreachable: port. Parameter problem: unknown next header.
const UNREACHABLE_V6: u8 = 1;
const PORT_UNREACHABLE_V6: u8 = 4;
const PARAMETER_PROBLEM_V6: u8 = 4;
const UNKNOWN_NEXT_HEADER: u8 = 1;

impl Router {
    /// Answers on its own addresses: for a driver behind which no host has them.
    #[must_use]
    pub fn with_local_replies(mut self) -> Router {
        self.local_replies = true;
        self
    }

    /// Answers a packet that has passed the input hook.
    pub(super) fn answer_local(&mut self, pkt: &InFlightPacket) {
        let answer = pkt.packet().ok().and_then(|packet| self.build_local_answer(&packet, pkt));
        // As after the input hook: whatever the connection has become by now.
        answer.into_iter().for_each(|answer| self.local_out(answer, None, None, pkt.now));
    }

    fn build_local_answer(&mut self, packet: &Packet<'_>, pkt: &InFlightPacket) -> Option<Vec<u8>> {
        let (from, to) = match packet.addresses() {
            Addresses::V4 { source, destination } => (IpAddr::from(source), IpAddr::from(destination)),
            Addresses::V6 { source, destination } => (IpAddr::from(source), IpAddr::from(destination)),
        };
        let v6 = packet.family() == Family::V6;
        let iif = pkt.meta.iif.map(|device| device.index);
        // A link-local address does not tell the link.
        if self.fib.address_type(from, None) != AddressType::Unicast || is_link_local(from) {
            return None;
        }
        let is_unicast = self.fib.is_local(to);
        if packet.protocol() == protocol::ICMPV6 && v6 {
            // A group, or all routers of a prefix: the answer comes from this router's own address.
            let us = if is_unicast { Some(to) } else { self.fib.source_address(iif?, from, None) };
            return us.and_then(|us| icmp_error::build_echo_reply(packet, us));
        }
        // Anything else to several hosts gets no answer.
        if !self.fib.is_own_address(to, iif) {
            return None;
        }
        let (kind, code, word) = match packet.protocol() {
            protocol::ICMP if !v6 => return icmp_error::build_echo_reply(packet, to),
            protocol::TCP => return icmp_error::build_tcp_reset(packet).filter(|_| is_unicast),
            // Of no other host on the link is it known that it wants none.
            IGMP if !v6 => return None,
            protocol::NO_NEXT_HEADER if v6 => return None,
            protocol::UDP | protocol::UDPLITE if !packet.transport_checksum_ok() => return None,
            // RFC 8200, 8.1: not without a checksum.
            protocol::UDP if v6 && packet.transport().get(6..8) == Some(&[0, 0]) => return None,
            protocol::UDP | protocol::UDPLITE if v6 => (UNREACHABLE_V6, PORT_UNREACHABLE_V6, 0),
            protocol::UDP | protocol::UDPLITE => (UNREACHABLE, PORT_UNREACHABLE, 0),
            _ if v6 => (PARAMETER_PROBLEM_V6, UNKNOWN_NEXT_HEADER, next_header_at(packet)?),
            _ => (UNREACHABLE, PROTOCOL_UNREACHABLE, 0),
        };
        let answer = icmp_error::build_icmp_error(packet, to, kind, code, word)?;
        self.may_send_icmp(from, (kind, code), pkt.now).then_some(answer)
    }
}

/// Internet Group Management Protocol.
const IGMP: u8 = 2;

/// Where the packet names its transport protocol.
fn next_header_at(packet: &Packet<'_>) -> Option<u32> {
    const NEXT_HEADER_AT: usize = 6;
    const HEADER_LEN: usize = 40;
    let bytes = packet.bytes();
    let (mut at, mut next) = (NEXT_HEADER_AT, HEADER_LEN);
    while next < packet.transport_at() {
        let length = usize::from(*bytes.get(next + 1)?);
        let header_len = match *bytes.get(at)? {
            protocol::IPV6_FRAG => 8,
            protocol::AH => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        (at, next) = (next, next + header_len);
    }
    u32::try_from(at).ok()
}
