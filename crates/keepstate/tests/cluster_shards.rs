//! Two real gateways that each decide one of two shards, over a real nats-server: the same rules give each its own outside address, and when one is killed the other takes its shard over while its own
//! connections go on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "common/cluster_pair.rs"]
mod cluster_pair;
mod common;
#[path = "common/peers.rs"]
mod peers;
#[path = "common/two_shards.rs"]
mod two_shards;

use cluster_pair::{Cluster, SERVER, use_all};
use common::keepstate;
use peers::run_ip;
use std::collections::BTreeSet;
use std::fs;
use two_shards::two_shards;

/// One rule for both shards: a list of addresses, which each gateway cuts to those it decides.
const RULES: &str = "
table ip nat {
	chain post {
		type nat hook postrouting priority srcnat;
		oifname \"wan*\" meta l4proto { tcp, udp } snat to 192.0.2.77-192.0.2.78:40000-44095
	}
}
";
/// Its packets go by the second gateway.
const SOUTH_SERVER: &str = "192.0.2.10:7000";
const CONNECTIONS: usize = 40;

/// Packets of clients to this server, and of all to this outside address, go by this gateway.
fn route(cluster: &Cluster, server: &str, outside: &str, index: usize) {
    for (side, address, device) in [("c", server, "lan"), ("s", outside, "wan")] {
        let (address, device) = (format!("{address}/32"), format!("{device}{index}"));
        assert!(run_ip(&["-n", &cluster.netns(side), "route", "replace", &address, "dev", &device]));
    }
}

/// The outside addresses of the connections that a gateway has.
fn outside_addresses(cluster: &Cluster, index: usize) -> BTreeSet<String> {
    let address = |line: &String| Some(line.rsplit_once(" dst=")?.1.split(' ').next()?.to_owned());
    cluster.table(index).iter().filter_map(address).collect()
}

/// Waits until both have the whole table of a shard.
fn wait_in_step(cluster: &Cluster, shard: &str, [active, standby]: [usize; 2]) {
    cluster.wait("the whole table of a shard", |cluster| {
        let (ours, theirs) = (cluster.shard(active, shard), cluster.shard(standby, shard));
        ours["in_step"] == true
            && theirs["in_step"] == true
            && theirs["sequence"] == ours["sequence"]
            && cluster.control(active, &["count"]) == cluster.control(standby, &["count"])
    });
}

#[test]
fn a_killed_gateways_shard_is_taken_over_while_the_other_ones_connections_go_on() {
    let Some(mut cluster) = Cluster::new("h") else { return };
    assert!(run_ip(&["-n", &cluster.netns("s"), "addr", "add", "192.0.2.10/32", "dev", "lo"]));
    cluster.start_as(0, &two_shards("2s"), RULES);
    cluster.wait("an active gateway", |cluster| {
        ["north", "south"].iter().all(|shard| cluster.shard_role(0, shard) == "active")
    });
    cluster.start_as(1, &two_shards("2s"), RULES);
    ["north", "south"].iter().for_each(|shard| wait_in_step(&cluster, shard, [0, 1]));
    let (code, said) = cluster.control(0, &["demote"]);
    assert!(code == Some(1) && said.contains("which shard? This gateway's are \"north\", \"south\""), "{said}");
    let (code, said) = cluster.control(0, &["demote", "south"]);
    assert!(code == Some(0) && said.contains("shard south: standby"), "{said}\n{}", cluster.logs());
    cluster.wait("the other gateway", |cluster| cluster.shard_role(1, "south") == "active");
    assert_eq!([cluster.shard_role(0, "north"), cluster.shard_role(1, "north")], ["active", "standby"]);
    let fit = |index, shard| cluster.control(index, &["cluster", "--check", shard]).0;
    assert_eq!([fit(0, "north"), fit(0, "south"), fit(1, "north"), fit(1, "south")], [0, 1, 1, 0].map(Some));

    let (code, said) = cluster.control(1, &["nft", "add rule ip nat post snat to 192.0.2.79"]);
    assert!(
        code == Some(1) && said.contains("nothing was changed") && said.contains("snat to an address of no shard"),
        "{said}"
    );

    route(&cluster, "192.0.2.9", "192.0.2.77", 0);
    route(&cluster, "192.0.2.10", "192.0.2.78", 1);
    [SERVER, SOUTH_SERVER].into_iter().for_each(|server| cluster.serve_echo_at(server));
    let mut north = cluster.open_to(SERVER, CONNECTIONS);
    assert_eq!(outside_addresses(&cluster, 0), BTreeSet::from(["192.0.2.77".to_owned()]));
    let mut south = cluster.open_to(SOUTH_SERVER, CONNECTIONS);
    [&mut north, &mut south].into_iter().for_each(|all| use_all(all, || cluster.logs()));
    wait_in_step(&cluster, "north", [0, 1]);
    wait_in_step(&cluster, "south", [1, 0]);
    assert_eq!(cluster.table(0).len(), 2 * CONNECTIONS, "each holds the other one's too");
    let begun = cluster.logged_sessions(0)[0] + cluster.logged_sessions(1)[0];
    assert_eq!(begun, 2 * CONNECTIONS, "each session is in the log of the gateway that decided it");
    // A packet that goes by the wrong gateway is dropped in silence, and harms nothing.
    let dropped = |index| cluster.json(index, &["stats", "--json"])["cluster_dropped_standby"].as_u64().unwrap();
    route(&cluster, "192.0.2.9", "192.0.2.77", 1);
    let before = dropped(1);
    std::io::Write::write_all(&mut north[0], b"astray  ").unwrap();
    cluster.wait("a packet that has gone astray", |_| dropped(1) > before);
    let of_shards = cluster.json(1, &["stats", "--json"])["shards"].clone();
    let astray = |shard: &str| of_shards[shard]["cluster_dropped_standby"].as_u64().unwrap();
    assert!(astray("north") > 0 && astray("south") == 0, "{of_shards}");
    route(&cluster, "192.0.2.9", "192.0.2.77", 0);
    let mut answer = [0; 8];
    std::io::Read::read_exact(&mut north[0], &mut answer).unwrap();
    assert_eq!(answer, *b"astray  ");

    let killed = cluster.gateways[0].as_mut().unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    cluster.wait("a takeover", |cluster| {
        use_all(&mut south, || cluster.logs());
        cluster.shard_role(1, "north") == "active"
    });
    route(&cluster, "192.0.2.9", "192.0.2.77", 1);
    [&mut north, &mut south].into_iter().for_each(|all| use_all(all, || cluster.logs()));
    assert_eq!(cluster.table(1).len(), 2 * CONNECTIONS, "no connection was picked up as a new one");
    // Now it gives addresses of both.
    let mut new = cluster.open_to(SERVER, CONNECTIONS);
    new.extend(cluster.open_to(SOUTH_SERVER, CONNECTIONS));
    use_all(&mut new, || cluster.logs());
    let stats = cluster.json(1, &["stats", "--json"]);
    assert_eq!([&stats["shards"]["north"]["cluster_role"], &stats["shards"]["south"]["cluster_role"]], [1, 1]);

    // The one that was killed comes back as a standby of both, and takes its share as planned.
    cluster.start_as(0, &two_shards("2s"), RULES);
    ["north", "south"].iter().for_each(|shard| wait_in_step(&cluster, shard, [1, 0]));
    assert_eq!(["north", "south"].map(|shard| cluster.shard_role(0, shard)), ["standby", "standby"]);
    let (code, said) = cluster.control(1, &["cluster", "--rebalance"]);
    assert_eq!((code, said.as_str()), (Some(0), "gw1 2: 0 shards taken over\n"), "nobody has more than it");
    let (code, said) = cluster.control(0, &["cluster", "--rebalance"]);
    assert_eq!((code, said.as_str()), (Some(0), "gw0 1, gw1 1: 1 shard taken over\n"), "{}", cluster.logs());
    assert_eq!(["north", "south"].map(|shard| cluster.shard_role(0, shard)), ["active", "standby"]);
    drop(new);
    route(&cluster, "192.0.2.9", "192.0.2.77", 0);
    [&mut north, &mut south].into_iter().for_each(|all| use_all(all, || cluster.logs()));
}

#[test]
fn a_gateway_that_comes_later_gets_its_share_by_itself_and_nothing_is_lost() {
    let Some(mut cluster) = Cluster::new("b") else { return };
    let keys = format!("balance = \"1s\"\n{}", two_shards("2s"));
    // Each server is reached by an address of its own.
    let rule = |server: &str, outside: &str| {
        format!("oifname \"wan*\" ip daddr {server} meta l4proto {{ tcp, udp }} snat to {outside}:40000-44095")
    };
    let [north, south] = [rule("192.0.2.9", "192.0.2.77"), rule("192.0.2.10", "192.0.2.78")];
    let chain = "type nat hook postrouting priority srcnat;";
    let rules = format!("table ip nat {{\n\tchain post {{\n\t\t{chain}\n\t\t{north}\n\t\t{south}\n\t}}\n}}\n");
    assert!(run_ip(&["-n", &cluster.netns("s"), "addr", "add", "192.0.2.10/32", "dev", "lo"]));
    cluster.start_as(0, &keys, &rules);
    cluster.wait("an active gateway", |cluster| {
        ["north", "south"].iter().all(|shard| cluster.shard_role(0, shard) == "active")
    });
    route(&cluster, "192.0.2.9", "192.0.2.77", 0);
    route(&cluster, "192.0.2.10", "192.0.2.78", 0);
    [SERVER, SOUTH_SERVER].into_iter().for_each(|server| cluster.serve_echo_at(server));
    let mut north = cluster.open_to(SERVER, CONNECTIONS);
    let mut south = cluster.open_to(SOUTH_SERVER, CONNECTIONS);
    [&mut north, &mut south].into_iter().for_each(|all| use_all(all, || cluster.logs()));
    cluster.start_as(1, &keys, &rules);
    cluster.wait("its share", |cluster| cluster.shard_role(1, "north") == "active");
    assert_eq!([cluster.shard_role(0, "north"), cluster.shard_role(0, "south")], ["standby", "active"]);
    route(&cluster, "192.0.2.9", "192.0.2.77", 1);
    [&mut north, &mut south].into_iter().for_each(|all| use_all(all, || cluster.logs()));
    let new = cluster.open_to(SERVER, 1);
    assert_eq!(cluster.table(1).iter().filter(|line| line.contains("dst=192.0.2.77")).count(), CONNECTIONS + new.len());
    let refused = cluster.control(1, &["cluster", "--rebalance", "north"]);
    assert_eq!(refused.0, Some(2), "{}", refused.1);
}

#[test]
fn shards_are_checked_with_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    let check = |keys: &str, rules: &str| {
        fs::write(folder.path().join("r.nft"), rules).unwrap();
        let head = "version = 1\nruleset = \"r.nft\"\ninterface = [\"eth0\"]\n[cluster]\nnode = \"gw\"\nservers = [\"nats://x\"]\n";
        fs::write(&file, format!("{head}{keys}")).unwrap();
        keepstate(&["check", file.to_str().unwrap()], b"")
    };
    let two = "shards = [{ name = \"a\", address = [\"192.0.2.77\"] }, { name = \"b\", address = [\"192.0.2.78\"] }]\n";
    let refused = [
        (format!("shard = \"x\"\n{two}"), "7:9: shard and shards: leave shard out"),
        (format!("address = [\"192.0.2.1\"]\n{two}"), "7:11: address and shards: leave address out"),
        (two.replace("\"b\"", "\"a\""), "\"a\": two shards of this name"),
        (two.replace("192.0.2.78", "192.0.2.77"), "192.0.2.77 stands twice: an address belongs to one shard"),
        (
            two.replace("192.0.2.78", "192.0.2.0/25"),
            "192.0.2.0/25 stands twice (in 192.0.2.77): an address belongs to one",
        ),
        (
            two.replace("192.0.2.78", "192.0.2.79/31"),
            "7:78: \"192.0.2.79/31\" has bits behind its length: write \"192.0.2.78/31\"",
        ),
        (two.replace("192.0.2.78", "somewhere"), "write an address or a prefix, like \"192.0.2.1\""),
        (two.replace("[\"192.0.2.78\"]", "[]"), "shard \"b\" has no address"),
        (two.replace("192.0.2.78", "127.0.0.1"), "127.0.0.1 is no address that a gateway can have for others"),
        (two.replace("\"b\"", "\"b.c\""), "7:62: \"b.c\": a name has"),
        ("shards = []\n".to_owned(), "7:10: 1 to 64 shards, not 0"),
        ("balance = \"1m\"\n".to_owned(), "7:11: balance: there is one shard; leave balance out"),
        (format!("balance = \"1m\"\nlease = \"manual\"\n{two}"), "7:11: balance and lease = \"manual\""),
        ("nodes = [\"gw\"]\n".to_owned(), "7:9: nodes is for lease = \"manual\""),
        (
            "lease = \"manual\"\nnodes = [\"gw1\", \"gw2\"]\n".to_owned(),
            "8:9: nodes does not have this gateway, \"gw\"",
        ),
        ("lease = \"manual\"\nnodes = [\"gw\", \"gw\"]\n".to_owned(), "nodes: a name stands twice"),
        (format!("takeover = [\"192.0.2.1/24 dev eth0\"]\n{two}"), "7:12: takeover: 192.0.2.1 belongs to no shard"),
        (
            format!("takeover = [\"192.0.2.77/24\"]\n{two}"),
            "write an address with the length of its prefix, and an interface",
        ),
        (
            format!("takeover = [\"192.0.2.77/24 dev eth0\", \"192.0.2.77/32 dev eth0\"]\n{two}"),
            "192.0.2.77/32 dev eth0 stands twice",
        ),
        (format!("balance = \"10ms\"\n{two}"), "the time between two moves of shards is 1s to 24h"),
        (two.replace("name = \"b\", ", ""), "the key `name` is missing"),
        (two.replace("name = \"b\"", "name = \"b\", ports = \"1-9\""), "unknown key `ports`"),
    ];
    for (keys, words) in refused {
        let ran = check(&keys, RULES);
        assert!(ran.code == Some(1) && ran.out.contains(words), "{words}: {}{}", ran.out, ran.err);
    }
    // A prefix has all of its addresses.
    let prefix = two.replace("192.0.2.78", "198.51.100.0/26");
    for (to, code) in [("192.0.2.77-198.51.100.9", 0), ("198.51.100.63", 0), ("198.51.100.64", 1)] {
        let ran = check(&prefix, &RULES.replace("192.0.2.77-192.0.2.78", to));
        assert_eq!(ran.out.contains("snat to an address of no shard"), code == 1, "{to}: {}{}", ran.out, ran.err);
    }
    let ran = check(two, &RULES.replace("192.0.2.77-192.0.2.78", "192.0.2.79"));
    for words in ["r.nft:5:", "snat to an address of no shard", "write an address of a shard here"] {
        assert!(ran.code == Some(1) && ran.out.contains(words), "{words}: {}", ran.out);
    }
    let ran = check(two, RULES);
    assert!(!ran.out.contains("shard"), "{}", ran.out);
    let ran = keepstate(&["gateway", "--config", file.to_str().unwrap(), "--print-config"], b"");
    assert!(ran.out.contains("shards = [{ address = [\"192.0.2.77\"], name = \"a\" }, "), "{}{}", ran.out, ran.err);
}
