//! What rulesets as programs print them make of tuples. That the kernel does the same is shown by the doctor's own test bed.
use super::model::{DnatAddress, DnatTarget, dnat_target, protocol_number};
use super::*;
use std::net::SocketAddr;

const LOCAL: &str = "10.0.0.5";

/// `protocol client destination`, evaluated as it comes in by an interface that is not known.
fn outcome(rules: &NatTables, flow: &str) -> (Vec<String>, bool) {
    outcome_by(rules, flow, None)
}

fn outcome_by(rules: &NatTables, flow: &str, interface: Option<&str>) -> (Vec<String>, bool) {
    let words: Vec<&str> = flow.split(' ').collect();
    let local = [LOCAL.parse().unwrap()];
    let new = NatCandidate {
        protocol: protocol_number(words[0]).unwrap(),
        source: words[1].parse().unwrap(),
        destination: words[2].parse().unwrap(),
        local: &local,
        interface,
    };
    let outcome = rules.evaluate(&new);
    let text = |target: &DnatTarget| {
        let address = match target.address {
            DnatAddress::Range(low, high) if low == high => low.to_string(),
            DnatAddress::Range(low, high) => format!("{low}-{high}"),
            other => format!("{other:?}").to_lowercase(),
        };
        target.ports.map_or(address.clone(), |(low, high)| format!("{address} {low}-{high}"))
    };
    (outcome.targets.iter().map(|(_, target)| text(target)).collect(), outcome.may_pass)
}

fn listing(command: &str, text: &str) -> NatTables {
    read_tables(&[ObservedRulesetText { command: command.into(), text: text.into() }])
}

fn to(targets: &[&str]) -> (Vec<String>, bool) {
    (targets.iter().map(|target| (*target).to_owned()).collect(), false)
}

fn passes() -> (Vec<String>, bool) {
    (Vec::new(), true)
}

const KUBE_IPTABLES: &str = "\
*filter
:INPUT ACCEPT [0:0]
-A INPUT -d 10.96.0.11/32 -p udp -j DROP
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-SEP-A - [0:0]
:KUBE-SEP-B - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-DNS - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -j MASQUERADE --to-ports 1024-65535
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-SEP-A
-A KUBE-SEP-A -s 10.244.1.5/32 -m comment --comment \"kube-system/dns:dns\" -j KUBE-MARK-MASQ
-A KUBE-SEP-A -p udp -m comment --comment \"kube-system/dns:dns\" -m udp -j DNAT --to-destination 10.244.1.5:53
-A KUBE-SEP-B -s 10.244.1.6/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-B -p udp -m udp -j DNAT --to-destination 10.244.1.6:53
-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m comment --comment \"kube-system/dns:dns cluster IP\" -m udp --dport 53 -j KUBE-SVC-DNS
-A KUBE-SERVICES -m comment --comment \"must be last\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-SVC-DNS ! -s 10.244.0.0/16 -d 10.96.0.10/32 -p udp -m udp --dport 53 -j KUBE-MARK-MASQ
-A KUBE-SVC-DNS -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-A
-A KUBE-SVC-DNS -j KUBE-SEP-B
COMMIT
";

#[test]
fn kube_proxys_iptables_chains() {
    let rules = listing("iptables-save", KUBE_IPTABLES);
    let both = to(&["10.244.1.5 53-53", "10.244.1.6 53-53"]);
    assert_eq!(outcome(&rules, "udp 10.244.3.3:4000 10.96.0.10:53"), both);
    assert_eq!(outcome(&rules, "udp 10.0.0.5:4000 10.96.0.10:53"), both, "the node's own, in OUTPUT");
    for other in
        ["udp 10.244.3.3:4000 8.8.8.8:53", "tcp 10.244.3.3:4000 10.96.0.10:53", "udp 10.244.3.3:4000 10.96.0.10:54"]
    {
        assert_eq!(outcome(&rules, other), passes(), "{other}");
    }
    // The node port leads to a chain that translates UDP only.
    assert_eq!(outcome(&rules, "tcp 10.244.3.3:4000 10.0.0.5:30080"), passes());
    assert!(rules.translates());
}

const KUBE_NFT: &str = "\
table ip kube-proxy {
	comment \"rules for kube-proxy\"

	set nodeport-ips {
		type ipv4_addr
		elements = { 10.0.0.5, 10.0.0.6 }
	}

	set affinity-x {
		type ipv4_addr
		flags dynamic,timeout
		timeout 3h
		elements = { 10.244.3.3 timeout 3h expires 2h }
	}

	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		comment \"ClusterIP, ExternalIP and LoadBalancer IP traffic\"
		elements = { 10.96.0.10 . udp . 53 comment \"dns, of kube-system: {x}\" : goto service-dns,
			     10.96.0.1 . tcp . 443 : goto service-api }
	}

	map service-nodeports {
		type inet_proto . inet_service : verdict
		elements = { tcp . 30080 : goto service-api }
	}

	map empty {
		type inet_proto . inet_service : verdict
	}

	chain endpoint-a {
		ip saddr 10.244.1.5 jump mark-for-masquerade
		meta l4proto udp dnat to 10.244.1.5:53
	}

	chain endpoint-b {
		meta l4proto udp dnat to 10.244.1.6:53
	}

	chain endpoint-api {
		meta l4proto tcp dnat to 10.0.0.5:6443
	}

	chain mark-for-masquerade {
		meta mark set meta mark | 0x00004000
	}

	chain service-dns {
		ip daddr 10.96.0.10 udp dport 53 ip saddr != 10.244.0.0/16 jump mark-for-masquerade
		ip saddr @affinity-x goto endpoint-a
		numgen random mod 2 vmap { 0 : goto endpoint-a, 1 : goto endpoint-b }
	}

	chain service-api {
		numgen random mod 1 vmap { 0 : goto endpoint-api }
	}

	chain services {
		ip daddr . meta l4proto . th dport vmap @empty
		ip daddr . meta l4proto . th dport vmap @service-ips
		ip daddr != 127.0.0.0/8 ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
	}

	chain nat-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		jump services
	}

	chain nat-output {
		type nat hook output priority -100; policy accept;
		jump services
	}

	chain filter-forward {
		type filter hook forward priority -110; policy accept;
		ct state new ip daddr 8.8.8.8 drop
	}
}
";

#[test]
fn kube_proxys_nftables_maps() {
    let rules = listing("nft list ruleset", KUBE_NFT);
    let dns = outcome(&rules, "udp 10.244.3.3:4000 10.96.0.10:53");
    assert_eq!(dns, to(&["10.244.1.5 53-53", "10.244.1.5 53-53", "10.244.1.6 53-53"]));
    assert_eq!(outcome(&rules, "tcp 192.0.2.9:4000 10.0.0.6:30080"), to(&["10.0.0.5 6443-6443"]));
    assert_eq!(outcome(&rules, "tcp 10.0.0.5:4000 10.96.0.1:443"), to(&["10.0.0.5 6443-6443"]));
    for other in ["udp 10.244.3.3:4000 8.8.8.8:53", "udp 10.0.0.9:1 10.0.0.6:30080", "tcp 10.0.0.9:1 10.0.0.7:30080"] {
        assert_eq!(outcome(&rules, other), passes(), "{other}");
    }
}

/// Rules of a base chain of prerouting.
fn chain(rules: &str) -> NatTables {
    listing(
        "nft list ruleset",
        &format!(
            "table inet t {{\n\tchain pre {{\n\t\ttype nat hook prerouting priority dstnat + 5; policy accept;\n{rules}\n\t}}\n}}\n"
        ),
    )
}

#[test]
fn destinations_and_ports_of_nft_rules() {
    let rules = chain(
        "fib daddr type local tcp dport { 80, 443, 1000-2000 } counter packets 1 bytes 2 dnat ip to 10.1.0.1-10.1.0.4:8080-8090 random\n\
         dnat ip to ip daddr . tcp dport map { 10.1.0.1 . 80 : 10.2.0.1 . 8080, 10.1.0.2 . 80 : 10.2.0.2 . 81 }\n\
         dnat ip to udp dport map { 81 : 10.2.0.1, 82 : 10.2.0.2 } comment \"a { b\"\n\
         ip6 daddr fd00::1 tcp dport 80 dnat ip6 to [fd00::2]:8080\n\
         iif \"lo\" udp dport 99 redirect to :100\n",
    );
    assert_eq!(outcome(&rules, "tcp 1.2.3.4:5 10.0.0.5:1500"), to(&["10.1.0.1-10.1.0.4 8080-8090"]));
    assert_eq!(outcome(&rules, "tcp 1.2.3.4:5 10.1.0.2:80"), to(&["10.2.0.2 81-81"]));
    assert_eq!(outcome(&rules, "udp 1.2.3.4:5 10.1.0.2:82"), to(&["10.2.0.2"]));
    assert_eq!(outcome(&rules, "tcp [fd00::9]:5 [fd00::1]:80"), to(&["fd00::2 8080-8080"]));
    assert_eq!(outcome(&rules, "tcp 1.2.3.4:5 10.1.0.3:80"), passes());
    assert_eq!(outcome_by(&rules, "udp 1.2.3.4:5 10.1.0.3:99", Some("lo")), to(&["local 100-100"]));
    assert_eq!(outcome_by(&rules, "udp 1.2.3.4:5 10.1.0.3:99", Some("eth0")), passes());
    assert_eq!(
        outcome(&rules, "udp 1.2.3.4:5 10.1.0.3:99"),
        (vec!["local 100-100".into()], true),
        "it may come in elsewhere"
    );
}

#[test]
fn what_is_not_understood_may_hold_or_not() {
    for unknown in [
        "meta skuid 5",
        "tcp option maxseg size 5",
        "ip saddr @nowhere",
        "ct mark 0x1",
        "limit rate 5/second",
        "frobnicate 7",
    ] {
        let rules = chain(&format!("{unknown} udp dport 53 dnat ip to 10.2.0.1\n"));
        assert_eq!(outcome(&rules, "udp 1.2.3.4:5 8.8.8.8:53"), (vec!["10.2.0.1".into()], true), "{unknown}");
    }
    for known in [
        "counter",
        "meta mark set 0x1",
        "ct state new",
        "log prefix \"a b\"",
        "meta nfproto ipv4",
        "ip saddr 1.2.0.0/16",
    ] {
        let rules = chain(&format!("{known} udp dport 53 dnat ip to 10.2.0.1\n"));
        assert_eq!(outcome(&rules, "udp 1.2.3.4:5 8.8.8.8:53"), to(&["10.2.0.1"]), "{known}");
        assert_eq!(outcome(&rules, "udp 1.2.3.4:5 8.8.8.8:54"), passes(), "{known}");
    }
    let rules = chain("udp dport 53 jump nowhere\nudp dport 53 dnat ip to 10.2.0.1\n");
    assert!(outcome(&rules, "udp 1.2.3.4:5 8.8.8.8:53").1, "the chain is not listed");
    let endless = chain("jump pre\n");
    assert!(outcome(&endless, "udp 1.2.3.4:5 8.8.8.8:53").1);
}

#[test]
fn dockers_rules_and_nfts_twin_of_them() {
    let saved = "\
*nat
:PREROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p udp -m multiport --dports 53,54 -j DNAT --to-destination 172.17.0.2
COMMIT
";
    let rules = listing("iptables-save", saved);
    assert_eq!(outcome_by(&rules, "udp 1.2.3.4:5 10.0.0.5:54", Some("eth0")), to(&["172.17.0.2"]));
    assert_eq!(outcome_by(&rules, "udp 172.17.0.3:5 10.0.0.5:54", Some("docker0")), passes());
    assert_eq!(outcome_by(&rules, "udp 1.2.3.4:5 8.8.8.8:54", Some("eth0")), passes());
    let twin = "table ip nat {\n\tchain PREROUTING {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n\t\tudp dport 54 dnat to 10.9.9.9\n\t}\n}\n";
    let texts = [("nft list ruleset", twin), ("iptables-save", saved)];
    let texts = texts.map(|(command, text)| ObservedRulesetText { command: command.into(), text: text.into() });
    assert_eq!(outcome_by(&read_tables(&texts), "udp 1.2.3.4:5 8.8.8.8:54", Some("eth0")), passes());
}

#[test]
fn any_text_is_read_without_harm() {
    use proptest::prelude::*;
    let pieces = [
        "table ip t {",
        "chain c {",
        "}",
        "\n",
        "dnat to",
        "map {",
        "vmap {",
        "10.0.0.1",
        ".",
        ":",
        ",",
        "type nat hook prerouting priority -1;",
        "*nat",
        ":A - [0:0]",
        "-A A",
        "-j",
        "DNAT",
        "--to-destination",
        "!",
        "@x",
        "elements = {",
        "numgen random mod",
        "fib daddr",
        "\"",
        "/33",
        "10.0.0.0/33",
    ];
    let text = proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..40);
    proptest!(|(words in text, glue in proptest::bool::ANY)| {
        let text = words.join(if glue { " " } else { "\n" });
        for command in ["nft list ruleset", "iptables-save", "ip6tables-save"] {
            outcome(&listing(command, &text), "udp 1.2.3.4:5 8.8.8.8:53");
        }
    });
}

#[test]
fn targets_fit_what_they_made() {
    let fits = |target: &str, reply: &str| {
        let original: SocketAddr = "10.96.0.10:53".parse().unwrap();
        dnat_target(target).fits(original, reply.parse().unwrap(), &[])
    };
    assert!(fits("10.0.0.1", "10.0.0.1:53") && !fits("10.0.0.1", "10.0.0.1:54") && !fits("10.0.0.1", "10.0.0.2:53"));
    assert!(fits("10.0.0.1-10.0.0.9:80-90", "10.0.0.9:85") && !fits("10.0.0.1-10.0.0.9:80-90", "10.0.0.9:95"));
    assert!(fits(":5353", "10.96.0.10:5353") && !fits(":5353", "10.96.0.11:5353"));
    assert!(fits("something", "1.1.1.1:1"), "what is not understood may be anything");
}
