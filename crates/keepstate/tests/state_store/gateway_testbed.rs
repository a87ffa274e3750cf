//! Client and server in namespaces of their own, between them a gateway that can be killed and started again.
use super::common::{TempFile, keepstate, report_skipped};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Sources are translated to a port that nobody can guess, and only a SYN begins a connection: without the table nothing would go on.
const RULES: &str = "
table inet filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state invalid drop
		ct state established,related accept
		iifname lan0 oifname wan0 meta l4proto udp accept
		iifname lan0 oifname wan0 tcp flags & (syn | ack) == syn accept
	}
}
table ip nat {
	chain post {
		type nat hook postrouting priority srcnat;
		oifname wan0 masquerade fully-random
	}
}
";

pub struct GatewayTestbed {
    tag: String,
    gateway: Option<Child>,
    ruleset: TempFile,
    folder: TempFolder,
}

/// A folder that goes with what it is for.
pub struct TempFolder(pub PathBuf);

impl TempFolder {
    pub fn new(name: &str) -> TempFolder {
        let path = std::env::temp_dir().join(format!("keepstate-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        TempFolder(path)
    }

    pub fn file(&self) -> PathBuf {
        self.0.join("gateway.table")
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl GatewayTestbed {
    /// `None` where namespaces may not be made.
    pub fn new(name: &str) -> Option<GatewayTestbed> {
        let tag = format!("kskp{}{name}", std::process::id());
        let lab = GatewayTestbed {
            ruleset: TempFile::new(&format!("{name}-keep.nft"), RULES.as_bytes()),
            folder: TempFolder::new(&format!("{name}-state")),
            gateway: None,
            tag,
        };
        for side in ["c", "g", "s"] {
            if !run_ip(&["netns", "add", &format!("{}{side}", lab.tag)]) {
                report_skipped(
                    "the table kept over a restart, with real peers: it needs root, network namespaces and iproute2",
                );
                return None;
            }
            run_ip(&["-n", &format!("{}{side}", lab.tag), "link", "set", "lo", "up"]);
        }
        Some(lab)
    }

    /// Starts the gateway; gives what it says until it routes.
    pub fn start(&mut self) -> String {
        let mut gateway = Command::new("ip")
            .args(["netns", "exec", &format!("{}g", self.tag), env!("CARGO_BIN_EXE_keepstate"), "gateway"])
            .args(["--ruleset", self.ruleset.path(), "--state", &self.folder.0.to_string_lossy()])
            .args(["--device", "lan0=10.1.0.1/24,fd00:1::1/64", "--device", "wan0=192.0.2.1/24,2001:db8::1/64"])
            .args(["--route", "0.0.0.0/0=wan0", "--route", "::/0=wan0", "--control", &self.socket()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut notes = BufReader::new(gateway.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("routing between") {
            assert!(notes.read_line(&mut said).unwrap() > 0, "it does not route: {said}");
        }
        // What it says later is read away, so that it never has to wait.
        std::thread::spawn(move || std::io::copy(&mut notes, &mut std::io::sink()));
        self.gateway = Some(gateway);
        self.configure_side("lan0", "c", &["10.1.0.2/24", "fd00:1::2/64"]);
        self.configure_side("wan0", "s", &["192.0.2.9/24", "2001:db8::9/64"]);
        said
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut gateway = self.gateway.take().unwrap();
        gateway.kill().unwrap();
        gateway.wait().unwrap();
    }

    /// Asks it to end, and waits.
    pub fn terminate(&mut self) {
        let mut gateway = self.gateway.take().unwrap();
        assert!(Command::new("kill").args(["-TERM", &gateway.id().to_string()]).status().unwrap().success());
        assert!(gateway.wait().unwrap().success());
    }

    pub fn state(&self) -> PathBuf {
        self.folder.file()
    }

    fn socket(&self) -> String {
        Path::new(&self.folder.0).join("gateway.sock").to_string_lossy().into_owned()
    }

    /// What the gateway answers.
    pub fn control(&self, words: &[&str]) -> String {
        let ran = keepstate(&[&["control", "--socket", &self.socket()][..], words].concat(), b"");
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        ran.out
    }

    /// Gives a device to a namespace, with its addresses and the way to everybody.
    fn configure_side(&self, device: &str, side: &str, addresses: &[&str]) {
        let (from, to) = (format!("{}g", self.tag), format!("{}{side}", self.tag));
        assert!(run_ip(&["-n", &from, "link", "set", device, "netns", &to]));
        for address in addresses {
            let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
            assert!(run_ip(&[&["-n", &to, "addr", "add", address, "dev", device][..], nodad].concat()));
        }
        for words in [
            &["link", "set", device, "up"][..],
            &["route", "add", "default", "dev", device],
            &["-6", "route", "add", "default", "dev", device],
        ] {
            assert!(run_ip(&[&["-n", to.as_str()][..], words].concat()), "{words:?}");
        }
    }

    /// Runs something in a namespace, on a thread of its own.
    pub fn spawn_in_netns<T: Send + 'static>(
        &self,
        side: &str,
        what: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let path = format!("/run/netns/{}{side}", self.tag);
        std::thread::spawn(move || {
            let door = File::open(path).unwrap();
            // SAFETY: the descriptor is open; only this thread changes its namespace.
            assert_eq!(unsafe { libc::setns(door.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
            what()
        })
    }
}

impl Drop for GatewayTestbed {
    fn drop(&mut self) {
        if let Some(gateway) = &mut self.gateway {
            let _ = gateway.kill();
            let _ = gateway.wait();
        }
        for side in ["c", "g", "s"] {
            run_ip(&["netns", "del", &format!("{}{side}", self.tag)]);
        }
    }
}

pub fn run_ip(words: &[&str]) -> bool {
    let ran = Command::new("ip").args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}

/// Waits for something that must come.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "{what}: never");
        std::thread::sleep(Duration::from_millis(10));
    }
}
