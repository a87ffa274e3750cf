//! A gateway that logs, with a client behind it.
use crate::common::{ProgramOutput, keepstate, report_skipped};
use crate::peers::{run_ip, spawn_in_netns};
use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RULES: &str = "
table ip nat {
	chain post {
		type nat hook postrouting priority srcnat;
		oifname wan0 snat to 192.0.2.1
	}
}
";
/// Sessions of a test: source ports from 20000 on.
pub const SESSIONS: u16 = 50;
pub const FIRST_PORT: u16 = 20_000;

pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(90);
    while !is_so() {
        assert!(Instant::now() < until, "not within 90 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A gateway in a namespace of its own, a client in another.
pub struct LogTestbed {
    tag: String,
    folder: tempfile::TempDir,
    gateway: Option<Child>,
}

impl LogTestbed {
    /// `None` where there are no namespaces.
    pub fn new(name: &str, settings: &str) -> Option<LogTestbed> {
        let tag = format!("ksfl{}{name}", std::process::id());
        for side in ["g", "c"] {
            if !run_ip(&["netns", "add", &format!("{tag}{side}")]) {
                report_skipped("flow logs of a running gateway: it needs root, network namespaces and iproute2");
                return None;
            }
        }
        assert!(run_ip(&["-n", &format!("{tag}g"), "link", "set", "lo", "up"]));
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("rules.nft"), RULES).unwrap();
        let file = format!(
            "version = 1\nruleset = \"rules.nft\"\ncontrol = \"socket\"\n\
             device = [{{ name = \"lan0\", addresses = [\"10.1.0.1/24\"] }}, {{ name = \"wan0\", addresses = [\"192.0.2.254/24\"] }}]\n\
             route = [{{ to = \"0.0.0.0/0\", interface = \"wan0\" }}]\n{settings}"
        );
        fs::write(folder.path().join("gateway.toml"), file).unwrap();
        Some(LogTestbed { tag, folder, gateway: None })
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn text_path(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Replaces a text in gateway.toml.
    pub fn replace(&self, from: &str, to: &str) {
        let path = self.path("gateway.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(&path, text.replace(from, to)).unwrap();
    }

    pub fn gateway_netns(&self) -> String {
        format!("{}g", self.tag)
    }

    pub fn start(&mut self) {
        let config = self.text_path("gateway.toml");
        let program = env!("CARGO_BIN_EXE_keepstate");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.gateway_netns(), program, "gateway", "--config", &config]);
        self.gateway = Some(command.stderr(Stdio::null()).spawn().unwrap());
        let (from, to) = (self.gateway_netns(), format!("{}c", self.tag));
        wait_until("lan0 is made", || run_ip(&["-n", &from, "link", "set", "lan0", "netns", &to]));
        for words in [
            &["addr", "add", "10.1.0.2/24", "dev", "lan0"][..],
            &["link", "set", "lan0", "up"],
            &["route", "add", "default", "dev", "lan0"],
        ] {
            assert!(run_ip(&[&["-n", to.as_str()][..], words].concat()), "{words:?}");
        }
    }

    pub fn stats(&self) -> Value {
        let ran = keepstate(&["control", "--socket", &self.text_path("socket"), "stats", "--json"], b"");
        serde_json::from_str(&ran.out).unwrap_or_default()
    }

    /// Sends one packet from each source port.
    pub fn send_packets(&self) {
        let client = spawn_in_netns(&format!("{}c", self.tag), || {
            for port in FIRST_PORT..FIRST_PORT + SESSIONS {
                let socket = UdpSocket::bind((Ipv4Addr::new(10, 1, 0, 2), port)).unwrap();
                socket.send_to(b"hello", "198.51.100.7:53").unwrap();
            }
        });
        client.join().unwrap();
    }

    /// Stops it as `kill PID` does.
    pub fn stop(&mut self) {
        let mut gateway = self.gateway.take().unwrap();
        assert!(Command::new("kill").arg(gateway.id().to_string()).status().unwrap().success());
        assert!(gateway.wait().unwrap().success());
    }

    pub fn who(&self, words: &[&str]) -> ProgramOutput {
        keepstate(&[&["who"][..], words].concat(), b"")
    }
}

impl Drop for LogTestbed {
    fn drop(&mut self) {
        if let Some(mut gateway) = self.gateway.take() {
            let _ = gateway.kill();
            let _ = gateway.wait();
        }
        for side in ["g", "c"] {
            run_ip(&["netns", "del", &format!("{}{side}", self.tag)]);
        }
    }
}
