//! The systemd units: systemd takes them, they are as closed as they say, and the gateway needs no more rights and system calls than its unit leaves it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use common::{keepstate, report_skipped};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Each unit and the most points that systemd may give it: 0 is nothing to complain of, a service without any protection has 96.
const UNITS: [(&str, Option<u32>); 6] = [
    ("keepstate-gateway.service", Some(32)),
    ("keepstate-gateway@.service", Some(32)),
    ("keepstate-serve.service", Some(20)),
    ("keepstate-sync.service", Some(32)),
    ("keepstate-doctor.service", Some(55)),
    ("keepstate-doctor.timer", None),
];

fn unit_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd").join(name)
}

fn unit_text(name: &str) -> String {
    fs::read_to_string(unit_path(name)).unwrap()
}

/// The values of a key, in order.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

fn has_systemd_analyze() -> bool {
    Command::new("systemd-analyze").arg("--version").output().is_ok()
}

#[test]
fn systemd_accepts_the_units_and_finds_them_closed() {
    if !has_systemd_analyze() {
        return report_skipped("systemd-analyze on the units: apt-get install systemd");
    }
    let folder = tempfile::TempDir::new().unwrap();
    let mut copies = Vec::new();
    for (name, _) in UNITS {
        // A template is verified as one of its instances.
        let copy = folder.path().join(name.replace("@.", "@blue."));
        fs::write(&copy, unit_text(name).replace("/usr/bin/keepstate", env!("CARGO_BIN_EXE_keepstate"))).unwrap();
        copies.push(copy);
    }
    let analyze = |words: &[&str], files: &[PathBuf]| {
        let output = Command::new("systemd-analyze").args(words).args(files).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (fine, said) = analyze(&["verify", "--man=no"], &copies);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("keepstate")).collect();
    assert!(fine && ours.is_empty(), "{said}");
    for ((name, threshold), copy) in UNITS.iter().zip(&copies) {
        let Some(threshold) = threshold else { continue };
        let threshold = format!("--threshold={threshold}");
        let (fine, said) =
            analyze(&["security", "--offline=true", &threshold, "--no-pager"], std::slice::from_ref(copy));
        assert!(fine, "{name}: {said}");
    }
}

#[test]
fn the_units_run_commands_that_exist() {
    for (name, _) in UNITS {
        let text = unit_text(name);
        for line in ["ExecStart", "ExecStartPre"].iter().flat_map(|key| values(&text, key)) {
            let words: Vec<&str> = line.strip_prefix("/usr/bin/keepstate ").unwrap().split(' ').collect();
            let ran = keepstate(&[words[0], "--help"], b"");
            assert_eq!(ran.code, Some(0), "{name}: {line}: {}", ran.err);
            for option in words.iter().filter_map(|word| word.strip_prefix("--")) {
                assert!(ran.out.contains(&format!("--{option}")), "{name}: {line}: no --{option}");
            }
        }
    }
}

#[test]
fn a_gateway_is_tried_again_for_ever_and_stands_before_the_network() {
    for name in ["keepstate-gateway.service", "keepstate-gateway@.service"] {
        let text = unit_text(name);
        assert_eq!(values(&text, "StartLimitIntervalSec"), ["0"], "{name}");
        assert_eq!(values(&text, "Type"), ["notify"], "{name}");
        let check = values(&text, "ExecStartPre");
        let run = values(&text, "ExecStart");
        let file = |line: &str| line.split(' ').find(|word| word.ends_with(".toml")).unwrap().to_owned();
        assert_eq!(file(check[0]), file(run[0]), "{name}: what is checked is what runs");
    }
    let text = unit_text("keepstate-gateway.service");
    assert!(
        values(&text, "Before")[0].contains("network-pre.target") && values(&text, "Wants")[0] == "network-pre.target"
    );
    assert_eq!(values(&text, "DefaultDependencies"), ["no"]);
}

/// The system calls that the unit's filter allows: lines in order, `~` takes away.
fn allowed_system_calls(unit: &str) -> BTreeSet<String> {
    let output = Command::new("systemd-analyze").args(["syscall-filter", "--no-pager"]).output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    let mut sets: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut current = "";
    for line in listed.lines().filter(|line| !line.trim_start().starts_with('#') && !line.is_empty()) {
        if line.starts_with(' ') {
            sets.entry(current).or_default().push(line.trim());
        } else {
            current = line.trim();
        }
    }
    let expand = |word: &str| {
        let mut found = BTreeSet::new();
        let mut open = vec![word.to_owned()];
        while let Some(word) = open.pop() {
            match sets.get(word.as_str()) {
                Some(members) => open.extend(members.iter().map(|member| (*member).to_owned())),
                None => drop(found.insert(word)),
            }
        }
        found
    };
    let mut allowed = BTreeSet::new();
    for line in values(unit, "SystemCallFilter") {
        let (takes_away, words) = line.strip_prefix('~').map_or((false, line), |words| (true, words));
        for word in words.split_whitespace() {
            for call in expand(word) {
                if takes_away {
                    allowed.remove(&call);
                } else {
                    allowed.insert(call);
                }
            }
        }
    }
    allowed
}

/// As root with the unit's capabilities only: start on a governed interface, reload, control, stop. Every system call is one that the unit allows.
#[test]
fn the_unit_leaves_the_gateway_the_rights_that_it_needs() {
    let unit = unit_text("keepstate-gateway.service");
    let folder = tempfile::TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("gateway.nft"), "").unwrap();
    let file = "version = 1\nruleset = \"gateway.nft\"\ninterface = [\"ksu0\"]\ncontrol = \"gateway.sock\"\nstate = \"state\"\n";
    fs::write(at("gateway.toml"), file).unwrap();
    let capabilities: Vec<String> = values(&unit, "CapabilityBoundingSet")[0]
        .split(' ')
        .map(|name| format!("+{}", name.strip_prefix("CAP_").unwrap().to_lowercase()))
        .collect();
    let script = format!(
        "ip link add ksu0 type veth peer name ksu1 && ip link set ksu0 up && ip link set ksu1 up && exec strace -f -qq -o {trace} \
         setpriv --bounding-set=-all,{capabilities} --inh-caps=-all {program} gateway --config {config}",
        trace = at("trace").display(),
        capabilities = capabilities.join(","),
        program = env!("CARGO_BIN_EXE_keepstate"),
        config = at("gateway.toml").display()
    );
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !has("strace") || !has("setpriv") || !has_systemd_analyze() || !has("ip") {
        return report_skipped(
            "the gateway's system calls beside its unit: strace, setpriv, systemd-analyze, iproute2",
        );
    }
    let child = Command::new("unshare")
        .args(["--net", "sh", "-c", &script])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else { return report_skipped("the gateway's system calls beside its unit: unshare") };
    let until = Instant::now() + Duration::from_secs(60);
    while UnixStream::connect(at("gateway.sock")).is_err() {
        if child.try_wait().unwrap().is_some() {
            let ended = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            if ["Operation not permitted", "ptrace"].iter().all(|words| said.contains(words))
                || said.contains("unshare")
            {
                return report_skipped("the gateway's system calls beside its unit: root, network namespaces, ptrace");
            }
            panic!("{said}");
        }
        assert!(Instant::now() < until, "no gateway after a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
    let control = |words: &[&str]| {
        let ran = keepstate(&[&["control", "--socket", at("gateway.sock").to_str().unwrap()][..], words].concat(), b"");
        assert_eq!(ran.code, Some(0), "{words:?}: {}", ran.err);
    };
    control(&["reload"]);
    control(&["stats"]);
    control(&["nft", "add table ip x"]);
    // strace hands the signal on to nobody: the gateway itself gets it.
    let gateway = fs::read_to_string(at("trace")).unwrap().split(' ').next().unwrap().to_owned();
    assert!(Command::new("kill").args(["-TERM", &gateway]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    let trace = fs::read_to_string(at("trace")).unwrap();
    let begun = trace.rfind("execve(").unwrap();
    let used: BTreeSet<String> = trace[begun..]
        .lines()
        .filter_map(|line| line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start().split_once('('))
        .map(|(name, _)| name.to_owned())
        .filter(|name| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        })
        .collect();
    assert!(used.contains("bpf") && used.contains("capset") && used.len() > 30, "{used:?}");
    let allowed = allowed_system_calls(&unit);
    assert!(allowed.contains("read") && !allowed.contains("reboot") && !allowed.contains("chroot"), "{allowed:?}");
    let refused: Vec<&String> = used.difference(&allowed).collect();
    assert!(refused.is_empty(), "the unit refuses {refused:?}");
}
