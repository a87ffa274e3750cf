//! The route of a packet: as the oracle says, if there is one that knows, else by the router's own table; and changes of that table.
use super::output::is_link_local;
use super::{ALL_PRIORITIES, DropReason, Egress, InFlightPacket, LOOPBACK_INDEX, MarkedEgress, Router};
use crate::fib::{FibChange, FibTable};
use crate::route_oracle::{RouteAnswer, RouteQuery};
use crate::route_scope::RouteScope;
use keepstate_engine::Engine;
use keepstate_rules::ast::Hook;
use keepstate_rules::{Fib, InterfaceInfo, Program};
use keepstate_wire::Packet;
use std::net::IpAddr;

/// Where a packet that came in goes.
pub(super) enum RouteDecision {
    /// Out by an interface, to this neighbour.
    Out(InterfaceInfo, IpAddr),
    /// To the machine itself.
    Host,
    /// Nowhere; the sender gets this ICMP error.
    Nowhere(Option<(u8, u8)>),
}

impl Router {
    /// Interfaces and routes.
    pub fn fib(&self) -> &FibTable {
        &self.fib
    }

    /// The engine, to be changed by what interfaces and routes say.
    pub fn engine_and_fib(&mut self) -> (&mut Engine, &FibTable) {
        (&mut self.engine, &self.fib)
    }

    /// Ends masqueraded connections whose address this machine does not have (any more), in bounded steps of [`Router::poll`]: after connections were restored from a file.
    /// [`Router::replace_fib`] and [`Router::change_fib`] do so by themselves.
    pub fn check_masqueraded(&mut self) {
        self.masquerade.begin();
    }

    /// Replaces interfaces and routes. Returns the old ones: a large table takes a while to drop.
    pub fn replace_fib(&mut self, fib: FibTable) -> FibTable {
        if !self.fib.has_same_addresses(&fib) {
            self.check_masqueraded();
        }
        self.revoke_flows();
        std::mem::replace(&mut self.fib, fib)
    }

    /// Changes interfaces and routes piece by piece: the work is that of the changes, not of the table.
    pub fn change_fib(&mut self, changes: impl IntoIterator<Item = FibChange>) {
        let mut scope = RouteScope::default();
        for change in changes {
            scope.add(&change, &self.fib);
            let gone = self.fib.apply(change);
            self.masquerade.note_gone(&gone);
        }
        self.revoke_flows_to(&scope);
    }

    /// The way of a packet that came in for another host.
    pub(super) fn find_route(&mut self, pkt: &mut InFlightPacket, to: IpAddr) -> Result<RouteDecision, DropReason> {
        if let Some(oracle) = self.route_oracle.as_mut().filter(|_| !is_link_local(to)) {
            let iif = pkt.meta.iif.map(|device| device.index);
            if iif.is_some_and(|iif| !oracle.forwards(iif, to)) && !routes_by_rules(&self.program) {
                return Err(DropReason::NotForwarding);
            }
            pkt.meta.trace.note_mark();
            let query = RouteQuery::of(&pkt.packet()?, iif, pkt.meta.mark);
            match oracle.ask(&query) {
                Some(RouteAnswer::Out { oif, next_hop, mtu, redirects }) => {
                    pkt.route_mtu = mtu;
                    pkt.redirects = redirects || to.is_ipv6() && pkt.meta.iif.is_some_and(|iif| iif.index == oif);
                    // An interface that is not known yet is no way yet.
                    return Ok(self
                        .fib
                        .device(oif)
                        .map_or(RouteDecision::Nowhere(None), |device| RouteDecision::Out(device, next_hop)));
                }
                Some(RouteAnswer::Host) => return Ok(RouteDecision::Host),
                Some(RouteAnswer::Nowhere(error)) => return Ok(RouteDecision::Nowhere(error)),
                Some(RouteAnswer::Dropped(reason)) => return Err(reason),
                None => (),
            }
        }
        // A link-local destination is on the link the packet came from.
        let link = pkt.meta.iif.filter(|_| is_link_local(to)).map(|device| device.index);
        let no_route = if to.is_ipv6() { (1, 0) } else { (3, 0) };
        let found = self.fib.next_hop_lookup(to, link);
        Ok(found
            .map_or(RouteDecision::Nowhere(Some(no_route)), |(device, next_hop)| RouteDecision::Out(device, next_hop)))
    }

    /// The way of a packet that the machine itself sends: the interface, and the neighbour.
    pub(super) fn find_way_out(&mut self, bytes: &[u8], mark: u32) -> Option<(InterfaceInfo, IpAddr)> {
        let query = RouteQuery::of(&Packet::parse(bytes).ok()?, None, mark);
        let to = query.destination;
        let asked = self.route_oracle.as_mut().filter(|_| !is_link_local(to) && !to.is_multicast());
        match asked.and_then(|oracle| oracle.ask(&query)) {
            Some(RouteAnswer::Out { oif, next_hop, .. }) => Some((self.fib.device(oif)?, next_hop)),
            Some(RouteAnswer::Nowhere(_) | RouteAnswer::Dropped(_)) => None,
            Some(RouteAnswer::Host) | None if self.fib.is_local(to) && self.fib.device(LOOPBACK_INDEX).is_some() => {
                Some((self.fib.device(LOOPBACK_INDEX)?, to))
            }
            // To itself: by the interface that has the address.
            Some(RouteAnswer::Host) | None => match self.fib.next_hop(to) {
                Some(found) => Some(found),
                None => Some((self.fib.route_lookup(to, None)?, to)),
            },
        }
    }

    /// The MTU of a packet's way.
    pub(super) fn mtu_of(&self, pkt: &InFlightPacket, device: u32) -> u32 {
        self.fib.mtu(device).min(pkt.route_mtu.unwrap_or(u32::MAX))
    }

    /// Queues a packet to send.
    pub(super) fn push_output(&mut self, egress: Egress, mark: u32) {
        if let Egress::Forward { oif, packet, .. } = &egress {
            self.interface_counts.count_sent(*oif, packet.len());
        }
        self.output.push_back(MarkedEgress { egress, mark });
    }
}

/// Is the ruleset one of a router: does it filter or translate forwarded packets? Then packets are forwarded also where the machine's own settings say no; the rules of a mere host do not make it a router.
fn routes_by_rules(program: &Program) -> bool {
    program.has_filter_chain(Hook::Forward, &ALL_PRIORITIES)
        || [Hook::Prerouting, Hook::Postrouting].into_iter().any(|hook| program.has_nat_chain_at(hook))
}
