//! What doctor, metrics and the fleet say of clustered gateways: nobody active, all well, NATS away, all well again; two gateways with a shard each. Real gateways and a real nats-server, in one namespace.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;
#[path = "common/peers.rs"]
mod peers;
#[path = "common/two_shards.rs"]
mod two_shards;

use common::{ProgramOutput, keepstate, report_skipped};
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
use two_shards::two_shards;

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
    /// With so many gateways. `None` where it cannot be made; that is reported.
    fn start(name: &str, gateways: usize, keys: &str) -> Option<Clustered> {
        let netns = format!("kscf{}{name}", std::process::id());
        if !run_ip(&["netns", "add", &netns]) {
            report_skipped("findings of a cluster: they need root, network namespaces and iproute2");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut clustered = Clustered { netns: netns.clone(), folder, nats: None, children: Vec::new() };
        assert!(run_ip(&["-n", &netns, "link", "set", "lo", "up"]));
        clustered.nats = Some(spawn_in_netns(&netns, || NatsServers::start(1, "")).join().unwrap()?);
        fs::write(clustered.path("rules.nft"), "").unwrap();
        for index in 0..gateways {
            let text = format!(
                "version = 1\nruleset = \"rules.nft\"\ncontrol = \"{index}.sock\"\ndevice = [{{ name = \"lan{index}\", addresses = [\"10.1.{index}.1/24\"] }}]\n\
                 [cluster]\nnode = \"gw{}\"\nservers = [\"{}\"]\ndirectory = \"state{index}\"\n{keys}",
                index + 1,
                clustered.nats_url()
            );
            let config = clustered.path(&format!("{index}.toml"));
            fs::write(&config, text).unwrap();
            let log = File::create(clustered.path(&format!("{index}.log"))).unwrap();
            let child = clustered.command(&["gateway", "--config"]).arg(&config).stderr(Stdio::from(log)).spawn();
            clustered.children.push(child.unwrap());
            clustered.wait("the control socket", |clustered| clustered.control(index, &["count"]).code == Some(0));
        }
        Some(clustered)
    }

    /// keepstate in the namespace.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns, env!("CARGO_BIN_EXE_keepstate")]).args(words);
        command
    }

    fn nats_url(&self) -> String {
        self.nats.as_ref().unwrap().url()
    }

    fn socket(&self, index: usize) -> String {
        self.path(&format!("{index}.sock")).display().to_string()
    }

    fn control(&self, index: usize, words: &[&str]) -> ProgramOutput {
        keepstate(&[&["control", "--socket", &self.socket(index)][..], words].concat(), b"")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn wait(&self, what: &str, mut holds: impl FnMut(&Clustered) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds(self) {
            let log = |index| fs::read_to_string(self.path(&format!("{index}.log"))).unwrap_or_default();
            assert!(Instant::now() < until, "{what} has not come:\n{}\n{}", log(0), log(1));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The findings about the cluster by name and severity, and the whole document.
    fn doctor(&self, index: usize) -> (Vec<(String, String)>, Value) {
        let at = format!("--gateway={}", self.socket(index));
        let ran = keepstate(&["doctor", &at, "--json", "--interval", "0"], b"");
        let document: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.err));
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let found = document["findings"].as_array().into_iter().flatten();
        let found = found.map(|finding| (text(finding, "name"), text(finding, "severity")));
        (found.filter(|(name, _)| name.starts_with("cluster-")).collect(), document)
    }

    /// `--fleet=FILE` of a node of this name.
    fn fleet_file(&self, node: &str, more: &str) -> String {
        let path = self.path(&format!("{node}-fleet.toml"));
        let text = format!("fleet = \"site\"\nnode = \"{node}\"\nservers = [\"{}\"]\n{more}", self.nats_url());
        fs::write(&path, text).unwrap();
        format!("--fleet={}", path.display())
    }

    /// What the fleet's page is told, until it has both shards.
    fn page(&mut self) -> String {
        let file = self.fleet_file("page", "register = false\n");
        let words = ["serve", "--listen", "127.0.0.1:9755", "--doctor", "1s", &file];
        let served = self.command(&words).stderr(Stdio::null()).spawn();
        self.children.push(served.unwrap());
        let read = || {
            let until = Instant::now() + PATIENCE;
            let mut stream = loop {
                match TcpStream::connect("127.0.0.1:9755") {
                    Ok(stream) => break stream,
                    Err(error) => assert!(Instant::now() < until, "the page: {error}"),
                }
                std::thread::sleep(Duration::from_millis(50));
            };
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            write!(stream, "GET /fleet/live HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            let mut text = String::new();
            for line in BufReader::new(stream).lines() {
                text += &(line.unwrap() + "\n");
                if text.contains("keepstate/north") && text.contains("keepstate/south") {
                    return text;
                }
                assert!(Instant::now() < until, "{text}");
            }
            panic!("the page has ended: {text}");
        };
        spawn_in_netns(&self.netns, read).join().unwrap()
    }

    fn wait_for_findings(&self, wanted: &[(&str, &str)]) {
        self.wait(&format!("{wanted:?}"), |clustered| {
            let (found, _) = clustered.doctor(0);
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
    let Some(mut clustered) = Clustered::start("one", 1, "lease = \"manual\"\n") else { return };
    let served = Command::new(env!("CARGO_BIN_EXE_keepstate"))
        .args(["serve", "--listen", "127.0.0.1:0", "--doctor", "1s", &format!("--gateway={}", clustered.socket(0))])
        .stderr(Stdio::piped())
        .spawn();
    let mut served = served.unwrap();
    let mut lines = BufReader::new(served.stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("http://")).unwrap();
    let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    clustered.children.push(served);

    // Nobody was promoted.
    clustered.wait_for_findings(&[("cluster-no-active", "critical")]);
    let promoted = clustered.control(0, &["promote"]);
    assert_eq!(promoted.code, Some(0), "{}{}", promoted.out, promoted.err);
    clustered.wait_for_findings(&[]);
    let (_, document) = clustered.doctor(0);
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

/// A fleet of both gateways, and what a page and a terminal show of it.
#[test]
fn two_shards_are_shown_with_who_decides_each_and_what_is_wrong_with_one() {
    let Some(mut clustered) = Clustered::start("two", 2, &two_shards("manual")) else { return };
    for (index, shard) in [(0, "north"), (1, "south")] {
        let promoted = clustered.control(index, &["promote", shard]);
        assert_eq!(promoted.code, Some(0), "{}{}", promoted.out, promoted.err);
    }
    clustered.wait_for_findings(&[]);
    let (_, document) = clustered.doctor(0);
    let shards = document["shards"].as_array().unwrap();
    let roles: Vec<_> = shards.iter().map(|shard| [&shard["shard"], &shard["role"]]).collect();
    assert_eq!(roles, [["north", "active"], ["south", "standby"]]);

    for index in 0..2 {
        let file = clustered.fleet_file(&format!("gw{}", index + 1), "");
        let at = format!("--gateway={}", clustered.socket(index));
        let words = ["serve", "--listen", "127.0.0.1:0", "--doctor", "1s", &at, &file];
        let node = clustered.command(&words).stderr(Stdio::null()).spawn();
        clustered.children.push(node.unwrap());
    }
    let fleet = clustered.fleet_file("desk", "register = false\n");
    let once = |clustered: &Clustered, words: &[&str]| {
        let ran = clustered.command(&[words, &[&fleet]].concat()).output().unwrap();
        (ran.status.code(), String::from_utf8_lossy(&ran.stdout).into_owned())
    };
    let shard_problems = |clustered: &Clustered| {
        let (_, text) = once(clustered, &["doctor", "--json"]);
        let document: Value = serde_json::from_str(&text).unwrap_or_default();
        let problems = document["shard_problems"].as_array().map(|all| all.iter().map(Value::to_string).collect());
        (document["nodes"].as_array().map_or(0, Vec::len), problems.unwrap_or_default())
    };
    clustered
        .wait("both nodes, and nothing wrong with a shard", |clustered| shard_problems(clustered) == (2, Vec::new()));
    let page = clustered.page();
    let on_page = |wanted: &str| page.lines().any(|line| line.starts_with("data: ") && line.contains(wanted));
    for row in [r#"["keepstate/north","gw1","#, r#"["keepstate/south","gw2","#] {
        assert!(on_page(row), "{row}: {page}");
    }
    // On a terminal the line above the nodes has what is wrong with a shard.
    let (code, text) = once(&clustered, &["top", "--once", "--size", "120x20"]);
    assert!(
        code == Some(0) && text.contains("gw1") && text.contains("gw2") && !text.contains("shard keepstate"),
        "{text}"
    );

    let second = clustered.children.get_mut(1).unwrap();
    second.kill().unwrap();
    second.wait().unwrap();
    clustered.wait("a shard without a gateway", |clustered| {
        let (_, problems) = shard_problems(clustered);
        problems.iter().any(|problem| problem.contains("keepstate/south: no gateway is active"))
    });
    let (_, text) = once(&clustered, &["top", "--once", "--size", "120x20"]);
    assert!(text.contains("shard keepstate/south: no gateway is active"), "{text}");
    clustered.wait_for_findings(&[("cluster-no-active", "critical")]);
}
