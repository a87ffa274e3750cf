//! What doctor and metrics say of a clustered gateway: nobody active, all well, NATS away, all well again. A real gateway and a real nats-server, in one namespace.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;
#[path = "common/peers.rs"]
mod peers;

use common::{keepstate, report_skipped};
use keepstate_test_support::NatsServers;
use peers::{run_ip, spawn_in_netns};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);

/// A namespace and what runs in it; it all goes with the test.
struct Clustered {
    netns: String,
    folder: TempDir,
    nats: Option<NatsServers>,
    children: Vec<Child>,
}

impl Drop for Clustered {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.nats = None;
        run_ip(&["netns", "del", &self.netns]);
    }
}

impl Clustered {
    /// `None` where it cannot be made; that is reported.
    fn start() -> Option<Clustered> {
        let netns = format!("kscf{}", std::process::id());
        if !run_ip(&["netns", "add", &netns]) {
            report_skipped("findings of a cluster: they need root, network namespaces and iproute2");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut clustered = Clustered { netns: netns.clone(), folder, nats: None, children: Vec::new() };
        assert!(run_ip(&["-n", &netns, "link", "set", "lo", "up"]));
        clustered.nats = Some(spawn_in_netns(&netns, || NatsServers::start(1, "")).join().unwrap()?);
        let url = clustered.nats.as_ref().unwrap().url();
        let text = format!(
            "version = 1\nruleset = \"rules.nft\"\ncontrol = \"gw.sock\"\ndevice = [{{ name = \"lan0\", addresses = [\"10.1.0.1/24\"] }}]\n\
             [cluster]\nnode = \"gw1\"\nlease = \"manual\"\nservers = [\"{url}\"]\ndirectory = \"state\"\n"
        );
        let config = clustered.folder.path().join("gateway.toml");
        fs::write(&config, text).unwrap();
        fs::write(clustered.folder.path().join("rules.nft"), "").unwrap();
        let log = File::create(clustered.folder.path().join("log")).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &netns, env!("CARGO_BIN_EXE_keepstate"), "gateway", "--config"])
            .arg(&config)
            .stderr(Stdio::from(log))
            .spawn();
        clustered.children.push(child.unwrap());
        let socket = clustered.socket();
        clustered
            .wait("the control socket", |_| keepstate(&["control", "--socket", &socket, "count"], b"").code == Some(0));
        Some(clustered)
    }

    fn socket(&self) -> String {
        self.path("gw.sock").display().to_string()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn wait(&self, what: &str, mut holds: impl FnMut(&Clustered) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds(self) {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(Instant::now() < until, "{what} has not come:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The findings about the cluster by name and severity, and the whole document.
    fn doctor(&self) -> (Vec<(String, String)>, Value) {
        let at = format!("--gateway={}", self.socket());
        let ran = keepstate(&["doctor", &at, "--json", "--interval", "0"], b"");
        let document: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.err));
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let found = document["findings"].as_array().into_iter().flatten();
        let found = found.map(|finding| (text(finding, "name"), text(finding, "severity")));
        (found.filter(|(name, _)| name.starts_with("cluster-")).collect(), document)
    }

    fn wait_for_findings(&self, wanted: &[(&str, &str)]) {
        self.wait(&format!("{wanted:?}"), |clustered| {
            let (found, _) = clustered.doctor();
            found.iter().map(|(name, severity)| (name.as_str(), severity.as_str())).eq(wanted.iter().copied())
        });
    }
}

fn metrics(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn trouble_of_the_cluster_is_found_and_cleared() {
    let Some(mut clustered) = Clustered::start() else { return };
    let served = Command::new(env!("CARGO_BIN_EXE_keepstate"))
        .args(["serve", "--listen", "127.0.0.1:0", "--doctor", "1s", &format!("--gateway={}", clustered.socket())])
        .stderr(Stdio::piped())
        .spawn();
    let mut served = served.unwrap();
    let mut lines = BufReader::new(served.stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("http://")).unwrap();
    let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    clustered.children.push(served);

    // Nobody was promoted.
    clustered.wait_for_findings(&[("cluster-no-active", "critical")]);
    let promoted = keepstate(&["control", "--socket", &clustered.socket(), "promote"], b"");
    assert_eq!(promoted.code, Some(0), "{}{}", promoted.out, promoted.err);
    clustered.wait_for_findings(&[]);
    let (_, document) = clustered.doctor();
    assert_eq!((&document["shards"][0]["role"], &document["shards"][0]["node"]), (&"active".into(), &"gw1".into()));

    let unreachable = r#"keepstate_finding{name="cluster-unreachable",severity="warning"}"#;
    clustered
        .wait("the metric of a finding that is not there", |_| metrics(&address).contains(&format!("{unreachable} 0")));
    clustered.nats.as_mut().unwrap().kill(0);
    // By hand it goes on without NATS; with a lease that would be critical.
    clustered.wait_for_findings(&[("cluster-unreachable", "warning")]);
    clustered.wait("the metric of the finding", |_| metrics(&address).contains(&format!("{unreachable} 1")));
    let netns = clustered.netns.clone();
    let mut nats = clustered.nats.take().unwrap();
    clustered.nats = Some(
        spawn_in_netns(&netns, move || {
            nats.restart(0);
            nats
        })
        .join()
        .unwrap(),
    );
    clustered.wait_for_findings(&[]);
    clustered.wait("the metric is cleared", |_| metrics(&address).contains(&format!("{unreachable} 0")));
}
