//! Services that are not tracked: the file, what stands in its way, and what real connections leave in the table.
use super::netns_pair::{NetnsPair, SERVER, disable};

/// Something that asks for tracking, and lets everything pass.
const TRACKING_RULES: &str = "table inet tracks { chain c { type filter hook prerouting priority 0; ct state new counter; }; \
                      chain o { type filter hook output priority 0; ct state new counter; }; }";

/// The firewall of many a server.
const STATEFUL_FIREWALL: &str = "table inet firewall { chain input { type filter hook input priority 0; policy drop; \
                        ct state established,related accept; tcp dport { 22, 1883 } ct state new accept; }; \
                        chain output { type filter hook output priority 0; policy accept; }; }";

#[test]
fn untracked_ports_create_no_entries() {
    let Some(place) = NetnsPair::new("works") else { return };
    place.nft(TRACKING_RULES);
    assert!(place.can_connect(1883));
    assert_eq!(place.count_entries(1883), 1, "it is tracked before");
    place.run(&["conntrack", "-D", "-p", "tcp", "--dport", "1883"]);
    let ran = place.disable(&["--ports", "tcp/1883,tcp/8883", "--lifeline", "tcp/22", "--apply"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("conntrack -D -p tcp --dport 8883"), "{}", ran.err);
    for port in [22, 1883, 8883, 80] {
        assert!(place.can_connect(port), "{port}");
    }
    let entries = [22, 1883, 8883, 80].map(|port| place.count_entries(port));
    assert_eq!(entries, [0, 0, 0, 1], "the ports and the lifeline are not tracked, others are");
    let version_6 = "fd77::1".parse().unwrap();
    assert!([22, 1883, 81].into_iter().all(|port| place.can_connect_to(version_6, port)));
    assert_eq!([22, 1883, 81].map(|port| place.count_entries(port)), [0, 0, 1], "and so it is with IPv6");
    // Again: the same table, once. Away, and away again.
    let before = place.run(&["nft", "list", "ruleset"]);
    assert_eq!(place.disable(&["--ports", "tcp/1883,tcp/8883", "--lifeline", "tcp/22", "--apply"]).code, Some(0));
    assert_eq!(place.run(&["nft", "list", "ruleset"]), before);
    for _ in 0..2 {
        assert_eq!(place.disable(&["--remove"]).code, Some(0));
        assert!(!place.run(&["nft", "list", "ruleset"]).contains("keepstate_notrack"));
    }
    assert!(place.can_connect(1883));
    assert_eq!(place.count_entries(1883), 1, "it is tracked again");
}

#[test]
fn only_served_ports_are_untracked() {
    let Some(place) = NetnsPair::new("served") else { return };
    place.nft(TRACKING_RULES);
    assert_eq!(place.disable(&["--ports", "tcp/1883", "--server-only", "--lifeline", "none", "--apply"]).code, Some(0));
    assert!(place.can_connect(1883) && place.can_connect(22));
    assert_eq!((place.count_entries(1883), place.count_entries(22)), (0, 1));
}

#[test]
fn nft_accepts_the_generated_file() {
    let Some(place) = NetnsPair::new("file") else { return };
    let path = std::env::temp_dir().join(format!("keepstate-notrack-{}.nft", std::process::id()));
    let path = path.to_str().unwrap();
    let ran = place.disable(&[
        "--ports",
        "tcp/1883,udp/53,sctp/9",
        "--ports",
        "tcp/8883",
        "--lifeline",
        "tcp/22",
        "-o",
        path,
    ]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""), "{}", ran.err);
    let text = std::fs::read_to_string(path).unwrap();
    std::fs::remove_file(path).unwrap();
    place.nft_with(&["-c", "-f", "-"], &text).unwrap();
    assert!(!place.run(&["nft", "list", "ruleset"]).contains("keepstate"), "nothing is loaded without --apply");
    // It loads twice without being doubled, as at a reload of the firewall.
    place.nft(&text);
    let once = place.run(&["nft", "list", "ruleset"]);
    place.nft(&text);
    assert_eq!(place.run(&["nft", "list", "ruleset"]), once);
    let (document, code) = place.disable_json(&["--ports", "tcp/1883", "--lifeline", "none"]);
    assert_eq!(code, Some(0));
    place.nft_with(&["-c", "-f", "-"], document["file"].as_str().unwrap()).unwrap();
}

#[test]
fn management_port_is_that_of_the_ssh_session() {
    let Some(place) = NetnsPair::new("ssh") else { return };
    let arguments = ["--netns", place.server.as_str(), "--ports", "tcp/1883"];
    let ran = disable(&arguments, Some("192.0.2.7 50022 192.0.2.1 2222"));
    let lines: Vec<&str> = ran.out.lines().filter(|line| line.contains("2222 notrack")).map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "fib daddr type local tcp dport 2222 notrack comment \"lifeline: requests\"",
            "tcp sport 2222 notrack comment \"lifeline: replies\""
        ]
    );
    let none = disable(&[&arguments[..], &["--lifeline", "none"]].concat(), Some("192.0.2.7 50022 192.0.2.1 2222"));
    assert!(!none.out.contains("2222"), "{}", none.out);
}

#[test]
fn stateful_nftables_rules_are_reported_and_fixed() {
    let Some(place) = NetnsPair::new("mend") else { return };
    place.nft(STATEFUL_FIREWALL);
    let ports = ["--ports", "tcp/1883", "--lifeline", "tcp/22", "--server-only"];
    let ran = place.disable(&[&ports[..], &["--apply"]].concat());
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    for says in [
        "packets to tcp/1883 would be dropped",
        "packets to tcp/22 would be dropped",
        "ct state established,related accept",
    ] {
        assert!(ran.err.contains(says), "{says}: {}", ran.err);
    }
    assert!(ran.err.contains("nothing was loaded"), "{}", ran.err);
    assert!(place.can_connect(1883), "nothing was changed");
    assert_eq!(place.count_entries(1883), 1);
    place.run(&["conntrack", "-D", "-p", "tcp", "--dport", "1883"]);
    // It is no false alarm: loaded nevertheless, nobody gets in.
    assert_eq!(place.disable(&[&ports[..], &["--apply", "--force"]].concat()).code, Some(0));
    assert!(!place.can_connect(1883) && !place.can_connect(22));
    // The mends are what it takes, and then there is nothing left to say.
    let (document, _) = place.disable_json(&ports);
    let mends = document["mends"].as_array().unwrap();
    assert_eq!(mends.len(), 2, "{document}");
    for mend in mends {
        assert_eq!(mend["certain"], true);
        place.run(&["sh", "-c", mend["command"].as_str().unwrap()]);
    }
    assert!(place.can_connect(1883) && place.can_connect(22));
    let ran = place.disable(&[&ports[..], &["--apply"]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(place.count_entries(1883), 0);
    // Clients here, and what they are answered, are the other half.
    let (document, code) = place.disable_json(&["--ports", "tcp/1883", "--lifeline", "none"]);
    let packets: Vec<&str> =
        document["mends"].as_array().unwrap().iter().filter_map(|mend| mend["packets"].as_str()).collect();
    assert_eq!((code, packets), (Some(1), vec!["packets from tcp/1883"]), "{document}");
    place.run(&["sh", "-c", document["mends"][0]["command"].as_str().unwrap()]);
    assert_eq!(place.disable_json(&["--ports", "tcp/1883", "--lifeline", "none"]).1, Some(0));
}

/// Both ways, and with iptables: its commands are mends as well.
#[test]
fn stateful_iptables_rules_are_fixed() {
    let Some(place) = NetnsPair::new("mendipt") else { return };
    for rule in [
        "-P INPUT DROP",
        "-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT",
        "-A INPUT -p tcp --dport 1883 -m state --state NEW -j ACCEPT",
    ] {
        place.run(&[&["iptables-legacy"][..], &rule.split(' ').collect::<Vec<_>>()].concat());
    }
    let ports = ["--ports", "tcp/1883", "--lifeline", "none"];
    let (document, code) = place.disable_json(&ports);
    let mends = document["mends"].as_array().unwrap();
    assert_eq!((code, mends.len()), (Some(1), 2), "{document}");
    for mend in mends {
        place.run(&["sh", "-c", mend["command"].as_str().unwrap()]);
    }
    let ran = place.disable(&[&ports[..], &["--apply"]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(place.can_connect(1883));
    assert_eq!(place.count_entries(1883), 0);
}

#[test]
fn nat_ports_are_refused() {
    let Some(place) = NetnsPair::new("nat") else { return };
    place.nft(&format!(
        "table ip n {{ chain c {{ type nat hook prerouting priority -100; tcp dport 1883 dnat to {SERVER}:8883; }}; }}"
    ));
    let path = std::env::temp_dir().join(format!("keepstate-refused-{}.nft", std::process::id()));
    for port in ["tcp/1883", "tcp/8883"] {
        for more in [&["--force", "--apply"][..], &["-o", path.to_str().unwrap()], &["--json", "--force"]] {
            let ran = place.disable(&[&["--ports", port, "--lifeline", "none"], more].concat());
            assert_eq!(ran.code, Some(1), "{port} {more:?}");
            assert!(ran.err.contains(&format!("ip n c #2 translates packets of {port}")), "{port}: {}", ran.err);
        }
    }
    assert!(!path.exists(), "nothing is written");
    assert!(!place.run(&["nft", "list", "ruleset"]).contains("keepstate"), "nothing is loaded");
    assert_eq!(place.disable(&["--ports", "tcp/80", "--lifeline", "none"]).code, Some(0));
    // Masquerading for others is in the way only of what passes through.
    place.nft("table ip m { chain c { type nat hook postrouting priority 100; ip saddr 172.17.0.0/16 masquerade; }; }");
    let ran = place.disable(&["--ports", "tcp/80", "--lifeline", "none"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("may translate packets of tcp/80") && ran.err.contains("--server-only"), "{}", ran.err);
    assert_eq!(place.disable(&["--ports", "tcp/80", "--lifeline", "none", "--server-only"]).code, Some(0));
}

#[test]
fn usage_errors() {
    for (arguments, says) in [
        (&["--apply"][..], "--ports"),
        (&["--ports", "1883"], "like tcp/1883"),
        (&["--ports", "tcp/1883", "--remove"], "cannot be used with"),
        (&["--ports", "tcp/1883", "--lifeline", "ssh"], "or none"),
        (&["--namespaces", "0"], "at least 1"),
    ] {
        let ran = disable(arguments, None);
        assert_eq!(ran.code, Some(2), "{arguments:?}");
        assert!(ran.err.contains(says), "{arguments:?}: {}", ran.err);
    }
    let ran = disable(&["--netns", "no-such-place"], None);
    assert_eq!(ran.code, Some(3));
    assert!(ran.err.contains("ip netns"), "{}", ran.err);
}
