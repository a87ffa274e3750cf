//! Plans: order, refusals, warnings, costs.
use super::*;

fn situation(knobs: &[(&str, u64, bool)], count: u64) -> Situation {
    let knobs = knobs
        .iter()
        .map(|(key, value, writable)| ((*key).into(), Present { value: Some(*value), writable: *writable }));
    Situation { knobs: knobs.collect(), count: Some(count), object: 256 }
}

fn goal(wishes: &[(&str, u64)]) -> Goal {
    let wishes = wishes.iter().map(|(key, value)| ((*key).into(), Wish { value: *value, why: "asked for".into() }));
    Goal { wishes: wishes.collect(), ..Goal::default() }
}

fn order(plan: &Plan) -> Vec<&str> {
    plan.changes.iter().map(|change| change.key.rsplit('.').next().unwrap()).collect()
}

#[test]
fn buckets_come_first_when_it_grows_and_last_when_it_shrinks() {
    let small = situation(&[(MAX, 65_536, true), (BUCKETS, 65_536, true)], 10);
    let grown = plan(&goal(&[(MAX, 1 << 20), (BUCKETS, 1_000_000)]), &small);
    assert_eq!(order(&grown), ["nf_conntrack_buckets", "nf_conntrack_max"]);
    assert_eq!(grown.changes[0].after, 1_000_448, "whole pages");
    let large = situation(&[(MAX, 1 << 20, true), (BUCKETS, 1 << 20, true)], 10);
    assert_eq!(
        order(&plan(&goal(&[(MAX, 65_536), (BUCKETS, 65_536)]), &large)),
        ["nf_conntrack_max", "nf_conntrack_buckets"]
    );
}

#[test]
fn a_limit_under_the_count_is_refused_unless_forced() {
    let full = situation(&[(MAX, 65_536, true)], 60_000);
    let mut wanted = goal(&[(MAX, 50_000)]);
    assert!(plan(&wanted, &full).refusals[0].contains("60,000 connections"));
    wanted.force = true;
    let forced = plan(&wanted, &full);
    assert!(forced.refusals.is_empty() && forced.warnings[0].contains("would be dropped"));
    assert!(plan(&goal(&[(MAX, 0)]), &full).warnings[0].contains("no limit"));
}

#[test]
fn what_cannot_be_written_is_refused_with_where_to_set_it() {
    let inside = situation(&[(MAX, 65_536, false)], 1);
    assert!(plan(&goal(&[(MAX, 100_000)]), &inside).refusals[0].contains("initial network namespace"));
    assert!(plan(&goal(&[(MAX, 65_536)]), &inside).refusals.is_empty(), "it is so already");
    assert!(plan(&goal(&[(BUCKETS, 512)]), &inside).refusals[0].contains("modprobe"));
}

#[test]
fn a_timeout_that_breaks_the_keepalive_is_told() {
    let here = situation(&[(ESTABLISHED, 432_000, true)], 1);
    let mut wanted = goal(&[(ESTABLISHED, 7200)]);
    assert!(plan(&wanted, &here).warnings[0].contains("RFC 5382"));
    wanted.keepalive = Some(7200);
    assert!(plan(&wanted, &here).warnings[0].contains("silent for 3 h"));
    let mut long = goal(&[(ESTABLISHED, 21_600)]);
    long.keepalive = Some(14_399);
    assert!(plan(&long, &here).warnings.is_empty());
}

#[test]
fn a_limit_far_above_the_buckets_is_told() {
    let here = situation(&[(MAX, 65_536, true), (BUCKETS, 65_536, true)], 1);
    assert!(plan(&goal(&[(MAX, 1 << 20)]), &here).warnings[0].contains("lists of 32 entries"));
    assert!(plan(&goal(&[(MAX, 1 << 20), (BUCKETS, 1 << 20)]), &here).warnings.is_empty());
}

#[test]
fn what_is_so_already_is_kept() {
    let here = situation(&[(MAX, 65_536, true)], 1);
    let kept = plan(&goal(&[(MAX, 65_536)]), &here);
    assert!(kept.changes.is_empty());
    assert_eq!(kept.kept[MAX], 65_536);
}
