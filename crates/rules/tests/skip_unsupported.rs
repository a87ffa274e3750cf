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
	ct expectation voice { protocol udp; dport 9876; timeout 2m; size 8; l3proto ip; }
	set macs { typeof ether saddr; elements = { 00:11:22:33:44:55 } }
	set addresses { type ipv4_addr; elements = { 10.0.0.1 } }
	chain early {
		type filter hook ingress device \"eth0\" priority 0; policy drop;
		accept
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ether saddr 00:11:22:33:44:55 drop
		ether saddr @macs drop
		ct expectation set \"voice\"
		ip saddr @addresses tcp dport { 22,
			80 } accept
		tcp dport 80 queue num 3; tcp dport 443 accept
		osf name \"Linux\" drop
	}
}
table bridge b { chain c { accept; }; }
add rule inet filter forward udp dport 53 dup to 10.0.0.1
add rule inet filter forward udp dport 53 accept
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
            "1 tables of family netdev are not supported: a router sees IP packets only",
            "8 objects of type `ct expectation` are not supported",
            "9 `ether` is not supported",
            "12 hook ingress belongs to a device and is not supported",
            "17 `ether` is not supported",
            "18 `ether` is not supported",
            "19 `ct expectation` is not supported",
            "22 `queue` is not supported",
            "23 `osf` is not supported",
            "26 tables of family bridge are not supported: a router sees IP packets only",
            "27 `dup` is not supported",
        ]
    );
    assert_eq!(tree.tables.len(), 1);
    let rules: Vec<usize> = tree.tables[0].chains.iter().map(|chain| chain.rules.len()).collect();
    assert_eq!(rules, [1, 3]);
    assert!(tree.tables[0].chains[0].base.is_none(), "the chain of the ingress hook sees no packets");
    compile(&tree, &sources).unwrap();
}

#[test]
fn rules_that_name_something_left_out_are_left_out_too() {
    let text = "table ip t {\n\tset macs { type secret; }\n}\n";
    assert!(parse_skipping_unsupported("r.nft", text, &NoIncludes, &[]).is_err(), "a mistake is never left out");
    let text = "table ip t {
	ct helper sip { type \"sip\" protocol udp; }
	chain c {
		udp dport 5060 ct helper set \"sip\"
		udp dport 53 accept
	}
}
";
    let (tree, _, left_out) = parse_skipping_unsupported("r.nft", text, &NoIncludes, &[]).unwrap();
    let messages: Vec<&str> = left_out.iter().map(|diagnostic| diagnostic.message.as_str()).collect();
    assert_eq!(messages, ["helper \"sip\" is not supported", "the rule names sip, which is left out"]);
    assert_eq!(tree.tables[0].chains[0].rules.len(), 1);
}
