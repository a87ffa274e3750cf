//! Thousands of MQTT sessions through `keepstate gateway` with NAT: all stay open, and all answer a ping at the end.
//!
//! `KEEPSTATE_SESSIONS` sets another number; 70,000 with `cargo xtask compare sessions`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;
#[path = "common/peers.rs"]
mod peers;

use common::{TempFile, keepstate, report_skipped};
use keepstate_test_support::wait_until_it_routes;
use peers::run_ip;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const DEFAULT_SESSIONS: usize = 20_000;
/// Many machines allow a process 20,000 open files. A client address has 28,000 ports, but once half of them are in use the kernel searches that half anew for each socket: so eight of each.
const ADDRESS_PAIRS: usize = 8;
const CLIENTS: [[u8; 4]; ADDRESS_PAIRS] = addresses([10, 1, 0, 2]);
const SERVERS: [[u8; 4]; ADDRESS_PAIRS] = addresses([192, 0, 2, 9]);
/// Seconds.
const TIMEOUT_SECS: u32 = 90;

/// Addresses from this one on.
const fn addresses([a, b, c, first]: [u8; 4]) -> [[u8; 4]; ADDRESS_PAIRS] {
    let mut all = [[a, b, c, first]; ADDRESS_PAIRS];
    let mut at = 1;
    while at < ADDRESS_PAIRS {
        all[at][3] = all[at - 1][3] + 1;
        at += 1;
    }
    all
}

const RULES: &str = "
table ip t {
	chain forward {
		type filter hook forward priority filter; policy drop
		ct state established,related accept
		iifname lan0 ct state new accept
	}
	chain post {
		type nat hook postrouting priority srcnat
		oifname wan0 masquerade
	}
}
";

struct MqttTestbed {
    tag: String,
    gateway: Child,
}

impl Drop for MqttTestbed {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
        let _ = std::fs::remove_file(socket(&self.tag));
        for side in ["c", "g", "s"] {
            run_ip(&["netns", "del", &format!("{}{side}", self.tag)]);
        }
    }
}

impl MqttTestbed {
    fn new(ruleset: &TempFile) -> Option<MqttTestbed> {
        let tag = format!("ksmq{}", std::process::id());
        for side in ["c", "g", "s"] {
            if !run_ip(&["netns", "add", &format!("{tag}{side}")]) {
                report_skipped("thousands of MQTT sessions: they need root, network namespaces and iproute2");
                return None;
            }
        }
        let gateway = Command::new("ip")
            .args(["netns", "exec", &format!("{tag}g"), env!("CARGO_BIN_EXE_keepstate"), "gateway"])
            .args(["--ruleset", ruleset.path(), "--device", "lan0=10.1.0.1/24", "--device", "wan0=192.0.2.1/24"])
            .args(["--route", "0.0.0.0/0=wan0", "--control", &socket(&tag)])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lab = MqttTestbed { tag, gateway };
        lab.configure_side("lan0", "c", &CLIENTS);
        lab.configure_side("wan0", "s", &SERVERS);
        Some(lab)
    }

    fn configure_side(&self, device: &str, side: &str, addresses: &[[u8; 4]]) {
        let (from, to) = (format!("{}g", self.tag), format!("{}{side}", self.tag));
        let until = Instant::now() + Duration::from_secs(60);
        while !run_ip(&["-n", &from, "link", "set", device, "netns", &to]) {
            assert!(Instant::now() < until, "{device} was never made");
            std::thread::sleep(Duration::from_millis(20));
        }
        for address in addresses {
            assert!(run_ip(&["-n", &to, "addr", "add", &format!("{}/24", IpAddr::from(*address)), "dev", device]));
        }
        // Thousands of SYNs leave at once: a longer queue keeps the interface from dropping them.
        assert!(run_ip(&["-n", &to, "link", "set", device, "txqueuelen", "10000"]));
        for words in [
            &["link", "set", "lo", "up"][..],
            &["link", "set", device, "up"],
            &["route", "add", "default", "dev", device],
        ] {
            assert!(run_ip(&[&["-n", to.as_str()][..], words].concat()));
        }
    }

    fn control(&self, words: &[&str]) -> String {
        let ran = keepstate(&[&["control", "--socket", &socket(&self.tag)][..], words].concat(), b"");
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        ran.out
    }
}

fn socket(tag: &str) -> String {
    std::env::temp_dir().join(format!("{tag}.sock")).to_string_lossy().into_owned()
}

/// A process of `keepstate mqtt`, at one end.
struct MqttProcess {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl MqttProcess {
    fn start(namespace: &str, words: &[String]) -> MqttProcess {
        let mut child = Command::new("ip")
            .args(["netns", "exec", namespace, env!("CARGO_BIN_EXE_keepstate"), "mqtt"])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        MqttProcess { child, stdout }
    }

    fn read_line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the process has ended");
        line.trim().to_owned()
    }
}

impl Drop for MqttProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sessions_of_each_pair(default: usize) -> usize {
    let sessions: usize = std::env::var("KEEPSTATE_SESSIONS").ok().map_or(default, |text| text.parse().unwrap());
    sessions / ADDRESS_PAIRS
}

fn start_servers(namespace: &str, addresses: &[[u8; 4]]) -> Vec<MqttProcess> {
    let mut servers: Vec<MqttProcess> = addresses
        .iter()
        .map(|address| MqttProcess::start(namespace, &["accept".into(), format!("{}:1883", IpAddr::from(*address))]))
        .collect();
    for server in &mut servers {
        assert_eq!(server.read_line(), "listening");
    }
    servers
}

/// Client processes, once all their sessions are open; one after another, so that a busy machine is not asked for thousands of handshakes at once.
fn open_sessions(namespace: &str, servers: &[[u8; 4]], each: usize) -> Vec<MqttProcess> {
    let clients = CLIENTS.iter().zip(servers).map(|(from, to)| {
        let words = format!(
            "fleet --from {} --to {}:1883 --sessions {each} --patience {TIMEOUT_SECS}",
            IpAddr::from(*from),
            IpAddr::from(*to)
        );
        let mut client = MqttProcess::start(namespace, &words.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(client.read_line(), format!("open={each} refused=0 lost=0"));
        client
    });
    clients.collect()
}

fn ping(clients: &mut [MqttProcess], each: usize) {
    for client in clients {
        client.child.stdin.as_mut().unwrap().write_all(b"ping\n").unwrap();
        assert_eq!(client.read_line(), format!("open={each} refused=0 lost=0 answered={each}"));
    }
}

#[test]
fn all_mqtt_sessions_stay_open_through_the_gateway() {
    let each = sessions_of_each_pair(DEFAULT_SESSIONS);
    let ruleset = TempFile::new("mqtt.nft", RULES.as_bytes());
    let Some(lab) = MqttTestbed::new(&ruleset) else { return };
    let (inside, outside) = (format!("{}c", lab.tag), format!("{}s", lab.tag));
    let _servers = start_servers(&outside, &SERVERS);
    let mut clients = open_sessions(&inside, &SERVERS, each);
    assert_eq!(lab.control(&["count"]).trim(), (each * ADDRESS_PAIRS).to_string());
    // The ruleset is reloaded, and then every session is pinged.
    lab.control(&["reload"]);
    ping(&mut clients, each);
    assert_eq!(lab.control(&["count"]).trim(), (each * ADDRESS_PAIRS).to_string());
}

/// A stateful firewall on the broker itself.
const BROKER_RULES: &str = "
table inet t {
	chain input {
		type filter hook input priority filter; policy drop
		ct state established,related accept
		tcp dport 1883 accept
	}
	chain output {
		type filter hook output priority filter; policy drop
		ct state established,related accept
	}
}
";
const BROKERS: [[u8; 4]; ADDRESS_PAIRS] = addresses([10, 1, 0, 21]);

/// A broker's namespace, with a gateway at its interface, and one of the clients.
struct BrokerTestbed {
    tag: String,
    ruleset: TempFile,
    gateway: Option<Child>,
}

impl BrokerTestbed {
    fn new() -> Option<BrokerTestbed> {
        let lab = BrokerTestbed {
            tag: format!("ksmb{}", std::process::id()),
            ruleset: TempFile::new("broker.nft", BROKER_RULES.as_bytes()),
            gateway: None,
        };
        if !["c", "s"].iter().all(|side| run_ip(&["netns", "add", &lab.netns(side)])) {
            report_skipped("MQTT sessions on a broker with a gateway: they need root, network namespaces and iproute2");
            return None;
        }
        let (client, server) = (lab.netns("c"), lab.netns("s"));
        assert!(run_ip(&[
            "link", "add", "c0", "netns", &client, "type", "veth", "peer", "name", "s0", "netns", &server
        ]));
        for (name, device, addresses) in [(&client, "c0", &CLIENTS), (&server, "s0", &BROKERS)] {
            for address in addresses {
                assert!(run_ip(&["-n", name, "addr", "add", &format!("{}/24", IpAddr::from(*address)), "dev", device]));
            }
            for device in ["lo", device] {
                assert!(run_ip(&["-n", name, "link", "set", device, "up"]));
            }
        }
        Some(lab)
    }

    fn netns(&self, side: &str) -> String {
        format!("{}{side}", self.tag)
    }

    fn gateway_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns("s"), env!("CARGO_BIN_EXE_keepstate"), "gateway"]).args(words);
        command
    }

    /// Starts the gateway; returns what it has said by the time it routes.
    fn start(&mut self) -> String {
        let socket = socket(&self.tag);
        let words = ["--ruleset", self.ruleset.path(), "--interface", "s0", "--control", &socket];
        let mut gateway = self.gateway_command(&words).stderr(Stdio::piped()).spawn().unwrap();
        let said = wait_until_it_routes(&mut gateway).unwrap();
        self.gateway = Some(gateway);
        said
    }

    fn kill(&mut self) {
        let mut gateway = self.gateway.take().unwrap();
        gateway.kill().unwrap();
        gateway.wait().unwrap();
    }

    fn control(&self, words: &[&str]) -> String {
        let ran = keepstate(&[&["control", "--socket", &socket(&self.tag)][..], words].concat(), b"");
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        ran.out
    }

    /// Connections that the kernel knows.
    fn known(&self) -> usize {
        let json: serde_json::Value = serde_json::from_str(&self.control(&["stats", "--json"])).unwrap();
        json["offloaded_flows"].as_u64().and_then(|number| number.try_into().ok()).unwrap_or(0)
    }
}

impl Drop for BrokerTestbed {
    fn drop(&mut self) {
        if self.gateway.is_some() {
            self.kill();
        }
        let _ = self.gateway_command(&["--detach"]).stderr(Stdio::null()).status();
        let _ = std::fs::remove_file(socket(&self.tag));
        for side in ["c", "s"] {
            run_ip(&["netns", "del", &self.netns(side)]);
        }
    }
}

/// The broker keeps its stateful firewall without the kernel's table: all sessions stay open, also over a gateway that dies, and no packet of theirs is refused.
#[test]
fn all_mqtt_sessions_stay_open_on_a_broker_with_a_gateway() {
    let each = sessions_of_each_pair(2000);
    let Some(mut lab) = BrokerTestbed::new() else { return };
    lab.start();
    let _servers = start_servers(&lab.netns("s"), &BROKERS);
    let begun = Instant::now();
    let mut clients = open_sessions(&lab.netns("c"), &BROKERS, each);
    let opened = begun.elapsed();
    let sessions = each * ADDRESS_PAIRS;
    assert_eq!(lab.control(&["count"]).trim(), sessions.to_string());
    ping(&mut clients, each);
    let begun = Instant::now();
    ping(&mut clients, each);
    let pinged = begun.elapsed();
    // The kernel tells late that an interface has its carrier; then each flow is judged anew by its next packet.
    let until = Instant::now() + Duration::from_secs(TIMEOUT_SECS.into());
    let mut known = lab.known();
    while known <= sessions * 9 / 10 {
        assert!(Instant::now() < until, "the kernel knows {known} of {sessions}");
        ping(&mut clients, each);
        known = lab.known();
    }
    lab.kill();
    ping(&mut clients, each);
    let begun = Instant::now();
    let said = lab.start();
    let started = begun.elapsed();
    assert!(said.contains(&format!("{known} established connections taken over")), "{said}");
    ping(&mut clients, each);
    println!(
        "{sessions} sessions: opened in {opened:.1?}, pinged in {pinged:.1?}, {known} in the kernel, taken over in {started:.1?}"
    );
}
