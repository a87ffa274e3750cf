//! 70,000 sessions of MQTT through `keepstate gateway`, with translation: all are held, and all answer in the end.
//!
//! KEEPSTATE_SESSIONS makes it fewer, or more.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;
#[path = "common/peers.rs"]
mod peers;

use common::{Scratch, keepstate, skipped};
use peers::ip;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const SESSIONS: usize = 70_000;
/// A process has 20,000 open files on many machines, a client address 28,000 ports towards one server, the gateway's one address 64,512: so four of each.
const ENDS: usize = 4;
const CLIENTS: [[u8; 4]; ENDS] = [[10, 1, 0, 2], [10, 1, 0, 3], [10, 1, 0, 4], [10, 1, 0, 5]];
const SERVERS: [[u8; 4]; ENDS] = [[192, 0, 2, 9], [192, 0, 2, 10], [192, 0, 2, 11], [192, 0, 2, 12]];
/// Seconds.
const PATIENCE: u32 = 90;

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

struct Lab {
    tag: String,
    gateway: Child,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
        let _ = std::fs::remove_file(socket(&self.tag));
        for side in ["c", "g", "s"] {
            ip(&["netns", "del", &format!("{}{side}", self.tag)]);
        }
    }
}

impl Lab {
    fn new(ruleset: &Scratch) -> Option<Lab> {
        let tag = format!("ksmq{}", std::process::id());
        for side in ["c", "g", "s"] {
            if !ip(&["netns", "add", &format!("{tag}{side}")]) {
                skipped("thousands of MQTT sessions: they need root, network namespaces and iproute2");
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
        let lab = Lab { tag, gateway };
        lab.wire("lan0", "c", &CLIENTS);
        lab.wire("wan0", "s", &SERVERS);
        Some(lab)
    }

    fn wire(&self, device: &str, side: &str, addresses: &[[u8; 4]]) {
        let (from, to) = (format!("{}g", self.tag), format!("{}{side}", self.tag));
        let until = Instant::now() + Duration::from_secs(20);
        while !ip(&["-n", &from, "link", "set", device, "netns", &to]) {
            assert!(Instant::now() < until, "{device} was never made");
            std::thread::sleep(Duration::from_millis(20));
        }
        for address in addresses {
            assert!(ip(&["-n", &to, "addr", "add", &format!("{}/24", IpAddr::from(*address)), "dev", device]));
        }
        // Crowds of first segments: a device drops what finds no room in its queue.
        assert!(ip(&["-n", &to, "link", "set", device, "txqueuelen", "10000"]));
        for words in [
            &["link", "set", "lo", "up"][..],
            &["link", "set", device, "up"],
            &["route", "add", "default", "dev", device],
        ] {
            assert!(ip(&[&["-n", to.as_str()][..], words].concat()));
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

/// A process of one end: a few thousand open files are what a process may have.
struct End {
    child: Child,
    told: BufReader<ChildStdout>,
}

impl End {
    fn begin(namespace: &str, words: &[String]) -> End {
        let mut child = Command::new("ip")
            .args(["netns", "exec", namespace, env!("CARGO_BIN_EXE_keepstate"), "mqtt"])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let told = BufReader::new(child.stdout.take().unwrap());
        End { child, told }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.told.read_line(&mut line).unwrap() > 0, "an end has ended");
        line.trim().to_owned()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_session_is_held() {
    let sessions: usize = std::env::var("KEEPSTATE_SESSIONS").ok().map_or(SESSIONS, |text| text.parse().unwrap());
    let each = sessions / ENDS;
    let ruleset = Scratch::new("mqtt.nft", RULES.as_bytes());
    let Some(lab) = Lab::new(&ruleset) else { return };
    let (inside, outside) = (format!("{}c", lab.tag), format!("{}s", lab.tag));
    let _servers: Vec<End> = SERVERS
        .iter()
        .map(|address| End::begin(&outside, &["accept".into(), format!("{}:1883", IpAddr::from(*address))]))
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let mut fleets: Vec<End> = CLIENTS
        .iter()
        .zip(SERVERS)
        .map(|(from, to)| {
            let words = format!(
                "fleet --from {} --to {}:1883 --sessions {each} --patience {PATIENCE}",
                IpAddr::from(*from),
                IpAddr::from(to)
            );
            End::begin(&inside, &words.split(' ').map(str::to_owned).collect::<Vec<_>>())
        })
        .collect();
    for fleet in &mut fleets {
        assert_eq!(fleet.line(), format!("open={each} refused=0 lost=0"));
    }
    assert_eq!(lab.control(&["count"]).trim(), (each * ENDS).to_string());
    // The rules are loaded anew, and then everybody is asked.
    lab.control(&["reload"]);
    for fleet in &mut fleets {
        fleet.child.stdin.as_mut().unwrap().write_all(b"ping\n").unwrap();
        assert_eq!(fleet.line(), format!("open={each} refused=0 lost=0 answered={each}"));
    }
    assert_eq!(lab.control(&["count"]).trim(), (each * ENDS).to_string());
}
