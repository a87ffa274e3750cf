//! Rules judged one by one, on what a test writes down. What is judged here is ranking and hiding, and what each rule keeps silent
//! about; that the right one speaks first on a real machine is shown by the program's own tests.
use super::*;

fn space(count: u64, max: u64) -> Namespace {
    let mut space = Namespace { name: "this".into(), is_ours: true, is_initial: Some(true), ..Namespace::default() };
    space.count = Some(Seen::at("count", count));
    space.knobs.insert("nf_conntrack_max".into(), Knob { value: max, source: "max".into(), ..Knob::default() });
    space.counters = Some(Seen::at("stat", Counters::default()));
    space.growth = Some(Growth { over_ms: 1000, ..Growth::default() });
    space
}

fn machine(spaces: Vec<Namespace>) -> Observations {
    Observations { namespaces: spaces, ..Observations::default() }
}

fn names(seen: &Observations) -> Vec<&'static str> {
    examine(seen).findings.iter().map(|finding| finding.name).collect()
}

#[test]
fn names_are_kebab_case_unique_and_explained_ones_exist() {
    let all: Vec<&Rule> = RULES.iter().copied().flatten().collect();
    for rule in &all {
        assert!(rule.name.bytes().all(|octet| octet.is_ascii_lowercase() || octet == b'-'), "{}", rule.name);
        assert_eq!(all.iter().filter(|other| other.name == rule.name).count(), 1, "{}", rule.name);
        for explained in rule.explains {
            let other = all.iter().find(|other| other.name == *explained).unwrap_or_else(|| panic!("{explained}"));
            assert!(!other.explains.contains(&rule.name), "{} and {explained} hide each other", rule.name);
        }
    }
    let mut numbers: Vec<u8> = all.iter().map(|rule| rule.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (1..=27).collect::<Vec<u8>>(), "each failure of the catalogue has a rule");
}

#[test]
fn a_healthy_machine_and_one_that_cannot_be_seen() {
    let healthy = machine(vec![space(1000, 262_144)]);
    assert_eq!((examine(&healthy).verdict, names(&healthy)), (Verdict::Ok, vec![]));
    let blind = machine(vec![Namespace::default()]);
    assert_eq!(examine(&blind).verdict, Verdict::Unknown);
    let mut without = machine(vec![]);
    without.machine.module = Some(Seen::at("modules", Module::default()));
    assert_eq!(examine(&without).verdict, Verdict::Ok);
}

#[test]
fn full_and_dropping_hides_what_follows() {
    let mut full = space(65_536, 65_536);
    full.growth = Some(Growth { over_ms: 1000, by: Counters { drop: 40, ..Counters::default() } });
    full.counters = Some(Seen::at("stat", Counters { drop: 4000, ..Counters::default() }));
    let mut seen = machine(vec![full]);
    let initial = Full { lines: 3, age: Some(5), latest: "nf_conntrack: table full, dropping packet".into() };
    seen.log = Some(Seen::at("/dev/kmsg", Log { initial, ..Log::default() }));
    let found = examine(&seen);
    assert_eq!((found.verdict, found.findings[0].name), (Verdict::Critical, "table-full-assured"));
    assert_eq!((names(&seen).len(), found.findings[0].explains.clone()), (1, vec!["table-was-full"]));
    assert!(found.findings[0].now[0].command.as_ref().unwrap().contains("nf_conntrack_max=131072"));
}

#[test]
fn the_log_remembers_namespaces_that_are_gone() {
    let mut young = space(10, 262_144);
    (young.is_initial, young.inode) = (Some(false), Some(7));
    let mut seen = machine(vec![young]);
    let inside = [(7, Full { lines: 9, age: Some(1), latest: "table full in netns 7".into() })].into();
    seen.log = Some(Seen::at("/dev/kmsg", Log { inside, ..Log::default() }));
    assert_eq!(names(&seen), Vec::<&str>::new(), "its own counters say that it never dropped a packet");
    seen.namespaces[0].counters = Some(Seen::at("stat", Counters { drop: 3, ..Counters::default() }));
    assert_eq!(names(&seen), ["table-was-full"]);
}

#[test]
fn in_another_namespace() {
    let mut pod = space(1000, 1000);
    (pod.name, pod.is_initial, pod.inode, pod.is_ours) = ("pod".into(), Some(false), Some(9), false);
    let seen = machine(vec![space(10, 1000), pod]);
    let found = examine(&seen);
    assert_eq!((found.findings[0].name, found.findings.len()), ("full-in-namespace", 1));
    assert_eq!(found.findings[0].namespace.as_deref(), Some("pod"));
    assert!(matches!(found.findings[0].now[0].at, Place::Here), "the limit is set in the initial namespace");
}

#[test]
fn limits_that_are_none_or_too_low() {
    assert_eq!(names(&machine(vec![space(10, 0)])), ["no-limit"]);
    assert_eq!(names(&machine(vec![space(500, 300)])), ["count-above-max"]);
    assert_eq!(names(&machine(vec![space(302, 300)])), ["table-full-assured"]);
}

#[test]
fn what_a_boot_loses() {
    let mut seen = machine(vec![space(10, 262_144)]);
    let lost = Some("read too early".to_owned());
    seen.wishes = vec![Wish {
        knob: "nf_conntrack_max".into(),
        value: 1_048_576,
        source: "/etc/sysctl.d/90.conf:1".into(),
        lost,
    }];
    assert_eq!(names(&seen), ["lost-at-boot"]);
    let writer = |knob: &str| Writer { name: "kube-proxy".into(), knob: Some(knob.into()), ..Writer::default() };
    seen.writers = vec![writer("nf_conntrack_tcp_timeout_established")];
    assert_eq!(names(&seen), ["lost-at-boot"], "it writes something else");
    seen.writers = vec![writer("nf_conntrack_max")];
    assert_eq!(names(&seen), ["value-reverts"]);
    seen.writers.clear();
    seen.namespaces[0].knobs.get_mut("nf_conntrack_max").unwrap().is_writable = Some(false);
    assert_eq!(names(&seen), ["knob-read-only-here"]);
    seen.namespaces[0].knobs.get_mut("nf_conntrack_max").unwrap().value = 1_048_576;
    assert_eq!(names(&seen), ["lost-at-boot"]);
    seen.wishes[0].lost = None;
    assert_eq!(names(&seen), Vec::<&str>::new());
}
