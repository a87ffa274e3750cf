//! Known flows whose packets get a mark from the rules: the mark is on them in the kernel too, and leads them as it leads all others.
use crate::machine::{MARKED, can_take_away, take_away, tc};
use crate::offload::{Conversation, offloaded};
use crate::report_skipped;
use crate::routes::{SECOND_WAY_BY_MARK, in_netns, packets_on, with_second_way};
use std::time::Duration;

const RULES: &str = "
table inet t {
	chain pre {
		type filter hook prerouting priority mangle; policy accept;
		ct state new tcp dport 7401 ct mark set 0x55
		ct state new tcp dport 7402 ct mark set 0x54
		meta mark set ct mark
		ct mark 0x54 meta mark set meta mark or 1
		tcp dport 7403 meta mark set 0x56
	}
	chain forward {
		type filter hook forward priority 0; policy accept;
		meta mark 0x56 meta mark set meta mark and 0xfffffffc or 1
		tcp dport 7404 meta mark set 0x55
		tcp dport 7405 meta mark 0 ct mark set 0x57
	}
}
";

/// Which packets a filter of tc finds marked, when the kernel forwards by these rules, and when it forwards known flows.
#[test]
fn known_flows_have_the_marks_that_the_kernel_gives_them() {
    let Some(mut lab) = with_second_way("km", RULES) else { return };
    if !can_take_away(&lab) || !in_netns(&lab, "r", &format!("nft -f {}", lab.ruleset.path())) {
        report_skipped(
            "marks of known flows beside the kernel's: it needs nft, and tc with the filter bpf and the action mirred",
        );
        return;
    }
    const ENDS: [&str; 12] = [
        "10.0.2.2:7400",
        "10.0.2.2:7401",
        "10.0.2.2:7402",
        "10.0.2.2:7403",
        "10.0.2.2:7404",
        "10.0.2.2:7405",
        "[fd00:2::2]:7400",
        "[fd00:2::2]:7401",
        "[fd00:2::2]:7402",
        "[fd00:2::2]:7403",
        "[fd00:2::2]:7404",
        "[fd00:2::2]:7405",
    ];
    let marked = |lab: &crate::TcTestbed, talks: &mut [Conversation]| -> Vec<bool> {
        assert!(take_away(lab, "9", MARKED));
        let marked = talks.iter_mut().map(|talk| !talk.is_heard(Duration::from_millis(500))).collect();
        assert!(tc(lab, &["filter", "del", "dev", "r1", "egress", "prio", "9"]));
        marked
    };
    let mut talks = ENDS.map(|at| Conversation::begin(&lab, "c", "s", at, at));
    let by_kernel = marked(&lab, &mut talks);
    assert_eq!(by_kernel, [false, true, true, true, true, false].repeat(2), "the rules say so");
    drop(talks);
    assert!(in_netns(&lab, "r", "nft flush ruleset"));
    lab.start(&["--interface", "r*"]);
    let mut talks = ENDS.map(|at| offloaded(&lab, "c", "s", at, at));
    assert_eq!(marked(&lab, &mut talks), by_kernel);
}

/// A mark of the rules leads a known flow the way that it led the first packet.
#[test]
fn known_flows_go_by_their_mark() {
    let rules = "table inet t {
        chain pre { type filter hook prerouting priority mangle; policy accept; tcp dport { 7101, 7103 } meta mark set 7; }
    }";
    let Some(mut lab) = with_second_way("kw", rules) else { return };
    assert!(in_netns(&lab, "r", SECOND_WAY_BY_MARK));
    lab.start(&["--interface", "r*"]);
    for (at, called, ways) in [
        ("0.0.0.0:7100", "198.51.100.1:7100", ["r1", "r2"]),
        ("0.0.0.0:7101", "198.51.100.1:7101", ["r2", "r1"]),
        ("[::]:7102", "[2001:db8::1]:7102", ["r1", "r2"]),
        ("[::]:7103", "[2001:db8::1]:7103", ["r2", "r1"]),
    ] {
        let mut talk = offloaded(&lab, "c", "s", at, called);
        let before = ways.map(|way| packets_on(&lab, way));
        for _ in 0..50 {
            talk.exchange(1000);
        }
        let [its, other] = [0, 1].map(|at| packets_on(&lab, ways[at]) - before[at]);
        assert!(its >= 50 && other < 20, "{called}: {its} by {}, {other} by {}", ways[0], ways[1]);
    }
}
