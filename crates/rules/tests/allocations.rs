//! Evaluating a packet allocates nothing in steady state: sets, maps, verdict maps, concatenations, limits, counters, hashes, dynamic elements that exist.
#![allow(unsafe_code, reason = "a counting allocator is an unsafe trait")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use keepstate_engine::{Engine, Instant, Secret, Sysctls, Zone};
use keepstate_rules::ast::Hook;
use keepstate_rules::{EvalCtx, NoIncludes, PacketMeta, Verdict, compile, parse_with};
use keepstate_wire::Packet;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

mod empty_fib;
use empty_fib::EmptyFib;

struct CountingAllocator;

// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// A UDP packet from 10.0.0.5 port 4000 to 198.51.100.9 port 53.
fn udp_packet() -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 5, 198, 51, 100, 9];
    let sum = keepstate_wire::checksum::internet(&bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend([0x0f, 0xa0, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4]);
    bytes
}

const RULESET: &str = "table ip t {
    set hosts { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.5 }; }
    set nets { type ipv4_addr; flags interval; elements = { 10.0.0.0/24, 192.0.2.0/24 }; }
    set pairs { type ipv4_addr . inet_service; elements = { 10.0.0.5 . 53 }; }
    set ranges { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/24 . 50-60, 10.0.1.0/24 . 1-2 }; }
    set five { type ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service;
               elements = { 10.0.0.5 . 198.51.100.9 . udp . 4000 . 53 }; }
    set seen { type ipv4_addr; flags dynamic; timeout 1h; }
    set rated { type ipv4_addr . inet_service; flags dynamic; }
    set never { type ipv4_addr; flags timeout; elements = { 10.0.0.77 timeout 1h }; }
    map marks { type ipv4_addr : mark; elements = { 10.0.0.5 : 7 }; }
    map last { type ipv4_addr : mark; flags dynamic; timeout 1h; }
    map verdicts { type ipv4_addr . inet_service : verdict; elements = { 10.0.0.5 . 53 : jump more }; }
    map which { type ipv4_addr : counter; elements = { 10.0.0.5 : \"dns\" }; }
    counter dns { }
    chain more {
        ip saddr @hosts counter
        ip saddr @nets counter
        ip saddr . udp dport @pairs counter
        ip saddr . udp dport @ranges counter
        ip saddr . ip daddr . ip protocol . udp sport . udp dport @five counter
        ip saddr @never drop
        udp dport { 53, 5353 } meta mark set ip saddr map @marks
        meta mark 7 ct mark set meta mark
        meta mark set jhash ip saddr . udp sport mod 4 seed 0x1234
        meta mark set symhash mod 4
        meta mark set numgen inc mod 3 map { 0 : 1, 1 : 2, 2 : 3 }
        counter name ip saddr map @which
        update @seen { ip saddr }
        update @last { ip saddr : meta mark }
        add @rated { ip saddr . udp dport limit rate 1000000/second } counter
        ip saddr @seen ct count over 1000 drop
        limit rate over 1000000/second drop
        ct state established,new ct direction original ct original saddr 10.0.0.0/8 counter accept
    }
    chain c {
        type filter hook forward priority 0; policy drop;
        ip saddr . udp dport vmap @verdicts
    }
}
";

#[test]
fn evaluation_allocates_nothing_in_steady_state() {
    let (tree, sources) = parse_with("t", RULESET, &NoIncludes, &[]).unwrap_or_else(|error| panic!("{error}"));
    let mut program = compile(&tree, &sources).unwrap_or_else(|error| panic!("{error}"));
    let mut engine = Engine::new(Sysctls::default(), Secret([1; 16]));
    let bytes = udp_packet();
    let packet = Packet::parse(&bytes).unwrap();
    let mut allocations = Vec::with_capacity(200);
    for round in 0..200_u64 {
        let now = Instant::from_millis(1 + round * 10);
        let mut tracked = engine.track(&packet, Zone::default(), now);
        let mut meta = PacketMeta::default();
        let before = ALLOCATIONS.get();
        let verdict = program.eval_filter_chains(
            Hook::Forward,
            i32::MIN..=i32::MAX,
            &mut EvalCtx {
                engine: &mut engine,
                packet_ctx: Some(&mut tracked),
                packet: &packet,
                meta: &mut meta,
                fib: &EmptyFib,
                sockets: None,
                now,
            },
        );
        allocations.push(ALLOCATIONS.get() - before);
        assert_eq!(verdict, Verdict::Accept, "round {round}");
        engine.confirm(tracked, now);
    }
    assert!(allocations[0] > 0, "the first packet adds dynamic elements, and the counting allocator sees it");
    assert_eq!(allocations[1..].iter().sum::<u64>(), 0, "{allocations:?}");
    // Every rule with a counter was reached by every packet.
    for (place, packets, bytes) in program.rule_counters() {
        assert_eq!((packets, bytes), (200, 200 * 32), "{place}");
    }
}
