//! Random stories: whatever happens, the services' books are the table's.
use super::*;
use keepstate_engine::{ProtocolInfo, TcpState};

/// Numbers that are the same for the same seed (xorshift, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        for (left, by) in [(true, 13), (false, 7), (true, 17)] {
            self.0 ^= if left { self.0 << by } else { self.0 >> by };
        }
        self.0 % sides
    }
}

/// Connections that are not over, by the backend that the table says they go to.
fn in_the_table(router: &mut Router, now: Instant) -> BTreeMap<(u8, IpAddr), u64> {
    let mut counts = BTreeMap::new();
    for entry in router.engine().entries(now) {
        let is_over = matches!(entry.protocol, ProtocolInfo::Tcp { state: TcpState::TimeWait | TcpState::Close, .. });
        if !is_over {
            *counts.entry((entry.original.protocol, entry.reply.source)).or_default() += 1;
        }
    }
    counts
}

fn in_the_books(router: &mut Router, now: Instant) -> BTreeMap<(u8, IpAddr), u64> {
    let mut counts = BTreeMap::new();
    for running in router.services_counted(now).iter() {
        for member in running.members().iter().filter(|member| member.live() > 0) {
            let key = (running.service().transport.number(), member.backend().address);
            *counts.entry(key).or_default() += member.live();
        }
    }
    counts
}

/// Who may get a connection of this protocol now.
fn open_to(router: &mut Router, protocol: u8) -> Vec<IpAddr> {
    let named = router.services().backends();
    named
        .filter(|(_, running, member)| running.service().transport.number() == protocol && member.state() == State::Up)
        .map(|(_, _, member)| member.backend().address)
        .collect()
}

/// Both services, with backends as the dice will.
fn loaded(dice: &mut Dice, scheduler: Scheduler) -> Vec<Service> {
    let when_down = if dice.throw(2) == 0 { WhenDown::Keep } else { WhenDown::Reset };
    let check = Some(Check {
        probe: Probe::Connect { port: Some(1), source: None },
        interval: std::time::Duration::from_secs(1),
        timeout: std::time::Duration::from_secs(1),
        rise: 1,
        fall: 1,
    });
    let mut both = [Transport::Tcp, Transport::Udp].map(|transport| {
        let mut service = Service { scheduler, when_down, check: check.clone(), ..service(transport, 4) };
        service.name = transport.name().into();
        service.affinity = (dice.throw(2) == 0).then_some(20);
        service.backends.retain(|_| dice.throw(4) > 0);
        service
    });
    both.reverse();
    both.to_vec()
}

/// One packet of a client's: of a connection that it begins, goes on with, or ends.
fn packet(router: &mut Router, dice: &mut Dice, now: Instant) {
    let client = format!("192.0.2.{}", 2 + dice.throw(6));
    let port = 4000 + u16::try_from(dice.throw(8)).unwrap();
    let (bytes, protocol, begins) = match dice.throw(5) {
        0 | 1 => (tcp(ends((&client, port), ("203.0.113.80", 80)), SYN, 100, 0), 6, true),
        2 => (tcp(ends((&client, port), ("203.0.113.80", 80)), RST, 101, 0), 6, false),
        3 => (tcp(ends((&client, port), ("203.0.113.80", 80)), ACK, 101, 901), 6, false),
        _ => (udp(ends((&client, port), ("203.0.113.80", 53))), 17, true),
    };
    let (before, may) = (in_the_table(router, now), open_to(router, protocol));
    let (said, left) = pass(router, 1, &bytes, now);
    let Some(first) = left.first() else { return };
    let (sent, flags) = read(first);
    if said.is_err() {
        assert!(protocol == 17 || flags & RST != 0, "refused without a word");
        return;
    }
    let is_new = in_the_table(router, now).values().sum::<u64>() > before.values().sum();
    assert!(!(begins && is_new) || may.contains(&sent.1.0), "{} was to get nothing new", sent.1.0);
    // The backend answers half of what it gets.
    if dice.throw(2) == 0 {
        let back = (sent.1, sent.0);
        let answer = if protocol == 17 { udp(back) } else { tcp(back, SYN | ACK, 900, 101) };
        let _ = pass(router, 2, &answer, now);
    }
}

#[test]
fn whatever_happens_the_books_are_the_tables() {
    for (seed, scheduler) in (1..).zip(Scheduler::ALL) {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ seed);
        let mut router = router("", loaded(&mut dice, scheduler));
        let mut seconds = 1;
        for step in 0..2000 {
            seconds += u64::from(dice.throw(8) == 0);
            let now = at(seconds);
            router.engine().poll(now);
            match dice.throw(60) {
                0 => {
                    let services = loaded(&mut dice, scheduler);
                    router.serve(services, now);
                }
                1..=4 => {
                    let all: Vec<_> = router.services().backends().map(|(id, ..)| id).collect();
                    if let Some(id) = all.get(usize::try_from(dice.throw(8)).unwrap()) {
                        router.judge(*id, dice.throw(3) > 0, now);
                    }
                }
                5 | 6 => {
                    let (which, drained) = (backend(usize::try_from(dice.throw(4)).unwrap()), dice.throw(2) == 0);
                    router.drain(drained, |_, backend| *backend == which);
                }
                7 => router.tend_services(now),
                _ => packet(&mut router, &mut dice, now),
            }
            let (books, table) = (in_the_books(&mut router, now), in_the_table(&mut router, now));
            assert_eq!(books, table, "seed {seed}, step {step}");
        }
        let picked: u64 = router.services().iter().flat_map(Running::members).map(Member::picked).sum();
        assert!(picked > 100, "{scheduler:?}: a story in which nothing happens: {picked}");
        assert_eq!(router.engine().check(), Ok(()));
    }
}
