//! A router that decides one of two shards.
use super::*;
use crate::{Egress, FibTable, Interface, Route};
use keepstate_engine::{ConnSnapshot, Engine, OwnSources, Secret, Sysctls, WindowTrust};
use keepstate_rules::{NoIncludes, compile, parse_with};
use keepstate_wire::checksum::Sum;
use std::net::IpAddr;
use std::time::Duration;

const NOW: Instant = Instant(1_000_000_000);
const LATER: Instant = Instant(2_000_000_000);
const PEER: [u8; 4] = [198, 51, 100, 9];
/// The outside addresses of the shards.
const OURS: [u8; 4] = [192, 0, 2, 77];
const THEIRS: [u8; 4] = [192, 0, 2, 78];
const ACTIVE: ClusterDuty = ClusterDuty::Active { until: None };

/// Hosts 10.0.0.x have the addresses of both shards, 10.0.1.x that of the second, 10.0.2.x one of none; 10.0.3.x are not translated. The second shard has a service.
fn router() -> Router {
    let rules = "table ip t {
        chain pre { type nat hook prerouting priority -100; ip daddr 192.0.2.78 udp dport 53 dnat to 10.0.3.80; }
        chain post { type nat hook postrouting priority 100;
            ip saddr 10.0.0.0/24 snat to 192.0.2.77-192.0.2.78
            ip saddr 10.0.1.0/24 snat to 192.0.2.78
            ip saddr 10.0.2.0/24 snat to 192.0.2.79
        }
    }";
    let (tree, sources) = parse_with("test.nft", rules, &NoIncludes, &[]).unwrap();
    let inside = Interface::new(1, "lan0", 1500).with_address([10, 0, 0, 1].into(), 16);
    let outside = Interface::new(2, "wan0", 1500).with_address([192, 0, 2, 1].into(), 24);
    let outside = outside.with_address(OURS.into(), 24);
    let default = Route::new([0, 0, 0, 0].into(), 0, 2).via([192, 0, 2, 254].into());
    let fib = FibTable::new(vec![inside, outside], vec![default]);
    let engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    let shards = ShardAddresses::new(&[vec![OURS.into()..=OURS.into()], vec![THEIRS.into()..=THEIRS.into()]]);
    let mut router = Router::new(engine, compile(&tree, &sources).unwrap(), fib, (1, 2)).with_shards(shards);
    decide_ours(&mut router, ACTIVE);
    router
}

fn decide_ours(router: &mut Router, duty: ClusterDuty) {
    router.set_shard_duty(0, duty);
    router
        .engine_mut()
        .set_own_sources(Some([(IpAddr::from(OURS)..=IpAddr::from(OURS), None)].into_iter().collect::<OwnSources>()));
}

fn packet(from: [u8; 4], to: [u8; 4], ports: [u16; 2], ttl: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0, 0, ttl, 17, 0, 0];
    packet.extend(from.into_iter().chain(to));
    let sum = Sum::new().add_bytes(&packet).finish().to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet.extend(ports.into_iter().flat_map(u16::to_be_bytes));
    packet.extend([0, 8, 0, 0]);
    packet
}

/// What becomes of a datagram: the source and the destination it leaves with.
fn send(
    router: &mut Router,
    iif: u32,
    (from, to): ([u8; 4], [u8; 4]),
    ports: [u16; 2],
    now: Instant,
) -> Result<[[u8; 4]; 2], DropReason> {
    let result = router.handle(&packet(from, to, ports, 64), iif, now);
    let sent: Vec<Vec<u8>> = std::iter::from_fn(|| router.poll_output())
        .map(|out| match out {
            Egress::Forward { packet, .. } | Egress::LocalDeliver(packet) => packet,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sent.len(), usize::from(result.is_ok()), "nobody is answered");
    result.map(|()| [12, 16].map(|at| sent[0][at..at + 4].try_into().unwrap()))
}

/// A connection of the other shard, told by its gateway: from 10.0.0.50:5000 to the peer's port 5001, with the outside port 6000.
fn tell(router: &mut Router) -> ConnId {
    let mut theirs = self::router();
    theirs.set_shard_duty(0, ClusterDuty::Standby);
    theirs.set_shard_duty(1, ACTIVE);
    theirs.engine_mut().set_own_sources(None);
    let sent = send(&mut theirs, 1, ([10, 0, 1, 50], PEER), [5000, 5001], NOW);
    assert_eq!(sent, Ok([THEIRS, PEER]));
    let told: ConnSnapshot = theirs
        .engine()
        .export_slot(0, NOW)
        .or_else(|| (0..theirs.engine().slot_count()).find_map(|slot| theirs.engine().export_slot(slot, NOW)))
        .unwrap();
    let engine = router.engine_mut();
    let conn_id = engine.import(&told, Duration::ZERO, WindowTrust::Lenient, NOW).unwrap();
    assert!(engine.hold(conn_id, NOW));
    conn_id
}

#[test]
fn new_connections_get_addresses_of_the_decided_shards_alone() {
    let mut router = router();
    for host in 2..20 {
        assert_eq!(send(&mut router, 1, ([10, 0, 0, host], PEER), [5000, 5001], NOW), Ok([OURS, PEER]));
    }
    assert_eq!(send(&mut router, 1, ([10, 0, 1, 2], PEER), [5000, 5001], NOW), Err(DropReason::Standby));
    assert_eq!(send(&mut router, 1, ([10, 0, 2, 2], PEER), [5000, 5001], NOW), Err(DropReason::NoShard));
    assert_eq!(send(&mut router, 1, ([10, 0, 3, 2], PEER), [5000, 5001], NOW), Ok([[10, 0, 3, 2], PEER]));
    // Its lease ends while nobody says so; what it knows goes on, and what is of no shard.
    decide_ours(&mut router, ClusterDuty::Active { until: Some(LATER) });
    assert_eq!(send(&mut router, 1, ([10, 0, 0, 40], PEER), [5000, 5001], LATER), Err(DropReason::Fenced));
    assert_eq!(send(&mut router, 1, ([10, 0, 0, 2], PEER), [5000, 5001], LATER), Ok([OURS, PEER]));
    assert_eq!(send(&mut router, 1, ([10, 0, 3, 3], PEER), [5000, 5001], LATER), Ok([[10, 0, 3, 3], PEER]));
    assert_eq!(router.duty_counters(), DutyCounters { standby: 1, fenced: 1 });
    let of_shards = [0, 1, 2].map(|shard| router.shard_duty_counters(shard));
    let expected = [[0, 1], [1, 0], [0, 0]].map(|[standby, fenced]| DutyCounters { standby, fenced });
    assert_eq!(of_shards, expected, "each packet is its shard's");
    // Without a shard it is a standby like any other.
    decide_ours(&mut router, ClusterDuty::Standby);
    assert_eq!(send(&mut router, 1, ([10, 0, 3, 3], PEER), [5000, 5001], LATER), Err(DropReason::Standby));
}

#[test]
fn packets_of_a_held_connection_are_dropped_in_silence_until_its_shard_is_decided_here() {
    let mut router = router();
    let held = tell(&mut router);
    let before = router.engine().entry(held, NOW).unwrap();
    let out = (([10, 0, 1, 50], PEER), [5000, 5001]);
    let outside = before.reply.destination_key;
    let back = ((PEER, THEIRS), [5001, outside]);
    assert_eq!(send(&mut router, 1, out.0, out.1, LATER), Err(DropReason::Standby));
    assert_eq!(send(&mut router, 2, back.0, back.1, LATER), Err(DropReason::Standby));
    let now = router.engine().entry(held, LATER).unwrap();
    assert_eq!((now.timeout, now.status), (before.timeout, before.status), "nothing of it has changed");
    // Unknown packets to its address, too: from outside, and from a host that has lost its way.
    assert_eq!(send(&mut router, 2, (PEER, THEIRS), [5001, 9], LATER), Err(DropReason::Standby));
    assert_eq!(router.handle(&packet(PEER, THEIRS, [5001, 9], 1), 2, LATER), Err(DropReason::Standby));
    assert_eq!(router.poll_output(), None);
    assert_eq!(router.shard_duty_counters(1), DutyCounters { standby: 4, fenced: 0 });
    assert_eq!(router.shard_duty_counters(0), DutyCounters::default());
    let generation = router.flow_generation();
    router.set_shard_duty(1, ACTIVE);
    assert_eq!(router.flow_generation(), generation, "known flows of the other shard go on");
    assert_eq!(send(&mut router, 2, back.0, back.1, LATER), Ok([PEER, [10, 0, 1, 50]]));
    assert!(!router.engine().is_held(held), "its timer goes on with the packet");
    assert_eq!(send(&mut router, 1, out.0, out.1, LATER), Ok([THEIRS, PEER]));
    router.set_shard_duty(1, ClusterDuty::Standby);
    assert_ne!(router.flow_generation(), generation);
}

#[test]
fn while_connections_are_being_held_their_shard_already_counts() {
    let mut router = router();
    router.set_shard_duty(1, ACTIVE);
    let theirs = ([10, 0, 3, 2], THEIRS);
    assert_eq!(send(&mut router, 1, theirs, [5000, 53], NOW), Ok([[10, 0, 3, 2], [10, 0, 3, 80]]));
    assert_eq!(send(&mut router, 1, ([10, 0, 0, 2], PEER), [5000, 5001], NOW), Ok([OURS, PEER]));
    router.set_shard_duty(1, ClusterDuty::Standby);
    router.set_shard_settling(1, true);
    assert_eq!(send(&mut router, 1, theirs, [5000, 53], NOW), Err(DropReason::Standby));
    assert_eq!(send(&mut router, 1, ([10, 0, 0, 2], PEER), [5000, 5001], NOW), Ok([OURS, PEER]));
    assert_eq!(send(&mut router, 1, ([10, 0, 3, 2], PEER), [5000, 5001], NOW), Ok([[10, 0, 3, 2], PEER]));
}

#[test]
fn a_host_behind_us_reaches_the_address_of_another_shard() {
    let mut router = router();
    assert_eq!(send(&mut router, 1, ([10, 0, 0, 2], THEIRS), [5000, 5001], NOW), Ok([OURS, THEIRS]));
    // Its service is the other gateway's: here it has no connections.
    assert_eq!(send(&mut router, 1, ([10, 0, 3, 2], THEIRS), [5000, 53], NOW), Err(DropReason::Standby));
    router.set_shard_duty(1, ACTIVE);
    assert_eq!(send(&mut router, 1, ([10, 0, 3, 2], THEIRS), [5000, 53], NOW), Ok([[10, 0, 3, 2], [10, 0, 3, 80]]));
}

#[test]
fn an_address_of_another_shard_is_not_answered_for_even_if_the_machine_has_it() {
    let mut router = router();
    router.set_shard_duty(0, ClusterDuty::Standby);
    router.set_shard_duty(1, ACTIVE);
    assert_eq!(send(&mut router, 2, (PEER, OURS), [5000, 5001], NOW), Err(DropReason::Standby));
    router.set_shard_duty(0, ACTIVE);
    assert_eq!(send(&mut router, 2, (PEER, OURS), [5000, 5001], NOW), Ok([PEER, OURS]));
    // The machine itself speaks to whomever it wants.
    let mut own = packet([192, 0, 2, 1], THEIRS, [5000, 5001], 64);
    router.set_shard_duty(1, ClusterDuty::Standby);
    assert_eq!(router.handle_output(&mut own, None, 2, NOW), Ok(()));
}
