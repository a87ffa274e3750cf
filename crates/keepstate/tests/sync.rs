//! `keepstate sync` on two real firewalls of the kernel's own, over a real nats-server: connections behind a port-translating SNAT go on through the other firewall, after a crash and after a planned change.
//!
//! Client, server, both firewalls and the NATS server each have a namespace. The takeover of addresses is a route that the test changes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;
#[path = "common/peers.rs"]
mod peers;

use common::report_skipped;
use keepstate_test_support::NatsServers;
use peers::{run_ip, spawn_in_netns, test_bytes};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_keepstate");
/// A test that has waited for this long has failed, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(120);
const CONNECTIONS: usize = 50;
const SERVER: &str = "192.0.2.9:7000";
/// Ports are always translated; what is in the table passes, what would begin in the middle does not.
const RULES: &str = "
table ip t {
	chain post {
		type nat hook postrouting priority srcnat;
		oifname \"wan\" meta l4proto { tcp, udp } snat to 192.0.2.77:40000-44095
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		ct state invalid counter drop
		iifname \"lan\" tcp flags & (syn | ack) == syn accept
	}
}
";

struct Pair {
    tag: String,
    folder: TempDir,
    nats: NatsServers,
    running: [Option<Child>; 2],
}

impl Pair {
    /// `None` where it cannot be made; that is reported.
    fn new(name: &str, lease: &str) -> Option<Pair> {
        let tag = format!("kssy{}{name}", std::process::id());
        let netns = |side: &str| format!("{tag}{side}");
        for side in ["c", "s", "a", "b", "h"] {
            if !run_ip(&["netns", "add", &netns(side)]) {
                report_skipped("two firewalls: it needs root, network namespaces and iproute2");
                return None;
            }
            assert!(run_ip(&["-n", &netns(side), "link", "set", "lo", "up"]));
        }
        let link = |(side, name, address): (&str, &str, &str), (peer, peer_name, peer_address): (&str, &str, &str)| {
            let (ours, theirs) = (netns(side), netns(peer));
            assert!(run_ip(&[
                "-n", &ours, "link", "add", name, "type", "veth", "peer", "name", peer_name, "netns", &theirs
            ]));
            for (netns, name, address) in [(&ours, name, address), (&theirs, peer_name, peer_address)] {
                assert!(run_ip(&["-n", netns, "addr", "add", address, "dev", name]));
                assert!(run_ip(&["-n", netns, "link", "set", name, "up"]));
            }
        };
        for (side, number) in [("a", 1), ("b", 2)] {
            let at = |network: &str, host: u8| format!("{network}.{number}.{host}/24");
            let name = format!("to-{side}");
            link(("c", &name, &at("10.1", 2)), (side, "lan", &at("10.1", 1)));
            link(("s", &name, &at("10.2", 2)), (side, "wan", &at("10.2", 1)));
            link(("h", &name, &at("10.9", 2)), (side, "hub", &at("10.9", 1)));
            assert!(run_ip(&["-n", &netns(side), "route", "add", "10.1.0.2", "via", &format!("10.1.{number}.2")]));
            assert!(run_ip(&["-n", &netns(side), "route", "add", "192.0.2.9", "via", &format!("10.2.{number}.2")]));
            assert!(run_ip(&["-n", &netns(side), "route", "add", "10.9.0.5", "via", &format!("10.9.{number}.2")]));
            let sysctls =
                "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.netfilter.nf_conntrack_tcp_loose=0";
            let script = format!("{sysctls} && printf %s '{RULES}' | nft -f -");
            let ruled = Command::new("ip").args(["netns", "exec", &netns(side), "sh", "-c", &script]).status().unwrap();
            assert!(ruled.success());
        }
        for (side, address) in [("c", "10.1.0.2/32"), ("s", "192.0.2.9/32"), ("h", "10.9.0.5/32")] {
            assert!(run_ip(&["-n", &netns(side), "addr", "add", address, "dev", "lo"]));
        }
        let nats = spawn_in_netns(&netns("h"), || NatsServers::start_at("10.9.0.5")).join().unwrap();
        let Some(nats) = nats else {
            remove_namespaces(&tag);
            return None;
        };
        let pair = Pair { tag, folder: tempfile::tempdir().unwrap(), nats, running: [None, None] };
        for index in [0, 1] {
            let text = format!(
                "version = 1\n[cluster]\nnode = \"fw{index}\"\nlease = \"{lease}\"\nservers = [\"{}\"]\ndirectory = \"state{index}\"\naddress = [\"192.0.2.77\"]\n",
                pair.nats.url()
            );
            fs::write(pair.path(&format!("{index}.toml")), text).unwrap();
        }
        Some(pair)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn netns(&self, side: &str) -> String {
        format!("{}{side}", self.tag)
    }

    fn firewall(&self, index: usize) -> String {
        self.netns(["a", "b"][index])
    }

    fn start(&mut self, index: usize) {
        let log = fs::File::create(self.path(&format!("{index}.log"))).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &self.firewall(index), PROGRAM, "sync", "--config"])
            .arg(self.path(&format!("{index}.toml")))
            .arg("--socket")
            .arg(self.path(&format!("{index}.sock")))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        self.running[index] = Some(child);
        self.wait(index, "connected", |status| status["connected"] == true);
    }

    fn say(&self, index: usize, words: &[&str]) -> (Option<i32>, String) {
        let socket = self.path(&format!("{index}.sock"));
        let ran = Command::new(PROGRAM).arg("sync").args(words).arg("--socket").arg(socket).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        (ran.status.code(), format!("{out}{err}"))
    }

    fn wait(&self, index: usize, what: &str, wanted: impl Fn(&Value) -> bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            let (_, said) = self.say(index, &["status", "--json"]);
            if serde_json::from_str(&said).is_ok_and(|status| wanted(&status)) {
                return;
            }
            assert!(Instant::now() < until, "{what}: {said}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The standby holds everything that the active one has.
    fn wait_in_step(&self, active: usize) {
        self.wait(active, "the kernel has told all", |status| status["known"].as_u64() >= Some(CONNECTIONS as u64));
        let (_, said) = self.say(active, &["status", "--json"]);
        let status: Value = serde_json::from_str(&said).unwrap();
        let known = status["known"].as_u64().unwrap();
        self.wait(active, "all acknowledged", |status| status["waiting"] == 0 && status["unacknowledged"] == 0);
        self.wait(1 - active, "all held", |status| status["in_step"] == true && status["held"].as_u64() >= Some(known));
        assert_eq!(self.say(1 - active, &["status", "--check"]), (Some(0), String::new()));
    }

    /// Packets of both sides go through this firewall from now on.
    fn use_firewall(&self, index: usize) {
        let (side, number) = ([("to-a", 1), ("to-b", 2)])[index];
        let replace = |netns: &str, words: &[&str]| {
            assert!(run_ip(&[&["-n", netns, "route", "replace"][..], words].concat()));
        };
        let (to_lan, to_wan) = (format!("10.1.{number}.1"), format!("10.2.{number}.1"));
        replace(&self.netns("c"), &["default", "via", &to_lan, "dev", side, "src", "10.1.0.2"]);
        replace(&self.netns("s"), &["192.0.2.77", "via", &to_wan, "dev", side, "src", "192.0.2.9"]);
    }

    fn logs(&self) -> String {
        let log = |index: usize| fs::read_to_string(self.path(&format!("{index}.log"))).unwrap_or_default();
        format!("fw0:\n{}\nfw1:\n{}", log(0), log(1))
    }

    /// An echoing server, and connections to it.
    fn connect(&self) -> Vec<TcpStream> {
        let server = self.netns("s");
        let (ready, is_ready) = std::sync::mpsc::channel();
        spawn_in_netns(&server, move || {
            let listener = TcpListener::bind(SERVER).unwrap();
            ready.send(()).unwrap();
            for stream in listener.incoming().take(CONNECTIONS) {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
            }
        });
        is_ready.recv().unwrap();
        let connect = || (0..CONNECTIONS).map(|_| peers::connect(SERVER.parse().unwrap())).collect();
        spawn_in_netns(&self.netns("c"), connect).join().unwrap()
    }
}

/// Every connection answers with what it was sent, larger than a window that is not scaled.
fn echo(streams: &mut [TcpStream]) {
    let sent = test_bytes(100_000);
    for stream in streams {
        let mut writer = stream.try_clone().unwrap();
        let text = sent.clone();
        let write = std::thread::spawn(move || writer.write_all(&text).unwrap());
        let mut read = vec![0; sent.len()];
        stream.read_exact(&mut read).unwrap();
        write.join().unwrap();
        assert!(read == sent);
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for child in self.running.iter_mut().flatten() {
            // It may have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
        remove_namespaces(&self.tag);
    }
}

fn remove_namespaces(tag: &str) {
    for side in ["c", "s", "a", "b", "h"] {
        run_ip(&["netns", "del", &format!("{tag}{side}")]);
    }
}

#[test]
fn connections_go_on_after_a_crash_and_after_a_planned_change() {
    let Some(mut pair) = Pair::new("m", "manual") else { return };
    pair.start(0);
    pair.start(1);
    assert_eq!(pair.say(0, &["status", "--check"]).0, Some(1), "nobody is active yet");
    let (code, said) = pair.say(0, &["promote"]);
    assert_eq!((code, said.as_str()), (Some(0), "shard linux: active in epoch 1\n"));
    pair.use_firewall(0);
    let mut streams = pair.connect();
    echo(&mut streams);
    pair.wait_in_step(0);

    // The first one is gone, with its links.
    pair.running[0].take().unwrap().kill().unwrap();
    for link in ["lan", "wan", "hub"] {
        assert!(run_ip(&["-n", &pair.firewall(0), "link", "set", link, "down"]));
    }
    let (code, said) = pair.say(1, &["promote"]);
    assert_eq!(code, Some(0), "{said}{}", pair.logs());
    pair.use_firewall(1);
    echo(&mut streams);

    // It comes back as a standby, takes over everything, and then the work.
    for link in ["lan", "wan", "hub"] {
        assert!(run_ip(&["-n", &pair.firewall(0), "link", "set", link, "up"]));
    }
    for (to, via) in [("10.1.0.2", "10.1.1.2"), ("192.0.2.9", "10.2.1.2"), ("10.9.0.5", "10.9.1.2")] {
        assert!(run_ip(&["-n", &pair.firewall(0), "route", "replace", to, "via", via]));
    }
    fs::remove_file(pair.path("0.sock")).unwrap();
    pair.start(0);
    pair.wait_in_step(1);
    let (code, said) = pair.say(1, &["demote"]);
    assert_eq!((code, said.as_str()), (Some(0), "shard linux: standby in epoch 2\n"), "{}", pair.logs());
    assert_eq!(pair.say(0, &["promote"]).0, Some(0), "{}", pair.logs());
    pair.use_firewall(0);
    echo(&mut streams);
    let (_, said) = pair.say(0, &["status"]);
    assert!(said.contains("fw0 is active in epoch 3") && said.contains("refused 0"), "{said}");
}

#[test]
fn whoever_holds_the_lease_sends_and_the_other_takes_over_by_itself() {
    let Some(mut pair) = Pair::new("l", "1s") else { return };
    pair.start(0);
    pair.wait(0, "the lease", |status| status["role"] == "active");
    pair.start(1);
    pair.use_firewall(0);
    let mut streams = pair.connect();
    pair.wait_in_step(0);
    pair.running[0].take().unwrap().kill().unwrap();
    pair.wait(1, "the lease of one that died", |status| {
        status["role"] == "active" && status["restored"].as_u64() >= Some(CONNECTIONS as u64)
    });
    pair.use_firewall(1);
    echo(&mut streams);
}
