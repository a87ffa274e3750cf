//! Thousands of MQTT sessions through `keepstate gateway` with NAT: all stay open, and all answer a ping at the end.
//!
//! `KEEPSTATE_SESSIONS` sets another number; 70,000 with `cargo xtask compare sessions`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;
#[path = "common/peers.rs"]
mod peers;

use common::{TempFile, keepstate, report_skipped};
use peers::run_ip;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const DEFAULT_SESSIONS: usize = 20_000;
/// Many machines allow a process 20,000 open files; a client address has 28,000 ports towards one server address: so four of each.
const ADDRESS_PAIRS: usize = 4;
const CLIENTS: [[u8; 4]; ADDRESS_PAIRS] = [[10, 1, 0, 2], [10, 1, 0, 3], [10, 1, 0, 4], [10, 1, 0, 5]];
const SERVERS: [[u8; 4]; ADDRESS_PAIRS] = [[192, 0, 2, 9], [192, 0, 2, 10], [192, 0, 2, 11], [192, 0, 2, 12]];
/// Seconds.
const TIMEOUT_SECS: u32 = 90;

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
        let until = Instant::now() + Duration::from_secs(20);
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

#[test]
fn all_mqtt_sessions_stay_open_through_the_gateway() {
    let sessions: usize =
        std::env::var("KEEPSTATE_SESSIONS").ok().map_or(DEFAULT_SESSIONS, |text| text.parse().unwrap());
    let each = sessions / ADDRESS_PAIRS;
    let ruleset = TempFile::new("mqtt.nft", RULES.as_bytes());
    let Some(lab) = MqttTestbed::new(&ruleset) else { return };
    let (inside, outside) = (format!("{}c", lab.tag), format!("{}s", lab.tag));
    let mut servers: Vec<MqttProcess> = SERVERS
        .iter()
        .map(|address| MqttProcess::start(&outside, &["accept".into(), format!("{}:1883", IpAddr::from(*address))]))
        .collect();
    for server in &mut servers {
        assert_eq!(server.read_line(), "listening");
    }
    let mut clients: Vec<MqttProcess> = CLIENTS
        .iter()
        .zip(SERVERS)
        .map(|(from, to)| {
            let words = format!(
                "fleet --from {} --to {}:1883 --sessions {each} --patience {TIMEOUT_SECS}",
                IpAddr::from(*from),
                IpAddr::from(to)
            );
            MqttProcess::start(&inside, &words.split(' ').map(str::to_owned).collect::<Vec<_>>())
        })
        .collect();
    for client in &mut clients {
        assert_eq!(client.read_line(), format!("open={each} refused=0 lost=0"));
    }
    assert_eq!(lab.control(&["count"]).trim(), (each * ADDRESS_PAIRS).to_string());
    // The ruleset is reloaded, and then every session is pinged.
    lab.control(&["reload"]);
    for client in &mut clients {
        client.child.stdin.as_mut().unwrap().write_all(b"ping\n").unwrap();
        assert_eq!(client.read_line(), format!("open={each} refused=0 lost=0 answered={each}"));
    }
    assert_eq!(lab.control(&["count"]).trim(), (each * ADDRESS_PAIRS).to_string());
}
