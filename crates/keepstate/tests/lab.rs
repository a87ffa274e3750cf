//! `keepstate lab` as a newcomer runs it: all checks pass, as root or not, nothing is left behind, and what is missing is named at once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use common::{ProgramOutput, keepstate, report_skipped};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Lines of every run.
const EXPECTED_LINES: [&str; 6] = [
    "✓ the web server saw 192.0.2.1, not 10.1.0.2",
    "✓ rejected at once",
    "✓ 10.1.0.2 answered 5, 10.1.0.3 answered 5",
    "✓ 200 of 200 sessions are open",
    "none was lost",
    "All checks passed.",
];

/// True, with a note, where the machine does not allow the laboratory.
fn cannot_make_netns(ran: &ProgramOutput) -> bool {
    let cannot =
        ran.code == Some(1) && (ran.err.contains("network namespaces need root") || ran.err.contains("/dev/net/tun"));
    if cannot {
        report_skipped(&format!("the laboratory: {}", ran.err.trim()));
    }
    cannot
}

/// The work directory of a laboratory, by its process id.
fn work_dir(process: u32) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("keepstate-lab-{process}"))
}

#[test]
fn scenario_passes() {
    let ran = keepstate(&["lab", "--clients", "200"], b"");
    if cannot_make_netns(&ran) {
        return;
    }
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    for text in EXPECTED_LINES.iter().chain(&[
        "nf_conntrack: table full, dropping packet",
        "CRITICAL the table is full, and new connections are dropped",
        "sessions opened, ",
        "keepstate control set nf_conntrack_max=",
    ]) {
        assert!(ran.out.contains(text), "{text:?} in\n{}", ran.out);
    }
    assert!(!ran.out.contains('\u{1b}'), "no colours in a pipe");
    let longest = ran.out.lines().filter(|line| !line.contains("src=")).map(|line| line.chars().count()).max();
    assert!(longest <= Some(120), "short lines: {longest:?}\n{}", ran.out);
}

#[test]
fn scenario_passes_with_linux_as_router() {
    if !Path::new("/usr/sbin/nft").exists() {
        return report_skipped("the laboratory beside Linux: it needs nft (apt-get install nftables)");
    }
    let ran = keepstate(&["lab", "--kernel", "--clients", "200"], b"");
    if cannot_make_netns(&ran) {
        return;
    }
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    for text in EXPECTED_LINES {
        assert_eq!(ran.out.matches(text).count(), 2, "{text:?} twice in\n{}", ran.out);
    }
    let held = ran.out.lines().find(|line| line.contains("MQTT sessions held")).unwrap();
    assert_eq!(held.matches("200").count(), 2, "{held}");
}

#[test]
fn scenario_runs_without_root() {
    // The other user may not enter the folder that this was built in, like /root.
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("keepstate");
    fs::copy(env!("CARGO_BIN_EXE_keepstate"), &program).unwrap();
    for path in [folder.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program).args(["lab", "--clients", "200"]);
    let Ok(output) = command.env("HOME", "/").output() else {
        return report_skipped("the laboratory without root: it needs setpriv (util-linux)");
    };
    let to_text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let ran = ProgramOutput { code: output.status.code(), out: to_text(output.stdout), err: to_text(output.stderr) };
    if ran.err.contains("setpriv:") {
        return report_skipped(
            "the laboratory without root: this user may not become another, or the other may not run the program",
        );
    }
    if cannot_make_netns(&ran) {
        return;
    }
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    for text in EXPECTED_LINES {
        assert!(ran.out.contains(text), "{text:?} in\n{}", ran.out);
    }
}

/// A laboratory with --hold; it ends with this, also if the test fails.
struct HeldLab(Child);

impl Drop for HeldLab {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A held laboratory, and its output so far.
fn start_held_lab() -> Option<(HeldLab, String)> {
    let program = env!("CARGO_BIN_EXE_keepstate");
    let mut command = Command::new(program);
    let mut child = command
        .args(["lab", "--hold", "--clients", "20"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    while !text.contains("Ctrl-C removes everything.") {
        if out.read_line(&mut text).unwrap() == 0 {
            let (mut err, code) = (String::new(), child.wait().unwrap().code());
            child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
            let ran = ProgramOutput { code, out: text, err };
            assert!(cannot_make_netns(&ran), "{}{}", ran.out, ran.err);
            return None;
        }
    }
    Some((HeldLab(child), text))
}

/// What an HTTP server answers.
fn get(address: &str, path: &str) -> String {
    let mut page = std::net::TcpStream::connect(address).unwrap();
    page.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    page.read_to_string(&mut answer).unwrap();
    answer
}

/// Programs of this laboratory that still run: each has the work directory on its command line.
fn processes_left(process: u32) -> Vec<String> {
    let name = format!("keepstate-lab-{process}/");
    let of = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).ok();
    let lines = fs::read_dir("/proc").unwrap().flatten().filter_map(of);
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&name)).collect()
}

#[test]
fn hold_commands_work_and_ctrl_c_cleans_up() {
    let Some((mut lab, text)) = start_held_lab() else { return };
    let child = &mut lab.0;
    let folder = work_dir(child.id());
    assert!(text.contains(&format!("cd {}", folder.display())), "{text}");
    let run = |line: &str| {
        let output = Command::new("sh").args(["-c", line]).current_dir(&folder).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let url = text.lines().find_map(|line| line.split_once("in a browser: ")).map(|(_, url)| url.trim().to_owned());
    if let Some(address) = url.as_deref().and_then(|url| url.strip_prefix("http://")?.strip_suffix('/')) {
        let until = Instant::now() + Duration::from_secs(60);
        // The table is not read at once.
        while !get(address, "/metrics").contains("\nkeepstate_conntrack_entries ") {
            assert!(Instant::now() < until, "{}", get(address, "/metrics"));
        }
    } else {
        // Without root the laboratory may not leave its namespaces.
        assert!(!rustix::process::geteuid().is_root(), "{text}");
    }
    let listed = text.lines().filter_map(|line| line.trim().strip_prefix("./")).filter(|line| !line.contains("bash"));
    let mut tried = 0;
    for line in listed {
        let command = format!("./{}", line.split('#').next().unwrap().trim());
        // A full screen needs a terminal.
        let command = command.replace(" top ", " top --once ");
        if command.contains("curl") && !Path::new("/usr/bin/curl").exists() || command.contains("ping") {
            continue;
        }
        let (passed, output) = run(&command);
        // The doctor's exit code depends on its findings.
        assert!(passed || command == "./doctor", "{command}: {output}");
        tried += 1;
    }
    assert!(tried >= 4, "{text}");
    let (_, list) = run("./control list -p tcp");
    assert!(list.contains("ESTABLISHED") && list.contains("dst=192.0.2.1"), "{list}");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!folder.exists() && processes_left(child.id()).is_empty(), "{:?}", processes_left(child.id()));
}

#[test]
fn killed_lab_leaves_no_process_and_next_run_removes_its_dir() {
    let Some((mut lab, _)) = start_held_lab() else { return };
    let child = &mut lab.0;
    let folder = work_dir(child.id());
    assert!(!processes_left(child.id()).is_empty(), "the gateway runs");
    child.kill().unwrap();
    child.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while !processes_left(child.id()).is_empty() {
        assert!(Instant::now() < until, "{:?}", processes_left(child.id()));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(folder.exists(), "a killed process cannot remove it");
    assert_eq!(keepstate(&["lab", "--clients", "10"], b"").code, Some(0));
    assert!(!folder.exists(), "the next run has removed it");
}

#[test]
fn missing_iproute2_is_named_at_once() {
    // In a mount namespace of its own, /dev/null hides every ip on the machine.
    let script = "for folder in /bin /sbin /usr/bin /usr/sbin /usr/local/bin /usr/local/sbin; do \
                  if [ -f $folder/ip ]; then mount --bind /dev/null $folder/ip || exit 77; fi; done; exec \"$@\"";
    let start = Instant::now();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_keepstate"), "lab", "--clients", "10"])
        .output();
    let Ok(output) = output else {
        return report_skipped("the laboratory without iproute2: it needs unshare (util-linux)");
    };
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() == Some(77) || err.contains("unshare:") {
        return report_skipped("the laboratory without iproute2: this user may not make a mount namespace");
    }
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("missing program: ip. Type: apt-get install iproute2"), "{err}");
    assert!(output.stdout.is_empty() && start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
