//! `keepstate tune apply --confirm-within` on the running kernel: a knob that belongs to a namespace, in one made for the test, with a
//! `/var/lib` of its own.
//!
//! What is waited for is an action of another process; the tests look for it until a generous time is over, and never take a time as a result.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use common::report_skipped;
use std::process::Command;

/// Runs a script in namespaces of its own; `$K` is the program, `knob` prints the knob, `until VALUE` waits for it.
fn run_in_new_netns(script: &str) -> Option<String> {
    let head = "set -e
mkdir -p /var/lib; mount -t tmpfs keepstate-test /var/lib
knob() { cat /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established; }
until_it_is() { for _ in $(seq 300); do [ \"$(knob)\" = \"$1\" ] && return 0; sleep 0.1; done; echo \"never became $1\"; return 1; }
until_it_ends() { for _ in $(seq 300); do ls /proc/[0-9]*/cmdline | xargs cat 2>/dev/null | tr '\\0' ' ' | grep -q \"tune wa[t]ch --id\" || return 0; sleep 0.1; done; return 1; }
";
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "--propagation", "private", "bash", "-c"])
        .arg(format!("{head}{script}"))
        .env("K", env!("CARGO_BIN_EXE_keepstate"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if said.contains("unshare") && said.contains("Operation not permitted") {
        report_skipped("the watcher on a real knob: it needs root and namespaces");
        return None;
    }
    assert!(output.status.success(), "{said}");
    Some(said)
}

#[test]
fn unconfirmed_apply_is_rolled_back() {
    let Some(said) = run_in_new_netns(
        "before=$(knob)
$K tune apply --set nf_conntrack_tcp_timeout_established=21600 --confirm-within 1s
echo after: $(knob)
until_it_is $before
until_it_ends
$K tune status
! $K tune confirm",
    ) else {
        return;
    };
    assert!(said.contains("after: 21600"), "{said}");
    assert!(said.contains("was not confirmed within 1 s and was rolled back"), "{said}");
    assert!(said.contains("nothing to confirm"), "{said}");
}

#[test]
fn confirmed_apply_stays() {
    let Some(said) = run_in_new_netns(
        "$K tune apply --set nf_conntrack_tcp_timeout_established=21600 --confirm-within 2s
$K tune confirm
until_it_ends
echo after: $(knob)
$K tune verify
$K tune rollback",
    ) else {
        return;
    };
    assert!(said.contains("after: 21600"), "{said}");
}

#[test]
fn killed_apply_is_rolled_back() {
    let Some(said) = run_in_new_netns(
        "before=$(knob)
steps=0
for step in $(seq 5 30); do
    KEEPSTATE_TUNE_KILL=$step $K tune apply --set nf_conntrack_tcp_timeout_established=21600 --confirm-within 1s >/dev/null 2>&1 && break
    if [ -e /var/lib/keepstate/tune/journal.json ]; then
        until_it_ends
        [ \"$(knob)\" = \"$before\" ] || { echo \"step $step left $(knob)\"; exit 1; }
        # Where it is still there, the kill came before the watcher's start, and nothing was done yet.
        if [ -e /var/lib/keepstate/tune/journal.json ]; then $K tune rollback; else steps=$((steps + 1)); fi
    fi
done
until_it_ends
echo moments: $steps",
    ) else {
        return;
    };
    let moments = said.lines().find_map(|line| line.strip_prefix("moments: ")?.parse::<u32>().ok());
    assert!(moments.is_some_and(|moments| moments >= 3), "{said}");
}
