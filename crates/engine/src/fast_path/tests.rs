//! The short way and the full one give the same results, whatever the traffic; and every kind of flow takes the short way.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
use super::*;
use crate::{
    ConnUpdate, CtInfo, Direction, Manip, NatRange, NatResult, Secret, Status, Sysctl, Sysctls, ZoneDirection,
};
use alloc::vec;
use core::net::IpAddr;
use keepstate_wire::checksum::Sum;

struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// One of the flows that the random packets belong to; its number decides what it is.
#[derive(Clone, Copy)]
struct Flow(u8);

const FLOWS: u64 = 96;

impl Flow {
    fn is_ipv6(self) -> bool {
        self.0 & 1 != 0
    }
    fn is_udp(self) -> bool {
        self.0 & 2 != 0
    }
    fn is_translated(self) -> bool {
        self.0 & 4 != 0
    }
    fn zone(self) -> Zone {
        match self.0 >> 3 & 3 {
            1 => Zone { id: 7, direction: ZoneDirection::Both },
            2 => Zone { id: 8, direction: ZoneDirection::Original },
            3 => Zone { id: 9, direction: ZoneDirection::Reply },
            _ => Zone::default(),
        }
    }
    fn address(self, host: u8) -> IpAddr {
        match self.is_ipv6() {
            false => IpAddr::from([10, 0, 0, host]),
            true => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host)]),
        }
    }
    /// Client and server. Of the last flows they are one and the same: each packet is its own reply.
    fn ends(self) -> [(IpAddr, u16); 2] {
        let client = (self.address(1), 1000 + u16::from(self.0));
        if u64::from(self.0) >= FLOWS - 8 { [client; 2] } else { [client, (self.address(2), 80)] }
    }
    fn translated(self) -> IpAddr {
        self.address(100)
    }
}

/// A packet with the checksums of its headers, but not of what is changed later.
fn packet(flow: Flow, reply: bool, tcp: (u8, u32, u32, u16), data: usize) -> Vec<u8> {
    let [client, server] = flow.ends();
    let (from, to) = match (reply, flow.is_translated()) {
        (false, _) => (client, server),
        (true, false) => (server, client),
        (true, true) => (server, (flow.translated(), client.1)),
    };
    let mut transport = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    let check_at = if flow.is_udp() {
        transport.extend(u16::try_from(8 + data).unwrap().to_be_bytes());
        transport.extend([0; 2]);
        6
    } else {
        let (flags, seq, ack, window) = tcp;
        transport.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
        transport.extend([5 << 4, flags]);
        transport.extend(window.to_be_bytes());
        transport.extend([0; 4]);
        16
    };
    transport.extend(vec![0x5a; data]);
    let length = u16::try_from(transport.len()).unwrap();
    let protocol = if flow.is_udp() { 17 } else { 6 };
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let addresses = [octets(from.0), octets(to.0)].concat();
    let sum = Sum::new().add_bytes(&addresses).add_u16(protocol).add_u16(length).add_bytes(&transport);
    transport[check_at..check_at + 2].copy_from_slice(&sum.finish().to_be_bytes());
    let mut bytes = match flow.is_ipv6() {
        true => [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[protocol as u8, 64], &addresses].concat(),
        false => {
            let total = (20 + length).to_be_bytes();
            [&[0x45, 0][..], &total, &[0, 1, 0x40, 0, 64, protocol as u8, 0, 0], &addresses].concat()
        }
    };
    if !flow.is_ipv6() {
        let check = keepstate_wire::checksum::internet(&bytes).to_be_bytes();
        bytes[10..12].copy_from_slice(&check);
    }
    bytes.extend(transport);
    bytes
}

fn random_packet(dice: &mut Rng, flow: Flow, reply: bool) -> Vec<u8> {
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    let data = dice.below(4) as usize;
    let (mine, theirs) = if reply { (5000, 1000) } else { (1000, 5000) };
    let ack = theirs + dice.below(6) as u32;
    let window = [65535, 1000, 0, 3][dice.below(40).min(3) as usize];
    let segment = match (dice.below(40), reply) {
        (0..4, false) => (SYN, mine - 1, 0, 65535),
        (0..4, true) => (SYN | ACK, mine - 1, theirs, 65535),
        (4, _) => (ACK | 1, mine + dice.below(6) as u32, ack, window),
        (5, _) => (4, mine + dice.below(3) as u32, 0, 0),
        (6, _) => (dice.below(256) as u8, mine + dice.below(100_000) as u32, ack, window),
        _ => (ACK | 8, mine + dice.below(6) as u32, ack, window),
    };
    let mut bytes = packet(flow, reply, segment, data);
    if dice.below(40) == 0 {
        let at = dice.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << dice.below(8);
    }
    bytes
}

impl Engine {
    /// What the rules do: the translation of a new connection.
    fn translate_new(&mut self, flow: Flow, mut ctx: PacketCtx, now: Instant) -> Outcome {
        if flow.is_translated() && ctx.unconfirmed().is_some() && ctx.direction() == Some(Direction::Original) {
            let range = NatRange::to(flow.translated());
            assert_ne!(self.translate(&mut ctx, Manip::Source, &range, now), NatResult::AlreadyDone);
        }
        self.confirm(ctx, now)
    }

    /// Tracks a packet the full way.
    fn handle_fully(&mut self, flow: Flow, packet: &Packet<'_>, now: Instant) -> Outcome {
        let mut hint = self.find_hint(packet, flow.zone());
        hint.candidate = None;
        let ctx = self.track_fully(packet, flow.zone(), &hint, now);
        self.translate_new(flow, ctx, now)
    }
}

/// Both engines, and how many packets of each kind of flow took the short way.
struct Pair {
    short: Engine,
    full: Engine,
    now: Instant,
    /// Once a connection is translated, first packets take the full way.
    translates: bool,
    taken: [u32; 32],
}

impl Pair {
    fn send(&mut self, dice: &mut Rng, seed: u64) {
        let mut flow = Flow(dice.below(FLOWS) as u8);
        if !self.translates {
            flow.0 &= !4;
        }
        let reply = dice.below(2) == 1;
        let burst: Vec<Vec<u8>> = (0..=dice.below(3)).map(|_| random_packet(dice, flow, reply)).collect();
        let packets: Vec<_> = burst.iter().filter_map(|bytes| Packet::parse(bytes).ok()).collect();
        // Batches know no rules: only of flows without a translation.
        if !flow.is_translated() && dice.below(3) == 0 {
            let mut outcomes = Vec::new();
            self.short.handle_batch(&packets, flow.zone(), self.now, &mut outcomes);
            let full: Vec<_> = packets.iter().map(|packet| self.full.handle_fully(flow, packet, self.now)).collect();
            assert_eq!(outcomes, full, "seed {seed}, flow {}", flow.0);
            return;
        }
        self.short.prefetch(&packets, flow.zone());
        for packet in &packets {
            // Drawn for each packet, so that what the short way takes changes no later packet.
            let without_rules = dice.below(2) == 0 && !flow.is_translated();
            let hint = self.short.memo_hint(packet, flow.zone());
            let known = self.short.track_known(packet, flow.zone(), &hint, self.now);
            let outcome = match known {
                Some(outcome) => outcome,
                None if without_rules => self.short.slow_path(packet, flow.zone(), &hint, self.now),
                None => {
                    let ctx = self.short.track_slowly(packet, flow.zone(), &hint, self.now);
                    self.short.translate_new(flow, ctx, self.now)
                }
            };
            self.taken[usize::from(flow.0 & 31)] += u32::from(known.is_some());
            let full = self.full.handle_fully(flow, packet, self.now);
            assert_eq!(outcome, full, "seed {seed}, flow {}, short way {}", flow.0, known.is_some());
        }
    }

    /// Changes of both engines from outside.
    fn change(&mut self, dice: &mut Rng) {
        let (what, value, at) = (dice.below(10), dice.below(100), dice.below(64) as usize);
        for engine in [&mut self.short, &mut self.full] {
            let id = engine.entries(self.now).nth(at).map(|entry| (entry.conn_id, entry.status));
            let mut changes = ConnUpdate::default();
            match what {
                0 => changes.timeout = Some(value as u32),
                1 if value < 20 => changes.labels = Some([[1; 16]; 2]),
                2 => changes.mark = Some(value as u32),
                3 if value < 20 => changes.status = id.map(|(_, status)| status | Status::FIXED_TIMEOUT),
                4 => drop(id.map(|(id, _)| engine.offload(id, self.now).is_ok())),
                5 => drop(id.map(|(id, _)| engine.remove(id, self.now))),
                6 => engine.set_sysctl(Sysctl::Checksum, value & 1).unwrap(),
                7 => engine.set_sysctl(Sysctl::TcpBeLiberal, u64::from(value == 0)).unwrap(),
                8 => engine.set_sysctl(Sysctl::UdpTimeoutStream, 100 + value).unwrap(),
                _ => engine.poll(self.now),
            }
            if let (Some((id, _)), 0..4) = (id, what) {
                let _ = engine.update(id, &changes, self.now);
            }
        }
    }
}

#[test]
fn short_way_equals_full_way_for_every_kind_of_flow() {
    let mut taken = [0; 32];
    for seed in 1..=6 {
        let mut dice = Rng(seed);
        let mut sysctls = Sysctls::default();
        sysctls.set(Sysctl::Buckets, 16).unwrap();
        sysctls.set(Sysctl::Acct, seed & 1).unwrap();
        sysctls.set(Sysctl::Max, if seed == 2 { 40 } else { 1000 }).unwrap();
        let full = Engine::new(sysctls, Secret([9; 16]));
        let mut pair = Pair { short: full.clone(), full, now: Instant::from_secs(1), translates: seed > 2, taken };
        for step in 0..20_000 {
            let wait = if dice.below(2000) == 0 { 200_000 } else { dice.below(60) };
            pair.now = Instant(pair.now.0 + wait * 1_000_000);
            pair.send(&mut dice, seed);
            if dice.below(60) == 0 {
                pair.change(&mut dice);
            }
            if step % 500 == 0 {
                let [short, full] =
                    [&pair.short, &pair.full].map(|engine| engine.entries(pair.now).collect::<Vec<_>>());
                assert_eq!(short, full, "seed {seed}, step {step}");
                assert_eq!(pair.short.next_wake(pair.now), pair.full.next_wake(pair.now));
                pair.short.check_invariants().unwrap();
            }
        }
        assert_eq!(pair.short.counters(), pair.full.counters());
        taken = pair.taken;
    }
    for (kind, count) in taken.into_iter().enumerate() {
        assert!(count >= 20, "flows of kind {kind:#07b}: {taken:?}");
    }
}

#[test]
fn a_checksum_is_asked_for_in_the_short_way_too() {
    let flow = Flow(2);
    let mut engine = Engine::new(Sysctls::default(), Secret([9; 16]));
    let good = packet(flow, false, (0, 0, 0, 0), 3);
    let mut bad = good.clone();
    bad[29] ^= 1;
    let mut send = |bytes: &[u8]| engine.handle(&Packet::parse(bytes).unwrap(), Zone::default(), Instant(0));
    assert_eq!(send(&good).info, CtInfo::New);
    assert_eq!(send(&good).reason, None);
    assert_eq!(send(&bad).reason, Some(Reason::Checksum));
}
