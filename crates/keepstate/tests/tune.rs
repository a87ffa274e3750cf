//! `keepstate tune` on images: trees of files that stand for machines, where knobs are files too.
//!
//! A kill is a real SIGKILL, before each step of the program's writes in turn.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use common::report_skipped;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const MAX: &str = "proc/sys/net/netfilter/nf_conntrack_max";
const BUCKETS: &str = "proc/sys/net/netfilter/nf_conntrack_buckets";
const COUNT: &str = "proc/sys/net/netfilter/nf_conntrack_count";
const ESTABLISHED: &str = "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";

/// A machine's files.
struct MachineImage(TempDir);

impl MachineImage {
    /// Debian 12, whose tracking is a module.
    fn debian() -> MachineImage {
        let image = MachineImage(tempfile::tempdir().unwrap());
        for (path, text) in [
            (MAX, "65536\n"),
            (BUCKETS, "65536\n"),
            (COUNT, "1000\n"),
            (ESTABLISHED, "432000\n"),
            ("proc/meminfo", "MemTotal:        3964516 kB\nMemAvailable:    3000000 kB\n"),
            ("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n"),
            ("usr/lib/systemd/systemd", ""),
            ("var/lib/dpkg/status", ""),
            ("usr/lib/modules/6.1.0-18-amd64/modules.dep", "kernel/net/netfilter/nf_conntrack.ko:\n"),
            ("usr/lib/modules/6.1.0-18-amd64/modules.builtin", "kernel/net/core/x.ko\n"),
            ("etc/sysctl.d/10-others.conf", "net.netfilter.nf_conntrack_max = 30000\n"),
        ] {
            image.write(path, text);
        }
        image
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.path().join(path)).unwrap()
    }

    /// Every file with its bytes and mode, and every directory.
    fn all_files(&self) -> BTreeMap<PathBuf, (Vec<u8>, u32)> {
        fn walk(directory: &Path, found: &mut BTreeMap<PathBuf, (Vec<u8>, u32)>) {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
                if path.is_dir() {
                    found.insert(path.clone(), (Vec::new(), mode));
                    walk(&path, found);
                } else {
                    found.insert(path.clone(), (fs::read(&path).unwrap(), mode));
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(self.0.path(), &mut found);
        found
    }

    fn tune(&self, words: &[&str]) -> Output {
        self.tune_killed(words, None)
    }

    fn tune_killed(&self, words: &[&str], step: Option<u64>) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keepstate"));
        command.arg("tune").args(words).arg("--root").arg(self.0.path());
        if let Some(step) = step {
            command.env("KEEPSTATE_TUNE_KILL", step.to_string());
        }
        command.output().unwrap()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

const APPLY_LARGE: &[&str] =
    &["apply", "--persist", "--max", "1M", "--set", "nf_conntrack_tcp_timeout_established=21600"];

#[test]
fn plan_writes_nothing_and_explains() {
    let image = MachineImage::debian();
    let before = image.all_files();
    let planned = image.tune(&["plan", "--persist", "--max", "1M"]);
    assert_eq!(planned.status.code(), Some(0), "{}", text(&planned));
    assert_eq!(image.all_files(), before);
    let said = text(&planned);
    for part in [
        "+net.netfilter.nf_conntrack_max = 1000000",
        "+net.netfilter.nf_conntrack_buckets = 1000448",
        "+++ /etc/modules-load.d/keepstate.conf",
        "+++ /etc/sysctl.d/99-keepstate.conf",
        "10-others.conf:1 sets net.netfilter.nf_conntrack_max to 30000; the new file overrides it",
        "cost",
        "risk",
    ] {
        assert!(said.contains(part), "{part:?} in:\n{said}");
    }
    let document: Value =
        serde_json::from_slice(&image.tune(&["plan", "--persist", "--max", "1M", "--json"]).stdout).unwrap();
    assert_eq!(document["schema"], "keepstate.tune/1");
    assert_eq!(document["changes"][1]["after"], 1_000_000);
    let bare = image.tune(&["--max", "1M"]);
    assert!(text(&bare).contains("gone at the next boot"), "plan is the default");
}

#[test]
fn apply_verify_rollback_restores_every_byte() {
    let image = MachineImage::debian();
    let before = image.all_files();
    assert_eq!(image.tune(APPLY_LARGE).status.code(), Some(0));
    assert_eq!((image.read(MAX).as_str(), image.read(BUCKETS).as_str()), ("1000000\n", "1000448\n"));
    assert_eq!(image.read("etc/modules-load.d/keepstate.conf").lines().last(), Some("nf_conntrack"));
    let verified = image.tune(&["verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified));
    assert!(text(&verified).contains("after the next boot, by /etc/sysctl.d/99-keepstate.conf"));
    assert!(text(&image.tune(&["status"])).contains("nf_conntrack_max = 1000000 (before: 65536)"));

    // Once more changes nothing, and what was there first is still known.
    let applied = image.all_files();
    assert!(text(&image.tune(APPLY_LARGE)).contains("nothing to change"));
    assert_eq!(image.all_files(), applied);
    assert_eq!(image.tune(&["apply", "--persist", "--max", "2M"]).status.code(), Some(0));
    assert!(image.read("etc/sysctl.d/99-keepstate.conf").contains("established = 21600"), "what lasted goes on");

    let back = image.tune(&["rollback"]);
    assert_eq!(back.status.code(), Some(0), "{}", text(&back));
    assert_eq!(image.all_files(), before);
    assert!(text(&image.tune(&["rollback"])).contains("nothing to roll back"));
    assert!(text(&image.tune(&["verify"])).contains("nothing was applied"));
}

#[test]
fn apply_killed_at_every_step_is_atomic_and_can_roll_back() {
    let reference = MachineImage::debian();
    reference.write("etc/sysctl.d/99-keepstate.conf", "# an older one\n");
    let old = reference.all_files();
    let relative = |image: &MachineImage| -> BTreeMap<PathBuf, (Vec<u8>, u32)> {
        let root = image.0.path().to_owned();
        image
            .all_files()
            .into_iter()
            .map(|(path, content)| (path.strip_prefix(&root).unwrap().to_owned(), content))
            .collect()
    };
    let old: BTreeMap<PathBuf, (Vec<u8>, u32)> = old
        .into_iter()
        .map(|(path, content)| (path.strip_prefix(reference.0.path()).unwrap().to_owned(), content))
        .collect();
    assert_eq!(reference.tune(APPLY_LARGE).status.code(), Some(0));
    let new = relative(&reference);
    let mut killed = 0;
    for step in 1.. {
        let image = MachineImage::debian();
        image.write("etc/sysctl.d/99-keepstate.conf", "# an older one\n");
        let applied = image.tune_killed(APPLY_LARGE, Some(step));
        if applied.status.code() == Some(0) {
            break;
        }
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&applied.status),
            Some(9),
            "step {step}: {}",
            text(&applied)
        );
        killed += 1;
        for (path, content) in relative(&image) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let ours_beside = name.ends_with(".keepstate-new");
            // The journal has the time in it; that it is whole, rollback shows.
            let known = old.get(&path) == Some(&content) || new.get(&path) == Some(&content);
            assert!(
                known || ours_beside || path.starts_with("var/lib/keepstate"),
                "step {step}: {} is neither old nor new",
                path.display()
            );
        }
        if relative(&image).contains_key(Path::new("var/lib/keepstate/tune/journal.json")) {
            let back = image.tune(&["rollback"]);
            assert_eq!(back.status.code(), Some(0), "step {step}: {}", text(&back));
            assert_eq!(relative(&image), old, "step {step}");
        } else {
            let changed: Vec<_> = relative(&image)
                .into_iter()
                .filter(|(path, content)| old.contains_key(path) && old[path] != *content)
                .collect();
            assert!(changed.is_empty(), "step {step}: without a journal nothing is changed");
        }
    }
    assert!(killed > 15, "{killed} moments were tried");
}

#[test]
fn killed_rollback_can_be_completed() {
    for step in 1.. {
        let image = MachineImage::debian();
        let before = image.all_files();
        assert_eq!(image.tune(APPLY_LARGE).status.code(), Some(0));
        if image.tune_killed(&["rollback"], Some(step)).status.code() == Some(0) {
            assert!(step > 8, "{step} moments");
            break;
        }
        let again = image.tune(&["rollback"]);
        let done = text(&again).contains("nothing to roll back");
        assert!(again.status.code() == Some(0) || done, "step {step}: {}", text(&again));
        let mut after = image.all_files();
        // A kill behind the last step leaves our empty directories.
        after.retain(|path, _| !path.starts_with(image.0.path().join("var")));
        let mut before = before;
        before.retain(|path, _| !path.starts_with(image.0.path().join("var")));
        assert_eq!(after, before, "step {step}");
    }
}

#[test]
fn invalid_changes_are_refused_with_reason() {
    let image = MachineImage::debian();
    let before = image.all_files();
    let refused = |words: &[&str], why: &str| {
        let output = image.tune(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {}", text(&output));
        assert!(text(&output).contains(why), "{words:?}: {why:?} in {}", text(&output));
        assert_eq!(image.all_files(), before, "{words:?} changed something");
    };
    refused(&["apply", "--max", "500"], "the table holds 1,000 connections");
    refused(&["apply", "--set", "nf_conntrack_acct=1"], "does not exist here");
    assert!(text(&image.tune(&["apply", "--max", "500", "--force"])).contains("applied"));
    let warned = image.tune(&["plan", "--set", "nf_conntrack_tcp_timeout_established=3600"]);
    assert!(text(&warned).contains("RFC 5382"));
    for wrong in [
        &["plan", "--max", "many"][..],
        &["plan", "--set", "net.ipv4.ip_forward=1"],
        &["apply", "--max", "1M", "--confirm-within", "60s"],
    ] {
        assert_eq!(image.tune(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let nowhere = Command::new(env!("CARGO_BIN_EXE_keepstate"))
        .args(["tune", "--root", "/nonexistent", "--max", "5"])
        .output()
        .unwrap();
    assert!(text(&nowhere).contains("no such directory") && nowhere.status.code() == Some(1));
}

#[test]
fn read_only_sysctl_is_reported_as_the_hosts() {
    let image = MachineImage::debian();
    fs::set_permissions(image.0.path().join(MAX), fs::Permissions::from_mode(0o444)).unwrap();
    let output = image.tune(&["apply", "--max", "1M"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("initial network namespace"), "{}", text(&output));
    let container = MachineImage::debian();
    container.write("proc/1/comm", "sleep\n");
    assert!(text(&container.tune(&["apply", "--persist", "--max", "1M"])).contains("use --persist on the host"));
}

#[test]
fn rollback_does_not_overwrite_later_changes() {
    let image = MachineImage::debian();
    assert_eq!(image.tune(APPLY_LARGE).status.code(), Some(0));
    image.write(MAX, "777777\n");
    image.write("etc/sysctl.d/99-keepstate.conf", "net.netfilter.nf_conntrack_max = 5\n");
    let verified = image.tune(&["verify"]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(text(&verified).contains("is 777777, not 1000000"));
    let refused = image.tune(&["rollback"]);
    assert!(refused.status.code() == Some(1) && text(&refused).contains("another program"), "{}", text(&refused));
    assert_eq!(image.read(MAX), "777777\n");
    assert_eq!(image.tune(&["rollback", "--force"]).status.code(), Some(0));
    assert_eq!(image.read(MAX), "65536\n");
    // A limit is not lowered under what is there, not even on the way back.
    assert_eq!(image.tune(&["apply", "--max", "1M"]).status.code(), Some(0));
    image.write(COUNT, "200000\n");
    assert!(text(&image.tune(&["rollback"])).contains("the table holds 200,000 connections"));
}

#[test]
fn overrides_a_later_sysctl_d_file() {
    let image = MachineImage::debian();
    image.write("etc/sysctl.d/99-sysctl.conf", "net.nf_conntrack_max = 4096\n");
    let said = text(&image.tune(APPLY_LARGE));
    assert!(said.contains("99-zz-keepstate.conf") && said.contains("99-sysctl.conf:1"), "{said}");
    assert_eq!(image.tune(&["verify"]).status.code(), Some(0));
    let tuned = MachineImage::debian();
    tuned.write("etc/tuned/active_profile", "mine\n");
    tuned.write("etc/tuned/mine/tuned.conf", "[sysctl]\nnet.netfilter.nf_conntrack_max=99999\n");
    assert!(text(&tuned.tune(&["plan", "--persist", "--max", "1M"])).contains("tuned sets it again later and wins"));
}

#[test]
fn udev_rule_is_written_when_module_is_not_loaded_at_boot() {
    let image = MachineImage::debian();
    for tool in ["systemd-sysctl", "systemd-udevd"] {
        image.write(&format!("usr/lib/systemd/{tool}"), "");
    }
    let units = image.0.path().join("etc/systemd/system");
    fs::create_dir_all(&units).unwrap();
    std::os::unix::fs::symlink("/dev/null", units.join("systemd-modules-load.service")).unwrap();
    let before = image.all_files();
    let said = text(&image.tune(APPLY_LARGE));
    assert!(said.contains("nothing loads modules by name"), "{said}");
    assert!(!image.0.path().join("etc/modules-load.d/keepstate.conf").exists());
    let rule = image.read("etc/udev/rules.d/99-keepstate.rules");
    assert!(rule.contains("RUN+=\"/usr/lib/systemd/systemd-sysctl --prefix=/net/netfilter\""), "{rule}");
    let verified = image.tune(&["verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified));
    assert!(text(&verified).contains("1000000 as soon as the module is loaded"), "{}", text(&verified));
    assert_udev_runs(&rule);
    assert_eq!(image.tune(&["rollback"]).status.code(), Some(0));
    assert_eq!(image.all_files(), before);
}

/// udev itself reads the rule, in a mount namespace of its own, and says what it would run when the module comes.
fn assert_udev_runs(rule: &str) {
    let script = "mkdir -p /etc/udev/rules.d && mount -t tmpfs keepstate-test /etc/udev/rules.d && printf %s \"$RULE\" >/etc/udev/rules.d/99-keepstate.rules \
        && udevadm test --action=add /sys/module/nf_conntrack 2>&1";
    let tested = Command::new("unshare").args(["--mount", "sh", "-c", script]).env("RULE", rule).output().unwrap();
    if !tested.status.success() {
        return report_skipped("udevadm on the written rule: it needs root and udev (apt-get install udev)");
    }
    let said = text(&tested);
    assert!(said.contains("run: '/usr/lib/systemd/systemd-sysctl --prefix=/net/netfilter'"), "{said}");
    assert!(!said.contains("99-keepstate.rules:2 Invalid"), "{said}");
}

#[test]
fn old_kernel_buckets_use_the_module_parameter() {
    let image = MachineImage::debian();
    let hashsize = "sys/module/nf_conntrack/parameters/hashsize";
    image.write(hashsize, "65536\n");
    image.write("sys/module/nf_conntrack/initstate", "live\n");
    fs::set_permissions(image.0.path().join(BUCKETS), fs::Permissions::from_mode(0o444)).unwrap();
    let before = image.all_files();
    assert_eq!(image.tune(APPLY_LARGE).status.code(), Some(0));
    assert_eq!((image.read(hashsize).as_str(), image.read(BUCKETS).as_str()), ("1000448\n", "65536\n"));
    assert!(image.read("etc/modprobe.d/keepstate.conf").ends_with("options nf_conntrack hashsize=1000448\n"));
    assert!(!image.read("etc/sysctl.d/99-keepstate.conf").contains("buckets"), "which would be refused at each boot");
    let verified = image.tune(&["verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified));
    assert_eq!(image.tune(&["rollback"]).status.code(), Some(0));
    assert_eq!(image.all_files(), before);
}

#[test]
fn plans_from_a_connection_count() {
    let image = MachineImage::debian();
    let said = text(&image.tune(&["plan", "--profile", "mqtt-broker", "--connections", "300k", "--keepalive", "60s"]));
    assert!(
        said.contains("+net.netfilter.nf_conntrack_max = ") && said.contains("+net.netfilter.nf_conntrack_buckets = "),
        "{said}"
    );
}

#[test]
fn systemd_tools_accept_the_files() {
    let image = MachineImage::debian();
    assert_eq!(image.tune(APPLY_LARGE).status.code(), Some(0));
    let file = image.0.path().join("etc/sysctl.d/99-keepstate.conf");
    let sysctl = Path::new("/usr/lib/systemd/systemd-sysctl");
    if !sysctl.exists() {
        return report_skipped("systemd-sysctl on the written files: apt-get install systemd");
    }
    // In a namespace of its own it may set what it likes: the timeout is of the namespace.
    let script = format!(
        "{} {} 2>&1; cat /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established",
        sysctl.display(),
        file.display()
    );
    let set = Command::new("unshare").args(["--net", "sh", "-c", &script]).output().unwrap();
    if !set.status.success() {
        return report_skipped("systemd-sysctl on the written files: it needs root and network namespaces");
    }
    let said = text(&set);
    assert!(said.ends_with("21600\n"), "{said}");
    assert!(!said.contains("syntax") && !said.contains("Failed to parse"), "{said}");
    let loads = Command::new("/usr/lib/systemd/systemd-modules-load")
        .arg(image.0.path().join("etc/modules-load.d/keepstate.conf"))
        .output();
    let said = loads.map(|output| text(&output)).unwrap_or_default();
    assert!(!said.contains("parse"), "{said}");
}
