//! Masqueraded connections end with their address, as in Linux (`nf_nat_masquerade`): when it goes, or its interface goes down, even if both come back at once.
//!
//! The table is searched in bounded steps. Connections that are made meanwhile are spared: they have an address that came afterwards.
use crate::fib::FibTable;
use keepstate_engine::{ConnId, Engine, Instant};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Slots of the table searched in one step.
const SLOTS_PER_STEP: u32 = 8192;

/// The search for connections that end.
#[derive(Debug, Default)]
pub(super) struct MasqueradeSweep {
    /// Slots from this one on are still to be searched; `None` if nothing is to be done.
    cursor: Option<u32>,
    /// Addresses that have gone since it began, numbered in their order.
    gone: BTreeMap<IpAddr, u64>,
    last_gone: u64,
    /// Connections made since it began, each with the last number before it.
    made_after: BTreeMap<ConnId, u64>,
}

impl MasqueradeSweep {
    /// These addresses of the machine have gone.
    pub(super) fn note_gone(&mut self, addresses: &[IpAddr]) {
        for address in addresses {
            self.last_gone += 1;
            self.gone.insert(*address, self.last_gone);
            self.cursor = Some(0);
        }
    }

    /// The whole table is to be searched.
    pub(super) fn begin(&mut self) {
        self.cursor = Some(0);
    }

    /// A connection was made.
    pub(super) fn note_new(&mut self, conn_id: ConnId) {
        if self.cursor.is_some() {
            self.made_after.insert(conn_id, self.last_gone);
        }
    }

    /// A step of the search.
    pub(super) fn poll(&mut self, fib: &FibTable, engine: &mut Engine, now: Instant) {
        let Some(from) = self.cursor else { return };
        let ends = |conn_id, address: IpAddr| {
            let was_gone = self.gone.get(&address).is_some_and(|gone| {
                let made_after = self.made_after.get(&conn_id);
                made_after.is_none_or(|before| before < gone)
            });
            was_gone || !fib.is_local(address)
        };
        self.cursor = engine.end_masqueraded(from, SLOTS_PER_STEP, ends, now);
        if self.cursor.is_none() {
            self.gone.clear();
            self.made_after.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{FibChange, FibTable, Interface, Route, Router, SourceAddress};
    use keepstate_engine::{Engine, Instant, Secret, Sysctls};
    use keepstate_rules::{NoIncludes, compile, parse_with};
    use keepstate_wire::checksum::Sum;
    use std::net::Ipv4Addr;

    const NOW: Instant = Instant(1_000_000_000);
    const OWN: [u8; 4] = [192, 0, 2, 1];

    fn outside() -> Interface {
        Interface::new(2, "wan0", 1500).with_address(OWN.into(), 24)
    }

    fn router() -> Router {
        let rules = "table ip t { chain p { type nat hook postrouting priority 100; oifname wan0 masquerade; } }";
        let (tree, sources) = parse_with("test.nft", rules, &NoIncludes, &[]).unwrap();
        let inside = Interface::new(1, "lan0", 1500).with_address([10, 0, 0, 1].into(), 24);
        let fib = FibTable::new(vec![inside, outside()], vec![]);
        let engine = Engine::new(Sysctls::default(), Secret([7; 16]));
        Router::new(engine, compile(&tree, &sources).unwrap(), fib, (1, 2))
    }

    /// A datagram from this host of the inside, to the outside.
    fn send(router: &mut Router, host: u8) {
        let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, host, 192, 0, 2, 9];
        let sum = Sum::new().add_bytes(&packet).finish().to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
        packet.extend([0x13, 0x88, 0x13, 0x88, 0, 8, 0, 0]);
        router.handle(&packet, 1, NOW).unwrap();
        while router.poll_output().is_some() {}
    }

    fn hosts(router: &Router) -> Vec<Ipv4Addr> {
        let sources = router.engine().entries(NOW).map(|entry| entry.original.source);
        let mut hosts: Vec<Ipv4Addr> = sources.map(|source| source.to_string().parse().unwrap()).collect();
        hosts.sort();
        hosts
    }

    fn host(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, number)
    }

    #[test]
    fn connections_end_with_an_address_that_comes_back_at_once() {
        let back = || FibChange::Interface(outside(), vec![SourceAddress::new(2, OWN.into(), 24)]);
        let route = || FibChange::Route(vec![Route::new([192, 0, 2, 0].into(), 24, 2)], crate::RoutePlacement::Last);
        for gone in [FibChange::InterfaceGone(2), FibChange::AddressGone(2, OWN.into())] {
            let mut router = router();
            send(&mut router, 2);
            router.change_fib([gone.clone(), back(), route()]);
            // Made afterwards, before the search has come to its slot.
            send(&mut router, 3);
            router.poll(NOW);
            assert_eq!(hosts(&router), [host(3)], "{gone:?}");
            router.change_fib([gone.clone(), back(), route()]);
            send(&mut router, 4);
            router.change_fib([gone, back(), route()]);
            send(&mut router, 5);
            router.poll(NOW);
            assert_eq!(hosts(&router), [host(5)]);
        }
    }

    #[test]
    fn connections_stay_while_another_interface_has_the_address() {
        let mut router = router();
        let other = Interface::new(3, "lo1", 1500).with_address(OWN.into(), 32);
        router.change_fib([FibChange::Interface(other, vec![])]);
        send(&mut router, 2);
        router.change_fib([FibChange::AddressGone(3, OWN.into()), FibChange::InterfaceGone(3)]);
        router.poll(NOW);
        assert_eq!(hosts(&router), [host(2)]);
    }
}
