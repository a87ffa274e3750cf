use super::super::tests::{CLIENT, OUTSIDE, SERVER, endpoints, engine, route_packet, syn, udp};
use super::*;
use crate::{CtInfo, EventMask, Reason};
use crate::{DeterministicNat, FilteringBehaviour, MappingBehaviour};
use alloc::collections::{BTreeMap, BTreeSet};
use proptest::prelude::*;

const NOW: Instant = Instant(1_000_000_000);

fn endpoint_independent() -> NatPolicy {
    NatPolicy { mapping: MappingBehaviour::EndpointIndependent, ..NatPolicy::default() }
}

fn engine_with_policy(mapping: NatPolicy) -> Engine {
    let mut engine = engine();
    engine.set_nat_policy(mapping, NOW);
    engine
}

fn masquerade() -> NatRange {
    NatRange::to(OUTSIDE.into())
}

fn host(number: u8) -> [u8; 4] {
    [10, 0, 0, number]
}

/// The outside port of a packet sent from inside.
fn outside_port(engine: &mut Engine, from: ([u8; 4], u16), to: [u8; 4]) -> u16 {
    let (outcome, sent) = route_packet(engine, udp(from.0, from.1, to, 53), None, Some(&masquerade()));
    assert!(outcome.connection.is_some(), "{outcome:?}");
    assert_eq!(endpoints(&sent).0, OUTSIDE);
    endpoints(&sent).1
}

#[test]
fn mapping_is_endpoint_independent_and_exclusive() {
    let mut engine = engine_with_policy(endpoint_independent());
    let first = outside_port(&mut engine, (CLIENT, 4000), SERVER);
    assert_eq!(first, 4000, "its own, as it was free");
    // Linux would give the same port to another client that talks to another server.
    let second = outside_port(&mut engine, (host(3), 4000), [198, 51, 100, 77]);
    assert_ne!(second, 4000);
    for peer in 1..20 {
        assert_eq!(outside_port(&mut engine, (host(3), 4000), [203, 0, 113, peer]), second);
        assert_eq!(outside_port(&mut engine, (CLIENT, 4000), [203, 0, 113, peer]), first);
    }
    // The mapping ends with its last connection.
    engine.flush(NOW);
    assert_eq!(outside_port(&mut engine, (host(3), 4000), SERVER), 4000);
}

#[test]
fn filtering_behaviours_admit_their_peers() {
    let stranger = [203, 0, 113, 9];
    for (filtering, same_port, same_address, other) in [
        (FilteringBehaviour::AddressAndPortDependent, true, false, false),
        (FilteringBehaviour::AddressDependent, true, true, false),
        (FilteringBehaviour::EndpointIndependent, true, true, true),
    ] {
        let mut engine = engine_with_policy(NatPolicy { filtering, ..endpoint_independent() });
        let port = outside_port(&mut engine, (CLIENT, 4000), SERVER);
        for (from, comes_in) in [((SERVER, 53), same_port), ((SERVER, 54), same_address), ((stranger, 53), other)] {
            let (outcome, sent) = route_packet(&mut engine, udp(from.0, from.1, OUTSIDE, port), None, None);
            let to_client = endpoints(&sent).2 == CLIENT && endpoints(&sent).3 == 4000;
            assert_eq!(to_client, comes_in, "{filtering:?} from {from:?}: {outcome:?}");
            let expected = if from.1 == 53 && from.0 == SERVER { CtInfo::Established } else { CtInfo::Related };
            assert_eq!(outcome.info == expected, comes_in, "{outcome:?}");
            // The reply leaves from the outside port that was addressed.
            if comes_in {
                let (_, answer) =
                    route_packet(&mut engine, udp(CLIENT, 4000, from.0, from.1), None, Some(&masquerade()));
                assert_eq!(endpoints(&answer), (OUTSIDE, port, from.0, from.1));
            }
        }
        // Another port of the outside address has no mapping.
        let (outcome, sent) = route_packet(&mut engine, udp(stranger, 53, OUTSIDE, port + 1), None, None);
        assert_eq!((outcome.info, endpoints(&sent).2), (CtInfo::New, OUTSIDE));
    }
}

#[test]
fn dnat_rule_precedes_mapping() {
    let mut engine =
        engine_with_policy(NatPolicy { filtering: FilteringBehaviour::EndpointIndependent, ..endpoint_independent() });
    let port = outside_port(&mut engine, (CLIENT, 4000), SERVER);
    let published = NatRange::to_port(host(9).into(), 80);
    let (outcome, sent) = route_packet(&mut engine, syn(SERVER, 9999, OUTSIDE, port), Some(&published), None);
    assert_eq!((outcome.info, endpoints(&sent).2), (CtInfo::New, host(9)));
}

#[test]
fn hairpin_between_two_mapped_sources() {
    let mut engine = engine_with_policy(endpoint_independent());
    let (one, two) =
        (outside_port(&mut engine, (CLIENT, 4000), SERVER), outside_port(&mut engine, (host(3), 4000), SERVER));
    let (outcome, sent) = route_packet(&mut engine, udp(CLIENT, 4000, OUTSIDE, two), None, None);
    assert_eq!((outcome.info, endpoints(&sent)), (CtInfo::Related, (OUTSIDE, one, host(3), 4000)));
    let (outcome, sent) = route_packet(&mut engine, udp(host(3), 4000, OUTSIDE, one), None, None);
    assert_eq!((outcome.info, endpoints(&sent)), (CtInfo::Established, (OUTSIDE, two, CLIENT, 4000)));
}

#[test]
fn port_parity_and_rtp_pairs_are_preserved() {
    let mut engine = engine_with_policy(NatPolicy { parity: true, ..endpoint_independent() });
    // Another host has both ports already.
    for port in [5000, 5001] {
        outside_port(&mut engine, (host(9), port), SERVER);
    }
    for number in 2..40 {
        let media = outside_port(&mut engine, (host(number), 5000), SERVER);
        let control = outside_port(&mut engine, (host(number), 5001), SERVER);
        assert_eq!((media % 2, control), (0, media + 1));
    }
}

#[test]
fn port_block_per_subscriber_is_logged_on_alloc_and_free() {
    for behaviour in [MappingBehaviour::AddressAndPortDependent, MappingBehaviour::EndpointIndependent] {
        let mut engine =
            engine_with_policy(NatPolicy { mapping: behaviour, port_block_size: Some(100), ..NatPolicy::default() });
        let mut blocks = BTreeMap::new();
        for number in 2..12 {
            let ports: BTreeSet<u16> =
                (0..50).map(|port| outside_port(&mut engine, (host(number), 40_000 + port), SERVER)).collect();
            assert_eq!(ports.len(), 50);
            let change = engine.poll_port_block().unwrap();
            assert!(change.allocated && change.subscriber == IpAddr::from(host(number)) && change.ports.len() == 100);
            assert!(ports.iter().all(|port| change.ports.contains(port)), "{ports:?} {change:?}");
            assert_eq!(engine.poll_port_block(), None, "once");
            assert!(blocks.insert(*change.ports.start(), change).is_none());
        }
        let free =
            engine.find(&Tuple { protocol: 17, ..tuple_of(&udp(host(2), 40_000, SERVER, 53)) }, Zone::default(), NOW);
        assert!(engine.remove(free.unwrap().0, NOW) && engine.poll_port_block().is_none());
        engine.flush(NOW);
        for _ in 0..10 {
            let change = engine.poll_port_block().unwrap();
            let taken = blocks.remove(change.ports.start()).unwrap();
            assert!(!change.allocated && (change.subscriber, &change.ports) == (taken.subscriber, &taken.ports));
        }
        assert_eq!((engine.poll_port_block(), engine.port_block_events_lost()), (None, 0));
    }
}

fn tuple_of(bytes: &[u8]) -> Tuple {
    let (source, source_key, destination, destination_key) = endpoints(bytes);
    Tuple { source: source.into(), destination: destination.into(), protocol: 17, source_key, destination_key }
}

#[test]
fn port_blocks_and_their_ports_can_be_exhausted() {
    // Two blocks on each of two addresses.
    let mut engine = engine_with_policy(NatPolicy { port_block_size: Some(32_000), ..endpoint_independent() });
    let pool = NatRange { addresses: Some(OUTSIDE.into()..=[192, 0, 2, 2].into()), ..NatRange::default() };
    let mut seen = BTreeSet::new();
    for number in 2..6 {
        let (_, sent) = route_packet(&mut engine, udp(host(number), 1, SERVER, 53), None, Some(&pool));
        let (address, port, ..) = endpoints(&sent);
        assert!(seen.insert((address, (port - 1024) / 32_000)));
    }
    let (outcome, _) = route_packet(&mut engine, udp(host(6), 1, SERVER, 53), None, Some(&pool));
    assert_eq!(outcome.reason, Some(Reason::NatExhausted));
    assert_eq!(engine.exhaustion_stats().count(), 1);
    // Each subscriber runs out of the ports of its own block.
    let mut engine = engine_with_policy(NatPolicy { port_block_size: Some(10), ..endpoint_independent() });
    let all: BTreeSet<u16> = (0..10).map(|port| outside_port(&mut engine, (CLIENT, 2000 + port), SERVER)).collect();
    assert_eq!(all.len(), 10);
    let (outcome, _) = route_packet(&mut engine, udp(CLIENT, 3000, SERVER, 53), None, Some(&masquerade()));
    assert_eq!(outcome.reason, Some(Reason::NatExhausted));
    outside_port(&mut engine, (host(3), 3000), SERVER);
}

#[test]
fn deterministic_nat_maps_subscriber_both_ways() {
    let deterministic = DeterministicNat::new(([10, 0, 0, 0].into(), 24), ([203, 0, 113, 0].into(), 28)).unwrap();
    for behaviour in [MappingBehaviour::AddressAndPortDependent, MappingBehaviour::EndpointIndependent] {
        let mut engine = engine_with_policy(NatPolicy {
            mapping: behaviour,
            deterministic: alloc::vec![deterministic],
            ..NatPolicy::default()
        });
        for (number, from) in [(2, 1), (2, 4000), (2, 60_000), (77, 4000), (255, 4000)] {
            let (_, sent) = route_packet(&mut engine, udp(host(number), from, SERVER, 53), None, Some(&masquerade()));
            let (address, port, ..) = endpoints(&sent);
            assert_eq!(deterministic.inside(address.into(), port), Some(host(number).into()));
            let (_, back) = route_packet(&mut engine, udp(SERVER, 53, address, port), None, None);
            assert_eq!((endpoints(&back).2, endpoints(&back).3), (host(number), from));
        }
        // An address outside the subscriber prefix is translated as the rule says.
        let (_, sent) = route_packet(&mut engine, udp([10, 9, 9, 9], 4000, SERVER, 53), None, Some(&masquerade()));
        assert_eq!((endpoints(&sent).0, endpoints(&sent).1), (OUTSIDE, 4000));
    }
}

#[test]
fn set_nat_policy_adds_existing_connections() {
    let mut engine = engine();
    let port = outside_port(&mut engine, (CLIENT, 4000), SERVER);
    engine.set_nat_policy(NatPolicy { port_block_size: Some(512), ..endpoint_independent() }, NOW);
    assert_eq!(engine.nat_policy().port_block_size, Some(512));
    assert_eq!(outside_port(&mut engine, (CLIENT, 4000), [203, 0, 113, 9]), port);
    engine.flush(NOW);
    assert!(engine.nat.eim.is_empty());
    engine.set_nat_policy(NatPolicy::default(), NOW);
    assert!(!engine.nat.eim.in_use());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// After any sequence of opens and closes: a port has one source, a source has one port, and flushing leaves nothing behind.
    #[test]
    fn mappings_and_port_blocks_stay_consistent(steps in proptest::collection::vec((2u8..6, 0u16..6, 1u8..5, any::<bool>()), 1..200), port_block_size in proptest::option::of(4u16..9), parity in any::<bool>()) {
        let mut engine = engine_with_policy(NatPolicy { port_block_size, parity, filtering: FilteringBehaviour::EndpointIndependent, ..endpoint_independent() });
        for (number, port, peer, ends_one) in steps {
            if ends_one {
                let one = engine.entries(NOW).next().map(|entry| entry.conn_id);
                one.into_iter().for_each(|conn_id| assert!(engine.remove(conn_id, NOW)));
                continue;
            }
            route_packet(&mut engine, udp(host(number), 5000 + port, [203, 0, 113, peer], 53), None, Some(&masquerade()));
            let mut owners = BTreeMap::new();
            let mut ports = BTreeMap::new();
            for entry in engine.entries(NOW) {
                let inside = (entry.original.source, entry.original.source_key);
                prop_assert_eq!(*owners.entry(entry.reply.destination_key).or_insert(inside), inside);
                prop_assert_eq!(*ports.entry(inside).or_insert(entry.reply.destination_key), entry.reply.destination_key);
            }
        }
        engine.flush(NOW);
        prop_assert!(engine.nat.eim.is_empty());
        let mut open = BTreeSet::new();
        while let Some(change) = engine.poll_port_block() {
            let key = (change.subscriber, *change.ports.start());
            let once = if change.allocated { open.insert(key) } else { open.remove(&key) };
            prop_assert!(once);
        }
        prop_assert!(open.is_empty());
    }
}

#[test]
fn hairpin_to_own_mapping() {
    let mut engine = engine_with_policy(endpoint_independent());
    let port = outside_port(&mut engine, (CLIENT, 4000), SERVER);
    // The original and the reply tuple of this connection are equal.
    for _ in 0..3 {
        let (outcome, sent) = route_packet(&mut engine, udp(CLIENT, 4000, OUTSIDE, port), None, None);
        assert_eq!((outcome.verdict, endpoints(&sent)), (crate::CtVerdict::Accept, (OUTSIDE, port, CLIENT, 4000)));
    }
    engine.flush(NOW);
    engine.check_invariants().unwrap();
    assert!(engine.nat.eim.is_empty());
}

#[test]
fn mapping_survives_export_and_import() {
    let asked = NatPolicy {
        filtering: FilteringBehaviour::EndpointIndependent,
        port_block_size: Some(64),
        ..endpoint_independent()
    };
    let mut engine = engine_with_policy(asked.clone());
    let port = outside_port(&mut engine, (CLIENT, 4000), SERVER);
    let (outcome, _) = route_packet(&mut engine, udp([203, 0, 113, 9], 53, OUTSIDE, port), None, None);
    assert_eq!(outcome.info, CtInfo::Related);
    let mut heir = engine_with_policy(asked);
    for described in engine.export_all(NOW) {
        heir.import(&described, core::time::Duration::ZERO, crate::WindowTrust::Exact, NOW).unwrap();
    }
    assert_eq!((heir.count(), heir.poll_port_block().map(|change| change.allocated)), (2, Some(true)));
    assert_eq!(outside_port(&mut heir, (CLIENT, 4000), [203, 0, 113, 77]), port);
    heir.flush(NOW);
    assert!(heir.nat.eim.is_empty());
    // What another node has decided is in that node's logs.
    let mut standby = engine_with_policy(heir.nat_policy().clone());
    standby.subscribe(EventMask { new: true, destroy: true, ..EventMask::default() }, 16);
    standby.set_replicated(true);
    for described in engine.export_all(NOW) {
        standby.import(&described, core::time::Duration::ZERO, crate::WindowTrust::Exact, NOW).unwrap();
    }
    assert_eq!((standby.count(), standby.poll_port_block()), (2, None));
    assert!(core::iter::from_fn(|| standby.poll_event()).all(|event| event.is_replicated));
    standby.set_replicated(false);
    standby.flush(NOW);
    assert_eq!(standby.poll_port_block().map(|change| change.allocated), Some(false));
    let ended: Vec<bool> = core::iter::from_fn(|| standby.poll_event()).map(|event| event.is_replicated).collect();
    assert_eq!(ended, [false, false]);
}
