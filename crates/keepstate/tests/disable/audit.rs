//! Who depends on tracking: each kind that can be made here is found, a clean namespace has none, and what cannot be seen is said.
use super::netns_pair::{NetnsPair, disable, report_skipped};
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Who was found: `need by place`.
fn dependents_in(document: &Value) -> Vec<String> {
    let dependents = document["dependents"].as_array().unwrap().iter();
    // What runs on the machine is not the test's affair.
    let inside = dependents.filter(|one| !one["namespace"].is_null());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    inside.map(|one| format!("{} {} {}", text(&one["need"]), text(&one["by"]), text(&one["place"]))).collect()
}

#[test]
fn clean_namespace_has_no_dependents() {
    let Some(place) = NetnsPair::new("clean") else { return };
    let (document, _) = place.disable_json(&[]);
    assert_eq!(dependents_in(&document), [""; 0], "{document}");
    assert_eq!(document["namespaces"][0]["name"], place.server);
    // Rules that look at no state change nothing.
    place.nft("table inet f { chain i { type filter hook input priority 0; policy drop; tcp dport 22 accept; iif lo accept; }; }");
    assert_eq!(dependents_in(&place.disable_json(&[]).0), [""; 0]);
    let ran = place.disable(&[]);
    let quiet =
        document["dependents"].as_array().unwrap().is_empty() && document["unseen"].as_array().unwrap().is_empty();
    if quiet {
        assert_eq!((ran.code, document["may_be_disabled"].as_str()), (Some(0), Some("yes")), "{}", ran.out);
        assert!(ran.out.starts_with("Connection tracking can be turned off"), "{}", ran.out);
    } else {
        report_skipped("the verdict of a clean namespace: something else on this machine depends on tracking");
    }
}

#[test]
fn finds_every_kind_of_nftables_rule() {
    let Some(place) = NetnsPair::new("nft") else { return };
    for (need, body) in [
        ("state", "chain c { type filter hook input priority 0; ct state established accept; }"),
        ("state", "chain c { type filter hook input priority 0; ct state vmap { invalid : drop, new : accept }; }"),
        ("match", "chain c { type filter hook input priority 0; ct status assured accept; }"),
        ("mark", "chain c { type filter hook input priority 0; ct mark set 1; }"),
        ("mark", "chain c { type filter hook prerouting priority -150; meta mark set ct mark; }"),
        ("zone", "chain c { type filter hook prerouting priority -300; ct zone set 1; }"),
        (
            "limit",
            "set s { type ipv4_addr; flags dynamic; }; chain c { type filter hook input priority 0; add @s { ip saddr ct count over 9 } drop; }",
        ),
        ("nat", "chain c { type nat hook postrouting priority 100; masquerade; }"),
        ("nat", "chain c { type nat hook prerouting priority -100; tcp dport 80 redirect to :8080; }"),
        ("nat", "chain c { type nat hook prerouting priority -100; tcp dport 80 dnat to 10.0.0.1; }"),
        ("nat", "chain c { type nat hook postrouting priority 100; snat to 10.0.0.1; }"),
        (
            "helper",
            "ct helper h { type \"ftp\" protocol tcp; }; chain c { type filter hook prerouting priority 0; tcp dport 21 ct helper set \"h\"; }",
        ),
        ("timeout", "ct timeout t { protocol tcp; policy = { established: 100 }; }"),
        ("expectation", "ct expectation e { protocol tcp; dport 9; timeout 2m; size 1; l3proto ip; }"),
        ("synproxy", "chain c { type filter hook input priority 0; tcp dport 80 synproxy mss 1460 wscale 7; }"),
        ("idle-nat", "chain c { type nat hook postrouting priority 100; }"),
        ("notrack", "chain c { type filter hook prerouting priority -300; tcp dport 80 notrack; }"),
        ("harmless", "chain c { type filter hook input priority 0; ct state untracked accept; }"),
    ] {
        place.nft(&format!("table ip t {{ {body}; }}"));
        let (document, code) = place.disable_json(&[]);
        let found = dependents_in(&document);
        assert!(found.iter().any(|one| one.starts_with(&format!("{need} nftables ip t"))), "{body}: {found:?}");
        if !["idle-nat", "notrack", "harmless"].contains(&need) {
            assert_eq!((code, document["may_be_disabled"].as_str()), (Some(1), Some("no")), "{body}");
        }
        place.nft("delete table ip t");
    }
}

#[test]
fn finds_iptables_legacy_and_nft_rules() {
    let Some(place) = NetnsPair::new("ipt") else { return };
    for (program, by, family) in [
        ("iptables-legacy", "iptables-legacy", "ip"),
        ("ip6tables-legacy", "iptables-legacy", "ip6"),
        ("iptables-nft", "iptables-nft", "ip"),
        ("ip6tables-nft", "iptables-nft", "ip6"),
    ] {
        for (need, rule) in [
            ("state", "-A INPUT -m state --state ESTABLISHED -j ACCEPT"),
            ("state", "-A INPUT -m conntrack --ctstate NEW -j DROP"),
            ("mark", "-A INPUT -m connmark --mark 1 -j ACCEPT"),
            ("mark", "-t mangle -A PREROUTING -j CONNMARK --save-mark"),
            ("limit", "-A INPUT -p tcp -m connlimit --connlimit-above 10 -j DROP"),
            ("match", "-A INPUT -m connbytes --connbytes 10 --connbytes-dir both --connbytes-mode packets -j ACCEPT"),
            ("helper", "-A INPUT -m helper --helper ftp -j ACCEPT"),
            ("helper", "-t raw -A PREROUTING -p tcp --dport 21 -j CT --helper ftp"),
            ("zone", "-t raw -A PREROUTING -j CT --zone 1"),
            ("notrack", "-t raw -A PREROUTING -j CT --notrack"),
            ("nat", "-t nat -A POSTROUTING -j MASQUERADE"),
            ("nat", "-t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080"),
        ] {
            let words: Vec<&str> = std::iter::once(program).chain(rule.split(' ')).collect();
            if !place.try_run(&words) {
                report_skipped(&format!("{program} {rule}: the kernel or the program has no such thing"));
                continue;
            }
            let (document, _) = place.disable_json(&[]);
            let found = dependents_in(&document);
            assert!(
                found.iter().any(|one| one.starts_with(&format!("{need} {by} {family} "))),
                "{program} {rule}: {found:?}"
            );
            let gone: Vec<&str> = words.iter().map(|word| if *word == "-A" { "-D" } else { *word }).collect();
            place.run(&gone);
        }
    }
    // The tables of nat are still there, and hold tracking; nothing breaks.
    let (document, _) = place.disable_json(&[]);
    let idle = document["dependents"].as_array().unwrap().iter().filter(|one| !one["namespace"].is_null());
    assert!(idle.clone().count() > 0 && idle.clone().all(|one| one["idle"] == true), "{document}");
}

/// iptables leaves out what is not its own of a table that has its name.
#[test]
fn finds_foreign_chains_in_iptables_tables() {
    let Some(place) = NetnsPair::new("mix") else { return };
    place.nft("table ip nat { chain mine { type nat hook postrouting priority 90; oifname eth9 masquerade; }; }");
    let found = dependents_in(&place.disable_json(&[]).0);
    assert_eq!(found, ["nat nftables ip nat mine"]);
}

#[test]
fn services_are_recognized_by_their_chains() {
    let Some(place) = NetnsPair::new("docker") else { return };
    for rule in
        ["-N DOCKER", "-A DOCKER -p tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80", "-A PREROUTING -j DOCKER"]
    {
        place.run(&[&["iptables-nft", "-t", "nat"][..], &rule.split(' ').collect::<Vec<_>>()].concat());
    }
    let (document, _) = place.disable_json(&[]);
    let rule = document["dependents"].as_array().unwrap().iter().find(|one| one["need"] == "nat").unwrap();
    assert_eq!((rule["owner"].as_str(), rule["number"].as_u64()), (Some("Docker"), Some(1)));
    let ran = place.disable(&[]);
    assert!(ran.out.contains("--to-destination 172.17.0.2:80 [Docker]"), "{}", ran.out);
    assert!(ran.out.contains("addresses are not translated: connections through it end"), "{}", ran.out);
}

#[test]
fn every_namespace_is_searched() {
    let Some(place) = NetnsPair::new("all") else { return };
    place.nft("table ip t { chain c { type nat hook postrouting priority 100; masquerade; }; }");
    let ran = disable(&["--json"], None);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let document: Value = serde_json::from_str(&ran.out).unwrap();
    let dependents = document["dependents"].as_array().unwrap();
    assert!(dependents.iter().any(|one| one["namespace"] == place.server && one["need"] == "nat"), "{document}");
    // A bound that leaves some out says so, and is no clean answer.
    let ran = disable(&["--json", "--namespaces", "1"], None);
    let document: Value = serde_json::from_str(&ran.out).unwrap();
    let unseen = document["unseen"].as_array().unwrap();
    assert!(unseen.iter().any(|one| one["what"].as_str().unwrap().ends_with("more network namespaces")), "{document}");
    assert_ne!(ran.code, Some(0));
}

#[test]
fn finds_tc_ct_actions() {
    let Some(place) = NetnsPair::new("tc") else { return };
    place.run(&["tc", "qdisc", "add", "dev", "cable", "clsact"]);
    let filter = ["tc", "filter", "add", "dev", "cable", "ingress", "matchall", "action", "ct"];
    if !place.try_run(&filter) {
        assert_eq!(dependents_in(&place.disable_json(&[]).0), [""; 0]);
        return report_skipped("tc's action ct: this kernel has none");
    }
    assert_eq!(dependents_in(&place.disable_json(&[]).0), ["tc tc dev cable ingress"]);
}

#[test]
fn reports_what_it_cannot_read_without_root() {
    // Where its file is may be closed to others: a copy is not.
    let copy = std::env::temp_dir().join(format!("keepstate-unprivileged-{}", std::process::id()));
    std::fs::copy(env!("CARGO_BIN_EXE_keepstate"), &copy).unwrap();
    let mut command = Command::new(&copy);
    command.args(["disable", "--json"]).current_dir("/");
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(65534).gid(65534);
    }
    let ended = command.output();
    let _ = std::fs::remove_file(&copy);
    let ended = ended.unwrap();
    let document: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let unseen = document["unseen"].as_array().unwrap();
    assert!(unseen.iter().any(|one| one["what"] == "nftables' rules"), "{document}");
    assert!(unseen.iter().all(|one| !one["why"].as_str().unwrap().is_empty()), "{document}");
    let nothing = document["dependents"].as_array().unwrap().is_empty();
    let expected = if nothing { (Some(3), "unknown") } else { (Some(1), "no") };
    assert_eq!((ended.status.code(), document["may_be_disabled"].as_str().unwrap()), expected);
}

#[test]
fn unload_is_refused_while_dependents_exist() {
    let Some(place) = NetnsPair::new("unload") else { return };
    place.nft("table ip t { chain c { type nat hook postrouting priority 100; masquerade; }; }");
    let ran = disable(&["--unload"], None);
    assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("unload refused"), "{}", ran.err);
    let module = std::path::Path::new("/sys/module/nf_conntrack/initstate").exists();
    assert!(ran.err.contains(if module { "is in use" } else { "built into this kernel" }), "{}", ran.err);
}
