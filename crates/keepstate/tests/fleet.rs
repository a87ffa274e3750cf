//! A fleet of two nodes over a real NATS server, set up with the book's example files: a gateway, and Linux's table in a network namespace.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;
#[path = "common/running_gateway.rs"]
mod running_gateway;

use common::{keepstate, report_skipped};
use keepstate_test_support::{NatsServers, make_certificates};
use running_gateway::RunningGateway;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

/// A process that ends with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for<T>(what: &str, mut done: impl FnMut() -> Result<T, String>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        match done() {
            Ok(value) => return value,
            Err(last) => assert!(Instant::now() < until, "{what}: {last}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../book/src/examples/fleet").join(name);
    std::fs::read_to_string(path).unwrap()
}

/// The book's server, with its files in `folder` and on an address of this process.
fn server(folder: &Path) -> Option<NatsServers> {
    let text = example("nats-server.conf");
    let ours = |line: &&str| !line.starts_with("server_name:") && !line.starts_with("listen:");
    let text: Vec<&str> = text.lines().filter(ours).collect();
    let text =
        text.join("\n").replace("/var/lib/nats", "STORE").replace("/etc/nats/", &format!("{}/", folder.display()));
    NatsServers::start_with(1, &text)
}

/// The book's fleet file for this server, node and user.
fn fleet_file(servers: &NatsServers, folder: &Path, node: &str, user: [&str; 2]) -> PathBuf {
    let url = servers.url().replace("nats://", "tls://");
    let text = example("fleet.toml").replace("tls://nats1.example.net:4222", &url).replace("gw1", node);
    std::fs::write(folder.join(format!("{node}.user")), user.join("\n")).unwrap();
    let path = folder.join(format!("{node}.toml"));
    std::fs::write(&path, text.replace("fleet.user", &format!("{node}.user"))).unwrap();
    path
}

fn serve(file: &Path, options: &[&str]) -> Killed {
    serve_at(file, options).0
}

/// `keepstate serve`, and the address where it serves.
fn serve_at(file: &Path, options: &[&str]) -> (Killed, String) {
    let fleet = format!("--fleet={}", file.display());
    let child = Command::new(env!("CARGO_BIN_EXE_keepstate"))
        .args(["serve", "--listen", "127.0.0.1:0", "--doctor", "1s", &fleet])
        .args(options)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("http://")).unwrap();
    // What it logs later is read and forgotten.
    std::thread::spawn(move || lines.for_each(drop));
    (Killed(child), line.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned())
}

/// Documents of the fleet's page until one is as wanted.
fn wait_for_page(address: &str, what: &str, wanted: impl Fn(&Value) -> bool) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /fleet/live HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let until = Instant::now() + PATIENCE;
    let mut last = String::new();
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        let Some(text) = line.strip_prefix("data: ") else { continue };
        if wanted(&serde_json::from_str(text).unwrap()) {
            return;
        }
        text.clone_into(&mut last);
        assert!(Instant::now() < until, "{what}: {last}");
    }
    panic!("the page has ended: {last}");
}

const INSERT: [&str; 13] =
    ["-I", "-p", "udp", "-s", "10.1.0.7", "-d", "10.2.0.9", "--sport", "4000", "--dport", "53", "-t", "1000"];
const NODE: [&str; 2] = ["node", "change this"];
const OPERATOR: [&str; 2] = ["operator", "change this too"];

#[test]
fn a_fleet_is_asked_as_the_book_says() {
    let Some(gateway) = RunningGateway::start("fleet", "", &["srv0=10.1.0.1/24"], "a gateway in a fleet") else {
        return;
    };
    let folder = std::env::temp_dir().join(format!("keepstate-fleet-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let remove = Removed(folder.clone());
    if make_certificates(&folder).is_none() {
        return report_skipped("openssl is missing");
    }
    let Some(servers) = server(&folder) else { return };
    let at = format!("--gateway={}", gateway.socket.display());
    let asker = fleet_file(&servers, &folder, "desk", OPERATOR);
    let fleet = format!("--fleet={}", asker.display());

    let nobody = keepstate(&["doctor", &fleet], b"");
    assert_eq!((nobody.code, nobody.err.as_str()), (Some(3), ""), "no library speaks between: {}", nobody.out);
    assert!(nobody.out.contains("no node is registered"), "{}", nobody.out);

    // The gateway's own namespace is the second node's table.
    let pid = gateway.child.id().to_string();
    let _first = serve(&fleet_file(&servers, &folder, "gw1", NODE), &[&at]);
    let second = serve(&fleet_file(&servers, &folder, "linux", NODE), &["--netns", &pid]);
    let inserted = keepstate(&[&["conntrack", &at][..], &INSERT].concat(), b"");
    assert_eq!(inserted.code, Some(0), "{}", inserted.err);
    let listed = wait_for("both nodes list", || {
        let listed = keepstate(&["conntrack", &fleet, "-L", "-p", "udp", "--dport", "53"], b"");
        let is_done = listed.code == Some(0) && listed.err.contains("1 flow entries of 2 nodes");
        if is_done { Ok(listed) } else { Err(format!("{}{}", listed.out, listed.err)) }
    });
    let line = listed.out.lines().next().unwrap();
    assert!(line.starts_with("gw1: udp ") && line.contains("src=10.1.0.7"), "{}", listed.out);
    let none = keepstate(&["conntrack", &fleet, "-L", "-p", "tcp"], b"");
    assert_eq!((none.code, none.out.as_str()), (Some(0), ""), "{}", none.err);

    let doctor = keepstate(&["doctor", &fleet, "--json"], b"");
    let document: Value = serde_json::from_str(&doctor.out).unwrap();
    assert_eq!(document["schema"], "keepstate.fleet-doctor/1");
    let nodes = document["nodes"].as_array().unwrap();
    let mut names: Vec<&str> = nodes.iter().map(|node| node["node"]["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["gw1", "linux"]);
    assert!(nodes.iter().all(|node| node["report"]["schema"] == "keepstate.doctor/1"), "{}", doctor.out);
    assert_eq!(doctor.code, document["exit_code"].as_i64().map(|code| code as i32));

    // Nothing can be changed from afar, and the user of a node may not ask.
    for command in ["-F", "-D", "-E"] {
        let refused = keepstate(&["conntrack", &fleet, command], b"");
        assert!(refused.code == Some(1) && refused.err.contains("only lists"), "{command}: {}", refused.err);
    }
    let node_asks = format!("--fleet={}", folder.join("gw1.toml").display());
    let refused = keepstate(&["conntrack", &node_asks, "-L"], b"");
    assert!(refused.code == Some(1) && refused.err.to_lowercase().contains("permissions violation"), "{}", refused.err);

    // Who only asks is no node itself; who should be there and is not is said.
    let desk = folder.join("desk.toml");
    let text = std::fs::read_to_string(&desk).unwrap();
    std::fs::write(&desk, format!("register = false\nnodes = [\"gw1\", \"never\"]\n{text}")).unwrap();
    let (_page, address) = serve_at(&desk, &["--netns", &pid]);
    let node = |document: &Value, name: &str| {
        document["rows"].as_array().into_iter().flatten().find(|row| row[0] == name).cloned().unwrap_or(Value::Null)
    };
    wait_for_page(&address, "all nodes on the page", |document| {
        let (gateway, never) = (node(document, "gw1"), node(document, "never"));
        document["nodes"] == 3
            && document["silent"] == 1
            && gateway[1] == "gateway"
            && gateway[3] == 1
            && never[8].as_str().is_some_and(|text| text.contains("has not registered"))
    });

    // A node that dies is said, and counted.
    drop(second);
    let top = wait_for("top says who does not answer", || {
        let top = keepstate(&["top", &fleet, "--once", "--size", "120x12"], b"");
        if top.out.contains("3 nodes, 2 do not answer") { Ok(top) } else { Err(format!("{}{}", top.out, top.err)) }
    });
    let line = |name: &str| top.out.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(top.out.starts_with("fleet site  "), "{}", top.out);
    assert!(
        line("linux").contains("unknown") && line("linux").contains("does not answer, last heard of"),
        "{}",
        top.out
    );
    assert!(line("never").contains("has not registered"), "{}", top.out);
    let listed = keepstate(&["conntrack", &fleet, "-L"], b"");
    assert_eq!(listed.code, Some(1), "{}", listed.err);
    assert!(listed.err.contains("linux: it does not answer") && listed.err.contains("of 1 nodes"), "{}", listed.err);
    assert!(listed.err.contains("; 2 did not answer"), "{}", listed.err);
    let doctor = keepstate(&["doctor", &fleet], b"");
    assert_eq!(doctor.code, Some(3), "{}", doctor.out);
    assert!(doctor.out.starts_with("UNKNOWN linux: it does not answer, last heard of"), "{}", doctor.out);
    wait_for_page(&address, "the dead node on the page", |document| document["silent"] == 2);
    drop(remove);
}

/// A folder that is removed with the test.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_fleet_that_cannot_be_asked_is_said() {
    let missing = keepstate(&["doctor", "--fleet=/nonexistent/fleet.toml"], b"");
    assert!(missing.code == Some(3) && missing.err.contains("/nonexistent/fleet.toml"), "{}", missing.err);
    let file =
        common::TempFile::new("fleet.toml", b"fleet = \"site\"\nnode = \"a\"\nservers = [\"nats://127.0.0.1:1\"]\n");
    let fleet = format!("--fleet={}", file.path());
    let nobody = keepstate(&["conntrack", &fleet, "-L"], b"");
    assert!(nobody.code == Some(1) && nobody.err.contains("nats://127.0.0.1:1"), "{}", nobody.err);
    let top = keepstate(&["top", &fleet, "--once"], b"");
    assert!(top.code == Some(1) && top.err.contains("nats://127.0.0.1:1"), "{}{}", top.out, top.err);
    let both = keepstate(&["top", &fleet, "--netns", "x"], b"");
    assert!(both.code == Some(2) && both.err.contains("--netns"), "{}", both.err);
    let both = keepstate(&["doctor", &fleet, "--gateway"], b"");
    assert!(both.code == Some(2) && both.err.contains("--gateway"), "{}", both.err);
}
