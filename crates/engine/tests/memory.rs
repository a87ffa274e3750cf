//! What the table takes, by an allocator that counts: nothing worth mentioning while it is empty, and at most 100 bytes a TCP connection in a large one.
#![allow(unsafe_code, reason = "a counting allocator is an unsafe trait")]
#![allow(clippy::unwrap_used, reason = "a test that cannot build its packet must fail")]
mod common;

use common::{SERVER, Segment, ipv6, tcp};
use keepstate_engine::{ConnUpdate, Engine, Instant, Secret, Sysctl, Sysctls, Zone};
use keepstate_wire::Packet;
use keepstate_wire::checksum::Sum;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;
static HELD: AtomicUsize = AtomicUsize::new(0);
/// The tests of this file count one after another.
static COUNTING: Mutex<()> = Mutex::new(());

// SAFETY: every call is forwarded unchanged to the system's allocator.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller upholds the contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller upholds the contract.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller upholds the contract.
        unsafe { System.dealloc(place, layout) }
    }
}

/// The bytes that an engine holds with `connections` TCP connections.
fn held_by(connections: u32, is_ipv6: bool) -> usize {
    let mut sysctls = Sysctls::default();
    if connections > 0 {
        sysctls.set(Sysctl::Max, u64::from(connections)).unwrap();
        sysctls.set(Sysctl::Buckets, u64::from(connections)).unwrap();
    }
    let before = HELD.load(Relaxed);
    let mut engine = Engine::new(sysctls, Secret([7; 16]));
    for number in 0..connections {
        let [_, a, b, c] = number.to_be_bytes();
        let syn = Segment { flags: 2, seq: 99, window: 1000, ..Segment::default() };
        let bytes = if is_ipv6 { tcp_ipv6(number) } else { tcp(([10, a, b, c], 40_000), (SERVER, 1883), &syn) };
        engine.handle(&Packet::parse(&bytes).unwrap(), Zone::default(), Instant(0));
    }
    assert_eq!(engine.count(), connections as usize);
    HELD.load(Relaxed) - before
}

fn tcp_ipv6(number: u32) -> Vec<u8> {
    let address = |host: u32| {
        let mut address = [0xfd; 16];
        address[12..].copy_from_slice(&host.to_be_bytes());
        address
    };
    let mut segment = vec![0x9c, 0x40, 7, 0x5b, 0, 0, 0, 99, 0, 0, 0, 0, 0x50, 2, 3, 0xe8, 0, 0, 0, 0];
    let (from, to) = (address(number), address(u32::MAX));
    let sum = Sum::new().add_bytes(&from).add_bytes(&to).add_u16(6).add_u16(20).add_bytes(&segment);
    segment[16..18].copy_from_slice(&sum.finish().to_be_bytes());
    ipv6(from, to, 6, &segment)
}

#[test]
fn an_empty_engine_holds_less_than_a_megabyte() {
    let _alone = COUNTING.lock().unwrap();
    let held = held_by(0, false);
    assert!(held < 1 << 20, "{held} bytes");
}

#[test]
fn a_tcp_connection_takes_at_most_100_bytes() {
    let _alone = COUNTING.lock().unwrap();
    for (connections, is_ipv6, limit) in [(65_536, false, 110), (1_000_000, false, 100), (500_000, true, 140)] {
        let each = held_by(connections, is_ipv6) as f64 / f64::from(connections);
        assert!(each <= f64::from(limit), "{each:.1} bytes each of {connections} connections, IPv6: {is_ipv6}");
    }
}

#[test]
fn marks_take_memory_only_where_they_are() {
    let _alone = COUNTING.lock().unwrap();
    let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    let syn = Segment { flags: 2, seq: 99, window: 1000, ..Segment::default() };
    let bytes = tcp(([10, 0, 0, 1], 40_000), (SERVER, 1883), &syn);
    let id = engine.handle(&Packet::parse(&bytes).unwrap(), Zone::default(), Instant(0)).connection.unwrap();
    let without = HELD.load(Relaxed);
    let mut set = |mark| {
        engine.update(id, &ConnUpdate { mark: Some(mark), ..ConnUpdate::default() }, Instant(0)).unwrap();
        (engine.entry(id, Instant(0)).unwrap().mark, HELD.load(Relaxed) > without + (1 << 20))
    };
    assert_eq!([set(0), set(7), set(0)], [(0, false), (7, true), (0, true)]);
}
