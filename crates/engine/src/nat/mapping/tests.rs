use super::super::tests::{CLIENT, OUTSIDE, SERVER, ends, engine, route, syn, udp};
use super::*;
use crate::{Info, Why};
use alloc::collections::{BTreeMap, BTreeSet};
use proptest::prelude::*;

const NOW: Instant = Instant(1_000_000_000);

fn independent() -> Mapping {
    Mapping { behaviour: Behaviour::EndpointIndependent, ..Mapping::default() }
}

fn with(mapping: Mapping) -> Engine {
    let mut engine = engine();
    engine.set_mapping(mapping, NOW);
    engine
}

fn masquerade() -> Range {
    Range::to(OUTSIDE.into())
}

fn host(number: u8) -> [u8; 4] {
    [10, 0, 0, number]
}

/// The outside port of a datagram from within.
fn out(engine: &mut Engine, from: ([u8; 4], u16), to: [u8; 4]) -> u16 {
    let (outcome, sent) = route(engine, udp(from.0, from.1, to, 53), None, Some(&masquerade()));
    assert!(outcome.connection.is_some(), "{outcome:?}");
    assert_eq!(ends(&sent).0, OUTSIDE);
    ends(&sent).1
}

#[test]
fn a_mapping_is_the_same_towards_everybody_and_nobody_elses() {
    let mut engine = with(independent());
    let first = out(&mut engine, (CLIENT, 4000), SERVER);
    assert_eq!(first, 4000, "its own, as it was free");
    // Linux would give the same port to another client of another server.
    let second = out(&mut engine, (host(3), 4000), [198, 51, 100, 77]);
    assert_ne!(second, 4000);
    for peer in 1..20 {
        assert_eq!(out(&mut engine, (host(3), 4000), [203, 0, 113, peer]), second);
        assert_eq!(out(&mut engine, (CLIENT, 4000), [203, 0, 113, peer]), first);
    }
    // It ends with its last connection.
    engine.flush(NOW);
    assert_eq!(out(&mut engine, (host(3), 4000), SERVER), 4000);
}

#[test]
fn who_is_let_in_is_a_choice() {
    let stranger = [203, 0, 113, 9];
    for (filtering, same_port, same_address, other) in [
        (Filtering::PerConnection, true, false, false),
        (Filtering::AddressDependent, true, true, false),
        (Filtering::EndpointIndependent, true, true, true),
    ] {
        let mut engine = with(Mapping { filtering, ..independent() });
        let port = out(&mut engine, (CLIENT, 4000), SERVER);
        for (from, comes_in) in [((SERVER, 53), same_port), ((SERVER, 54), same_address), ((stranger, 53), other)] {
            let (outcome, sent) = route(&mut engine, udp(from.0, from.1, OUTSIDE, port), None, None);
            let to_client = ends(&sent).2 == CLIENT && ends(&sent).3 == 4000;
            assert_eq!(to_client, comes_in, "{filtering:?} from {from:?}: {outcome:?}");
            let expected = if from.1 == 53 && from.0 == SERVER { Info::Established } else { Info::Related };
            assert_eq!(outcome.info == expected, comes_in, "{outcome:?}");
            // What answers goes out as it was called.
            if comes_in {
                let (_, answer) = route(&mut engine, udp(CLIENT, 4000, from.0, from.1), None, Some(&masquerade()));
                assert_eq!(ends(&answer), (OUTSIDE, port, from.0, from.1));
            }
        }
        // Another port of ours is nobody's.
        let (outcome, sent) = route(&mut engine, udp(stranger, 53, OUTSIDE, port + 1), None, None);
        assert_eq!((outcome.info, ends(&sent).2), (Info::New, OUTSIDE));
    }
}

#[test]
fn a_rule_comes_before_a_mapping() {
    let mut engine = with(Mapping { filtering: Filtering::EndpointIndependent, ..independent() });
    let port = out(&mut engine, (CLIENT, 4000), SERVER);
    let published = Range::to_port(host(9).into(), 80);
    let (outcome, sent) = route(&mut engine, syn(SERVER, 9999, OUTSIDE, port), Some(&published), None);
    assert_eq!((outcome.info, ends(&sent).2), (Info::New, host(9)));
}

#[test]
fn neighbours_meet_by_their_outside_ports() {
    let mut engine = with(independent());
    let (one, two) = (out(&mut engine, (CLIENT, 4000), SERVER), out(&mut engine, (host(3), 4000), SERVER));
    let (outcome, sent) = route(&mut engine, udp(CLIENT, 4000, OUTSIDE, two), None, None);
    assert_eq!((outcome.info, ends(&sent)), (Info::Related, (OUTSIDE, one, host(3), 4000)));
    let (outcome, sent) = route(&mut engine, udp(host(3), 4000, OUTSIDE, one), None, None);
    assert_eq!((outcome.info, ends(&sent)), (Info::Established, (OUTSIDE, two, CLIENT, 4000)));
}

#[test]
fn even_stays_even_and_pairs_stay_together() {
    let mut engine = with(Mapping { parity: true, ..independent() });
    // Somebody has them already.
    for port in [5000, 5001] {
        out(&mut engine, (host(9), port), SERVER);
    }
    for number in 2..40 {
        let media = out(&mut engine, (host(number), 5000), SERVER);
        let control = out(&mut engine, (host(number), 5001), SERVER);
        assert_eq!((media % 2, control), (0, media + 1));
    }
}

#[test]
fn each_subscriber_has_a_block_and_both_its_ends_are_told() {
    for behaviour in [Behaviour::PerConnection, Behaviour::EndpointIndependent] {
        let mut engine = with(Mapping { behaviour, block: Some(100), ..Mapping::default() });
        let mut blocks = BTreeMap::new();
        for number in 2..12 {
            let ports: BTreeSet<u16> =
                (0..50).map(|port| out(&mut engine, (host(number), 40_000 + port), SERVER)).collect();
            assert_eq!(ports.len(), 50);
            let change = engine.poll_block().unwrap();
            assert!(change.taken && change.subscriber == IpAddr::from(host(number)) && change.ports.len() == 100);
            assert!(ports.iter().all(|port| change.ports.contains(port)), "{ports:?} {change:?}");
            assert_eq!(engine.poll_block(), None, "once");
            assert!(blocks.insert(*change.ports.start(), change).is_none());
        }
        let free =
            engine.find(&Tuple { protocol: 17, ..tuple_of(&udp(host(2), 40_000, SERVER, 53)) }, Zone::default(), NOW);
        assert!(engine.remove(free.unwrap().0, NOW) && engine.poll_block().is_none());
        engine.flush(NOW);
        for _ in 0..10 {
            let change = engine.poll_block().unwrap();
            let taken = blocks.remove(change.ports.start()).unwrap();
            assert!(!change.taken && (change.subscriber, &change.ports) == (taken.subscriber, &taken.ports));
        }
        assert_eq!((engine.poll_block(), engine.blocks_lost()), (None, 0));
    }
}

fn tuple_of(bytes: &[u8]) -> Tuple {
    let (source, source_key, destination, destination_key) = ends(bytes);
    Tuple { source: source.into(), destination: destination.into(), protocol: 17, source_key, destination_key }
}

#[test]
fn blocks_and_their_ports_run_out() {
    // Two blocks on each of two addresses.
    let mut engine = with(Mapping { block: Some(32_000), ..independent() });
    let pool = Range { addresses: Some(OUTSIDE.into()..=[192, 0, 2, 2].into()), ..Range::default() };
    let mut seen = BTreeSet::new();
    for number in 2..6 {
        let (_, sent) = route(&mut engine, udp(host(number), 1, SERVER, 53), None, Some(&pool));
        let (address, port, ..) = ends(&sent);
        assert!(seen.insert((address, (port - 1024) / 32_000)));
    }
    let (outcome, _) = route(&mut engine, udp(host(6), 1, SERVER, 53), None, Some(&pool));
    assert_eq!(outcome.why, Some(Why::NatExhausted));
    assert_eq!(engine.shortages().count(), 1);
    // Ports of a block run out per subscriber.
    let mut engine = with(Mapping { block: Some(10), ..independent() });
    let all: BTreeSet<u16> = (0..10).map(|port| out(&mut engine, (CLIENT, 2000 + port), SERVER)).collect();
    assert_eq!(all.len(), 10);
    let (outcome, _) = route(&mut engine, udp(CLIENT, 3000, SERVER, 53), None, Some(&masquerade()));
    assert_eq!(outcome.why, Some(Why::NatExhausted));
    out(&mut engine, (host(3), 3000), SERVER);
}

#[test]
fn arithmetic_says_where_a_subscriber_is() {
    let deterministic = Deterministic::new(([10, 0, 0, 0].into(), 24), ([203, 0, 113, 0].into(), 28)).unwrap();
    for behaviour in [Behaviour::PerConnection, Behaviour::EndpointIndependent] {
        let mut engine = with(Mapping { behaviour, deterministic: alloc::vec![deterministic], ..Mapping::default() });
        for (number, from) in [(2, 1), (2, 4000), (2, 60_000), (77, 4000), (255, 4000)] {
            let (_, sent) = route(&mut engine, udp(host(number), from, SERVER, 53), None, Some(&masquerade()));
            let (address, port, ..) = ends(&sent);
            assert_eq!(deterministic.inside(address.into(), port), Some(host(number).into()));
            let (_, back) = route(&mut engine, udp(SERVER, 53, address, port), None, None);
            assert_eq!((ends(&back).2, ends(&back).3), (host(number), from));
        }
        // Who is no subscriber goes where the rule says.
        let (_, sent) = route(&mut engine, udp([10, 9, 9, 9], 4000, SERVER, 53), None, Some(&masquerade()));
        assert_eq!((ends(&sent).0, ends(&sent).1), (OUTSIDE, 4000));
    }
}

#[test]
fn what_was_there_before_is_counted_too() {
    let mut engine = engine();
    let port = out(&mut engine, (CLIENT, 4000), SERVER);
    engine.set_mapping(Mapping { block: Some(512), ..independent() }, NOW);
    assert_eq!(engine.mapping().block, Some(512));
    assert_eq!(out(&mut engine, (CLIENT, 4000), [203, 0, 113, 9]), port);
    engine.flush(NOW);
    assert!(engine.nat.mappings.is_empty());
    engine.set_mapping(Mapping::default(), NOW);
    assert!(!engine.nat.mappings.in_use());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever opens and ends: a port is one source's, a source has one port, and nothing is left behind.
    #[test]
    fn the_books_balance(steps in proptest::collection::vec((2u8..6, 0u16..6, 1u8..5, any::<bool>()), 1..200), block in proptest::option::of(4u16..9), parity in any::<bool>()) {
        let mut engine = with(Mapping { block, parity, filtering: Filtering::EndpointIndependent, ..independent() });
        for (number, port, peer, ends_one) in steps {
            if ends_one {
                let one = engine.entries(NOW).next().map(|entry| entry.handle);
                one.into_iter().for_each(|handle| assert!(engine.remove(handle, NOW)));
                continue;
            }
            route(&mut engine, udp(host(number), 5000 + port, [203, 0, 113, peer], 53), None, Some(&masquerade()));
            let mut owners = BTreeMap::new();
            let mut ports = BTreeMap::new();
            for entry in engine.entries(NOW) {
                let inside = (entry.original.source, entry.original.source_key);
                prop_assert_eq!(*owners.entry(entry.reply.destination_key).or_insert(inside), inside);
                prop_assert_eq!(*ports.entry(inside).or_insert(entry.reply.destination_key), entry.reply.destination_key);
            }
        }
        engine.flush(NOW);
        prop_assert!(engine.nat.mappings.is_empty());
        let mut open = BTreeSet::new();
        while let Some(change) = engine.poll_block() {
            let key = (change.subscriber, *change.ports.start());
            let once = if change.taken { open.insert(key) } else { open.remove(&key) };
            prop_assert!(once);
        }
        prop_assert!(open.is_empty());
    }
}

#[test]
fn who_calls_himself_is_connected_to_himself() {
    let mut engine = with(independent());
    let port = out(&mut engine, (CLIENT, 4000), SERVER);
    // Both tuples of this connection are the same one.
    for _ in 0..3 {
        let (outcome, sent) = route(&mut engine, udp(CLIENT, 4000, OUTSIDE, port), None, None);
        assert_eq!((outcome.verdict, ends(&sent)), (crate::Verdict::Accept, (OUTSIDE, port, CLIENT, 4000)));
    }
    engine.flush(NOW);
    engine.check().unwrap();
    assert!(engine.nat.mappings.is_empty());
}

#[test]
fn a_mapping_and_who_was_let_in_outlive_the_engine() {
    let asked = Mapping { filtering: Filtering::EndpointIndependent, block: Some(64), ..independent() };
    let mut engine = with(asked.clone());
    let port = out(&mut engine, (CLIENT, 4000), SERVER);
    let (outcome, _) = route(&mut engine, udp([203, 0, 113, 9], 53, OUTSIDE, port), None, None);
    assert_eq!(outcome.info, Info::Related);
    let mut heir = with(asked);
    for described in engine.exports(NOW) {
        heir.import(&described, core::time::Duration::ZERO, crate::Trust::Exact, NOW).unwrap();
    }
    assert_eq!((heir.count(), heir.poll_block().map(|change| change.taken)), (2, Some(true)));
    assert_eq!(out(&mut heir, (CLIENT, 4000), [203, 0, 113, 77]), port);
    heir.flush(NOW);
    assert!(heir.nat.mappings.is_empty());
}
