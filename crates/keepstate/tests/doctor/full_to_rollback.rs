//! The whole story: a small table fills with real clients, the kernel says so, the doctor names it, tune enlarges it, the clients get in,
//! verify holds, and rollback puts everything back.
use crate::machine_wide::{SavedSysctls, set_max, try_to_connect};
use crate::netns_fixture::{Connections, DEADLINE, NetnsFixture, SysctlLock};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// `keepstate tune` on the running kernel, its journal in a directory of the test.
fn tune(state: &Path, words: &[&str]) -> Output {
    let script = format!("mount --bind {} /var/lib && exec \"$0\" tune \"$@\"", state.display());
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_keepstate")]).args(words);
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn kernel_logged_table_full() -> bool {
    let log = Command::new("dmesg").output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&log).lines().rev().take(200).any(|line| line.contains("nf_conntrack: table full"))
}

#[test]
fn table_full_diagnosed_tuned_and_rolled_back() {
    let lock = SysctlLock::exclusive();
    let Some(bed) = NetnsFixture::create(lock) else { return };
    let Some(_knobs) = SavedSysctls::save() else {
        crate::common::report_skipped("the whole story: nf_conntrack_max cannot be written here");
        return;
    };
    let state = tempfile::tempdir().unwrap();
    set_max(3000);
    let before = fs::read(MAX).unwrap();

    // A broker with three thousand clients, and more at the door.
    let clients = bed.enter(|| Connections::open(1883, 3000));
    let begun = Instant::now();
    while !kernel_logged_table_full() && begun.elapsed() < DEADLINE {
        bed.enter(|| try_to_connect(1883));
    }
    assert!(kernel_logged_table_full(), "the kernel logs that its table is full");
    let said = bed.run_doctor_during(|| try_to_connect(1883));
    said.assert_first_finding("table-full-assured");

    let planned = tune(state.path(), &["plan", "--max", "8000"]);
    assert!(text(&planned).contains("+net.netfilter.nf_conntrack_max = 8000"), "{}", text(&planned));
    assert_eq!(fs::read(MAX).unwrap(), before, "a plan writes nothing");
    let applied = tune(state.path(), &["apply", "--max", "8000"]);
    assert_eq!(applied.status.code(), Some(0), "{}", text(&applied));

    let more = bed.enter(|| Connections::open(1884, 2000));
    assert_eq!(bed.run_doctor().finding_names(), ["table-was-full"], "there is room now");
    assert_eq!(tune(state.path(), &["verify"]).status.code(), Some(0));

    drop((clients, more));
    let back = tune(state.path(), &["rollback"]);
    assert_eq!(back.status.code(), Some(0), "{}", text(&back));
    assert_eq!(fs::read(MAX).unwrap(), before);
    assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0, "nothing of ours is left");
}
