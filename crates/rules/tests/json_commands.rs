//! Commands in JSON: each becomes the command that nft's language has for it, and nothing else can be smuggled in.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use keepstate_rules::json_to_script;
use serde_json::json;

#[test]
fn each_command_is_its_line() {
    let at = |name: &str| json!({"family": "inet", "table": "t", "name": name});
    for (command, line) in [
        (json!({"metainfo": {"json_schema_version": 1}}), ""),
        (json!({"table": {"family": "ip", "name": "t"}}), "add table ip t\n"),
        (
            json!({"add": {"table": {"family": "inet", "name": "t", "comment": "a b"}}}),
            "add table inet t { comment \"a b\"; }\n",
        ),
        (
            json!({"create": {"chain": {"family": "inet", "table": "t", "name": "c", "type": "filter", "hook": "forward", "prio": -5, "policy": "drop"}}}),
            "create chain inet t c { type filter hook forward priority -5; policy drop; }\n",
        ),
        // Of the kernel's families only that there is such a table.
        (json!({"add": {"table": {"family": "bridge", "name": "b"}}}), "add table bridge b\n"),
        (
            json!({"rule": {"family": "netdev", "table": "n", "chain": "c", "expr": [{"fwd": {"dev": "lo"}}]}}),
            "add table netdev n\n",
        ),
        (
            json!({"add": {"rule": {"family": "arp", "table": "a", "chain": "c", "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "arp", "field": "saddr ip"}}, "right": "10.0.0.1"}}]}}}),
            "add table arp a\n",
        ),
        (
            json!({"add": {"rule": {"family": "ip", "table": "t", "chain": "c", "expr": [{"tproxy": {"family": "ip", "addr": "127.0.0.1", "port": 80}}]}}}),
            "add rule ip t c tproxy ip to 127.0.0.1:80\n",
        ),
        (
            json!({"add": {"rule": {"family": "ip6", "table": "t", "chain": "c", "expr": [{"tproxy": {"addr": "::1", "port": 80}}]}}}),
            "add rule ip6 t c tproxy to [::1]:80\n",
        ),
        (
            json!({"add": {"rule": {"family": "ip", "table": "t", "chain": "c", "expr": [{"match": {"op": "==", "left": {"payload": {"tunnel": "vxlan", "protocol": "tcp", "field": "dport"}}, "right": 80}}, {"match": {"op": "==", "left": {"ipsec": {"key": "reqid", "dir": "in", "spnum": 2}}, "right": 5}}]}}}),
            "add rule ip t c vxlan tcp dport == 80 ipsec in spnum 2 reqid == 5\n",
        ),
        (
            json!({"rename": {"chain": {"family": "inet", "table": "t", "name": "c", "newname": "d"}}}),
            "rename chain inet t c d\n",
        ),
        (
            json!({"insert": {"rule": {"family": "inet", "table": "t", "chain": "c", "index": 2, "expr": [{"drop": null}]}}}),
            "insert rule inet t c index 2 drop\n",
        ),
        (
            json!({"replace": {"rule": {"family": "inet", "table": "t", "chain": "c", "handle": 7, "expr": [{"counter": null}, {"jump": {"target": "d"}}], "comment": "x"}}}),
            "replace rule inet t c handle 7 counter jump d comment \"x\"\n",
        ),
        (
            json!({"delete": {"rule": {"family": "inet", "table": "t", "chain": "c", "handle": 7}}}),
            "delete rule inet t c handle 7\n",
        ),
        (
            json!({"add": {"set": {"family": "ip", "table": "t", "name": "s", "type": ["ipv4_addr", "inet_service"], "flags": ["timeout"], "timeout": 60, "size": 9, "elem": [{"concat": ["10.0.0.1", 80]}]}}}),
            "add set ip t s { type ipv4_addr . inet_service; flags timeout; timeout 60s; size 9; elements = { 10.0.0.1 . 80 }; }\n",
        ),
        (
            json!({"add": {"map": {"family": "ip", "table": "t", "name": "m", "type": "inet_service", "map": "verdict", "elem": [[22, {"accept": null}], [{"range": [80, 90]}, {"goto": {"target": "c"}}]]}}}),
            "add map ip t m { type inet_service : verdict; elements = { 22 : accept, 80-90 : goto c }; }\n",
        ),
        (
            json!({"add": {"element": {"family": "ip", "table": "t", "name": "s", "elem": [{"elem": {"val": "10.0.0.7", "timeout": 60, "comment": "why"}}]}}}),
            "add element ip t s { 10.0.0.7 timeout 60s comment \"why\" }\n",
        ),
        (
            json!({"delete": {"element": {"family": "ip", "table": "t", "name": "s", "elem": "10.0.0.7"}}}),
            "delete element ip t s { 10.0.0.7 }\n",
        ),
        (
            json!({"add": {"counter": {"family": "ip", "table": "t", "name": "web", "packets": 1, "bytes": 2}}}),
            "add counter ip t web { packets 1 bytes 2; }\n",
        ),
        (
            json!({"add": {"quota": {"family": "ip", "table": "t", "name": "q", "bytes": 100, "used": 5, "inv": true}}}),
            "add quota ip t q { over 100 bytes used 5 bytes;  }\n",
        ),
        (
            json!({"add": {"limit": {"family": "ip", "table": "t", "name": "l", "rate": 10, "per": "minute", "burst": 3}}}),
            "add limit ip t l { rate 10/minute burst 3 packets;  }\n",
        ),
        (
            json!({"add": {"ct helper": {"family": "ip", "table": "t", "name": "h", "type": "ftp", "protocol": "tcp"}}}),
            "add ct helper ip t h { type \"ftp\" protocol tcp;   }\n",
        ),
        (
            json!({"add": {"flowtable": {"family": "ip", "table": "t", "name": "f", "hook": "ingress", "prio": 0, "dev": ["lo", "eth0"]}}}),
            "add flowtable ip t f { hook ingress priority 0; devices = { \"lo\", \"eth0\" }; }\n",
        ),
        (
            json!({"add": {"rule": {"family": "ip", "table": "t", "chain": "c", "expr": ["jump {\n\taccept comment \"} x\"\n}"]}}}),
            "add rule ip t c jump {\n\taccept comment \"} x\"\n}\n",
        ),
        (json!({"flush": {"ruleset": null}}), "flush ruleset\n"),
        (json!({"flush": {"chain": at("c")}}), "flush chain inet t c\n"),
        (json!({"destroy": {"set": at("s")}}), "destroy set inet t s\n"),
        (json!({"list": {"ruleset": {"family": "ip6"}}}), "list ruleset ip6\n"),
        (json!({"list": {"counters": {"family": "inet", "table": "t"}}}), "list counters table inet t\n"),
        (json!({"reset": {"counter": at("web")}}), "reset counter inet t web\n"),
        (json!({"list": {"tables": null}}), "list tables\n"),
    ] {
        let document = json!({"nftables": [command]}).to_string();
        assert_eq!(json_to_script(&document).as_deref(), Ok(line), "{document}");
    }
}

#[test]
fn names_and_texts_cannot_end_a_command() {
    let rule = |expr: serde_json::Value| json!({"rule": {"family": "ip", "table": "t", "chain": "c", "expr": [expr]}});
    for command in [
        json!({"table": {"family": "ip", "name": "t; flush ruleset"}}),
        json!({"table": {"family": "ip", "name": "t\nflush ruleset"}}),
        json!({"table": {"family": "ip", "name": "t", "comment": "\"; } flush ruleset"}}),
        json!({"flush": {"set": {"family": "ip t s; delete table", "table": "t", "name": "s"}}}),
        rule(json!({"jump": {"target": "a; drop"}})),
        rule(json!("accept")),
        rule(json!("jump { accept; } accept")),
        rule(json!("jump { accept; }\nflush ruleset")),
        rule(json!("goto { accept; }; flush ruleset; add rule ip t c jump { accept; }")),
        rule(json!("jump { accept; # }")),
        rule(json!({"log": {"prefix": "a\" drop comment \""}})),
        rule(json!({"log": {"level": "info; accept"}})),
        rule(json!({"counter": "x\" accept"})),
        rule(json!({"match": {"op": "== 1 accept #", "left": {"meta": {"key": "mark"}}, "right": 1}})),
        rule(json!({"match": {"op": "==", "left": {"meta": {"key": "mark 1 accept"}}, "right": 1}})),
        rule(json!({"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth0\" accept #"}})),
        rule(json!({"match": {"op": "==", "left": {"ct": {"key": "state new;"}}, "right": 1}})),
        rule(
            json!({"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr 1.1.1.1 }"}}, "right": 1}}),
        ),
    ] {
        let document = json!({"nftables": [command]}).to_string();
        assert!(json_to_script(&document).is_err(), "{document}: {:?}", json_to_script(&document));
    }
}

#[test]
fn errors_name_their_place() {
    for (document, words) in [
        ("{", "a document {\"nftables\": […]} is expected"),
        ("{\"nftables\": [5]}", "nftables[0]: a command is an object"),
        (
            "{\"nftables\": [{\"table\": {\"name\": \"a\"}}, {\"add\": {\"nonsense\": {}}}]}",
            "nftables[1]: add: unknown variant `nonsense`",
        ),
        (
            "{\"nftables\": [{\"rule\": {\"family\": \"ip\", \"table\": \"t\", \"chain\": \"c\", \"expr\": [{\"accept\": null}, {\"jump\": {\"target\": \"\"}}]}}]}",
            "nftables[0]: expr[1]: \"\" is not a name or a value",
        ),
        ("{\"nftables\": [{\"metainfo\": {\"json_schema_version\": 2}}]}", "schema version 2 is newer than 1"),
        (
            "{\"nftables\": [{\"rule\": {\"family\": \"ip\", \"table\": \"t\", \"chain\": \"c\"}}]}",
            "the rule has no expr",
        ),
    ] {
        let error = json_to_script(document).unwrap_err().to_string();
        assert!(error.contains(words), "{document}: {error}");
    }
}

#[test]
fn a_wrong_statement_is_named() {
    for (statement, expected) in [
        (r#"{"acept": null}"#, "expr[1]: the statement `acept` is unknown"),
        (r#"{"fwd": {"dev": "eth0"}}"#, "expr[1]: the statement `fwd` is not supported"),
        (r#"{"xt": null}"#, "expr[1]: the statement `xt` is not supported"),
        (
            r#"{"match": {"left": 1}}"#,
            "expr[1]: the statement `match` is unknown, or what it holds is not in the schema",
        ),
        ("7", "expr[1]: a statement is an object with one name"),
    ] {
        let rule =
            format!(r#"{{"family": "ip", "table": "t", "chain": "c", "expr": [{{"accept": null}}, {statement}]}}"#);
        let text = format!(r#"{{"nftables": [{{"rule": {rule}}}]}}"#);
        let error = json_to_script(&text).unwrap_err().to_string();
        assert!(error.starts_with("nftables[0]: rule: ") && error.contains(expected), "{error}");
    }
}
