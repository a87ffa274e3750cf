//! `keepstate serve` beside a running gateway, and beside Linux's table in the gateway's network namespace.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;
#[path = "common/running_gateway.rs"]
mod running_gateway;

use common::{keepstate, report_skipped};
use running_gateway::RunningGateway;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// A process that ends with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Calls `done` until it is true.
fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn gateway(name: &str) -> Option<RunningGateway> {
    RunningGateway::start(&format!("serve-{name}"), "", &["srv0=10.1.0.1/24"], "a gateway to serve")
}

/// `keepstate serve` with these options, and where it listens.
fn serve(options: &[&str]) -> (Killed, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_keepstate"))
        .args(["serve", "--listen", "127.0.0.1:0"])
        .args(options)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut notes = BufReader::new(child.stderr.take().unwrap());
    let running = Killed(child);
    let mut line = String::new();
    notes.read_line(&mut line).unwrap();
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    let address = address.unwrap_or_else(|| panic!("no address in {line:?}")).to_owned();
    // Whoever writes more must not wait for a reader.
    std::thread::spawn(move || std::io::copy(&mut notes, &mut std::io::sink()));
    (running, address)
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn has_lines(text: &str, lines: &[&str]) -> bool {
    lines.iter().all(|line| text.lines().any(|there| there == *line))
}

const INSERT: [&str; 13] =
    ["-I", "-p", "udp", "-s", "10.1.0.7", "-d", "10.2.0.9", "--sport", "4000", "--dport", "53", "-t", "1000"];

#[test]
fn a_running_gateway_is_served() {
    let Some(gateway) = gateway("gw") else { return };
    let at = format!("--gateway={}", gateway.socket.display());
    let inserted = keepstate(&[&["conntrack", &at][..], &INSERT].concat(), b"");
    assert_eq!(inserted.code, Some(0), "{}", inserted.err);
    let (_serve, address) = serve(&[&at, "--doctor", "1h"]);
    wait_for("ready", || get(&address, "/readyz").starts_with("HTTP/1.1 200"));
    let wanted = [
        "keepstate_conntrack_entries 1",
        r#"keepstate_conntrack_state_entries{protocol="udp",state="UNREPLIED"} 1"#,
        r#"keepstate_gateway_packets_total{result="forwarded"} 0"#,
    ];
    wait_for("the table and the counters", || has_lines(&get(&address, "/metrics"), &wanted));
    wait_for("doctor's findings", || get(&address, "/metrics").contains("keepstate_finding{name="));
    let text = get(&address, "/metrics");
    assert!(!text.contains("10.1.0.7") && !text.contains("4000"), "no address, no port:\n{text}");
    // What happens now is told by events.
    let deleted = keepstate(&["conntrack", &at, "-D", "-p", "udp"], b"");
    assert_eq!(deleted.code, Some(0), "{}", deleted.err);
    let wanted = ["keepstate_conntrack_entries 0", r#"keepstate_conntrack_events_total{type="destroy"} 1"#];
    wait_for("the end of a connection", || has_lines(&get(&address, "/metrics"), &wanted));
}

#[test]
fn a_gateway_that_ends_is_said() {
    let Some(gateway) = gateway("end") else { return };
    let (_serve, address) = serve(&[&format!("--gateway={}", gateway.socket.display()), "--doctor", "0"]);
    wait_for("ready", || get(&address, "/readyz").starts_with("HTTP/1.1 200"));
    drop(gateway);
    wait_for("not ready", || get(&address, "/readyz").starts_with("HTTP/1.1 503"));
    assert!(get(&address, "/healthz").starts_with("HTTP/1.1 200"));
}

#[test]
fn linuxs_table_in_a_network_namespace_is_served() {
    // The namespace is that of a process that waits for its input's end.
    let started = Command::new("unshare").args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let Ok(child) = started else { return report_skipped("unshare is not installed") };
    let mut holder = Killed(child);
    let pid = holder.0.id().to_string();
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    wait_for("its own namespace", || !matches!(holder.0.try_wait(), Ok(None)) || namespace(&pid) != namespace("self"));
    if !matches!(holder.0.try_wait(), Ok(None)) {
        return report_skipped("making a network namespace needs root");
    }
    let inside = |words: &[&str]| {
        let nsenter = ["--net", "-t", &pid, env!("CARGO_BIN_EXE_keepstate"), "conntrack"];
        Command::new("nsenter").args(nsenter).args(words).output().unwrap()
    };
    let inserted = inside(&INSERT);
    if !inserted.status.success() {
        return report_skipped("connections cannot be inserted: no ctnetlink");
    }
    let (_serve, address) = serve(&["--netns", &pid, "--doctor", "0", "--names", "node-exporter"]);
    let wanted = ["keepstate_conntrack_entries 1", "node_nf_conntrack_entries 1"];
    wait_for("the table", || has_lines(&get(&address, "/metrics"), &wanted));
    assert!(inside(&["-D", "-p", "udp"]).status.success());
    wait_for("an empty table", || has_lines(&get(&address, "/metrics"), &["keepstate_conntrack_entries 0"]));
}

#[test]
fn what_cannot_be_served_is_said() {
    let none = keepstate(&["serve", "--gateway=/nonexistent/socket", "--listen", "127.0.0.1:0"], b"");
    assert_eq!(none.code, Some(1));
    assert!(none.err.contains("no gateway listens there"), "{}", none.err);
    let unknown = keepstate(&["serve", "--netns", "no-such-namespace"], b"");
    assert_eq!(unknown.code, Some(3), "{}", unknown.err);
    let host = keepstate(&["serve", "--host", "http://a/"], b"");
    assert_eq!(host.code, Some(2), "{}", host.err);
}
