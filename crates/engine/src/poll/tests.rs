//! What one step does at most, counted: records read and connections removed.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
use super::*;
use crate::table::{BLOCK, BLOCK_COST};
use crate::{NewConnection, Secret, Sysctl, Sysctls, Tuple, Zone};
use keepstate_types::ipproto;

/// An engine with `count` UDP connections, of which `timeout` says how many seconds each lives.
fn engine_with(count: u32, timeout: impl Fn(u32) -> u32) -> Engine {
    let mut sysctls = Sysctls::default();
    sysctls.set(Sysctl::Max, 0).unwrap();
    sysctls.set(Sysctl::Buckets, 16).unwrap();
    let mut engine = Engine::new(sysctls, Secret([7; 16]));
    for number in 0..count {
        let original = Tuple {
            source: core::net::Ipv4Addr::from_bits(0x0a00_0000 | number).into(),
            destination: [192, 0, 2, 1].into(),
            protocol: ipproto::UDP,
            source_key: 4000,
            destination_key: 53,
        };
        let attributes = crate::ConnUpdate { timeout: Some(timeout(number)), ..crate::ConnUpdate::default() };
        let reply = original.invert().unwrap();
        let new = NewConnection { original, reply, zone: Zone::default(), attributes, dst_nat: None, src_nat: None };
        engine.create(&new, Instant(0)).unwrap();
    }
    engine
}

/// Polls until nothing is due at `now`; calls `check` after each step with the connections removed in it.
fn poll_all(engine: &mut Engine, now: Instant, mut check: impl FnMut(usize)) -> usize {
    let mut steps = 0;
    while engine.next_wake(now).is_some_and(|wake| wake <= now) {
        let before = engine.count();
        engine.poll(now);
        check(before - engine.count());
        steps += 1;
    }
    steps
}

#[test]
fn a_step_of_expiring_removes_a_bounded_number() {
    const CONNECTIONS: u32 = 100_000;
    let mut engine = engine_with(CONNECTIONS, |_| 30);
    let steps = poll_all(&mut engine, Instant::from_secs(31), |removed| {
        assert!(removed <= EXPIRY_WORK_PER_POLL, "{removed} removed at once");
    });
    assert_eq!(engine.count(), 0);
    // Not too small a step either: reading the blocks costs an eighth of it.
    assert!(steps <= CONNECTIONS as usize / EXPIRY_WORK_PER_POLL * 5 / 4, "{steps} steps");
    engine.check_invariants().unwrap();
}

#[test]
fn a_step_of_expiring_reads_a_bounded_number_of_records() {
    // One of each block expires, so most of what is read stays.
    let mut engine = engine_with(100_000, |number| if number % BLOCK as u32 == 0 { 30 } else { 300 });
    let now = Instant::from_secs(31);
    let removed_at_most = EXPIRY_WORK_PER_POLL / (BLOCK_COST + 1) + 1;
    poll_all(&mut engine, now, |removed| assert!(removed <= removed_at_most, "{removed}: one for each block read"));
    assert_eq!(engine.count(), 100_000 - 100_000 / BLOCK);
    // Nothing is due: a step costs nothing.
    assert_eq!(engine.remove_expired(now, 100), 100);
    engine.check_invariants().unwrap();
}

#[test]
fn a_step_of_collecting_from_a_full_table_is_bounded() {
    let mut engine = engine_with(20_000, |_| 300);
    engine.set_sysctl(Sysctl::Max, 20_000).unwrap();
    drop(engine.drop_table_full(Instant(0)));
    let mut steps = 0;
    poll_all(&mut engine, Instant(0), |removed| {
        assert!(removed <= GC_REMOVALS_PER_POLL, "{removed} removed at once");
        steps += usize::from(removed > 0);
    });
    // Unassured connections are removed until fewer than 95 % are left.
    assert_eq!(engine.count(), 18_999);
    assert_eq!(steps, 1001_usize.div_ceil(GC_REMOVALS_PER_POLL));
    engine.check_invariants().unwrap();
}

/// `nf_conntrack_max` and `nf_conntrack_buckets` are only noted, whatever the size of the table; the index grows by a bounded number of buckets a step.
#[test]
fn sizes_changed_at_run_time_are_reached_in_bounded_steps() {
    let mut engine = engine_with(10_000, |_| 300);
    poll_all(&mut engine, Instant(0), |_| ());
    engine.set_sysctl(Sysctl::Max, 100).unwrap();
    assert_eq!(engine.count(), 10_000, "a smaller limit removes nothing");
    let before = engine.table.bucket_count();
    engine.set_sysctl(Sysctl::Buckets, 1_000_000).unwrap();
    assert_eq!(engine.table.bucket_count(), before, "nothing is moved by the change itself");
    let mut last = before;
    while engine.next_wake(Instant(0)) == Some(Instant(0)) {
        engine.poll(Instant(0));
        let grown = engine.table.bucket_count() - last;
        assert!((1..=SPLITS_PER_POLL).contains(&grown), "{grown} buckets split at once");
        last += grown;
    }
    assert!(last >= 1_000_000 / 4, "{last} buckets");
    engine.set_sysctl(Sysctl::Buckets, 16).unwrap();
    assert_eq!(engine.table.bucket_count(), last, "the index never shrinks");
    engine.check_invariants().unwrap();
}

#[test]
fn a_step_removes_a_bounded_number_of_expectations() {
    let mut engine = engine_with(1, |_| 600);
    let master = engine.conn_id(0);
    let limits = crate::helper::ExpectLimits { max_per_class: 1000, max_total: 1000 };
    for port in 0..500 {
        let tuple = Tuple {
            source: [10, 0, 0, 1].into(),
            destination: [192, 0, 2, 1].into(),
            protocol: ipproto::TCP,
            source_key: 0,
            destination_key: port,
        };
        let expected = crate::expectation::Expectation {
            master,
            tuple,
            mask: crate::expectation::ExpectMask { source: [255; 4].into(), source_key: 0 },
            zone: 0,
            class: 0,
            helper: Some(crate::Helper::Ftp),
            flags: crate::expectation::ExpectFlags::default(),
            nat: None,
            deadline: Instant::from_secs(5),
        };
        engine.expectations.expect_related(expected, limits, Instant(0)).unwrap();
    }
    let mut left = engine.expectations.len();
    let later = Instant::from_secs(6);
    while engine.next_wake(later).is_some_and(|wake| wake <= later) {
        engine.poll(later);
        assert!(left - engine.expectations.len() <= EXPECTATIONS_PER_POLL);
        left = engine.expectations.len();
    }
    assert_eq!((left, engine.counters().expect_delete), (0, 500));
}
