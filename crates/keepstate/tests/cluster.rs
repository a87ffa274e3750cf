//! Two real gateways that share their table over a real nats-server: killed, and changed as planned, under connections of the kernel's own TCP.
//!
//! Both gateways and the server are in one namespace; their TUN devices are moved to the client's and the server's. A takeover of addresses is a route that the test changes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;
#[path = "common/peers.rs"]
mod peers;

use common::{keepstate, report_skipped};
use keepstate_test_support::{NatsServers, uninterrupted};
use peers::{connect, run_ip, spawn_in_netns};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A test that has waited for this long has failed, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(120);
/// Connections at a time; as many clients share the ports of one address.
const CONNECTIONS: usize = 100;

/// The outside address moves with the cluster, and ports are always translated.
const RULES: &str = "
table ip nat {
	chain post {
		type nat hook postrouting priority srcnat;
		oifname \"wan*\" meta l4proto { tcp, udp } snat to 192.0.2.77:40000-44095
	}
}
table inet filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname \"lan*\" ct state new accept
		counter
	}
}
";

struct Cluster {
    tag: String,
    folder: TempDir,
    nats: NatsServers,
    gateways: [Option<Child>; 2],
}

impl Cluster {
    /// Client, server, and the gateways' namespace with its NATS server. `None` where they cannot be made.
    fn new(name: &str) -> Option<Cluster> {
        let tag = format!("kscl{}{name}", std::process::id());
        for side in ["c", "g", "s"] {
            let namespace = format!("{tag}{side}");
            if !run_ip(&["netns", "add", &namespace]) {
                report_skipped("clustered gateways: it needs root, network namespaces and iproute2");
                return None;
            }
            assert!(run_ip(&["-n", &namespace, "link", "set", "lo", "up"]));
        }
        for (side, address) in [("c", "10.1.0.2/32"), ("s", "192.0.2.9/32")] {
            assert!(run_ip(&["-n", &format!("{tag}{side}"), "addr", "add", address, "dev", "lo"]));
        }
        let nats = spawn_in_netns(&format!("{tag}g"), || NatsServers::start(1, "")).join().unwrap();
        let Some(nats) = nats else {
            remove_namespaces(&tag);
            return None;
        };
        Some(Cluster { tag, folder: tempfile::tempdir().unwrap(), nats, gateways: [None, None] })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn netns(&self, side: &str) -> String {
        format!("{}{side}", self.tag)
    }

    /// Starts a gateway (0 or 1) and waits until it routes.
    fn start(&mut self, index: usize, lease: &str, rules: &str) {
        fs::write(self.path(&format!("{index}.nft")), rules).unwrap();
        let own = index + 101;
        let text = format!(
            "version = 1\nruleset = \"{index}.nft\"\ncontrol = \"{index}.sock\"\n\
             device = [{{ name = \"lan{index}\", addresses = [\"10.1.0.{own}/32\"] }}, {{ name = \"wan{index}\", addresses = [\"192.0.2.{own}/32\"] }}]\n\
             route = [{{ to = \"10.1.0.0/24\", interface = \"lan{index}\" }}, {{ to = \"0.0.0.0/0\", interface = \"wan{index}\" }}]\n\
             [cluster]\nnode = \"gw{index}\"\nlease = \"{lease}\"\nservers = [\"{}\"]\ndirectory = \"state{index}\"\naddress = [\"192.0.2.77\"]\n",
            self.nats.url()
        );
        let config = self.path(&format!("{index}.toml"));
        fs::write(&config, text).unwrap();
        let checked = keepstate(&["check", config.to_str().unwrap()], b"");
        assert_eq!(checked.code, Some(0), "{}{}", checked.out, checked.err);
        let log = fs::File::create(self.path(&format!("{index}.log"))).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &self.netns("g"), env!("CARGO_BIN_EXE_keepstate"), "gateway", "--config"])
            .arg(&config)
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        self.gateways[index] = Some(child);
        for (side, device) in [("c", format!("lan{index}")), ("s", format!("wan{index}"))] {
            let (from, to) = (self.netns("g"), self.netns(side));
            self.wait(&device, |_| run_ip(&["-n", &from, "link", "set", &device, "netns", &to]));
            assert!(run_ip(&["-n", &to, "link", "set", &device, "up"]));
        }
        self.wait("the control socket", |cluster| cluster.control(index, &["count"]).0 == Some(0));
    }

    /// Packets of both sides go through this gateway from now on.
    fn use_gateway(&self, index: usize) {
        for (side, device) in [("c", "lan"), ("s", "wan")] {
            let device = format!("{device}{index}");
            assert!(run_ip(&["-n", &self.netns(side), "route", "replace", "default", "dev", &device]));
        }
    }

    fn control(&self, index: usize, words: &[&str]) -> (Option<i32>, String) {
        let socket = self.path(&format!("{index}.sock"));
        let ran = keepstate(&[&["control", "--socket", socket.to_str().unwrap()][..], words].concat(), b"");
        (ran.code, ran.out + &ran.err)
    }

    fn json(&self, index: usize, words: &[&str]) -> Value {
        let (_, text) = self.control(index, words);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{}", self.logs()))
    }

    fn role(&self, index: usize) -> String {
        self.json(index, &["cluster", "--json"])["role"].as_str().unwrap().to_owned()
    }

    fn logs(&self) -> String {
        let log = |index: usize| fs::read_to_string(self.path(&format!("{index}.log"))).unwrap_or_default();
        format!("gw0:\n{}\ngw1:\n{}", log(0), log(1))
    }

    fn wait(&self, what: &str, mut holds: impl FnMut(&Cluster) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < until, "{what} has not come\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the standby has all that the active one has.
    fn wait_in_step(&self, active: usize, standby: usize) {
        self.wait("the whole table", |cluster| {
            let (ours, theirs) =
                (cluster.json(active, &["cluster", "--json"]), cluster.json(standby, &["cluster", "--json"]));
            ours["in_step"] == true
                && theirs["in_step"] == true
                && theirs["sequence"] == ours["sequence"]
                && cluster.control(active, &["count"]) == cluster.control(standby, &["count"])
        });
    }

    /// A server that returns what it gets.
    fn serve_echo(&self) {
        let listener =
            spawn_in_netns(&self.netns("s"), || TcpListener::bind("192.0.2.9:7000").unwrap()).join().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                std::thread::spawn(move || {
                    let mut bytes = [0; 64];
                    while let Ok(length @ 1..) = uninterrupted(|| uninterrupted(|| stream.read(&mut bytes))) {
                        if stream.write_all(&bytes[..length]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }

    fn open(&self, count: usize) -> Vec<TcpStream> {
        let open = move || (0..count).map(|_| connect("192.0.2.9:7000".parse().unwrap())).collect();
        spawn_in_netns(&self.netns("c"), open).join().unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for gateway in self.gateways.iter_mut().flatten() {
            let _ = gateway.kill();
            let _ = gateway.wait();
        }
        remove_namespaces(&self.tag);
    }
}

fn remove_namespaces(tag: &str) {
    for side in ["c", "g", "s"] {
        run_ip(&["netns", "del", &format!("{tag}{side}")]);
    }
}

/// Each connection carries something there and back.
fn use_all(connections: &mut [TcpStream], logs: impl Fn() -> String) {
    for (number, stream) in connections.iter_mut().enumerate() {
        let text = format!("{number:8}");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0; 8];
        let carried = stream.write_all(text.as_bytes()).and_then(|()| stream.read_exact(&mut answer));
        assert!(carried.is_ok() && answer == *text.as_bytes(), "connection {number}: {carried:?}\n{}", logs());
    }
}

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

    let active = cluster.gateways[0].as_mut().unwrap();
    active.kill().unwrap();
    active.wait().unwrap();
    cluster.wait("a takeover", |cluster| cluster.role(1) == "active");
    cluster.use_gateway(1);
    use_all(&mut connections, || cluster.logs());
    let (_, listed) = cluster.control(1, &["list", "-p", "tcp"]);
    assert_eq!(listed.lines().count(), CONNECTIONS, "{listed}");
    use_all(&mut cluster.open(5), || cluster.logs());

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
