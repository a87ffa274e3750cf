//! What a running gateway has given up, seen from outside: capabilities of every thread, and files.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;
#[path = "common/peers.rs"]
mod peers;

use common::{keepstate, report_skipped};
use keepstate_linux::file_access::{FileAccess, FileAccessLimit};
use keepstate_test_support::wait_until_it_routes;
use peers::run_ip;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const PERFMON_AND_BPF: u64 = 3 << 38;

/// A gateway in a network namespace of its own, with its files in a directory.
struct Sandboxed {
    netns: String,
    folder: tempfile::TempDir,
    gateway: Option<Child>,
}

impl Sandboxed {
    /// `None` where there are no namespaces.
    fn new(name: &str) -> Option<Sandboxed> {
        let netns = format!("kssb{}{name}", std::process::id());
        if !run_ip(&["netns", "add", &netns]) {
            report_skipped("what a gateway gives up: it needs root, network namespaces and iproute2");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("rules")).unwrap();
        fs::create_dir(folder.path().join("other")).unwrap();
        Some(Sandboxed { netns, folder, gateway: None })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text_path(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Replaces the ruleset as an editor does: by another file of that name.
    fn write_rules(&self, text: &str) {
        let (new, path) = (self.path("rules/new"), self.path("rules/rules.nft"));
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn start(&mut self, options: &[&str]) {
        let (rules, socket) = (self.text_path("rules/rules.nft"), self.text_path("socket"));
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns, env!("CARGO_BIN_EXE_keepstate"), "gateway", "--ruleset", &rules]);
        let mut gateway = command.args(["--control", &socket]).args(options).stderr(Stdio::piped()).spawn().unwrap();
        wait_until_it_routes(&mut gateway).unwrap();
        self.gateway = Some(gateway);
    }

    fn control(&self, words: &[&str]) -> common::ProgramOutput {
        let socket = self.text_path("socket");
        keepstate(&[&["control", "--socket", &socket][..], words].concat(), b"")
    }

    /// By thread: its name, and the numbers that its status file has.
    fn threads(&self) -> Vec<(String, BTreeMap<String, u64>)> {
        let folder = Path::new("/proc").join(self.gateway.as_ref().unwrap().id().to_string()).join("task");
        let read = |entry: fs::DirEntry| {
            // A thread may end meanwhile.
            let text = fs::read_to_string(entry.path().join("status")).ok()?;
            let fields = text.lines().filter_map(|line| line.split_once(":\t"));
            let name = fields.clone().find(|(name, _)| *name == "Name")?.1.to_owned();
            let numbers = fields.filter(|(name, _)| name.starts_with("Cap") || *name == "NoNewPrivs");
            Some((name, numbers.map(|(name, value)| (name.into(), u64::from_str_radix(value, 16).unwrap())).collect()))
        };
        fs::read_dir(folder).unwrap().flatten().filter_map(read).collect()
    }

    /// Waits until every thread has these capabilities at most, can get none back, and gains none by a program; the threads of these names are there.
    /// A thread that has just begun has not dropped anything yet, nor its name.
    fn assert_dropped(&self, kept: u64, names: &[&str]) {
        wait_until("every thread has dropped what it does not need", || {
            let threads = self.threads();
            let dropped = threads.iter().all(|(_, status)| {
                ["CapEff", "CapPrm"].iter().all(|set| status[*set] & !kept == 0)
                    && ["CapInh", "CapAmb", "CapBnd"].iter().all(|set| status[*set] == 0)
                    && status["NoNewPrivs"] == 1
            });
            let there = names.iter().all(|name| threads.iter().any(|(found, _)| found == name));
            if dropped && there { Ok(()) } else { Err(format!("{kept:x} is needed: {threads:x?}")) }
        });
    }

    /// Stops it as `kill PID` does.
    fn stop(&mut self) {
        let mut gateway = self.gateway.take().unwrap();
        let pid = rustix::process::Pid::from_raw(gateway.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(gateway.wait().unwrap().success());
    }
}

impl Drop for Sandboxed {
    fn drop(&mut self) {
        if let Some(mut gateway) = self.gateway.take() {
            let _ = gateway.kill();
            let _ = gateway.wait();
        }
        run_ip(&["netns", "del", &self.netns]);
    }
}

fn has_landlock() -> bool {
    let limited = std::thread::spawn(|| FileAccess::default().limit_thread().unwrap()).join().unwrap();
    if limited == FileAccessLimit::None {
        report_skipped("limits of file access: the kernel has no Landlock");
    }
    limited != FileAccessLimit::None
}

/// Waits until `check` is content; it says what it sees instead.
fn wait_until(what: &str, mut check: impl FnMut() -> Result<(), String>) {
    let until = Instant::now() + PATIENCE;
    while let Err(seen) = check() {
        assert!(Instant::now() < until, "{what}: {seen}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn when(is_so: bool) -> Result<(), String> {
    if is_so { Ok(()) } else { Err("not yet".to_owned()) }
}

const RULES: &str = "table ip t { chain c { type filter hook forward priority 0; counter accept; } }\n";

#[test]
fn every_thread_has_dropped_what_it_does_not_need_and_the_gateway_still_works() {
    let Some(mut lab) = Sandboxed::new("all") else { return };
    // Not below the directories of temporary files, which commands may write to.
    let forbidden = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&lab.netns);
    let (flag, forbidden_text) = (lab.text_path("ran"), forbidden.to_str().unwrap());
    let services = format!(
        "[[service]]\nname = \"web\"\nlisten = \"192.0.2.9:80\"\nbackends = [\"10.1.0.9:80\"]\n\
         check = {{ command = [\"sh\", \"-c\", \"cat /proc/version >{flag} && ! echo x >{forbidden_text}\"], interval = \"100ms\", timeout = \"30s\" }}\n"
    );
    fs::write(lab.path("rules/services.toml"), services).unwrap();
    lab.write_rules(RULES);
    let (services, state) = (lab.text_path("rules/services.toml"), lab.text_path("state"));
    let devices = ["--device", "lan0=10.1.0.1/24", "--device", "wan0=192.0.2.1/24"];
    fs::create_dir(lab.path("log")).unwrap();
    let (log, old_log) = (lab.path("log/flows.jsonl"), lab.path("log/flows.jsonl.1"));
    let logs = ["--flow-log", log.to_str().unwrap(), "--flow-log", "udp://192.0.2.10:4739"];
    lab.start(&[&["--services", &services, "--state", &state][..], &logs, &devices].concat());
    lab.assert_dropped(0, &["log", "state-write", "control", "health-start", "flow-log"]);
    fs::rename(&log, &old_log).unwrap();
    wait_until("a log that was moved away is made anew", || when(fs::metadata(&log).is_ok()));
    wait_until("the command has run", || when(fs::metadata(&flag).is_ok()));
    if has_landlock() {
        wait_until("the command could not write", || when(lab.control(&["services"]).out.contains(" up ")));
        assert!(!forbidden.exists());
    }
    lab.assert_dropped(0, &["health"]);

    lab.write_rules(&RULES.replace("accept", "drop"));
    let reloaded = lab.control(&["reload"]);
    assert!(reloaded.out.contains("loaded"), "{}", reloaded.err);
    assert!(lab.control(&["rules"]).out.contains("drop"));

    fs::write(lab.path("other/more.nft"), RULES).unwrap();
    lab.write_rules(&format!("include \"{}\"\n", lab.text_path("other/more.nft")));
    let reloaded = lab.control(&["reload"]);
    if has_landlock() {
        assert!(reloaded.err.contains("Permission denied") && reloaded.err.contains("restart"), "{}", reloaded.err);
        assert!(lab.control(&["rules"]).out.contains("drop"));
    }
    lab.stop();
    assert!(!lab.path("socket").exists(), "the socket is removed");
    assert!(fs::metadata(&state).is_ok_and(|file| file.is_file()), "the state file is written");
    // With that include from the start on it is read again.
    lab.start(&[&["--state", &state][..], &devices].concat());
    fs::write(lab.path("other/more.nft"), RULES.replace("accept", "drop")).unwrap();
    assert!(lab.control(&["reload"]).out.contains("loaded"));
    assert!(lab.control(&["rules"]).out.contains("drop"));
}

#[test]
fn drivers_keep_what_they_need_and_no_more() {
    let drivers: [(&str, &[&str], u64); 2] =
        [("tc", &["--interface", "v0"], NET_ADMIN | PERFMON_AND_BPF), ("nfq", &["--queue", "7"], NET_ADMIN | NET_RAW)];
    for (name, options, kept) in drivers {
        let Some(mut lab) = Sandboxed::new(name) else { return };
        let ip = |words: &[&str]| assert!(run_ip(&[&["-n", &lab.netns][..], words].concat()), "{words:?}");
        ip(&["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
        ip(&["link", "set", "v0", "up"]);
        ip(&["link", "set", "v1", "up"]);
        lab.write_rules(RULES);
        lab.start(options);
        lab.assert_dropped(kept, &["log", "control", "routes"]);
        lab.write_rules(&RULES.replace("accept", "drop"));
        assert!(lab.control(&["reload"]).out.contains("loaded"), "{name}");
        lab.stop();
    }
}
