//! `parse_skipping_unsupported`: what is not supported is left out, each thing is named, and the rest is in force.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use keepstate_rules::{NoIncludes, compile, parse_skipping_unsupported, parse_with};

const RULESET: &str = "table netdev early {
	chain ingress {
		type filter hook ingress device \"eth0\" priority 0; policy drop;
		ip saddr 10.0.0.1 drop
	}
}
table inet filter {
	tunnel far { id 100; }
	set macs { typeof ether saddr; elements = { 00:11:22:33:44:55 } }
	set addresses { type ipv4_addr; elements = { 10.0.0.1 } }
	chain early {
		type filter hook egress device \"eth0\" priority 0; policy drop;
		accept
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ether saddr 00:11:22:33:44:55 drop
		ether saddr @macs drop
		tunnel id 3 drop
		ip saddr @addresses tcp dport { 22,
			80 } accept
		tcp dport 80 queue num 3; tcp dport 443 accept
		osf name \"Linux\" drop
		arp operation request drop; udp dport 67 queue num 3 bypass
	}
}
table bridge b { chain c { accept; }; }
add rule inet filter forward udp dport 53 tunnel id 4 drop
add rule inet filter forward udp dport 53 queue num 5
";

#[test]
fn each_thing_left_out_is_named_and_the_rest_is_in_force() {
    assert!(parse_with("r.nft", RULESET, &NoIncludes, &[]).is_err(), "by default nothing is left out");
    let (tree, sources, left_out) = parse_skipping_unsupported("r.nft", RULESET, &NoIncludes, &[]).unwrap();
    let places: Vec<String> = left_out
        .iter()
        .map(|diagnostic| format!("{} {}", sources.position(diagnostic.span).line, diagnostic.message))
        .collect();
    assert_eq!(
        places,
        [
            "8 tunnel is not supported: packets carry no metadata of tunnels here",
            "12 hook egress is not supported: it belongs to a device, behind everything that is done here",
            "19 `tunnel` is not supported: packets carry no metadata of tunnels here",
            "24 `arp` is not supported: ARP is the kernel's",
            "28 `tunnel` is not supported: packets carry no metadata of tunnels here",
        ]
    );
    assert_eq!(tree.tables.len(), 1);
    let rules: Vec<usize> = tree.tables[0].chains.iter().map(|chain| chain.rules.len()).collect();
    assert_eq!(rules, [1, 8]);
    let notes: Vec<String> =
        tree.notes.iter().map(|note| format!("{} {}", sources.position(note.span).line, note.message)).collect();
    let governed = "is not governed here: the kernel applies it to what passes the kernel";
    let queue = |does| {
        format!(
            "no program can listen on a queue here: a packet that reaches this rule {does}, as in Linux without a listener"
        )
    };
    assert_eq!(
        notes,
        [
            format!("1 table netdev early {governed}"),
            format!("22 {}", queue("is dropped")),
            "23 no fingerprints of systems are loaded: every SYN is \"unknown\" for osf".to_owned(),
            format!("24 {}", queue("passes this chain")),
            format!("27 table bridge b {governed}"),
        ]
    );
    assert!(tree.tables[0].chains[0].base.is_none(), "the chain of the egress hook sees no packets");
    compile(&tree, &sources).unwrap();
}

/// Taken, and not in force as in the kernel: each is noted once, at its first place.
#[test]
fn what_never_matches_is_noted() {
    let text = "table inet t {
	chain c {
		type filter hook output priority 0;
		meta skuid 0 meta mark set 7 meta priority 0 accept
		meta skgid 33 drop
		skgid 34 drop
		meta cgroup 1 drop
		socket cgroupv2 level 1 \"system.slice\" drop
		meta priority set 1:10
		meta priority set ip dscp map { cs1 : 1:1, ef : 1:2 }
	}
}
";
    let (tree, sources, left_out) = parse_skipping_unsupported("r.nft", text, &NoIncludes, &[]).unwrap();
    assert!(left_out.is_empty(), "{left_out:?}");
    let notes: Vec<String> =
        tree.notes.iter().map(|note| format!("{} {}", sources.position(note.span).line, note.message)).collect();
    assert_eq!(
        notes,
        [
            "5 skgid never matches here: the group of a socket is not known",
            "7 cgroup never matches here: the control group of a socket is not known",
            "8 socket cgroupv2 never matches here: the control group of a socket is not known",
            "9 the priority that rules set stays in the rules: packets leave without it, so queueing disciplines (tc) do not see it",
        ]
    );
}

#[test]
fn rules_that_name_something_left_out_are_left_out_too() {
    let text = "table ip t {\n\tset macs { type secret; }\n}\n";
    assert!(parse_skipping_unsupported("r.nft", text, &NoIncludes, &[]).is_err(), "a mistake is never left out");
    let text = "table ip t {
	ct helper own { type \"own\" protocol udp; }
	chain c {
		udp dport 5060 ct helper set \"own\"
		udp dport 53 accept
	}
}
";
    let (tree, _, left_out) = parse_skipping_unsupported("r.nft", text, &NoIncludes, &[]).unwrap();
    let messages: Vec<&str> = left_out.iter().map(|diagnostic| diagnostic.message.as_str()).collect();
    assert_eq!(messages, ["helper \"own\" is not known", "the rule names own, which is left out"]);
    assert_eq!(tree.tables[0].chains[0].rules.len(), 1);
}

#[test]
fn tables_of_other_families_are_noted_once_and_sink_nothing() {
    let text = "add table bridge b
add chain bridge b c { type filter hook forward priority 0 ; }
add rule bridge b c ether type arp drop
table arp a { chain c { type filter hook input priority 0; arp operation request drop; }; }
table netdev n {
	set blocked { type ipv4_addr; }
	chain c { type filter hook egress device lo priority 0; ip saddr @blocked drop; }
}
flush table netdev n
delete table netdev n
add table ip t
add chain ip t c
add rule ip t c accept
";
    let (tree, sources) = parse_with("r.nft", text, &NoIncludes, &[]).unwrap();
    let notes: Vec<String> = tree
        .notes
        .iter()
        .map(|note| format!("{} {}", sources.position(note.span).line, note.message.split(" is ").next().unwrap()))
        .collect();
    assert_eq!(notes, ["1 table bridge b", "4 table arp a", "5 table netdev n"]);
    assert_eq!((tree.tables.len(), tree.tables[0].chains[0].rules.len()), (1, 1));
    // What is wrong outside of such a table is still an error.
    assert!(
        parse_with("r.nft", "table bridge b { }\ntable ip t { chain c { nonsense; }; }\n", &NoIncludes, &[]).is_err()
    );
}
