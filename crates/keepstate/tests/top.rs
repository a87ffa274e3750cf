//! `keepstate top` on a terminal of its own, made by script(1), beside the table of a network namespace; and where there is no terminal.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use common::{keepstate, report_skipped};
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// `top` in a namespace of its own, on a terminal.
struct OnTerminal {
    child: Child,
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl OnTerminal {
    /// `None` where there may be no namespace.
    fn start() -> Option<OnTerminal> {
        OnTerminal::start_with("", &["unshare", "--net"])
    }

    /// With options of its own; `inside` runs it.
    fn start_with(options: &str, inside: &[&str]) -> Option<OnTerminal> {
        let program = env!("CARGO_BIN_EXE_keepstate");
        let top = format!("stty rows 24 cols 100; echo pid=$$.; exec {program} top --doctor 0 {options}");
        let words = [inside, &["script", "-qec", &top, "/dev/null"]].concat();
        let started = Command::new(words[0])
            .args(&words[1..])
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = started.ok()?;
        let mut stdout = child.stdout.take().unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Some(OnTerminal { child, output, seen: String::new() })
    }

    /// Reads until the output contains `text`; false if the program ends or it takes too long.
    fn wait_for(&mut self, text: &str) -> bool {
        let until = Instant::now() + PATIENCE;
        while !self.seen.contains(text) {
            match self.output.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => return false,
            }
        }
        true
    }

    fn press(&mut self, keys: &str) {
        self.seen.clear();
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ENTER_SCREEN: &str = "\u{1b}[?1049h";
const LEAVE_SCREEN: &str = "\u{1b}[?1049l";

/// Does a process run? One that ended may still wait for its parent.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim_start().starts_with('Z'))
}

#[test]
fn ends_with_its_terminal() {
    let Some(mut top) = OnTerminal::start() else { return report_skipped("unshare or script is not installed") };
    if !top.wait_for(ENTER_SCREEN) || !top.wait_for("connections") {
        return report_skipped("a network namespace with a connection table needs root");
    }
    let pid = top.seen.split("pid=").nth(1).and_then(|rest| rest.split('.').next()).unwrap().to_owned();
    assert!(runs(&pid));
    // The window is closed.
    top.child.kill().unwrap();
    let until = Instant::now() + PATIENCE;
    while runs(&pid) {
        assert!(Instant::now() < until, "process {pid} goes on without a terminal");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_screen_is_opened_and_given_back() {
    let Some(mut top) = OnTerminal::start() else { return report_skipped("unshare or script is not installed") };
    if !top.wait_for(ENTER_SCREEN) || !top.wait_for("connections") {
        return report_skipped("a network namespace with a connection table needs root");
    }
    // Only what changes is written: words arrive one by one.
    assert!(top.wait_for("quit"), "{}", top.seen);
    top.press("?");
    assert!(top.wait_for("freeze"), "{}", top.seen);
    top.press("q");
    assert!(top.wait_for(LEAVE_SCREEN), "{}", top.seen);
    assert!(top.wait_for("\u{1b}[?25h"), "the cursor is shown again: {}", top.seen);
    assert!(top.child.wait().unwrap().success());
}

#[test]
fn without_a_terminal_it_says_what_to_do() {
    let run = keepstate(&["top", "--doctor", "0"], b"");
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains("needs a terminal") || run.err.contains("cannot follow"), "{}", run.err);
    let filter = keepstate(&["top", "--filter", "-p nonsense"], b"");
    assert_eq!(filter.code, Some(2));
    assert!(filter.err.contains("--filter"), "{}", filter.err);
}

#[test]
fn one_screen_needs_no_terminal() {
    let script = format!(
        "conntrack -I -p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 4000 --dport 80 --state ESTABLISHED -t 60 >/dev/null 2>&1
         exec {} top --once --doctor 0 --size 90x12",
        env!("CARGO_BIN_EXE_keepstate")
    );
    let ran = Command::new("unshare").args(["--net", "sh", "-c", &script]).stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    if !ran.status.success() && (err.contains("unshare") || err.contains("cannot follow")) {
        return report_skipped("top --once: it needs root, network namespaces and connection tracking");
    }
    assert!(ran.status.success(), "{err}");
    assert!(out.contains("10.0.0.1") && out.contains("ESTABLISHED"), "{out}");
    assert_eq!(out.lines().count(), 12, "{out}");
    assert!(out.lines().all(|line| line.chars().count() <= 90) && !out.contains('\u{1b}'), "{out}");
    let wrong = keepstate(&["top", "--once", "--size", "9"], b"");
    assert!(wrong.code == Some(2) && wrong.err.contains("100x24"), "{}", wrong.err);
}

#[test]
fn one_screen_of_a_table_that_cannot_be_read_is_an_error() {
    let top = [env!("CARGO_BIN_EXE_keepstate"), "top", "--once", "--doctor", "0"];
    let without = Command::new("setpriv").args(["--bounding-set=-all", "--inh-caps=-all"]).args(top).output();
    let output = without.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("setpriv:") {
        return report_skipped("setpriv cannot take the capabilities away");
    }
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot read the table of Linux: no permission"), "{said}");
}

#[test]
fn it_says_that_its_network_namespace_is_gone() {
    let name = format!("kstop{}", std::process::id());
    let ip =
        |words: &[&str]| Command::new("ip").args(words).stderr(Stdio::null()).status().is_ok_and(|ran| ran.success());
    if !ip(&["netns", "add", &name]) {
        return report_skipped("top of a network namespace: it needs root and iproute2");
    }
    let started = OnTerminal::start_with(&format!("--netns {name}"), &["env"]);
    let follows = started.map(|mut top| (top.wait_for("connections 0-0 of 0"), top));
    // Another one of the same name is not the one that was asked for.
    assert!(ip(&["netns", "delete", &name]) && ip(&["netns", "add", &name]));
    let said = follows.map(|(follows, mut top)| (follows, top.wait_for(&format!("network namespace {name} is gone"))));
    assert!(ip(&["netns", "delete", &name]));
    match said {
        Some((true, said)) => assert!(said, "it goes on in silence"),
        _ => report_skipped("top of a network namespace: script is not installed, or there is no connection tracking"),
    }
}
