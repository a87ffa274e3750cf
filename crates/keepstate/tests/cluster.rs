//! Two real gateways that share their table over a real nats-server: killed, and changed as planned, under connections of the kernel's own TCP.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "common/cluster_pair.rs"]
mod cluster_pair;
mod common;
#[path = "common/peers.rs"]
mod peers;

use cluster_pair::{CONNECTIONS, Cluster, RULES, use_all};
use common::keepstate;
use peers::{run_ip, spawn_in_netns};
use std::fs;
use std::net::UdpSocket;

#[test]
fn connections_go_on_after_the_active_gateway_is_killed() {
    let Some(mut cluster) = Cluster::new("k") else { return };
    cluster.start(0, "2s", RULES);
    cluster.wait("an active gateway", |cluster| cluster.role(0) == "active");
    cluster.start(1, "2s", RULES);
    cluster.use_gateway(0);
    cluster.serve_echo();
    let mut connections = cluster.open(CONNECTIONS);
    use_all(&mut connections, || cluster.logs());
    cluster.wait_in_step(0, 1);
    assert_eq!(
        (cluster.control(0, &["cluster", "--check"]).0, cluster.control(1, &["cluster", "--check"]).0),
        (Some(0), Some(1))
    );
    // A standby is silent, whatever comes.
    assert!(run_ip(&["-n", &cluster.netns("c"), "route", "add", "203.0.113.0/24", "dev", "lan1"]));
    let send = || UdpSocket::bind("10.1.0.2:0").unwrap().send_to(b"x", "203.0.113.1:9").unwrap();
    spawn_in_netns(&cluster.netns("c"), send).join().unwrap();
    cluster.wait("a packet that the standby drops", |cluster| {
        cluster.json(1, &["stats", "--json"])["cluster_dropped_standby"].as_u64() > Some(0)
    });
    assert_eq!(cluster.json(1, &["stats", "--json"])["forwarded"], 0);
    assert_eq!(cluster.logged_sessions(1), [0, 0], "what it is only told of is in the other one's flow log");
    cluster.wait("sessions in the flow log", |cluster| cluster.logged_sessions(0) == [CONNECTIONS, 0]);

    let active = cluster.gateways[0].as_mut().unwrap();
    active.kill().unwrap();
    active.wait().unwrap();
    cluster.wait("a takeover", |cluster| cluster.role(1) == "active");
    cluster.use_gateway(1);
    use_all(&mut connections, || cluster.logs());
    let (_, listed) = cluster.control(1, &["list", "-p", "tcp"]);
    assert_eq!(listed.lines().count(), CONNECTIONS, "{listed}");
    use_all(&mut cluster.open(5), || cluster.logs());
    cluster.wait("new sessions in its flow log", |cluster| cluster.logged_sessions(1)[0] == 5);

    // The one that was killed comes back as a standby with the newer table.
    cluster.start(0, "2s", RULES);
    cluster.wait_in_step(1, 0);
    assert_eq!(cluster.role(0), "standby");
}

#[test]
fn a_planned_change_loses_nothing_and_a_foreign_ruleset_is_told() {
    let Some(mut cluster) = Cluster::new("p") else { return };
    cluster.start(0, "manual", RULES);
    cluster.start(1, "manual", &format!("{RULES}# another one\n"));
    assert_eq!(cluster.role(0), "standby", "nobody was promoted");
    let (code, said) = cluster.control(0, &["nft", "add rule ip nat post masquerade"]);
    assert!(
        code == Some(1) && said.contains("nothing was changed") && said.contains("write snat to ADDRESS"),
        "{said}"
    );
    let (code, said) = cluster.control(0, &["promote", "other"]);
    assert!(code == Some(1) && said.contains("no shard \"other\""), "{said}");
    let (code, said) = cluster.control(0, &["promote", "main"]);
    assert!(code == Some(0) && said.contains("active in epoch 1"), "{said}");
    cluster.use_gateway(0);
    cluster.serve_echo();
    let mut connections = Vec::new();
    for (round, [from, to]) in [[0, 1], [1, 0], [0, 1]].into_iter().enumerate() {
        cluster.wait_in_step(from, to);
        // The newest connections were made just before the change.
        connections.extend(cluster.open(CONNECTIONS / 4));
        let (code, said) = cluster.control(from, &["demote"]);
        assert!(code == Some(0) && said.contains("standby"), "{said}\n{}", cluster.logs());
        let (code, said) = cluster.control(to, &["promote"]);
        assert!(
            code == Some(0) && said.contains(&format!("active in epoch {}", round + 2)),
            "{said}\n{}",
            cluster.logs()
        );
        cluster.use_gateway(to);
        use_all(&mut connections, || cluster.logs());
    }
    cluster.wait("the difference", |cluster| {
        cluster.control(0, &["cluster"]).1.contains("gw1 does not run the same: its ruleset differs")
    });
}

#[test]
fn a_cluster_needs_an_address_that_moves_and_no_state_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    fs::write(folder.path().join("r.nft"), RULES.replace("snat to 192.0.2.77:40000-44095", "masquerade")).unwrap();
    let text = "version = 1\nruleset = \"r.nft\"\ninterface = [\"eth0\"]\nstate = \"state\"\n[cluster]\nnode = \"gw.1\"\nservers = [\"http://x\"]\nlease = \"0.1s\"\n";
    fs::write(&file, text).unwrap();
    let ran = keepstate(&["check", file.to_str().unwrap()], b"");
    assert_eq!(ran.code, Some(1));
    for words in [
        "r.nft:5:",
        "masquerade takes an address of this machine alone",
        "help: write snat to ADDRESS",
        "8:9: a lease is 500ms to 60s",
    ] {
        assert!(ran.out.contains(words), "{words}: {}", ran.out);
    }
    fs::write(&file, text.replace("0.1s", "2s")).unwrap();
    let ran = keepstate(&["check", file.to_str().unwrap()], b"");
    for words in ["4:9: state and [cluster]", "6:8: \"gw.1\": a name has"] {
        assert!(ran.out.contains(words), "{words}: {}", ran.out);
    }
    fs::write(&file, text.replace("0.1s", "2s").replace("gw.1", "gw1").replace("state = \"state\"\n", "")).unwrap();
    let ran = keepstate(&["check", file.to_str().unwrap()], b"");
    assert!(ran.out.contains("invalid scheme for NATS server URL: http. Write nats://HOST:PORT"), "{}", ran.out);
    let ran = keepstate(&["gateway", "--config", file.to_str().unwrap()], b"");
    assert!(ran.code == Some(1) && ran.err.contains("masquerade takes an address"), "{}", ran.err);
}
