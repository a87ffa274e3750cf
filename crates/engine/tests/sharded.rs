//! Several shards are one table: the same packets have the same outcomes as in one engine, translated ones too; no two connections share a tuple; the limit is one.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod common;

use common::rng::Rng;
use common::{Segment, icmp, ipv4, ipv6, tcp, udp};
use keepstate_engine::wire::Packet;
use keepstate_engine::{
    ConnUpdate, CtInfo, CtVerdict, Direction, Engine, Entry, EventKind, EventMask, ImportError, Instant, Manip,
    NatRange, NewConnection, Outcome, PortSelection, Reason, Secret, ShardInboxes, ShardedEngine, Sysctl, Sysctls,
    Tuple, UpdateError, WindowTrust, Zone,
};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

const NOW: Instant = Instant(1_000_000_000);
const SHARDS: [usize; 4] = [1, 2, 3, 8];

fn sysctls(limit: u64) -> Sysctls {
    let mut sysctls = Sysctls::default();
    sysctls.set(Sysctl::Max, limit).unwrap();
    sysctls.set(Sysctl::Buckets, 64).unwrap();
    sysctls
}

fn sharded(shards: usize, limit: u64) -> ShardedEngine {
    ShardedEngine::new(sysctls(limit), Secret([7; 16]), shards)
}

/// What must be the same of an entry: all but its ids.
fn comparable(entry: &Entry) -> String {
    let Entry { original, reply, zone, status, timeout, protocol, accounting, .. } = entry;
    format!("{original} {reply} {zone:?} {status:?} {timeout} {protocol:?} {accounting:?}")
}

fn random_packet(dice: &mut Rng) -> Vec<u8> {
    let mut address = || [10, 0, 0, dice.below(12) as u8];
    let (source, destination) = (address(), address());
    let ports = (1000 + dice.below(6) as u16, 80 + dice.below(2) as u16);
    let ports = if dice.below(2) == 0 { ports } else { (ports.1, ports.0) };
    let (from, to) = ((source, ports.0), (destination, ports.1));
    let mut packet = match dice.below(12) {
        0..5 => {
            let flags = [2, 18, 16, 17, 4, 24, 0, dice.below(256) as u8][dice.below(8) as usize];
            let (seq, ack) = (1000 + dice.below(3000), 1000 + dice.below(3000));
            tcp(from, to, &Segment { flags, seq, ack, window: 3000, ..Segment::default() })
        }
        5..7 => udp(from, to, b"keepstate"),
        7 | 8 => icmp(source, destination, [0, 8, 13, 14, 99][dice.below(5) as usize], 0, &[0, ports.0 as u8, 0, 1]),
        9 => {
            let quoted = udp(to, from, b"quoted");
            icmp(source, destination, 3, 3, &[&[0; 4][..], &quoted].concat())
        }
        10 => {
            let address = |last| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
            let header = [from.1.to_be_bytes(), to.1.to_be_bytes(), [0, 8], [0, 0]].concat();
            ipv6(address(source[3]), address(destination[3]), 17, &header)
        }
        _ => ipv4(source, destination, [47, 50, 132][dice.below(3) as usize], &[0; 16]),
    };
    if dice.below(30) == 0 {
        let at = dice.below(packet.len() as u32) as usize;
        packet[at] ^= 1 << dice.below(8);
    }
    packet
}

#[test]
fn any_packets_have_the_outcomes_of_one_engine() {
    for (seed, shards) in SHARDS.into_iter().enumerate() {
        let mut dice = Rng(seed as u64 + 1);
        let mut one = Engine::new(sysctls(100_000), Secret([9; 16]));
        let mut many = sharded(shards, 100_000);
        one.subscribe(EventMask::ALL, 1_000_000);
        many.subscribe(EventMask::ALL, 1_000_000);
        let (mut now, mut used, mut told) = (NOW, BTreeSet::new(), [[0; 3]; 2]);
        for round in 0..30_000 {
            now = Instant(now.0 + u64::from(dice.below(40)) * 10_000_000);
            let bytes = random_packet(&mut dice);
            let Ok(packet) = Packet::parse(&bytes) else { continue };
            let expected = one.handle(&packet, Zone::default(), now);
            let (shard, outcome) = many.handle(&packet, Zone::default(), now);
            used.insert(shard);
            let named = |outcome: Outcome| Outcome { connection: None, ..outcome };
            assert_eq!(named(outcome), named(expected), "{shards} shards, round {round}");
            let entries = (
                expected.connection.and_then(|id| one.entry(id, now)),
                outcome.connection.and_then(|id| many.shards()[shard].entry(id, now)),
            );
            match entries {
                (Some(own), Some(other)) => assert_eq!(comparable(&own), comparable(&other)),
                both => assert_eq!(both.0.is_some(), both.1.is_some(), "{shards} shards, round {round}"),
            }
            if dice.below(8) == 0 {
                one.poll(now);
                many.poll(now);
            }
            if round % 1000 == 0 {
                let mut all: [Vec<String>; 2] = [
                    one.entries(now).map(|entry| comparable(&entry)).collect(),
                    many.entries(now).map(|(_, entry)| comparable(&entry)).collect(),
                ];
                all.iter_mut().for_each(|all| all.sort());
                assert_eq!(all[0], all[1], "{shards} shards, round {round}");
                many.check_invariants().unwrap();
                let found = |(id, entry): (_, Entry)| {
                    many.find(&entry.original, Zone::default(), now) == Some((id, Direction::Original))
                        || entry.original == entry.reply
                };
                assert!(many.entries(now).all(found));
            }
        }
        assert_eq!(*one.counters(), many.counters());
        assert!(one.reason_counts().eq(many.reason_counts()));
        assert_eq!(used.len(), shards, "packets came to every shard");
        let at = |kind| match kind {
            EventKind::New => 0,
            EventKind::Update => 1,
            EventKind::Destroy => 2,
        };
        std::iter::from_fn(|| one.poll_event()).for_each(|event| told[0][at(event.kind)] += 1);
        std::iter::from_fn(|| many.poll_event()).for_each(|event| told[1][at(event.kind)] += 1);
        assert_eq!(told[0], told[1]);
        many.flush(now);
        assert_eq!((many.count(), many.next_wake(now)), (0, None));
        many.check_invariants().unwrap();
    }
}

const VIP: [u8; 4] = [192, 0, 2, 80];
const BACKEND: [u8; 4] = [10, 9, 0, 1];

/// The packet as a router sends it: port 80 of the VIP goes to the backend's 8080; clients of 10.1.0.0/16 leave by 192.0.2.1; any other source stays.
fn route(engine: &mut Engine, bytes: &[u8], now: Instant) -> (Outcome, Vec<u8>) {
    let packet = Packet::parse(bytes).unwrap();
    let mut ctx = engine.track(&packet, Zone::default(), now);
    let (source, destination) = (&bytes[12..16], &bytes[16..20]);
    if destination == VIP {
        engine.translate(&mut ctx, Manip::Destination, &NatRange::to_port(BACKEND.into(), 8080), now);
    } else {
        engine.nat_null_binding(&mut ctx, Manip::Destination, now);
    }
    let mut sent = bytes.to_vec();
    assert!(engine.nat_rewrite(&ctx, Manip::Destination).apply(&mut sent));
    if source[..2] == [10, 1] {
        let selection = if source[3] % 2 == 0 { PortSelection::PreferOriginal } else { PortSelection::Random };
        let range = NatRange { port_selection: selection, ..NatRange::masquerade([192, 0, 2, 1].into()) };
        engine.translate(&mut ctx, Manip::Source, &range, now);
    } else {
        engine.nat_null_binding(&mut ctx, Manip::Source, now);
    }
    assert!(engine.nat_rewrite(&ctx, Manip::Source).apply(&mut sent));
    (engine.confirm(ctx, now), sent)
}

fn ends(packet: &[u8]) -> (([u8; 4], u16), ([u8; 4], u16)) {
    let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let address = |at: usize| packet[at..at + 4].try_into().unwrap();
    ((address(12), port(20)), (address(16), port(22)))
}

#[test]
fn replies_of_translated_connections_find_them() {
    for shards in SHARDS {
        let mut dice = Rng(shards as u64);
        let mut one = Engine::new(sysctls(100_000), Secret([9; 16]));
        let mut many = sharded(shards, 100_000);
        for client in 0..3000u32 {
            let inside = dice.below(3) > 0;
            let source = if inside { [10, 1, 0, dice.below(9) as u8] } else { [172, 16, 0, dice.below(9) as u8] };
            let destination = if dice.below(2) == 0 { (VIP, 80) } else { ([198, 51, 100, dice.below(3) as u8], 443) };
            let is_ping = dice.below(8) == 0;
            let from = (source, 1024 + (client * 7 % 60_000) as u16);
            let first = match is_ping {
                true => icmp(source, destination.0, 8, 0, &[from.1.to_be_bytes(), [0, 1]].concat()),
                false => udp(from, destination, b"question"),
            };
            let packet = Packet::parse(&first).unwrap();
            let (shard, _) = many.shard_for(&packet);
            // The reply is sent to whichever shard its bytes name, which must be the same one.
            let map = many.map().clone();
            let engine = &mut many.shards_mut()[shard];
            let (outcome, sent) = route(engine, &first, NOW);
            let answer_to = |sent: &[u8]| {
                let (us, them) = ends(sent);
                if is_ping { icmp(them.0, us.0, 0, 0, &sent[24..28]) } else { udp(them, us, b"answer") }
            };
            let (_, expected_sent) = route(&mut one, &first, NOW);
            let (expected_answered, expected_back) = route(&mut one, &answer_to(&expected_sent), NOW);
            assert_eq!((outcome.info, outcome.verdict), (CtInfo::New, CtVerdict::Accept), "{shards} shards, {client}");
            let (us, them) = ends(&sent);
            let expected = ends(&expected_sent);
            assert_eq!((us.0, them.0), (expected.0.0, expected.1.0), "only the source port is chosen anew");
            assert!(is_ping || them.1 == expected.1.1);
            assert!(inside || destination.0 == VIP || sent == first, "what is not translated stays");
            let answer = answer_to(&sent);
            let error = icmp(them.0, us.0, 3, 3, &[&[0; 4][..], &sent].concat());
            for reply in [&answer, &error] {
                assert_eq!(map.shard_of(&Packet::parse(reply).unwrap()), Some(shard), "{shards} shards, {client}");
            }
            let (answered, back) = route(&mut many.shards_mut()[shard], &answer, NOW);
            assert_eq!((answered.info, answered.direction), (expected_answered.info, expected_answered.direction));
            assert_eq!(answered.connection, outcome.connection);
            assert_eq!(back, expected_back, "what the client sees is the same");
            let (told, _) = route(&mut many.shards_mut()[shard], &error, NOW);
            assert_eq!((told.info, told.connection), (CtInfo::Related, outcome.connection));
        }
        many.check_invariants().unwrap();
        assert_eq!(many.count(), one.count());
        let tuples: BTreeSet<Tuple> = many.entries(NOW).flat_map(|(_, entry)| [entry.original, entry.reply]).collect();
        assert_eq!(tuples.len(), 2 * many.count(), "no two connections share a tuple");
    }
}

#[test]
fn a_narrow_range_is_used_up_and_no_port_is_given_twice() {
    let mut many = sharded(4, 1000);
    let range = NatRange { ports: Some(40_000..=40_015), ..NatRange::to([192, 0, 2, 1].into()) };
    let mut given = BTreeSet::new();
    for client in 0..400u16 {
        let bytes = udp(([10, 1, 0, 2], 1000 + client), ([198, 51, 100, 1], 53), b"");
        let packet = Packet::parse(&bytes).unwrap();
        let (_, engine) = many.shard_for(&packet);
        let mut ctx = engine.track(&packet, Zone::default(), NOW);
        engine.translate(&mut ctx, Manip::Source, &range, NOW);
        let outcome = engine.confirm(ctx, NOW);
        if let Some(id) = outcome.connection {
            assert!(given.insert(engine.entry(id, NOW).unwrap().reply.destination_key));
        } else {
            assert_eq!(outcome.verdict, CtVerdict::Drop);
        }
    }
    assert_eq!(given, (40_000..=40_015).collect());
    many.check_invariants().unwrap();
}

/// Its packets, for which shard `shard` is the right one.
fn udp_of_shard(many: &ShardedEngine, shard: usize, count: usize) -> Vec<Vec<u8>> {
    let all = (0..).map(|n: u32| udp(([10, 1, (n >> 8) as u8, n as u8], 1000), ([10, 2, 0, 9], 53), b""));
    all.filter(|bytes| many.map().shard_of(&Packet::parse(bytes).unwrap()) == Some(shard)).take(count).collect()
}

#[test]
fn the_limit_is_exact_over_all_shards_and_threads() {
    const LIMIT: usize = 1000;
    let mut many = sharded(4, LIMIT as u64);
    let packets: Vec<_> = (0..4).map(|shard| udp_of_shard(&many, shard, 600)).collect();
    let map = many.map().clone();
    let begun = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for (shard, packets) in many.shards_mut().iter_mut().zip(&packets) {
            let (map, begun) = (&map, &begun);
            scope.spawn(move || {
                begun.wait();
                for (at, bytes) in packets.iter().enumerate() {
                    let packet = Packet::parse(bytes).unwrap();
                    shard.handle(&packet, Zone::default(), NOW);
                    assert!(map.count() <= LIMIT);
                    if at % 7 == 0 {
                        // Through the other way in, and out again.
                        let id = shard.entries(NOW).next().map(|entry| entry.conn_id);
                        assert!(id.is_none_or(|id| shard.remove(id, NOW)));
                        let ctx = shard.track(&packet, Zone::default(), NOW);
                        shard.confirm(ctx, NOW);
                        assert!(map.count() <= LIMIT);
                    }
                }
            });
        }
    });
    many.check_invariants().unwrap();
    // All of 2,400 but those removed again: far more than the limit.
    assert_eq!(many.count(), LIMIT);
    let removed = many.shards_mut()[1].count();
    many.shards_mut()[1].flush(NOW);
    assert_eq!(many.count(), LIMIT - removed);
}

#[test]
fn a_full_table_refuses_in_whichever_shard_the_packet_is() {
    let mut many = sharded(2, 10);
    let assured = ConnUpdate { timeout: Some(100), status: None, ..ConnUpdate::default() };
    for bytes in udp_of_shard(&many, 0, 10) {
        let tuple = keepstate_engine::packet_tuple(&Packet::parse(&bytes).unwrap()).unwrap();
        let status = keepstate_engine::Status::ASSURED | keepstate_engine::Status::SEEN_REPLY;
        let attributes = ConnUpdate { status: Some(status), ..assured };
        many.shards_mut()[0].create(&request(&tuple, attributes), NOW).unwrap();
    }
    let late = udp_of_shard(&many, 1, 1).remove(0);
    let packet = Packet::parse(&late).unwrap();
    let (shard, outcome) = many.handle(&packet, Zone::default(), NOW);
    assert_eq!((shard, outcome.reason, outcome.verdict), (1, Some(Reason::TableFull), CtVerdict::Drop));
    many.set_sysctl(Sysctl::Max, 11).unwrap();
    assert_eq!(many.handle(&packet, Zone::default(), NOW).1.info, CtInfo::New);
    assert_eq!(many.count(), 11);
}

fn request(original: &Tuple, attributes: ConnUpdate) -> NewConnection {
    let reply = original.invert().unwrap();
    NewConnection { original: *original, reply, zone: Zone::default(), attributes, dst_nat: None, src_nat: None }
}

#[test]
fn a_shard_begins_no_connection_of_another() {
    let mut many = sharded(2, 1000);
    let bytes = udp_of_shard(&many, 0, 1).remove(0);
    let packet = Packet::parse(&bytes).unwrap();
    let tuple = keepstate_engine::packet_tuple(&packet).unwrap();
    let wrong = &mut many.shards_mut()[1];
    assert_eq!(wrong.handle(&packet, Zone::default(), NOW).reason, Some(Reason::WrongShard));
    let attributes = ConnUpdate { timeout: Some(100), ..ConnUpdate::default() };
    assert_eq!(wrong.create(&request(&tuple, attributes), NOW), Err(UpdateError::WrongShard));
    // Translated to a fixed port, whose reply tuple belongs to another shard.
    let refused = (1..200).any(|port| {
        let mut new = request(&tuple, attributes);
        new.src_nat = Some(NatRange::to_port(IpAddr::from([192, 0, 2, 1]), port));
        let answer = many.shards_mut()[0].create(&new, NOW);
        answer.map(|id| many.shards_mut()[0].remove(id, NOW)).is_err()
    });
    assert!(refused);
    let id = many.shards_mut()[0].create(&request(&tuple, attributes), NOW).unwrap();
    let snapshot = many.shards()[0].export(id, NOW).unwrap();
    let answer = many.shards_mut()[1].import(&snapshot, Duration::ZERO, WindowTrust::Exact, NOW);
    assert_eq!(answer, Err(ImportError::Invalid("a tuple of another shard")));
    assert_eq!(many.count(), 1);
    // A clone is an engine of its own: what happens in it changes no count.
    let mut clone = many.shards()[0].clone();
    clone.flush(NOW);
    assert_eq!((clone.count(), many.count()), (0, 1));
    drop(clone);
    many.check_invariants().unwrap();
}

#[test]
fn threads_hand_over_what_is_anothers() {
    let many = sharded(2, 100_000);
    let mut one = Engine::new(sysctls(100_000), Secret([9; 16]));
    let packets: Vec<Vec<u8>> = (0..4000u32)
        .flat_map(|n| {
            let (from, to) = (([10, 1, (n >> 8) as u8, n as u8], 1000), ([10, 2, 0, 9], 53));
            [udp(from, to, b"question"), udp(to, from, b"answer")]
        })
        .collect();
    for bytes in &packets {
        one.handle(&Packet::parse(bytes).unwrap(), Zone::default(), NOW);
    }
    let (map, shards) = many.into_shards();
    let inboxes = ShardInboxes::<Vec<u8>>::new(2, 16);
    let done = std::sync::atomic::AtomicUsize::new(0);
    let all = packets.len();
    let shards: Vec<Engine> = std::thread::scope(|scope| {
        let threads: Vec<_> = shards
            .into_iter()
            .enumerate()
            .map(|(own, mut shard)| {
                let (map, inboxes, done, packets) = (map.clone(), inboxes.clone(), &done, &packets);
                scope.spawn(move || {
                    let mut handle = |bytes: &[u8]| {
                        let packet = Packet::parse(bytes).unwrap();
                        assert_eq!(shard.handle(&packet, Zone::default(), NOW).verdict, CtVerdict::Accept);
                        done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    };
                    // Each reads every other flow, as a network card would deal them out, whichever shard they belong to.
                    for bytes in packets.chunks(2).skip(own).step_by(2).flatten() {
                        let owner = map.shard_of(&Packet::parse(bytes).unwrap()).unwrap();
                        let mut handed = if owner == own { None } else { Some(bytes.clone()) };
                        if owner == own {
                            handle(bytes);
                        }
                        while let Some(bytes) = handed.take() {
                            // A full inbox: both empty their own meanwhile.
                            handed = inboxes.send(owner, bytes).err();
                            while let Some(bytes) = inboxes.take(own) {
                                handle(&bytes);
                            }
                        }
                    }
                    while done.load(std::sync::atomic::Ordering::Relaxed) < all {
                        match inboxes.take(own) {
                            Some(bytes) => handle(&bytes),
                            None => std::thread::yield_now(),
                        }
                    }
                    shard
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).rev().collect()
    });
    assert!(inboxes.is_empty(0) && inboxes.is_empty(1) && inboxes.is_empty(2));
    assert_eq!(inboxes.send(2, Vec::new()), Err(Vec::new()), "there is no such shard");
    let foreign = sharded(2, 1).into_shards().0;
    let shards = ShardedEngine::from_shards(foreign, shards).unwrap_err();
    let many = ShardedEngine::from_shards(map, shards).unwrap();
    many.check_invariants().unwrap();
    let originals = |entries: Vec<Entry>| -> BTreeSet<Tuple> { entries.iter().map(|entry| entry.original).collect() };
    let entries: Vec<Entry> = many.entries(NOW).map(|(_, entry)| entry).collect();
    assert_eq!(originals(entries), originals(one.entries(NOW).collect()));
    assert!(many.entries(NOW).all(|(id, entry)| many.entry(id, NOW) == Some(entry)));
}
