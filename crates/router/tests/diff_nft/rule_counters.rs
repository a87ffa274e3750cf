//! One ruleset, the same packets, and after each packet the counter of every rule: which rules matched must be equal on both.
use crate::kernel::Kernel;
use crate::traffic::Address;
use crate::{fib, now};
use keepstate_engine::{Engine, Secret, Sysctls};
use keepstate_router::{FibTable, Interface, Route, Router};
use keepstate_rules::{NoIncludes, compile, parse_with};
use std::net::IpAddr;

/// A packet and the interface it comes in by: 0 is lan0, 1 is wan0.
pub struct Arrival {
    pub what: String,
    pub device: usize,
    pub packet: Vec<u8>,
}

/// What is added to the machine's interfaces and routes: commands of `ip` for Linux, the same for ours.
#[derive(Default)]
pub struct Additions {
    pub commands: String,
    pub addresses: Vec<(u32, &'static str, u8)>,
    pub routes: Vec<Route>,
    /// Ticks of the kernel's clock before each packet, where it remembers something for some of them.
    pub ticks: u32,
}

impl Additions {
    fn fib(&self) -> FibTable {
        let base = fib();
        let mut interfaces: Vec<Interface> = (1..=2).filter_map(|index| base.interface(index).cloned()).collect();
        for (index, address, length) in &self.addresses {
            let interface = interfaces.iter_mut().find(|interface| interface.index == *index).unwrap();
            interface.addresses.push((address.parse().unwrap(), *length));
        }
        let default = |prefix: &str| Route::new(prefix.parse().unwrap(), 0, 2);
        let carrier = Route::new("100.64.0.0".parse().unwrap(), 10, 1);
        let mut routes = vec![default("0.0.0.0"), default("::"), carrier];
        routes.extend(self.routes.iter().cloned());
        FibTable::new(interfaces, routes)
    }
}

/// Sends the packets through both. Panics with each rule that matched on one side only. False if Linux cannot be tested here.
pub fn compare_rule_counters(ruleset: &str, additions: &Additions, arrivals: &[Arrival]) -> bool {
    let Some(mut kernel) = Kernel::new(ruleset) else { return false };
    kernel.ip(&additions.commands);
    let (tree, sources) = parse_with("rules", ruleset, &NoIncludes, &[]).unwrap_or_else(|refused| panic!("{refused}"));
    let program = compile(&tree, &sources).unwrap_or_else(|refused| panic!("{refused}"));
    let engine = Engine::new(Sysctls::default(), Secret([9; 16]));
    let mut router = Router::new(engine, program, additions.fib(), (1, 2));
    router.poll(now());
    let mut wrong = Vec::new();
    let places: Vec<String> = router.program().rule_counters().map(|(place, ..)| place).collect();
    let (mut ours_before, mut theirs_before) = (vec![(0, 0); places.len()], kernel.rule_counters());
    assert_eq!(theirs_before.len(), places.len(), "every rule has a counter");
    for Arrival { what, device, packet } in arrivals {
        (0..additions.ticks).for_each(|_| wait_for_tick());
        let result = router.handle(packet, *device as u32 + 1, now());
        while router.poll_output().is_some() {}
        kernel.handle(packet, *device, 0);
        let ours: Vec<_> = router.program().rule_counters().map(|(_, packets, bytes)| (packets, bytes)).collect();
        let theirs = kernel.rule_counters();
        for (rule, place) in places.iter().enumerate() {
            let grown = |now: &[(u64, u64)], before: &[(u64, u64)]| {
                (now[rule].0 - before[rule].0, now[rule].1 - before[rule].1)
            };
            let (ours, theirs) = (grown(&ours, &ours_before), grown(&theirs, &theirs_before));
            if ours != theirs {
                let line: usize = place.split(':').nth(1).unwrap().parse().unwrap();
                let text = ruleset.lines().nth(line - 1).unwrap().trim();
                wrong.push(format!("{what} ({result:?}): `{text}`: Linux {theirs:?}, ours {ours:?}"));
            }
        }
        (ours_before, theirs_before) = (ours, theirs);
    }
    let (ours, theirs) = (expected_connections(&router), kernel.expected_connections());
    if ours != theirs {
        wrong.push(format!("expected at the end: Linux {theirs:#?}, ours {ours:#?}"));
    }
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.iter().take(25).cloned().collect::<Vec<_>>().join("\n")
    );
    true
}

/// The connections that are expected, as [`Kernel::expected_connections`] has them.
fn expected_connections(router: &Router) -> Vec<String> {
    let line = |one: keepstate_engine::ExpectationEntry| {
        let (tuple, master) = (one.tuple, one.master);
        format!(
            "{} {} > {}:{} of {}:{} > {}:{}",
            tuple.protocol,
            tuple.source,
            tuple.destination,
            tuple.destination_key,
            master.source,
            master.source_key,
            master.destination,
            master.destination_key
        )
    };
    let mut lines: Vec<String> = router.engine().expectations(now()).map(line).collect();
    lines.sort();
    lines
}

/// Waits until the kernel's clock has moved on: the coarse clock shows its last tick.
fn wait_for_tick() {
    let read = || rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    let before = read();
    while read() == before {
        std::thread::yield_now();
    }
}

/// Runs a comparison in a thread of its own, whose namespace ends with it.
pub fn in_own_thread(compare: impl FnOnce() -> bool + Send + 'static) {
    match std::thread::spawn(compare).join() {
        Ok(true) => (),
        Ok(false) => keepstate_test_support::report_skipped("rules beside Linux need root and network namespaces"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// An address as the packet builders take it.
pub fn address(text: &str) -> Address {
    match text.parse().unwrap() {
        IpAddr::V4(address) => {
            let mut wide = [0; 16];
            wide[..4].copy_from_slice(&address.octets());
            wide
        }
        IpAddr::V6(address) => address.octets(),
    }
}
