//! A pair of network namespaces for one test: a server and a client, joined by a cable. They are gone at its end, however it ends.
use keepstate_linux::SysRoot;
use keepstate_linux::netns::{self, Netns};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Where the server is.
pub const SERVER: &str = "10.77.0.1";

/// The two namespaces, with names that no other test or process has.
pub struct NetnsPair {
    pub server: String,
    client: String,
}

/// What one run of the program left.
pub struct DisableOutput {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

pub use keepstate_test_support::report_skipped;

impl NetnsPair {
    /// Makes them; `None`, said loudly, where that is not permitted.
    pub fn new(test: &str) -> Option<NetnsPair> {
        let name = |side: &str| format!("ks-{}-{test}-{side}", std::process::id());
        let place = NetnsPair { server: name("s"), client: name("c") };
        let made = Command::new("ip").args(["netns", "add", &place.server]).output();
        if !made.is_ok_and(|made| made.status.success()) {
            report_skipped(&format!("{test} needs root and `ip netns`"));
            return None;
        }
        run(&["ip", "netns", "add", &place.client]);
        let (server, client) = (place.server.as_str(), place.client.as_str());
        run(&["ip", "-n", server, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", client]);
        for (side, address) in [(server, "10.77.0.1/24"), (client, "10.77.0.2/24")] {
            run(&["ip", "-n", side, "link", "set", "lo", "up"]);
            run(&["ip", "-n", side, "link", "set", "cable", "up"]);
            run(&["ip", "-n", side, "address", "add", address, "dev", "cable"]);
        }
        for (side, address) in [(server, "fd77::1/64"), (client, "fd77::2/64")] {
            // Duplicates are not looked for: that takes seconds.
            run(&["ip", "-n", side, "address", "add", address, "dev", "cable", "nodad"]);
        }
        Some(place)
    }

    /// Runs a program in the server's namespace; it must succeed.
    pub fn run(&self, words: &[&str]) -> String {
        run(&[&["ip", "netns", "exec", &self.server], words].concat())
    }

    /// Runs a program there that may fail, as where the kernel has no such thing.
    pub fn try_run(&self, words: &[&str]) -> bool {
        output(&[&["ip", "netns", "exec", &self.server], words].concat()).status.success()
    }

    /// Runs nft there on a text.
    pub fn nft(&self, text: &str) {
        self.nft_with(&["-f", "-"], text).unwrap();
    }

    /// Runs nft there with arguments; what it says if it refuses.
    pub fn nft_with(&self, arguments: &[&str], text: &str) -> Result<(), String> {
        let mut child = Command::new("ip")
            .args([&["netns", "exec", &self.server, "nft"], arguments].concat())
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let ended = child.wait_with_output().unwrap();
        if ended.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ended.stderr).into_owned()) }
    }

    /// Runs `keepstate disable` on the server's namespace.
    pub fn disable(&self, arguments: &[&str]) -> DisableOutput {
        disable(&[&["--netns", &self.server], arguments].concat(), None)
    }

    /// What it answers with `--json`, and its exit code.
    pub fn disable_json(&self, arguments: &[&str]) -> (Value, Option<i32>) {
        let ran = self.disable(&[&["--json"], arguments].concat());
        let document: Value =
            serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}{}", ran.out, ran.err));
        assert_eq!(document["schema"], "keepstate.disable/1");
        (document, ran.code)
    }

    fn enter_netns(&self, name: &str) -> Netns {
        netns::find(name).unwrap()
    }

    /// A connection from the client to a port of the server: does a word go there and an echo come back?
    pub fn can_connect(&self, port: u16) -> bool {
        self.can_connect_to(SERVER.parse().unwrap(), port)
    }

    /// The same, to an address of the server.
    pub fn can_connect_to(&self, address: IpAddr, port: u16) -> bool {
        let address = SocketAddr::new(address, port);
        let listener = self.enter_netns(&self.server).enter(|| TcpListener::bind(address).unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let echo = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                if let Ok((mut connection, _)) = listener.accept() {
                    connection.set_nonblocking(false).unwrap();
                    connection.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
                    let mut word = [0; 4];
                    let _ = connection.read_exact(&mut word).and_then(|()| connection.write_all(&word));
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let talked = self.enter_netns(&self.client).enter(|| {
            let mut connection = TcpStream::connect_timeout(&address, Duration::from_millis(1500)).ok()?;
            connection.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
            connection.write_all(b"word").ok()?;
            let mut word = [0; 4];
            connection.read_exact(&mut word).ok()?;
            (word == *b"word").then_some(())
        });
        let talked = talked.unwrap().is_some();
        over.store(true, Ordering::Relaxed);
        echo.join().unwrap();
        talked
    }

    /// How many entries of the server's table are about a port.
    pub fn count_entries(&self, port: u16) -> usize {
        let read = || SysRoot::live().read("/proc/thread-self/net/nf_conntrack").unwrap();
        let table = self.enter_netns(&self.server).enter(read).unwrap();
        table.lines().filter(|line| line.contains(&format!("port={port} "))).count()
    }
}

impl Drop for NetnsPair {
    fn drop(&mut self) {
        for name in [&self.server, &self.client] {
            let _ = output(&["ip", "netns", "del", name]);
        }
    }
}

/// Runs `keepstate disable`, in an SSH session or in none.
pub fn disable(arguments: &[&str], session: Option<&str>) -> DisableOutput {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keepstate"));
    command.arg("disable").args(arguments).env_remove("SSH_CONNECTION");
    if let Some(session) = session {
        command.env("SSH_CONNECTION", session);
    }
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    DisableOutput { code: status.code(), out: text(stdout), err: text(stderr) }
}

fn output(words: &[&str]) -> Output {
    Command::new(words[0]).args(&words[1..]).output().unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

fn run(words: &[&str]) -> String {
    let Output { status, stdout, stderr } = output(words);
    assert!(status.success(), "{words:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}
