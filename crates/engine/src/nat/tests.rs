use super::bysource::BysourceKey;
use super::*;
use crate::Secret;
use crate::table::key::TupleKey;
use crate::{CtInfo, Outcome, Reason, Sysctl, Sysctls, Zone};
use alloc::vec;
use alloc::vec::Vec;
use keepstate_wire::{Packet, checksum};

pub(super) const CLIENT: [u8; 4] = [10, 0, 0, 2];
pub(super) const SERVER: [u8; 4] = [198, 51, 100, 9];
pub(super) const OUTSIDE: [u8; 4] = [192, 0, 2, 1];

/// An IPv4 packet with correct checksums.
fn ipv4_packet(source: [u8; 4], destination: [u8; 4], protocol: u8, transport: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0];
    bytes.extend(source);
    bytes.extend(destination);
    let total = (20 + transport.len()) as u16;
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    let check = checksum::internet(&bytes);
    bytes[10..12].copy_from_slice(&check.to_be_bytes());
    bytes.extend(transport);
    bytes
}

pub(super) fn udp(source: [u8; 4], from: u16, destination: [u8; 4], to: u16) -> Vec<u8> {
    let mut transport = Vec::new();
    for word in [from, to, 12, 0] {
        transport.extend(word.to_be_bytes());
    }
    transport.extend(b"data");
    ipv4_packet(source, destination, 17, &transport)
}

/// A SYN with an unchecked checksum.
pub(super) fn syn(source: [u8; 4], from: u16, destination: [u8; 4], to: u16) -> Vec<u8> {
    let mut transport = Vec::new();
    transport.extend(from.to_be_bytes());
    transport.extend(to.to_be_bytes());
    transport.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x40, 0, 0, 0, 0, 0]);
    ipv4_packet(source, destination, 6, &transport)
}

pub(super) fn engine() -> Engine {
    let mut sysctls = Sysctls::default();
    sysctls.set(Sysctl::Checksum, 0).unwrap();
    Engine::new(sysctls, Secret([3; 16]))
}

/// Sends one packet through a router with at most one NAT rule for each end.
pub(super) fn route_packet(
    engine: &mut Engine,
    mut bytes: Vec<u8>,
    dnat: Option<&NatRange>,
    snat: Option<&NatRange>,
) -> (Outcome, Vec<u8>) {
    let now = Instant(1_000_000_000);
    let packet = Packet::parse(&bytes).unwrap();
    let mut ctx = engine.track(&packet, Zone::default(), now);
    for (manip, range) in [(Manip::Destination, dnat), (Manip::Source, snat)] {
        match range {
            Some(range) => engine.translate(&mut ctx, manip, range, now),
            None => engine.nat_null_binding(&mut ctx, manip, now),
        };
        assert!(engine.nat_rewrite(&ctx, manip).apply(&mut bytes));
    }
    let outcome = engine.confirm(ctx, now);
    engine.check_invariants().unwrap();
    (outcome, bytes)
}

pub(super) fn endpoints(bytes: &[u8]) -> ([u8; 4], u16, [u8; 4], u16) {
    let address = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    (address(12), port(20), address(16), port(22))
}

#[test]
fn reply_is_translated_back() {
    let mut engine = engine();
    let range = NatRange::to(OUTSIDE.into());
    let (outcome, out) = route_packet(&mut engine, udp(CLIENT, 4000, SERVER, 53), None, Some(&range));
    assert_eq!((outcome.info, endpoints(&out)), (CtInfo::New, (OUTSIDE, 4000, SERVER, 53)));
    let (outcome, back) = route_packet(&mut engine, udp(SERVER, 53, OUTSIDE, 4000), None, None);
    assert_eq!((outcome.info, endpoints(&back)), (CtInfo::Established, (SERVER, 53, CLIENT, 4000)));
    let entry = engine.entries(Instant(0)).next().unwrap();
    let expected = Status::SRC_NAT | Status::SRC_NAT_DONE | Status::DST_NAT_DONE | Status::SEEN_REPLY;
    assert_eq!(entry.status, expected | Status::CONFIRMED);
}

#[test]
fn snat_and_dnat_hairpin_round_trip() {
    let mut engine = engine();
    let inside = [10, 0, 0, 9];
    let (to, from) = (NatRange::to_port(inside.into(), 8080), NatRange::to([10, 0, 0, 1].into()));
    let (_, out) = route_packet(&mut engine, syn(CLIENT, 5000, OUTSIDE, 80), Some(&to), Some(&from));
    assert_eq!(endpoints(&out), ([10, 0, 0, 1], 5000, inside, 8080));
    let mut answer = syn(inside, 8080, [10, 0, 0, 1], 5000);
    answer[33] = 0x12;
    let (outcome, back) = route_packet(&mut engine, answer, None, None);
    assert_eq!((outcome.info, endpoints(&back)), (CtInfo::Established, (OUTSIDE, 80, CLIENT, 5000)));
}

#[test]
fn used_port_is_replaced_within_its_class() {
    let mut engine = engine();
    let range = NatRange::to(OUTSIDE.into());
    for (port, class) in [(4000, 1024..=65535), (700, 600..=1023), (100, 1..=511)] {
        for host in 2..40 {
            let (_, out) = route_packet(&mut engine, udp([10, 0, 0, host], port, SERVER, 53), None, Some(&range));
            let (address, chosen, ..) = endpoints(&out);
            assert_eq!(address, OUTSIDE);
            assert!(if host == 2 { chosen == port } else { class.contains(&chosen) }, "{port} became {chosen}");
        }
    }
    // A clash of two tuples is resolved even without a rule.
    assert_eq!(engine.count(), 3 * 38);
}

#[test]
fn same_source_gets_the_same_port_for_other_peers() {
    let mut engine = engine();
    let range = NatRange::to(OUTSIDE.into());
    route_packet(&mut engine, udp([10, 0, 0, 3], 4000, SERVER, 53), None, Some(&range));
    let (_, first) = route_packet(&mut engine, udp(CLIENT, 4000, SERVER, 53), None, Some(&range));
    let (_, second) = route_packet(&mut engine, udp(CLIENT, 4000, [198, 51, 100, 10], 53), None, Some(&range));
    assert_ne!(endpoints(&first).1, 4000);
    assert_eq!(endpoints(&first).1, endpoints(&second).1);
    engine.flush(Instant(0));
    let source = BysourceKey::from_key(&TupleKey::from(&tuple(&second)), 0);
    assert!(engine.nat.bysource.connections(&source, &engine.table.records).next().is_none());
}

/// The most common search takes fewer steps; it must choose what the whole one does.
#[test]
fn the_plain_search_chooses_what_the_whole_search_chooses() {
    let mut state = 1u64;
    let mut below = |limit: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    };
    let (mut plain, mut whole, mut chosen_plainly) = (engine(), engine(), 0);
    for step in 0..6000u64 {
        // UDP connections end after 30 seconds: some are found expired.
        let now = Instant(step * 20_000_000);
        let (host, port, peer) = (below(3) as u8, 4000 + below(200) as u16, below(4) as u8);
        let (client, server) = ([10, 0, 0, host], [198, 51, 100, peer]);
        let bytes = match below(2) {
            0 => udp(client, port, server, 53),
            _ => syn(client, port, server, 53),
        };
        let packet = Packet::parse(&bytes).unwrap();
        let mut range = NatRange::to([192, 0, 2, below(2) as u8].into());
        match below(10) {
            0 => range = NatRange::to(client.into()),
            1 => range.ports = Some(5000..=5003),
            2 => range.port_selection = PortSelection::Random,
            3 => range.addresses = None,
            4 => range.masquerade = true,
            _ => (),
        }
        let manip = if below(8) == 0 { Manip::Destination } else { Manip::Source };
        let zone = Zone { id: below(2) as u16, ..Zone::default() };
        let [first, second] = [&mut plain, &mut whole].map(|engine| engine.track(&packet, zone, now));
        let (mut first, mut second) = (first, second);
        if let (Some(fresh), Manip::Source) = (first.unconfirmed(), manip) {
            chosen_plainly += u32::from(plain.unique_reply_plain(fresh, manip, &range).is_some());
        }
        // A rule for one end; of the other end, and sometimes of both, nothing but that it stays as it is.
        let has_rule = below(4) != 0;
        for end in [Manip::Destination, Manip::Source] {
            let (translated, binding) = match has_rule && end == manip {
                true => (plain.translate(&mut first, end, &range, now), NatBinding::Rule),
                false => (plain.nat_null_binding(&mut first, end, now), NatBinding::Null),
            };
            let expected = match &mut second.pending {
                Pending::Unconfirmed(fresh) => {
                    let present = fresh.reply.tuple().invert().unwrap();
                    let own = NatRange::to(range::end_address(&present, end));
                    let range = if binding == NatBinding::Rule { &range } else { &own };
                    whole.search_nat_tuple(fresh, (end, binding), range, now)
                }
                _ => NatResult::AlreadyDone,
            };
            assert_eq!(translated, expected, "step {step}");
        }
        assert_eq!(plain.confirm(first, now), whole.confirm(second, now), "step {step}");
        for engine in [&mut plain, &mut whole] {
            engine.poll(Instant(now.0.saturating_sub(5_000_000_000)));
        }
        if step % 500 == 0 {
            let [first, second] = [&plain, &whole].map(|engine| engine.entries(now).collect::<Vec<_>>());
            assert_eq!(first, second, "step {step}");
            plain.check_invariants().unwrap();
        }
    }
    assert!(chosen_plainly > 500, "{chosen_plainly}");
}

fn tuple(bytes: &[u8]) -> Tuple {
    let (source, source_key, destination, destination_key) = endpoints(bytes);
    Tuple { source: source.into(), destination: destination.into(), protocol: 17, source_key, destination_key }
}

#[test]
fn exhausted_range_drops_and_counts() {
    let mut engine = engine();
    let range = NatRange { ports: Some(1024..=1033), ..NatRange::to(OUTSIDE.into()) };
    for port in 0..12 {
        let (outcome, _) = route_packet(&mut engine, udp(CLIENT, 30_000 + port, SERVER, 53), None, Some(&range));
        let dropped = (outcome.verdict, outcome.reason) == (crate::CtVerdict::Drop, Some(Reason::NatExhausted));
        assert_eq!(dropped, port >= 10, "{outcome:?}");
    }
    let (shortage, shortfall) = engine.exhaustion_stats().next().unwrap();
    assert_eq!((shortage.address, shortage.peer, shortage.peer_port), (OUTSIDE.into(), SERVER.into(), 53));
    assert_eq!(shortfall.failures, 2);
    assert_eq!(engine.counters().insert_failed, 2);
    assert!(engine.poll_exhaustion().is_some() && engine.poll_exhaustion().is_none());
    // For another peer all ten ports are free again.
    let (outcome, _) = route_packet(&mut engine, udp(CLIENT, 1, [198, 51, 100, 10], 53), None, Some(&range));
    assert_eq!(outcome.info, CtInfo::New);
}

#[test]
fn icmp_error_is_translated_outer_and_inner() {
    let mut engine = engine();
    let range = NatRange::to_port(OUTSIDE.into(), 7777);
    let (_, out) = route_packet(&mut engine, udp(CLIENT, 4000, SERVER, 53), None, Some(&range));
    let mut error = vec![3, 3, 0, 0, 0, 0, 0, 0];
    error.extend(&out);
    let check = checksum::internet(&error);
    error[2..4].copy_from_slice(&check.to_be_bytes());
    let (outcome, back) = route_packet(&mut engine, ipv4_packet(SERVER, OUTSIDE, 1, &error), None, None);
    assert_eq!(outcome.info, CtInfo::Related);
    let packet = Packet::parse(&back).unwrap();
    assert!(packet.transport_checksum_ok());
    assert_eq!(back[16..20], CLIENT);
    assert_eq!(endpoints(&back[28..]), (CLIENT, 4000, SERVER, 53));
    // An error sent by a router on the path keeps that router's address.
    let (_, back) = route_packet(&mut engine, ipv4_packet([203, 0, 113, 1], OUTSIDE, 1, &error), None, None);
    assert_eq!((&back[12..16], &back[16..20]), (&[203, 0, 113, 1][..], &CLIENT[..]));
}

#[test]
fn icmp_ids_are_translated_like_ports() {
    let mut engine = engine();
    let range = NatRange::to(OUTSIDE.into());
    let ping = |host, kind| {
        let mut message = [kind, 0, 0, 0, 0, 5, 0, 1];
        let check = checksum::internet(&message);
        message[2..4].copy_from_slice(&check.to_be_bytes());
        ipv4_packet([10, 0, 0, host], SERVER, 1, &message)
    };
    let (_, first) = route_packet(&mut engine, ping(2, 8), None, Some(&range));
    let (_, second) = route_packet(&mut engine, ping(3, 8), None, Some(&range));
    assert_eq!(first[24..26], [0, 5]);
    assert_ne!(second[24..26], [0, 5]);
    assert!(Packet::parse(&second).unwrap().transport_checksum_ok());
    let mut message = [0, 0, 0, 0, second[24], second[25], 0, 1];
    let check = checksum::internet(&message);
    message[2..4].copy_from_slice(&check.to_be_bytes());
    let (outcome, back) = route_packet(&mut engine, ipv4_packet(SERVER, OUTSIDE, 1, &message), None, None);
    assert_eq!((outcome.info, &back[16..20], &back[24..26]), (CtInfo::Established, &[10, 0, 0, 3][..], &[0, 5][..]));
}

#[test]
fn netmap_replaces_only_the_prefix() {
    let mut engine = engine();
    let prefix = NatRange {
        addresses: Some([192, 0, 2, 0].into()..=[192, 0, 2, 255].into()),
        prefix: true,
        ..NatRange::default()
    };
    let (_, out) = route_packet(&mut engine, udp([10, 0, 0, 77], 4000, SERVER, 53), None, Some(&prefix));
    assert_eq!(endpoints(&out), ([192, 0, 2, 77], 4000, SERVER, 53));
}

#[test]
fn addresses_are_spread_unless_persistent() {
    let mut engine = engine();
    let addresses = Some([192, 0, 2, 1].into()..=[192, 0, 2, 8].into());
    let spread = NatRange { addresses, ..NatRange::default() };
    let persistent = NatRange { persistent: true, ..spread.clone() };
    let mut seen = alloc::collections::BTreeSet::new();
    let mut kept = alloc::collections::BTreeSet::new();
    for peer in 1..=60 {
        let to = [198, 51, 100, peer];
        let (_, out) = route_packet(&mut engine, udp(CLIENT, 1000 + u16::from(peer), to, 53), None, Some(&spread));
        seen.insert(endpoints(&out).0);
        let (_, out) =
            route_packet(&mut engine, udp([10, 0, 0, 9], 1000 + u16::from(peer), to, 53), None, Some(&persistent));
        kept.insert(endpoints(&out).0);
    }
    assert!(seen.len() > 5, "{seen:?}");
    assert_eq!(kept.len(), 1);
}

/// Two packets are translated before the connection of either is confirmed: both found the tuple free, and one gets it.
#[test]
fn a_tuple_that_is_taken_before_confirmation_is_a_clash() {
    let (mut engine, now) = (engine(), Instant(0));
    let range = NatRange::to(OUTSIDE.into());
    let packets = [syn(CLIENT, 5000, SERVER, 80), syn([10, 0, 0, 3], 5000, SERVER, 80)];
    let contexts = packets.map(|bytes| {
        let mut ctx = engine.track(&Packet::parse(&bytes).unwrap(), Zone::default(), now);
        assert_eq!(engine.translate(&mut ctx, Manip::Source, &range, now), NatResult::Changed);
        ctx
    });
    let reasons = contexts.map(|ctx| engine.confirm(ctx, now).reason);
    assert_eq!((reasons, engine.count()), ([None, Some(Reason::Clash)], 1));
    engine.check_invariants().unwrap();
}
