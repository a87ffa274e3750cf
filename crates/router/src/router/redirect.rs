//! Tells a sender of a router that is nearer to it: when, and by what.
use super::output::is_link_local;
use super::{InFlightPacket, Router};
use crate::icmp_redirect::build_redirect_v6;
use keepstate_engine::PacketCtx;
use keepstate_wire::Addresses;
use std::net::IpAddr;

/// ICMP's type, and its code "for the host" (RFC 792).
const REDIRECT_HOST: (u8, u8) = (5, 1);

impl Router {
    /// Sends the packet's sender an ICMP redirect to the neighbour that the packet goes to by the interface that it came by. The packet itself goes on.
    pub(super) fn send_redirect(&mut self, pkt: &InFlightPacket, device: u32, next_hop: IpAddr) {
        // As in Linux: the ends would speak past the translation.
        let is_translated = !pkt.pre_nat.is_empty() || self.is_translated(pkt);
        let Ok(packet) = pkt.packet() else { return };
        let source = match packet.addresses() {
            Addresses::V4 { source, .. } => IpAddr::from(source),
            Addresses::V6 { source, .. } => IpAddr::from(source),
        };
        if pkt.meta.is_probe || is_translated {
            return;
        }
        match (source, next_hop) {
            (IpAddr::V4(_), IpAddr::V4(next_hop)) => {
                // As in Linux, which drops its own redirect while NAT has not decided both ends of the connection.
                let is_decided = !self.program.has_nat_chain(false) || pkt.ctx.as_ref().is_none_or(is_known);
                if self.redirect_limiter.allows(source, pkt.now) && is_decided {
                    let (kind, code) = REDIRECT_HOST;
                    self.send_icmp_error(pkt, kind, code, next_hop.to_bits());
                }
            }
            (IpAddr::V6(_), IpAddr::V6(next_hop)) => {
                let addresses = self.fib.interface(device).map(|interface| interface.addresses.as_slice());
                let own = addresses.unwrap_or_default().iter().find(|(own, _)| is_link_local(*own));
                let is_neighbour =
                    self.fib.next_hop_lookup(source, Some(device)).is_some_and(|(_, next_hop)| next_hop == source);
                let Some((IpAddr::V6(us), _)) = own.filter(|_| is_neighbour) else { return };
                if let Some(redirect) = build_redirect_v6(&packet, *us, next_hop)
                    && self.redirect_limiter.allows(source, pkt.now)
                {
                    self.local_out(redirect, None, None, pkt.now);
                }
            }
            _ => (),
        }
    }
}

/// Is its connection in the table, or has it none?
fn is_known(ctx: &PacketCtx) -> bool {
    ctx.connection().is_some() || ctx.direction().is_none()
}
