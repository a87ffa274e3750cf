//! The engine in lock step with a one-page reference model: a plain list of UDP connections with linear search.
//!
//! The model has none of the engine's tables, fingerprints, batches, deadline bounds and free lists, so it can be checked by reading.
//! It does not cover a full table, because a secret decides which connection is dropped early.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod common;

use common::udp;
use keepstate_engine::{CtInfo, Direction, Engine, Instant, Secret, Status, Sysctl, Sysctls, Zone, ZoneDirection};
use keepstate_wire::Packet;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

/// Address and port.
type Endpoint = ([u8; 4], u16);

/// One connection, as the documentation describes it.
#[derive(Clone, Debug)]
struct ModelConnection {
    ends: [Endpoint; 2],
    zone: u16,
    created_at: u64,
    expires_at: u64,
    seen_reply: bool,
    assured: bool,
}

/// All connections.
#[derive(Default)]
struct Model(Vec<ModelConnection>);

impl Model {
    fn handle(&mut self, from: Endpoint, to: Endpoint, zone: u16, now: u64) -> (CtInfo, Option<Direction>) {
        // An expired connection counts as removed, whenever that is noticed.
        self.0.retain(|one| one.expires_at > now);
        let known =
            self.0.iter_mut().find(|one| one.zone == zone && (one.ends == [from, to] || one.ends == [to, from]));
        let Some(one) = known else {
            let until = now + 30 * SECOND;
            self.0.push(ModelConnection {
                ends: [from, to],
                zone,
                created_at: now,
                expires_at: until,
                seen_reply: false,
                assured: false,
            });
            return (CtInfo::New, Some(Direction::Original));
        };
        let original = one.ends == [from, to];
        let stream = one.seen_reply && now > one.created_at + 2 * SECOND;
        one.expires_at = now + if stream { 120 } else { 30 } * SECOND;
        one.assured |= stream;
        let info = if original && !one.seen_reply { CtInfo::New } else { CtInfo::Established };
        one.seen_reply |= !original;
        (info, Some(if original { Direction::Original } else { Direction::Reply }))
    }
}

/// One step of a test.
#[derive(Clone, Debug)]
enum Step {
    /// A packet between two hosts in a zone, or its reply.
    UdpPacket {
        from: u8,
        to: u8,
        ports: (u16, u16),
        reply: bool,
        zone: u16,
    },
    /// Several packets between new ports, tracked as one batch.
    Batch {
        from: u8,
        to: u8,
        first: u16,
        count: u16,
    },
    /// Advances the time by milliseconds, and optionally polls the engine.
    Wait {
        milliseconds: u32,
        poll: bool,
    },
    Flush,
    /// Removes the connection at this index of the model's list, if there is one.
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let datagram = (0u8..2, 0u8..2, (1u16..3, 1u16..3), any::<bool>(), 0u16..2)
        .prop_map(|(from, to, ports, reply, zone)| Step::UdpPacket { from, to, ports, reply, zone });
    prop_oneof![
        12 => datagram,
        2 => (0u8..3, 0u8..3, 1u16..30, 1u16..40)
            .prop_map(|(from, to, first, count)| Step::Batch { from, to, first, count }),
        // A tick is four milliseconds, the resolution of the engine's clock.
        6 => (prop_oneof![0u32..1_000, 0u32..12_000, Just(7_500), Just(30_000)], any::<bool>()).prop_map(|(units, poll)| Step::Wait { milliseconds: units * 4, poll }),
        1 => Just(Step::Flush),
        2 => (0usize..8).prop_map(Step::Remove),
    ]
}

const fn host(number: u8) -> [u8; 4] {
    [10, 0, 0, number]
}

fn assert_equal(engine: &Engine, model: &Model, now: Instant) {
    let mut ours: Vec<_> = engine
        .entries(now)
        .map(|entry| {
            let has = |status| entry.status.contains(status);
            let tuple = entry.original;
            let ends = [(tuple.source, tuple.source_key), (tuple.destination, tuple.destination_key)];
            (ends, entry.zone.id, entry.timeout, has(Status::SEEN_REPLY), has(Status::ASSURED))
        })
        .collect();
    let mut theirs: Vec<_> = model
        .0
        .iter()
        .filter(|one| one.expires_at > now.0)
        .map(|one| {
            let left = ((one.expires_at - now.0) / SECOND) as u32;
            (one.ends.map(|(address, port)| (address.into(), port)), one.zone, left, one.seen_reply, one.assured)
        })
        .collect();
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);
    engine.check_invariants().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn engine_matches_the_udp_reference_model(steps in proptest::collection::vec(step(), 1..120), buckets in 1u64..64) {
        let mut sysctls = Sysctls::default();
        sysctls.set(Sysctl::Buckets, buckets).unwrap();
        let mut now = Instant::from_secs(1_000);
        let mut engine = Engine::new(sysctls, Secret([3; 16]));
        let mut model = Model::default();
        let mut outcomes = Vec::new();
        for step in steps {
            match step {
                Step::UdpPacket { from, to, ports, reply, zone } => {
                    let (from, to) = ((host(from), ports.0), (host(to), 100 + ports.1));
                    let (from, to) = if reply { (to, from) } else { (from, to) };
                    let bytes = udp(from, to, b"keepstate");
                    let place = Zone { id: zone, direction: ZoneDirection::Both };
                    let outcome = engine.handle(&Packet::parse(&bytes).unwrap(), place, now);
                    prop_assert_eq!((outcome.info, outcome.direction), model.handle(from, to, zone, now.0));
                }
                Step::Batch { from, to, first, count } => {
                    let ends: Vec<(Endpoint, Endpoint)> =
                        (first..first + count).map(|port| ((host(from), port), (host(to), 100 + port % 7))).collect();
                    let bytes: Vec<_> = ends.iter().map(|(from, to)| udp(*from, *to, b"keepstate")).collect();
                    let packets: Vec<_> = bytes.iter().map(|bytes| Packet::parse(bytes).unwrap()).collect();
                    engine.handle_batch(&packets, Zone::default(), now, &mut outcomes);
                    for ((from, to), outcome) in ends.iter().zip(&outcomes) {
                        prop_assert_eq!((outcome.info, outcome.direction), model.handle(*from, *to, 0, now.0));
                    }
                }
                Step::Wait { milliseconds, poll } => {
                    now = Instant(now.0 + u64::from(milliseconds) * 1_000_000);
                    if poll {
                        engine.poll(now);
                    }
                }
                Step::Flush => {
                    engine.flush(now);
                    model.0.clear();
                }
                Step::Remove(at) => {
                    model.0.retain(|one| one.expires_at > now.0);
                    if at < model.0.len() {
                        let one = model.0.remove(at);
                        let entry = engine
                            .entries(now)
                            .find(|entry| {
                                entry.zone.id == one.zone
                                    && (entry.original.source, entry.original.source_key) == (one.ends[0].0.into(), one.ends[0].1)
                                    && (entry.original.destination, entry.original.destination_key)
                                        == (one.ends[1].0.into(), one.ends[1].1)
                            })
                            .unwrap();
                        prop_assert!(engine.remove(entry.conn_id, now));
                        prop_assert!(!engine.remove(entry.conn_id, now), "removed is removed");
                    }
                }
            }
            assert_equal(&engine, &model, now);
        }
    }
}
