//! `keepstate check` and `keepstate gateway` on whole rulesets: what is left out or not governed is named, includes and names of the machine are found.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use common::{TempFile, keepstate, report_skipped};
use keepstate_test_support::wait_until_it_routes;
use std::process::{Command, Stdio};

const MIXED: &str = "\
table netdev early {
	chain ingress {
		type filter hook ingress device lo priority 0;
		ip saddr 192.0.2.1 drop
	}
}
table inet filter {
	ct helper sip {
		type \"own\" protocol udp
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		meta skuid nobody accept
		ip saddr 10.0.0.0/8 tunnel id 3
		tcp dport 22 accept
		udp dport 5060 ct helper set \"sip\"
		ip daddr 10.0.0.1 arp operation 1
	}
}
";

/// What has to be said about each part of `MIXED` that is left out.
const LEFT_OUT: [&str; 4] = [
    ":9:8: helper \"own\" is not known",
    ":14:23: `tunnel` is not supported: packets carry no metadata of tunnels here: ip saddr 10.0.0.0/8 tunnel id 3",
    ":16:3: the rule names sip, which is left out: udp dport 5060 ct helper set \"sip\"",
    ":17:21: `arp` is not supported: ARP is the kernel's: ip daddr 10.0.0.1 arp operation 1",
];
const NOTE: &str = ":1:7: table netdev early is not governed here: the kernel applies it to what passes the kernel";

#[test]
fn check_names_each_rule_that_is_left_out() {
    let file = TempFile::new("left-out.nft", MIXED.as_bytes());
    let refused = keepstate(&["check", file.path()], b"");
    assert_eq!(refused.code, Some(1), "{}", refused.out);

    let ran = keepstate(&["check", "--skip-unsupported", file.path()], b"");
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    for expected in LEFT_OUT {
        assert!(
            ran.out.lines().any(|line| line.starts_with("left out: ") && line.contains(expected)),
            "{expected}\n{}",
            ran.out
        );
    }
    assert!(ran.out.contains("4 left out, not in force\n"), "{}", ran.out);
    assert!(ran.out.lines().any(|line| line.starts_with("note: ") && line.contains(NOTE)), "{}", ran.out);
    assert!(ran.out.contains("1 table, 1 chain, 2 rules"), "{}", ran.out);

    let ran = keepstate(&["check", "--json", "--skip-unsupported", file.path()], b"");
    let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let lines = |name: &str| -> Vec<u64> {
        document[name].as_array().unwrap().iter().map(|one| one["line"].as_u64().unwrap()).collect()
    };
    assert_eq!((lines("left_out"), lines("notes")), (vec![9, 14, 16, 17], vec![1]));
    assert_eq!(document["ok"], true);
}

#[test]
fn gateway_says_at_start_what_is_left_out() {
    let file = TempFile::new("left-out-gateway.nft", MIXED.as_bytes());
    let socket = std::env::temp_dir().join(format!("ksleft{}.sock", std::process::id()));
    let child = Command::new("unshare")
        .args(["--net", env!("CARGO_BIN_EXE_keepstate"), "gateway", "--device", "left0=10.1.0.1/24"])
        .args(["--device", "left1=10.2.0.1/24", "--skip-unsupported", "--ruleset", file.path(), "--control"])
        .arg(&socket)
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else { return report_skipped("a gateway of its own needs unshare") };
    let started = wait_until_it_routes(&mut child);
    // The answer to a reload says it again.
    let reloaded = keepstate(&["control", "--socket", socket.to_str().unwrap(), "reload"], b"");
    let _ = child.kill();
    let _ = child.wait();
    let _ = std::fs::remove_file(&socket);
    let said = match started {
        Ok(said) => said,
        Err(said) => {
            assert!(said.contains("permission") || said.contains("/dev/net/tun"), "{said}");
            return report_skipped("a gateway of its own needs root and /dev/net/tun");
        }
    };
    for expected in LEFT_OUT {
        for text in [&said, &reloaded.out] {
            assert!(
                text.lines().any(|line| line.contains("left out") && line.contains(expected)),
                "{expected}\n{text}"
            );
        }
    }
    assert!(said.contains("4 parts of the ruleset are left out") && said.contains(NOTE), "{said}");
    assert_eq!(reloaded.code, Some(0), "{}", reloaded.err);
}

#[test]
fn includes_are_found_by_pattern_and_directory() {
    let folder = std::env::temp_dir().join(format!("ksinclude{}", std::process::id()));
    std::fs::create_dir_all(folder.join("conf.d")).unwrap();
    std::fs::create_dir_all(folder.join("shared")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("main.nft", "define a = 1\ninclude \"conf.d/*.nft\"\ninclude \"none/*.nft\"\ninclude \"common.nft\"\n");
    // In the order of their names: the second one needs what the first one defines.
    write("conf.d/10-first.nft", "redefine a = 2\ndefine b = { 10.0.0.1, 10.0.0.2 }\n");
    write(
        "conf.d/20-second.nft",
        "table ip t {\n\tset s {\n\t\ttype ipv4_addr\n\t\telements = $b\n\t}\n\tchain c {\n\t\tinclude \"rules.inc\"\n\t}\n}\nundefine b\n",
    );
    write("conf.d/.hidden.nft", "nonsense\n");
    write("conf.d/other.txt", "nonsense\n");
    write("shared/common.nft", "add rule ip t c meta skuid nobody meta skgid root accept\n");
    write("shared/rules.inc", "ip saddr @s meta mark $a accept\n");
    let main = folder.join("main.nft");
    let (main, shared) = (main.to_str().unwrap(), folder.join("shared"));
    let ran = keepstate(&["check", "-I", shared.to_str().unwrap(), main], b"");
    let missing = keepstate(&["check", main], b"");
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(ran.out.contains("ok: 1 table, 1 chain, 2 rules, 2 elements"), "{}{}", ran.out, ran.err);
    assert!(missing.code == Some(1) && missing.out.contains("cannot include rules.inc"), "{}", missing.out);
}

#[test]
fn check_takes_what_nft_prints_as_json() {
    let document = |verdict: &str| {
        format!(
            r#"{{"nftables": [{{"metainfo": {{"json_schema_version": 1}}}}, {{"table": {{"family": "ip", "name": "t", "handle": 1}}}},
            {{"chain": {{"family": "ip", "table": "t", "name": "c", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}}}},
            {{"rule": {{"family": "ip", "table": "t", "chain": "c", "handle": 2, "expr": [{{"{verdict}": null}}]}}}}]}}"#
        )
    };
    let file = TempFile::new("ruleset.json", document("accept").as_bytes());
    let ran = keepstate(&["check", file.path()], b"");
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("1 table, 1 chain, 1 rule"), "{}", ran.out);
    let ran = keepstate(&["check", "-"], document("acept").as_bytes());
    assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("acept"), "{}{}", ran.out, ran.err);
}
