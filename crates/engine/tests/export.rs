//! A table that moves to another engine in the middle of traffic: later packets are tracked, translated and stored as if it had not moved.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod common;

use common::rng::Rng;
use common::{Segment, icmp, ipv4, tcp, udp};
use keepstate_engine::{
    ConnSnapshot, Direction, Engine, Entry, Instant, Manip, NatRange, ProtocolInfo, Secret, Sysctl, Sysctls,
    WindowTrust, Zone, ZoneDirection,
};
use keepstate_wire::Packet;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

const SECRET: Secret = Secret([4; 16]);

/// The packets of this test.
trait NewPackets {
    fn random_new_packet(&mut self) -> Vec<u8>;
    fn random_packet_of(&mut self, entry: &Entry) -> Option<Vec<u8>>;
    fn random_packet(&mut self, engine: &Engine, now: Instant) -> Vec<u8>;
}

impl NewPackets for Rng {
    /// A packet of no known connection: it begins one, or it is odd.
    fn random_new_packet(&mut self) -> Vec<u8> {
        let client = self.below(6);
        // No two clients share a port, so that no port is ever selected at random.
        let from = ([10, 0, 0, client as u8], (1024 + client * 16 + self.below(4)) as u16);
        let to = ([198, 51, 100, self.below(5) as u8], 80 + self.below(2) as u16);
        match self.below(8) {
            0..3 => {
                let flags = [2, 2, 2, 16, 18, 4, self.below(256) as u8][self.below(7) as usize];
                let options = if self.below(2) == 0 { vec![] } else { vec![3, 3, 7, 4, 2, 0, 0, 0] };
                tcp(from, to, &Segment { flags, seq: self.below(9000), window: 8000, options, ..Segment::default() })
            }
            3..6 => udp(from, to, b"keepstate"),
            6 => icmp(from.0, to.0, 8, 0, &[0, client as u8, 0, 1]),
            _ => ipv4(
                from.0,
                to.0,
                [47, 50, 136][self.below(3) as usize],
                &[0x30, 1, 0x88, 0x0b, 0, 8, 0, 1, 0, 0, 0, 0],
            ),
        }
    }

    /// A packet of an existing connection, in either direction, as its end would send it; for TCP mostly with numbers near the current ones.
    fn random_packet_of(&mut self, entry: &Entry) -> Option<Vec<u8>> {
        let direction = [Direction::Original, Direction::Reply][self.below(2) as usize];
        let tuple = if direction == Direction::Original { entry.original } else { entry.reply };
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (tuple.source, tuple.destination) else { return None };
        let (from, to) = ((source.octets(), tuple.source_key), (destination.octets(), tuple.destination_key));
        Some(match entry.protocol {
            ProtocolInfo::Tcp { sides, .. } => {
                let (own, peer) = (sides[direction as usize], sides[direction.opposite() as usize]);
                let near = |dice: &mut Rng, number: u32| {
                    number.wrapping_add(dice.below(4) * dice.below(30)).wrapping_sub(dice.below(20))
                };
                let flags = [16, 16, 16, 16, 24, 18, 17, 4, 2, 20][self.below(10) as usize];
                let segment = Segment {
                    flags,
                    seq: if self.below(8) == 0 { near(self, own.end) } else { own.end },
                    ack: if flags & 16 == 0 {
                        0
                    } else if self.below(8) == 0 {
                        near(self, peer.end)
                    } else {
                        peer.end
                    },
                    window: self.below(9000) as u16,
                    data: self.below(40) as usize,
                    options: vec![],
                };
                tcp(from, to, &segment)
            }
            _ if tuple.protocol == 17 => udp(from, to, b"answered"),
            _ if tuple.protocol == 1 => {
                let [kind, code] = tuple.destination_key.to_be_bytes();
                let [high, low] = tuple.source_key.to_be_bytes();
                icmp(from.0, to.0, kind, code, &[high, low, 0, 1])
            }
            _ => return None,
        })
    }

    fn random_packet(&mut self, engine: &Engine, now: Instant) -> Vec<u8> {
        let entries: Vec<Entry> = engine.entries(now).collect();
        let known =
            (!entries.is_empty() && self.below(4) > 0).then(|| entries[self.below(entries.len() as u32) as usize]);
        known.and_then(|entry| self.random_packet_of(&entry)).unwrap_or_else(|| self.random_new_packet())
    }
}

fn engine(acct: bool) -> Engine {
    let mut sysctls = Sysctls::default();
    sysctls.set(Sysctl::Acct, acct.into()).unwrap();
    sysctls.set(Sysctl::Timestamp, acct.into()).unwrap();
    Engine::new(sysctls, SECRET)
}

/// Routes a packet, and returns the result and the packet as it leaves. Sources are translated to one of four addresses, selected by the peer unless the
/// source has a connection already; some packets get marks, labels and zones.
fn translate_and_forward(engine: &mut Engine, mut bytes: Vec<u8>, now: Instant) -> (String, Vec<u8>) {
    let copy = bytes.clone();
    let packet = Packet::parse(&copy).unwrap();
    let zone = if bytes[15] == 5 { Zone { id: 7, direction: ZoneDirection::Original } } else { Zone::default() };
    let mut ctx = engine.track(&packet, zone, now);
    let outside: [IpAddr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 4].into()];
    let all = NatRange { addresses: Some(outside[0]..=outside[1]), ..NatRange::default() };
    let to = NatRange::to([10, 9, 9, 9].into());
    if bytes[16..20] == [198, 51, 100, 4] && bytes[9] == 6 {
        engine.translate(&mut ctx, Manip::Destination, &to, now);
    } else {
        engine.nat_null_binding(&mut ctx, Manip::Destination, now);
    }
    let mut changed = engine.nat_rewrite(&ctx, Manip::Destination).apply(&mut bytes);
    // Protocols without ports are not translated: clients would clash, and the random selection differs between the engines.
    if bytes[12] == 10 && bytes[15] != 0 && matches!(bytes[9], 1 | 6 | 17) {
        engine.translate(&mut ctx, Manip::Source, &all, now);
    }
    changed &= engine.nat_rewrite(&ctx, Manip::Source).apply(&mut bytes);
    if bytes[15] == 3 {
        engine.set_mark(&mut ctx, u32::from(bytes[19]) + 1);
        engine.add_labels(&mut ctx, [bytes[19]; 16]);
    }
    let outcome = engine.confirm(ctx, now);
    let result =
        (outcome.info, outcome.direction, outcome.reason, outcome.verdict, outcome.connection.is_some(), changed);
    (format!("{result:?}"), bytes)
}

/// Every connection, encoded completely.
fn export_table(engine: &Engine, now: Instant) -> BTreeSet<Vec<u8>> {
    engine
        .export_all(now)
        .map(|described| {
            let mut bytes = Vec::new();
            described.encode(&mut bytes);
            bytes
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    #[test]
    fn export_import_mid_traffic_is_transparent(seed in any::<u64>(), before in 1u32..300, acct in any::<bool>()) {
        let mut dice = Rng(seed | 1);
        let mut first = engine(acct);
        let mut now = Instant::from_secs(1_000);
        let step = |dice: &mut Rng, now: Instant| {
            let pause = if dice.below(40) == 0 { u64::from(dice.below(60_000)) } else { u64::from(dice.below(200)) };
            now.after(Duration::from_millis(pause))
        };
        for _ in 0..before {
            now = step(&mut dice, now);
            let packet = dice.random_packet(&first, now);
            translate_and_forward(&mut first, packet, now);
            first.poll(now);
        }
        let mut second = engine(acct);
        let moved = export_table(&first, now);
        for bytes in &moved {
            let described = ConnSnapshot::decode(bytes).unwrap();
            second.import(&described, Duration::ZERO, WindowTrust::Exact, now).unwrap();
        }
        prop_assert_eq!(&export_table(&second, now), &moved);
        second.check_invariants().unwrap();
        for _ in 0..150 {
            now = step(&mut dice, now);
            let packet = dice.random_packet(&first, now);
            let (one, other) = (translate_and_forward(&mut first, packet.clone(), now), translate_and_forward(&mut second, packet.clone(), now));
            prop_assert_eq!(one, other, "{:02x?}", packet);
            first.poll(now);
            second.poll(now);
        }
        prop_assert_eq!(export_table(&first, now), export_table(&second, now));
        second.check_invariants().unwrap();
    }

    /// Applying only the changes gives the same connections as a full export.
    #[test]
    fn dirty_slots_reproduce_a_full_export(seed in any::<u64>()) {
        let mut dice = Rng(seed | 1);
        let mut first = engine(false);
        first.track_dirty(true);
        let mut now = Instant::from_secs(1_000);
        let mut followed: HashMap<u32, ConnSnapshot> = HashMap::new();
        for _ in 0..300 {
            now = now.after(Duration::from_millis(u64::from(dice.below(3000))));
            let packet = dice.random_packet(&first, now);
            translate_and_forward(&mut first, packet, now);
            first.poll(now);
            while let Some(slot) = first.poll_dirty_slot() {
                match first.export_slot(slot, now) {
                    Some(described) => followed.insert(slot, described),
                    None => followed.remove(&slot),
                };
            }
        }
        let matters = |described: &ConnSnapshot| {
            (described.original, described.reply, described.zone.id, described.status, described.mark, described.labels)
        };
        let mut followed: Vec<_> = followed.values().map(matters).map(|all| format!("{all:?}")).collect();
        let mut seen: Vec<_> = first.export_all(now).map(|one| format!("{:?}", matters(&one))).collect();
        followed.sort();
        seen.sort();
        prop_assert_eq!(followed, seen);
    }

    /// Mutated snapshots: whether or not one decodes and is imported, the table stays consistent.
    #[test]
    fn mutated_snapshots_never_break_the_table(seed in any::<u64>(), changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..4)) {
        let mut dice = Rng(seed | 1);
        let now = Instant::from_secs(1_000);
        let mut first = engine(true);
        for _ in 0..20 {
            let packet = dice.random_packet(&first, now);
            translate_and_forward(&mut first, packet, now);
        }
        let mut second = engine(true);
        for mut bytes in export_table(&first, now) {
            for (at, value) in &changes {
                let at = usize::from(*at) % bytes.len();
                bytes[at] = *value;
            }
            if let Ok(described) = ConnSnapshot::decode(&bytes) {
                let _ = second.import(&described, Duration::ZERO, WindowTrust::Lenient, now);
            }
        }
        second.check_invariants().unwrap();
        for _ in 0..40 {
            let packet = dice.random_packet(&second, now);
            translate_and_forward(&mut second, packet, now);
        }
        second.check_invariants().unwrap();
    }
}

/// The states that the traffic above must reach for these tests to be meaningful.
#[test]
fn random_traffic_reaches_established_states() {
    let (mut states, mut translated, mut zoned) = (BTreeSet::new(), 0, 0);
    for seed in 1..60 {
        let mut dice = Rng(seed);
        let mut engine = engine(false);
        let mut now = Instant::from_secs(1_000);
        for _ in 0..200 {
            now = now.after(Duration::from_millis(u64::from(dice.below(200))));
            let packet = dice.random_packet(&engine, now);
            translate_and_forward(&mut engine, packet, now);
        }
        for entry in engine.entries(now) {
            if let ProtocolInfo::Tcp { state, .. } = entry.protocol {
                states.insert(state.name());
            }
            translated += u32::from(entry.original.invert() != Some(entry.reply));
            zoned += u32::from(entry.zone.id != 0);
        }
    }
    let wanted = ["SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE"];
    assert!(wanted.iter().all(|state| states.contains(state)), "{states:?}");
    assert!(translated > 100 && zoned > 10, "{translated} translated, {zoned} in a zone");
}
