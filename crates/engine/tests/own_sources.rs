//! Source NAT cut to some of a rule's addresses, as a gateway does that decides some of a cluster's shards.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
use keepstate_engine::{
    Engine, Instant, Manip, MappingBehaviour, NatPolicy, NatRange, NatResult, OwnSources, PartUse, PortPart,
    PortSelection, Secret, Sysctls, Tuple, Zone,
};
use keepstate_wire::Packet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

const NOW: Instant = Instant(1_000_000_000);

fn packet(host: u8, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    let mut bytes =
        vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 1, 0, host, 10, 2, 0, 9, high, low, 0, 53, 0, 8, 0, 0];
    let sum: u32 = bytes.chunks(2).take(10).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// The outside address and port that a new connection gets.
fn open(engine: &mut Engine, (host, port): (u8, u16), range: &NatRange) -> Option<(IpAddr, u16)> {
    let bytes = packet(host, port);
    let mut ctx = engine.track(&Packet::parse(&bytes).unwrap(), Zone::default(), NOW);
    if engine.translate(&mut ctx, Manip::Source, range, NOW) != NatResult::Changed {
        return None;
    }
    engine.confirm(ctx, NOW);
    let (source, destination) = ([10, 1, 0, host].into(), [10, 2, 0, 9].into());
    let tuple = Tuple { source, destination, protocol: 17, source_key: port, destination_key: 53 };
    let (conn_id, _) = engine.find(&tuple, Zone::default(), NOW)?;
    engine.entry(conn_id, NOW).map(|entry| (entry.reply.destination, entry.reply.destination_key))
}

fn outside(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

fn range() -> NatRange {
    NatRange {
        addresses: Some(outside(1)..=outside(8)),
        ports: Some(40_000..=41_023),
        port_selection: PortSelection::Random,
        ..NatRange::to(outside(1))
    }
}

fn policies() -> [NatPolicy; 3] {
    let independent = NatPolicy { mapping: MappingBehaviour::EndpointIndependent, ..NatPolicy::default() };
    let blocks = NatPolicy { port_block_size: Some(32), ..NatPolicy::default() };
    [NatPolicy::default(), independent, blocks]
}

#[test]
fn a_list_of_addresses_is_cut_to_the_own_ones_each_with_its_part() {
    let parts = BTreeMap::from([
        (outside(3), PortPart::new(1, 4, PartUse::Only)),
        (outside(6), PortPart::new(2, 4, PartUse::Only)),
    ]);
    for policy in policies() {
        let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
        engine.set_nat_policy(policy.clone(), NOW);
        let own =
            parts.iter().map(|(address, part)| (*address..=*address, *part)).chain([(outside(99)..=outside(99), None)]);
        engine.set_own_sources(Some(own.collect::<OwnSources>()));
        let mut given = BTreeSet::new();
        for host in 2..34 {
            let (address, port) = open(&mut engine, (host, 5000 + u16::from(host)), &range()).unwrap();
            assert!(parts.get(&address).unwrap().unwrap().contains(port), "{address}:{port} with {policy:?}");
            given.insert(address);
        }
        assert_eq!(given, parts.keys().copied().collect(), "both are used with {policy:?}");
        engine.check_invariants().unwrap();
    }
}

#[test]
fn a_source_keeps_no_address_that_is_no_longer_own() {
    for policy in policies() {
        let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
        engine.set_nat_policy(policy, NOW);
        let own = |last: u8| Some([(outside(last)..=outside(last), None)].into_iter().collect::<OwnSources>());
        let keeping = NatRange { port_selection: PortSelection::PreferOriginal, ports: None, ..range() };
        engine.set_own_sources(own(2));
        assert_eq!(open(&mut engine, (2, 5000), &keeping).unwrap().0, outside(2));
        engine.set_own_sources(own(7));
        assert_eq!(open(&mut engine, (2, 5001), &keeping).unwrap().0, outside(7));
        // Not even where the packet has it already.
        let all = NatRange { addresses: Some(Ipv4Addr::UNSPECIFIED.into()..=Ipv4Addr::BROADCAST.into()), ..keeping };
        assert_eq!(open(&mut engine, (3, 5002), &all).unwrap().0, outside(7));
    }
}

#[test]
fn a_range_without_an_own_address_is_left_as_it_is() {
    let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    engine.set_own_sources(Some([(outside(99)..=outside(99), None)].into_iter().collect::<OwnSources>()));
    let (address, _) = open(&mut engine, (2, 5000), &range()).unwrap();
    assert!((outside(1)..=outside(8)).contains(&address));
    engine.set_own_sources(None);
    let given: BTreeSet<IpAddr> = (3..100).map(|host| open(&mut engine, (host, 5000), &range()).unwrap().0).collect();
    assert_eq!(given.len(), 8);
}

#[test]
fn a_rule_of_one_own_address_gives_ports_of_its_part_alone() {
    let part = PortPart::new(3, 4, PartUse::Only);
    for policy in policies() {
        let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
        engine.set_nat_policy(policy, NOW);
        engine.set_own_sources(Some([(outside(3)..=outside(3), part)].into_iter().collect::<OwnSources>()));
        for host in 2..10 {
            // Each a new source, whose port is free.
            let (address, port) = open(&mut engine, (host, 5000 + u16::from(host)), &NatRange::to(outside(3))).unwrap();
            assert!(address == outside(3) && part.unwrap().contains(port), "{address}:{port}");
        }
    }
}

#[test]
fn a_prefix_is_cut_and_all_of_it_that_the_rule_has_is_used() {
    let part = PortPart::new(2, 8, PartUse::Only);
    for policy in policies() {
        let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
        engine.set_nat_policy(policy.clone(), NOW);
        // 192.0.2.4/30, of which the rule has all, and a larger prefix of which it has a part.
        let own = [(outside(4)..=outside(7), part), (outside(8)..=outside(15), None)];
        engine.set_own_sources(Some(own.into_iter().collect::<OwnSources>()));
        let mut given = BTreeSet::new();
        for host in 2..130 {
            let (address, port) = open(&mut engine, (host, 5000 + u16::from(host)), &range()).unwrap();
            assert!(address == outside(8) || part.unwrap().contains(port), "{address}:{port} with {policy:?}");
            given.insert(address);
        }
        assert_eq!(given, (4..=8).map(outside).collect(), "all of them with {policy:?}");
        engine.check_invariants().unwrap();
    }
}
