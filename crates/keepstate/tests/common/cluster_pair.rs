//! Two gateways with a NATS server, both in one namespace; their TUN devices are moved to the client's and the server's. A takeover of addresses is a route that the test changes.
#![allow(dead_code, reason = "each test uses what it needs")]

use crate::common::{keepstate, report_skipped};
use crate::peers::{connect, run_ip, spawn_in_netns, start_gateway};
use keepstate_test_support::{NatsServers, uninterrupted};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A test that has waited for this long has failed, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Connections at a time; as many clients share the ports of one address.
pub const CONNECTIONS: usize = 100;

/// The server that returns what it gets.
pub const SERVER: &str = "192.0.2.9:7000";

/// The outside address moves with the cluster, and ports are always translated.
pub const RULES: &str = "
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

pub struct Cluster {
    tag: String,
    folder: TempDir,
    nats: Option<NatsServers>,
    pub gateways: [Option<Child>; 2],
}

impl Cluster {
    /// Client, server, and the gateways' namespace with its NATS server. `None` where they cannot be made.
    pub fn new(name: &str) -> Option<Cluster> {
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
        if nats.is_none() {
            remove_namespaces(&tag);
            return None;
        }
        Some(Cluster { tag, folder: tempfile::tempdir().unwrap(), nats, gateways: [None, None] })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn netns(&self, side: &str) -> String {
        format!("{}{side}", self.tag)
    }

    pub fn nats(&self) -> &NatsServers {
        self.nats.as_ref().unwrap()
    }

    pub fn kill_nats(&mut self) {
        self.nats.as_mut().unwrap().kill(0);
    }

    /// In the namespace where it was.
    pub fn restart_nats(&mut self) {
        let mut nats = self.nats.take().unwrap();
        let restart = move || {
            nats.restart(0);
            nats
        };
        self.nats = Some(spawn_in_netns(&self.netns("g"), restart).join().unwrap());
    }

    /// Starts a gateway (0 or 1) and waits until it routes.
    pub fn start(&mut self, index: usize, lease: &str, rules: &str) {
        self.start_as(index, &format!("lease = \"{lease}\"\naddress = [\"192.0.2.77\"]\n"), rules);
    }

    /// As [`Cluster::start`], with other keys of `[cluster]`.
    pub fn start_as(&mut self, index: usize, keys: &str, rules: &str) {
        fs::write(self.path(&format!("{index}.nft")), rules).unwrap();
        let own = index + 101;
        let node = if keys.contains("node = ") { String::new() } else { format!("node = \"gw{index}\"\n") };
        let text = format!(
            "version = 1\nruleset = \"{index}.nft\"\ncontrol = \"{index}.sock\"\n\
             device = [{{ name = \"lan{index}\", addresses = [\"10.1.0.{own}/32\"] }}, {{ name = \"wan{index}\", addresses = [\"192.0.2.{own}/32\"] }}]\n\
             route = [{{ to = \"10.1.0.0/24\", interface = \"lan{index}\" }}, {{ to = \"0.0.0.0/0\", interface = \"wan{index}\" }}]\n\
             [cluster]\n{node}servers = [\"{}\"]\ndirectory = \"state{index}\"\n{keys}\
             [[flow-log]]\nto = \"flows{index}.jsonl\"\n",
            self.nats().url()
        );
        let config = self.path(&format!("{index}.toml"));
        fs::write(&config, text).unwrap();
        let checked = keepstate(&["check", config.to_str().unwrap()], b"");
        assert_eq!(checked.code, Some(0), "{}{}", checked.out, checked.err);
        let log = fs::File::create(self.path(&format!("{index}.log"))).unwrap();
        self.gateways[index] = Some(start_gateway(&self.netns("g"), &config, log));
        for (side, device) in [("c", format!("lan{index}")), ("s", format!("wan{index}"))] {
            let (from, to) = (self.netns("g"), self.netns(side));
            self.wait(&device, |_| run_ip(&["-n", &from, "link", "set", &device, "netns", &to]));
            assert!(run_ip(&["-n", &to, "link", "set", &device, "up"]));
        }
        self.wait("the control socket", |cluster| cluster.control(index, &["count"]).0 == Some(0));
    }

    /// Packets of both sides go through this gateway from now on.
    pub fn use_gateway(&self, index: usize) {
        for (side, device) in [("c", "lan"), ("s", "wan")] {
            let device = format!("{device}{index}");
            assert!(run_ip(&["-n", &self.netns(side), "route", "replace", "default", "dev", &device]));
        }
    }

    pub fn control(&self, index: usize, words: &[&str]) -> (Option<i32>, String) {
        let socket = self.path(&format!("{index}.sock"));
        let ran = keepstate(&[&["control", "--socket", socket.to_str().unwrap()][..], words].concat(), b"");
        (ran.code, ran.out + &ran.err)
    }

    pub fn json(&self, index: usize, words: &[&str]) -> Value {
        let (_, text) = self.control(index, words);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{}", self.logs()))
    }

    pub fn role(&self, index: usize) -> String {
        self.json(index, &["cluster", "--json"])["role"].as_str().unwrap().to_owned()
    }

    pub fn shard(&self, index: usize, shard: &str) -> Value {
        self.json(index, &["cluster", shard, "--json"])
    }

    pub fn shard_role(&self, index: usize, shard: &str) -> String {
        self.shard(index, shard)["role"].as_str().unwrap().to_owned()
    }

    pub fn logs(&self) -> String {
        let log = |index: usize| fs::read_to_string(self.path(&format!("{index}.log"))).unwrap_or_default();
        format!("gw0:\n{}\ngw1:\n{}", log(0), log(1))
    }

    pub fn wait(&self, what: &str, mut holds: impl FnMut(&Cluster) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < until, "{what} has not come\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the standby has all that the active one has.
    pub fn wait_in_step(&self, active: usize, standby: usize) {
        self.wait("the whole table", |cluster| {
            let (ours, theirs) =
                (cluster.json(active, &["cluster", "--json"]), cluster.json(standby, &["cluster", "--json"]));
            ours["in_step"] == true
                && theirs["in_step"] == true
                && theirs["sequence"] == ours["sequence"]
                && cluster.control(active, &["count"]) == cluster.control(standby, &["count"])
        });
    }

    /// Sessions in a gateway's flow log that begin, and that end.
    pub fn logged_sessions(&self, index: usize) -> [usize; 2] {
        let log = fs::read_to_string(self.path(&format!("flows{index}.jsonl"))).unwrap_or_default();
        ["session-begin", "session-end"].map(|event| log.matches(&format!("\"{event}\"")).count())
    }

    /// All connections of a gateway's table without their timeouts, sorted.
    pub fn table(&self, index: usize) -> Vec<String> {
        let (_, text) = self.control(index, &["list"]);
        let without_timeout = |line: &str| {
            let words = line.split_whitespace().enumerate();
            words.filter(|(at, _)| *at != 2).map(|(_, word)| word).collect::<Vec<_>>().join(" ")
        };
        let mut lines: Vec<String> = text.lines().map(without_timeout).collect();
        lines.sort_unstable();
        lines
    }

    /// A server that returns what it gets.
    pub fn serve_echo(&self) {
        self.serve_echo_at(SERVER);
    }

    pub fn serve_echo_at(&self, server: &'static str) {
        let listener = spawn_in_netns(&self.netns("s"), move || TcpListener::bind(server).unwrap()).join().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                std::thread::spawn(move || {
                    let mut bytes = [0; 64];
                    while let Ok(length @ 1..) = uninterrupted(|| stream.read(&mut bytes)) {
                        if stream.write_all(&bytes[..length]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }

    pub fn open(&self, count: usize) -> Vec<TcpStream> {
        self.open_to(SERVER, count)
    }

    pub fn open_to(&self, server: &'static str, count: usize) -> Vec<TcpStream> {
        let open = move || (0..count).map(|_| connect(server.parse().unwrap())).collect();
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
pub fn use_all(connections: &mut [TcpStream], logs: impl Fn() -> String) {
    for (number, stream) in connections.iter_mut().enumerate() {
        let text = format!("{number:8}");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0; 8];
        let carried = stream.write_all(text.as_bytes()).and_then(|()| stream.read_exact(&mut answer));
        assert!(carried.is_ok() && answer == *text.as_bytes(), "connection {number}: {carried:?}\n{}", logs());
    }
}
