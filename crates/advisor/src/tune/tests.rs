//! Plans: order, refusals, warnings, costs.
use super::*;

fn current(knobs: &[(&str, u64, bool)], count: u64) -> CurrentState {
    let knobs = knobs
        .iter()
        .map(|(key, value, writable)| ((*key).into(), CurrentSysctl { value: Some(*value), writable: *writable }));
    CurrentState { sysctls: knobs.collect(), count: Some(count), object_size: 256 }
}

fn desired(wishes: &[(&str, u64)]) -> DesiredState {
    let wishes =
        wishes.iter().map(|(key, value)| ((*key).into(), DesiredSysctl { value: *value, why: "asked for".into() }));
    DesiredState { sysctls: wishes.collect(), ..DesiredState::default() }
}

fn changed_keys(plan: &TunePlan) -> Vec<&str> {
    plan.changes.iter().map(|change| change.key.rsplit('.').next().unwrap()).collect()
}

#[test]
fn buckets_come_first_when_it_grows_and_last_when_it_shrinks() {
    let small = current(&[(MAX, 65_536, true), (BUCKETS, 65_536, true)], 10);
    let grown = plan(&desired(&[(MAX, 1 << 20), (BUCKETS, 1_000_000)]), &small);
    assert_eq!(changed_keys(&grown), ["nf_conntrack_buckets", "nf_conntrack_max"]);
    assert_eq!(grown.changes[0].after, 1_000_448, "whole pages");
    let large = current(&[(MAX, 1 << 20, true), (BUCKETS, 1 << 20, true)], 10);
    assert_eq!(
        changed_keys(&plan(&desired(&[(MAX, 65_536), (BUCKETS, 65_536)]), &large)),
        ["nf_conntrack_max", "nf_conntrack_buckets"]
    );
}

#[test]
fn a_limit_under_the_count_is_refused_unless_forced() {
    let full = current(&[(MAX, 65_536, true)], 60_000);
    let mut wanted = desired(&[(MAX, 50_000)]);
    assert!(plan(&wanted, &full).refusals[0].contains("60,000 connections"));
    wanted.force = true;
    let forced = plan(&wanted, &full);
    assert!(forced.refusals.is_empty() && forced.warnings[0].contains("would be dropped"));
    assert!(plan(&desired(&[(MAX, 0)]), &full).warnings[0].contains("unlimited"));
}

#[test]
fn read_only_sysctl_is_refused_with_where_to_set_it() {
    let inside = current(&[(MAX, 65_536, false)], 1);
    assert!(plan(&desired(&[(MAX, 100_000)]), &inside).refusals[0].contains("initial network namespace"));
    assert!(plan(&desired(&[(MAX, 65_536)]), &inside).refusals.is_empty(), "it is so already");
    assert!(plan(&desired(&[(BUCKETS, 512)]), &inside).refusals[0].contains("modprobe"));
}

#[test]
fn timeout_shorter_than_keepalive_warns() {
    let here = current(&[(ESTABLISHED, 432_000, true)], 1);
    let mut wanted = desired(&[(ESTABLISHED, 7200)]);
    assert!(plan(&wanted, &here).warnings[0].contains("RFC 5382"));
    wanted.keepalive = Some(7200);
    assert!(plan(&wanted, &here).warnings[0].contains("silent for 3 h"));
    let mut long = desired(&[(ESTABLISHED, 21_600)]);
    long.keepalive = Some(14_399);
    assert!(plan(&long, &here).warnings.is_empty());
}

#[test]
fn limit_far_above_buckets_warns() {
    let here = current(&[(MAX, 65_536, true), (BUCKETS, 65_536, true)], 1);
    assert!(plan(&desired(&[(MAX, 1 << 20)]), &here).warnings[0].contains("chains of 32 entries"));
    assert!(plan(&desired(&[(MAX, 1 << 20), (BUCKETS, 1 << 20)]), &here).warnings.is_empty());
}

#[test]
fn values_already_set_are_unchanged() {
    let here = current(&[(MAX, 65_536, true)], 1);
    let kept = plan(&desired(&[(MAX, 65_536)]), &here);
    assert!(kept.changes.is_empty());
    assert_eq!(kept.unchanged[MAX], 65_536);
}
