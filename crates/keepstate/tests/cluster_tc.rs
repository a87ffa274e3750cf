//! Two gateways at tc's hooks that share their table over a real nats-server, each in a namespace of its own between client and server. Connections that the kernel has are taken over.
//!
//! A takeover of addresses is a route that the test changes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;
#[path = "common/peers.rs"]
mod peers;
#[path = "common/two_shards.rs"]
mod two_shards;

use common::{keepstate, report_skipped};
use keepstate_test_support::NatsServers;
use peers::{connect, run_ip, spawn_in_netns, start_gateway};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use two_shards::two_shards;

/// A test that has waited for this long has failed, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(120);

const RULES: &str = "
table ip nat {
	chain post {
		type nat hook postrouting priority srcnat;
		oifname wan0 meta l4proto { tcp, udp } snat to 192.0.2.77:40000-44095
	}
}
table inet filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname lan0 ct state new accept
	}
}
";

/// For two shards, and a server each.
const SHARD_RULES: &str = "
table ip nat {
	chain post {
		type nat hook postrouting priority srcnat;
		oifname wan0 ip daddr 192.0.2.9 meta l4proto { tcp, udp } snat to 192.0.2.77:40000-44095
		oifname wan0 ip daddr 192.0.2.10 meta l4proto { tcp, udp } snat to 192.0.2.78:40000-44095
	}
}
";
const SIDES: [&str; 4] = ["c", "s", "g0", "g1"];

struct TcCluster {
    tag: String,
    folder: TempDir,
    nats: NatsServers,
    gateways: [Option<Child>; 2],
}

impl TcCluster {
    /// Client and server, and two ways between them. `None` where they cannot be made.
    fn new(name: &str) -> Option<TcCluster> {
        let tag = format!("kstcl{}{name}", std::process::id());
        let netns = |side: &str| format!("{tag}{side}");
        for side in SIDES {
            if !run_ip(&["netns", "add", &netns(side)]) {
                report_skipped("clustered gateways at tc's hooks: it needs root, network namespaces and iproute2");
                return None;
            }
            assert!(run_ip(&["-n", &netns(side), "link", "set", "lo", "up"]));
        }
        let link = |(side, name, address): (&str, &str, &str), (peer_side, peer, peer_address): (&str, &str, &str)| {
            let [one, other] = [netns(side), netns(peer_side)];
            assert!(run_ip(&[
                "link", "add", name, "netns", &one, "type", "veth", "peer", "name", peer, "netns", &other
            ]));
            for (namespace, device, address) in [(&one, name, address), (&other, peer, peer_address)] {
                assert!(run_ip(&["-n", namespace, "addr", "add", address, "dev", device]));
                assert!(run_ip(&["-n", namespace, "link", "set", device, "up"]));
            }
        };
        assert!(run_ip(&["-n", &netns("c"), "addr", "add", "10.1.0.2/32", "dev", "lo"]));
        for server in ["192.0.2.9/32", "192.0.2.10/32"] {
            assert!(run_ip(&["-n", &netns("s"), "addr", "add", server, "dev", "lo"]));
        }
        for number in 0..2 {
            let gateway = format!("g{number}");
            let [near, far] = [11, 21].map(|first| first + number);
            link(
                ("c", &format!("c{number}"), &format!("10.1.{near}.2/24")),
                (&gateway, "lan0", &format!("10.1.{near}.1/24")),
            );
            link(
                ("s", &format!("s{number}"), &format!("10.1.{far}.2/24")),
                (&gateway, "wan0", &format!("10.1.{far}.1/24")),
            );
            let namespace = netns(&gateway);
            assert!(run_ip(&["-n", &namespace, "route", "add", "10.1.0.2/32", "via", &format!("10.1.{near}.2")]));
            for server in ["192.0.2.9/32", "192.0.2.10/32"] {
                assert!(run_ip(&["-n", &namespace, "route", "add", server, "via", &format!("10.1.{far}.2")]));
            }
            let settings = "echo 1 > /proc/sys/net/ipv4/ip_forward";
            assert!(run_ip(&["netns", "exec", &namespace, "sh", "-c", settings]));
        }
        link(("g0", "between0", "10.1.31.1/24"), ("g1", "between1", "10.1.31.2/24"));
        let nats = spawn_in_netns(&netns("g0"), || NatsServers::start_at("10.1.31.1")).join().unwrap();
        let Some(nats) = nats else {
            remove_namespaces(&tag);
            return None;
        };
        Some(TcCluster { tag, folder: tempfile::tempdir().unwrap(), nats, gateways: [None, None] })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn netns(&self, side: &str) -> String {
        format!("{}{side}", self.tag)
    }

    /// Starts a gateway (0 or 1) and waits until it answers.
    fn start(&mut self, index: usize, lease: &str) {
        self.start_as(index, &format!("lease = \"{lease}\"\naddress = [\"192.0.2.77\"]\n"), RULES);
    }

    /// As [`TcCluster::start`], with other keys of `[cluster]`.
    fn start_as(&mut self, index: usize, keys: &str, rules: &str) {
        fs::write(self.path("rules.nft"), rules).unwrap();
        let text = format!(
            "version = 1\nruleset = \"rules.nft\"\ncontrol = \"{index}.sock\"\ninterface = [\"lan0\", \"wan0\"]\n\
             [cluster]\nnode = \"gw{index}\"\nservers = [\"{}\"]\ndirectory = \"state{index}\"\n{keys}",
            self.nats.url()
        );
        let config = self.path(&format!("{index}.toml"));
        fs::write(&config, text).unwrap();
        let log = fs::File::create(self.path(&format!("{index}.log"))).unwrap();
        self.gateways[index] = Some(start_gateway(&self.netns(&format!("g{index}")), &config, log));
        self.wait("the control socket", |cluster| cluster.control(index, &["count"]).0 == Some(0));
    }

    /// Packets of both sides go through this gateway from now on.
    fn use_gateway(&self, index: usize) {
        let [near, far] = [11, 21].map(|first| first + index);
        let client = ["route", "replace", "default", "via", &format!("10.1.{near}.1"), "src", "10.1.0.2"];
        assert!(run_ip(&[&["-n", &self.netns("c")][..], &client].concat()));
        let server = ["route", "replace", "192.0.2.77/32", "via", &format!("10.1.{far}.1"), "src", "192.0.2.9"];
        assert!(run_ip(&[&["-n", &self.netns("s")][..], &server].concat()));
    }

    /// Packets to this server, and to this outside address, go through this gateway from now on.
    fn route(&self, server: &str, outside: &str, index: usize) {
        let [near, far] = [11, 21].map(|first| first + index);
        let client = ["route", "replace", server, "via", &format!("10.1.{near}.1"), "src", "10.1.0.2"];
        assert!(run_ip(&[&["-n", &self.netns("c")][..], &client].concat()));
        let back = ["route", "replace", outside, "via", &format!("10.1.{far}.1"), "src", server];
        assert!(run_ip(&[&["-n", &self.netns("s")][..], &back].concat()));
    }

    fn control(&self, index: usize, words: &[&str]) -> (Option<i32>, String) {
        let socket = self.path(&format!("{index}.sock"));
        let ran = keepstate(&[&["control", "--socket", socket.to_str().unwrap()][..], words].concat(), b"");
        (ran.code, ran.out + &ran.err)
    }

    fn must(&self, index: usize, words: &[&str]) -> String {
        let (code, said) = self.control(index, words);
        assert!(code == Some(0), "{words:?}: {said}\n{}", self.logs());
        said
    }

    fn json(&self, index: usize, words: &[&str]) -> Value {
        let (_, text) = self.control(index, words);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{}", self.logs()))
    }

    fn role(&self, index: usize) -> String {
        self.json(index, &["cluster", "--json"])["role"].as_str().unwrap().to_owned()
    }

    /// Connections that the kernel of this gateway knows.
    fn known_flows(&self, index: usize) -> u64 {
        self.json(index, &["stats", "--json"])["offloaded_flows"].as_u64().unwrap()
    }

    fn logs(&self) -> String {
        let log = |index: usize| fs::read_to_string(self.path(&format!("{index}.log"))).unwrap_or_default();
        format!("gw0:\n{}\ngw1:\n{}", log(0), log(1))
    }

    fn wait(&self, what: &str, mut holds: impl FnMut(&TcCluster) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < until, "{what} has not come\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the standby has all that the active one has.
    fn wait_in_step(&self, active: usize, standby: usize) {
        self.wait("the whole table", |cluster| {
            let [ours, theirs] = [active, standby].map(|index| cluster.json(index, &["cluster", "--json"]));
            ours["in_step"] == true && theirs["in_step"] == true && theirs["sequence"] == ours["sequence"]
        });
    }

    /// A connection to the server at this port, and its other end.
    fn open(&self, port: u16) -> Transfer {
        self.open_to([192, 0, 2, 9], port, "192.0.2.77")
    }

    /// As [`TcCluster::open`], to another server, which sees it come from this address.
    fn open_to(&self, server: [u8; 4], port: u16, outside: &str) -> Transfer {
        let at = SocketAddr::from((server, port));
        let listener = spawn_in_netns(&self.netns("s"), move || TcpListener::bind(at).unwrap()).join().unwrap();
        let client = spawn_in_netns(&self.netns("c"), move || connect(at)).join().unwrap();
        let (server, seen) = listener.accept().unwrap();
        assert_eq!(seen.ip().to_string(), outside, "translated");
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_nodelay(true).unwrap();
        }
        Transfer { client, server }
    }

    /// Carries something until the kernel of this gateway has them all.
    fn use_until_known(&self, transfers: &mut [Transfer], index: usize) {
        let wanted = transfers.len() as u64;
        self.wait("a flow in the kernel", |cluster| {
            transfers.iter_mut().for_each(|transfer| transfer.carry(5000));
            cluster.known_flows(index) >= wanted
        });
    }
}

impl Drop for TcCluster {
    fn drop(&mut self) {
        for gateway in self.gateways.iter_mut().flatten() {
            let _ = gateway.kill();
            let _ = gateway.wait();
        }
        for side in ["g0", "g1"] {
            let detach = [env!("CARGO_BIN_EXE_keepstate"), "gateway", "--detach"];
            let netns = self.netns(side);
            let words = [&["netns", "exec", &netns][..], &detach].concat();
            let _ = Command::new("ip").args(words).stderr(Stdio::null()).status();
        }
        remove_namespaces(&self.tag);
    }
}

fn remove_namespaces(tag: &str) {
    for side in SIDES {
        run_ip(&["netns", "del", &format!("{tag}{side}")]);
    }
}

struct Transfer {
    client: TcpStream,
    server: TcpStream,
}

impl Transfer {
    /// So many bytes each way.
    fn carry(&mut self, length: usize) {
        for (mut from, mut to) in [(&self.client, &self.server), (&self.server, &self.client)] {
            std::thread::scope(|scope| {
                scope.spawn(|| from.write_all(&vec![7; length]).unwrap());
                let mut bytes = vec![0; length];
                to.read_exact(&mut bytes).unwrap();
                assert!(bytes.iter().all(|byte| *byte == 7));
            });
        }
    }
}

/// Translated transfers that the kernel of the active gateway has go on with their next packets on the other one, and are in its kernel soon.
#[test]
fn known_flows_are_taken_over_after_a_kill() {
    let Some(mut cluster) = TcCluster::new("k") else { return };
    cluster.start(0, "2s");
    cluster.wait("an active gateway", |cluster| cluster.role(0) == "active");
    cluster.start(1, "2s");
    cluster.use_gateway(0);
    let mut transfers: Vec<Transfer> = (7000..7010).map(|port| cluster.open(port)).collect();
    cluster.use_until_known(&mut transfers, 0);
    cluster.wait_in_step(0, 1);
    assert_eq!(cluster.known_flows(1), 0, "a standby forwards nothing");
    let active = cluster.gateways[0].as_mut().unwrap();
    active.kill().unwrap();
    active.wait().unwrap();
    // The kernel has them, as without a cluster, until the addresses move.
    transfers.iter_mut().for_each(|transfer| transfer.carry(100_000));
    cluster.wait("a takeover", |cluster| cluster.role(1) == "active");
    cluster.use_gateway(1);
    transfers.iter_mut().for_each(|transfer| transfer.carry(1_000_000));
    cluster.use_until_known(&mut transfers, 1);
    // The one that was killed comes back, silent: what its kernel has known is not known any more.
    cluster.start(0, "2s");
    cluster.wait_in_step(1, 0);
    assert_eq!((cluster.role(0).as_str(), cluster.known_flows(0)), ("standby", 0));
    transfers.iter_mut().for_each(|transfer| transfer.carry(100_000));
    transfers.push(cluster.open(7010));
    cluster.use_until_known(&mut transfers, 1);
}

/// Each gateway has the flows of its own shard in its kernel. A shard that is handed over leaves the one kernel before `demote` answers, and is in the other one's soon; the flows of the other shard are there again.
#[test]
fn known_flows_follow_their_shard() {
    let Some(mut cluster) = TcCluster::new("h") else { return };
    cluster.start_as(0, &two_shards("manual"), SHARD_RULES);
    cluster.start_as(1, &two_shards("manual"), SHARD_RULES);
    ["north", "south"].iter().for_each(|shard| drop(cluster.must(0, &["promote", shard])));
    cluster.route("192.0.2.9", "192.0.2.77", 0);
    cluster.route("192.0.2.10", "192.0.2.78", 0);
    let mut north: Vec<Transfer> = (7000..7005).map(|port| cluster.open(port)).collect();
    let mut south: Vec<Transfer> =
        (7000..7005).map(|port| cluster.open_to([192, 0, 2, 10], port, "192.0.2.78")).collect();
    cluster.wait("flows of both in the kernel", |cluster| {
        north.iter_mut().chain(&mut south).for_each(|transfer| transfer.carry(5000));
        cluster.known_flows(0) >= 10
    });
    cluster.must(0, &["demote", "south"]);
    cluster.must(1, &["promote", "south"]);
    cluster.route("192.0.2.10", "192.0.2.78", 1);
    south.iter_mut().for_each(|transfer| transfer.carry(1_000_000));
    // Whatever makes them stale meanwhile: with traffic they are known again.
    cluster.wait("each its own flows in the kernel", |cluster| {
        north.iter_mut().chain(&mut south).for_each(|transfer| transfer.carry(5000));
        [cluster.known_flows(0), cluster.known_flows(1)] == [5, 5]
    });
    // New ones too; and the other shard goes on when its gateway is killed.
    south.push(cluster.open_to([192, 0, 2, 10], 7005, "192.0.2.78"));
    let shard = |cluster: &TcCluster, index, shard: &str| cluster.json(index, &["cluster", shard, "--json"]);
    cluster.wait("the whole table of north", |cluster| {
        let [ours, theirs] = [0, 1].map(|index| shard(cluster, index, "north"));
        ours["in_step"] == true && theirs["in_step"] == true && theirs["sequence"] == ours["sequence"]
    });
    let killed = cluster.gateways[0].as_mut().unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    cluster.must(1, &["promote", "north"]);
    cluster.route("192.0.2.9", "192.0.2.77", 1);
    north.iter_mut().chain(&mut south).for_each(|transfer| transfer.carry(1_000_000));
    cluster.wait("flows of both in the other kernel", |cluster| {
        north.iter_mut().chain(&mut south).for_each(|transfer| transfer.carry(5000));
        cluster.known_flows(1) >= 11
    });
    // It comes back as a standby: what its kernel has kept of both is held, and forwarded by nobody.
    cluster.start_as(0, &two_shards("manual"), SHARD_RULES);
    cluster.wait("the whole table again", |cluster| {
        ["north", "south"].iter().all(|name| shard(cluster, 0, name)["in_step"] == true)
    });
    assert_eq!(cluster.known_flows(0), 0);
    north.iter_mut().chain(&mut south).for_each(|transfer| transfer.carry(100_000));
}

/// When `demote` has answered, no packet passes this gateway any more, not even of flows that its kernel had.
#[test]
fn demote_takes_known_flows_from_the_kernel_before_it_answers() {
    let Some(mut cluster) = TcCluster::new("d") else { return };
    cluster.start(0, "manual");
    cluster.start(1, "manual");
    cluster.must(0, &["promote"]);
    cluster.use_gateway(0);
    let server = spawn_in_netns(&cluster.netns("s"), || UdpSocket::bind("192.0.2.9:7000").unwrap()).join().unwrap();
    let client = spawn_in_netns(&cluster.netns("c"), || UdpSocket::bind("10.1.0.2:7000").unwrap()).join().unwrap();
    client.connect("192.0.2.9:7000").unwrap();
    server.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    client.set_nonblocking(true).unwrap();
    let (began, done) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    // Each datagram says when it was sent; answered, so that the flow is known.
    let sender = {
        let (done, client) = (Arc::clone(&done), client.try_clone().unwrap());
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let at = began.elapsed().as_nanos() as u64;
                // Nobody routes it for a moment.
                let _ = client.send(&at.to_be_bytes());
                while client.recv(&mut [0; 9]).is_ok() {}
                std::thread::sleep(Duration::from_micros(200));
            }
        })
    };
    let demoted = Arc::new(std::sync::Mutex::new(None::<u64>));
    let receiver = {
        let (done, demoted) = (Arc::clone(&done), Arc::clone(&demoted));
        std::thread::spawn(move || {
            let (mut bytes, mut late, mut received) = ([0; 8], Vec::new(), 0_u64);
            while !done.load(Ordering::Relaxed) {
                let Ok((8, from)) = server.recv_from(&mut bytes) else { continue };
                received += 1;
                let _ = server.send_to(b"heard", from);
                let sent = u64::from_be_bytes(bytes);
                if let Some(at) = *demoted.lock().unwrap()
                    && sent > at
                {
                    late.push(sent - at);
                }
            }
            (received, late)
        })
    };
    for round in 0..5 {
        cluster.wait("a flow in the kernel", |cluster| cluster.known_flows(0) >= 1);
        cluster.must(0, &["demote"]);
        *demoted.lock().unwrap() = Some(began.elapsed().as_nanos() as u64);
        // What has passed nevertheless has arrived by then.
        std::thread::sleep(Duration::from_millis(200));
        *demoted.lock().unwrap() = None;
        // Its places are given back after a grace period of the kernel, however long that takes.
        cluster.wait(&format!("round {round}: no flow in the kernel"), |cluster| cluster.known_flows(0) == 0);
        cluster.must(0, &["promote"]);
    }
    done.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    let (received, late) = receiver.join().unwrap();
    assert!(received > 100, "{received}");
    assert!(
        late.is_empty(),
        "{} came by the old state, sent up to {} ns later",
        late.len(),
        late.iter().max().unwrap()
    );
}
