//! Random traffic, including odd and malformed packets: no panic, and the invariants hold: inserted = living + removed; both directions or neither; never
//! above the limit. `KEEPSTATE_PACKETS` sets the number of packets (the run recorded in docs/ had 100 million).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by failing")]
mod common;

use common::rng::Rng;
use common::{Segment, icmp, ipv4, tcp, udp};
use keepstate_engine::{AdmissionPolicy, Engine, EventKind, EventMask, Instant, Secret, Sysctl, Sysctls, Zone};
use keepstate_wire::Packet;

/// The packets of this test.
trait RandomPackets {
    fn random_address(&mut self) -> [u8; 4];
    fn random_packet(&mut self) -> Vec<u8>;
}

impl RandomPackets for Rng {
    fn random_address(&mut self) -> [u8; 4] {
        [10, 0, 0, self.below(24) as u8]
    }

    fn random_packet(&mut self) -> Vec<u8> {
        let (from, to) =
            ((self.random_address(), 1000 + self.below(16) as u16), (self.random_address(), 80 + self.below(2) as u16));
        let mut packet = match self.below(10) {
            0..5 => {
                let flags = [2, 18, 16, 17, 4, 20, 24, 0, 255, self.below(256) as u8][self.below(10) as usize];
                let options = [vec![], vec![3, 3, 7, 4, 2, 0, 0, 0], vec![5, 10, 0, 0, 1, 0, 0, 0, 2, 0, 1, 1]]
                    [self.below(3) as usize]
                    .clone();
                let segment = Segment {
                    flags,
                    seq: 1000 + self.below(4000),
                    ack: 1000 + self.below(4000),
                    window: self.below(3000) as u16,
                    data: self.below(20) as usize,
                    options,
                };
                tcp(from, to, &segment)
            }
            5..7 => udp(from, to, b"keepstate"),
            7 => icmp(from.0, to.0, [0, 8, 13, 99][self.below(4) as usize], 0, &[0, self.below(8) as u8, 0, 1]),
            8 => {
                let quoted = udp(to, from, b"quoted");
                let rest: Vec<u8> = [0; 4].into_iter().chain(quoted).collect();
                icmp(from.0, to.0, 3, 3, &rest)
            }
            _ => ipv4(
                from.0,
                to.0,
                [47, 50, 132, 136, 253][self.below(5) as usize],
                &[0x30, 1, 0x88, 0x0b, 0, 8, 0, 1, 0, 0, 0, 0, 1, 0, 0, 20],
            ),
        };
        if self.below(20) == 0 {
            let at = self.below(packet.len() as u32) as usize;
            packet[at] ^= 1 << self.below(8);
        }
        if self.below(50) == 0 {
            packet.truncate(self.below(packet.len() as u32 + 1) as usize);
        }
        packet
    }
}

/// All choices for a full table at once; the limit grows to 150.
fn every_choice() -> AdmissionPolicy {
    AdmissionPolicy {
        reserves: vec!["20 for tcp 80 to 10.0.0.0/28".parse().unwrap(), "5 for udp".parse().unwrap()],
        source_limits: vec!["for icmp".parse().unwrap(), "40 connections 30 new/s burst 9 per 29,64".parse().unwrap()],
        adaptive_timeouts: Some("60-160".parse().unwrap()),
        grow_to: Some(150),
    }
}

fn run_random_traffic(packets: u64, seed: u64, limit: u64, policy: AdmissionPolicy) {
    let mut dice = Rng(seed | 1);
    let mut sysctls = Sysctls::default();
    sysctls.set(Sysctl::Max, limit).unwrap();
    sysctls.set(Sysctl::Buckets, 16).unwrap();
    sysctls.set(Sysctl::Acct, seed & 1).unwrap();
    let mut engine = Engine::new(sysctls, Secret([9; 16]));
    let limit = policy.grow_to.map_or(limit, u64::from);
    let is_chosen = policy != AdmissionPolicy::default();
    engine.set_admission(policy, Instant::from_secs(1)).unwrap();
    engine.subscribe(EventMask::ALL, 1_000_000);
    let (mut now, mut born, mut gone) = (Instant::from_secs(1), 0u64, 0u64);
    for round in 0..packets {
        now = Instant(now.0 + u64::from(dice.below(40)) * 1_000_000);
        if dice.below(100_000) == 0 {
            now = Instant(now.0 + u64::from(dice.below(1000)) * 1_000_000_000);
        }
        let bytes = dice.random_packet();
        match Packet::parse(&bytes) {
            Ok(packet) => drop(engine.handle(&packet, Zone::default(), now)),
            Err(error) => engine.count_parse_error(error),
        }
        if dice.below(8) == 0 {
            engine.poll(now);
        }
        while let Some(event) = engine.poll_event() {
            born += u64::from(event.kind == EventKind::New);
            gone += u64::from(event.kind == EventKind::Destroy);
        }
        assert!(engine.count() as u64 <= limit, "seed {seed}: {} above {limit}", engine.count());
        assert_eq!(born - gone, engine.count() as u64, "seed {seed}, packet {round}");
        if round % 20_000 == 0 || is_chosen && round % 500 == 0 {
            engine.check_invariants().unwrap_or_else(|what| panic!("seed {seed}, packet {round}: {what}"));
        }
    }
    assert_eq!(engine.events_lost(), 0);
    engine.check_invariants().unwrap();
    let last = Instant(now.0 + 500_000 * 1_000_000_000);
    while engine.next_wake(last).is_some_and(|wake| wake <= last) {
        engine.poll(last);
    }
    assert_eq!(engine.count(), 0, "seed {seed}: some never expire");
    engine.check_invariants().unwrap();
}

#[test]
fn random_traffic_keeps_table_invariants() {
    let packets = std::env::var("KEEPSTATE_PACKETS").map_or(200_000, |text| text.parse().unwrap());
    println!("seeds 1 to 3, {packets} packets each");
    for (seed, limit) in [(1, 100), (2, 3000), (3, 1_000_000)] {
        run_random_traffic(packets, seed, limit, AdmissionPolicy::default());
    }
    run_random_traffic(packets, 4, 70, every_choice());
}
