//! Random stories: whatever happens, the services' counted are the table's.
use super::*;
use keepstate_engine::{ProtocolInfo, TcpState};
use std::collections::BTreeMap;

/// Numbers that are the same for the same seed (xorshift, Marsaglia 2003).
struct Xorshift(u64);

impl Xorshift {
    fn below(&mut self, sides: u64) -> u64 {
        for (left, by) in [(true, 13), (false, 7), (true, 17)] {
            self.0 ^= if left { self.0 << by } else { self.0 >> by };
        }
        self.0 % sides
    }
}

/// Connections that are not over, by the backend that the table says they go to.
fn active_in_table(router: &mut Router, now: Instant) -> BTreeMap<(u8, IpAddr), u64> {
    let mut counts = BTreeMap::new();
    for entry in router.engine().entries(now) {
        let is_over = matches!(entry.protocol, ProtocolInfo::Tcp { state: TcpState::TimeWait | TcpState::Close, .. });
        if !is_over {
            *counts.entry((entry.original.protocol, entry.reply.source)).or_default() += 1;
        }
    }
    counts
}

fn active_in_services(router: &mut Router, now: Instant) -> BTreeMap<(u8, IpAddr), u64> {
    let mut counts = BTreeMap::new();
    for running in router.services_with_fresh_counts(now).iter() {
        for member in running.backends().iter().filter(|member| member.active() > 0) {
            let key = (running.config().transport.protocol_number(), member.config().address);
            *counts.entry(key).or_default() += member.active();
        }
    }
    counts
}

/// Who may get a connection of this protocol now.
fn up_backends(router: &mut Router, protocol: u8) -> Vec<IpAddr> {
    let named = router.services().backends();
    named
        .filter(|(_, running, member)| {
            running.config().transport.protocol_number() == protocol && member.status() == BackendStatus::Up
        })
        .map(|(_, _, member)| member.config().address)
        .collect()
}

/// Both services, with backends as the rng will.
fn random_services(rng: &mut Xorshift, scheduler: Scheduler) -> Vec<ServiceConfig> {
    let when_down = if rng.below(2) == 0 { WhenDown::Keep } else { WhenDown::Reset };
    let check = Some(HealthCheckConfig {
        probe: Probe::Connect { port: Some(1), source: None },
        interval: std::time::Duration::from_secs(1),
        timeout: std::time::Duration::from_secs(1),
        rise: 1,
        fall: 1,
    });
    let mut both = [Transport::Tcp, Transport::Udp].map(|transport| {
        let mut service = ServiceConfig { scheduler, when_down, check: check.clone(), ..service(transport, 4) };
        service.name = transport.name().into();
        service.affinity = (rng.below(2) == 0).then_some(20);
        service.backends.retain(|_| rng.below(4) > 0);
        service
    });
    both.reverse();
    both.to_vec()
}

/// One packet of a client's: of a connection that it begins, goes on with, or ends.
fn random_packet(router: &mut Router, rng: &mut Xorshift, now: Instant) {
    let client = format!("192.0.2.{}", 2 + rng.below(6));
    let port = 4000 + u16::try_from(rng.below(8)).unwrap();
    let (bytes, protocol, begins) = match rng.below(5) {
        0 | 1 => (tcp(endpoints((&client, port), ("203.0.113.80", 80)), SYN, 100, 0), 6, true),
        2 => (tcp(endpoints((&client, port), ("203.0.113.80", 80)), RST, 101, 0), 6, false),
        3 => (tcp(endpoints((&client, port), ("203.0.113.80", 80)), ACK, 101, 901), 6, false),
        _ => (udp(endpoints((&client, port), ("203.0.113.80", 53))), 17, true),
    };
    let (before, may) = (active_in_table(router, now), up_backends(router, protocol));
    let (result, left) = send_packet(router, 1, &bytes, now);
    let Some(first) = left.first() else { return };
    let (sent, flags) = parse_packet(first);
    if result.is_err() {
        assert!(protocol == 17 || flags & RST != 0, "refused without a word");
        return;
    }
    let is_new = active_in_table(router, now).values().sum::<u64>() > before.values().sum();
    assert!(!(begins && is_new) || may.contains(&sent.1.0), "{} was to get nothing new", sent.1.0);
    // The backend answers half of what it gets.
    if rng.below(2) == 0 {
        let back = (sent.1, sent.0);
        let answer = if protocol == 17 { udp(back) } else { tcp(back, SYN | ACK, 900, 101) };
        let _ = send_packet(router, 2, &answer, now);
    }
}

#[test]
fn service_counts_match_the_table() {
    for (seed, scheduler) in (1..).zip(Scheduler::ALL) {
        let mut rng = Xorshift(0x9e37_79b9_7f4a_7c15 ^ seed);
        let mut router = router("", random_services(&mut rng, scheduler));
        let mut seconds = 1;
        for step in 0..2000 {
            seconds += u64::from(rng.below(8) == 0);
            let now = at(seconds);
            router.engine_mut().poll(now);
            match rng.below(60) {
                0 => {
                    let services = random_services(&mut rng, scheduler);
                    router.replace_services(services, now);
                }
                1..=4 => {
                    let all: Vec<_> = router.services().backends().map(|(id, ..)| id).collect();
                    if let Some(id) = all.get(usize::try_from(rng.below(8)).unwrap()) {
                        router.set_health(*id, rng.below(3) > 0, now);
                    }
                }
                5 | 6 => {
                    let (which, drained) = (backend(usize::try_from(rng.below(4)).unwrap()), rng.below(2) == 0);
                    router.drain(drained, |_, backend| *backend == which);
                }
                7 => router.poll(now),
                _ => random_packet(&mut router, &mut rng, now),
            }
            let (counted, table) = (active_in_services(&mut router, now), active_in_table(&mut router, now));
            assert_eq!(counted, table, "seed {seed}, step {step}");
        }
        let picked: u64 = router.services().iter().flat_map(ServiceState::backends).map(BackendState::total).sum();
        assert!(picked > 100, "{scheduler:?}: a scenario in which nothing happens: {picked}");
        assert_eq!(router.engine().check_invariants(), Ok(()));
    }
}
