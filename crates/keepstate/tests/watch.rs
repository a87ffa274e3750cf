//! `keepstate watch` on the loopback device of a network namespace that is made for the test and goes with it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test speaks by panicking, or says loudly why it does not run"
)]
mod common;

use common::keepstate;
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_keepstate");

/// Runs a script in a network namespace with loopback up. `None`, loudly, where that is not to be had.
fn in_namespace(script: &str) -> Option<Output> {
    let made = Command::new("unshare").args(["--net", "true"]).output().is_ok_and(|output| output.status.success());
    if !made {
        eprintln!("######## SKIPPED: watching a device (needs root and unshare)");
        return None;
    }
    // A datagram to a port that listens and one back, by the shell's own means.
    let script = format!(
        "ip link set lo up 2>/dev/null || ifconfig lo up
         say() {{ echo ping > /dev/udp/127.0.0.1/4000; }}
         K={PROGRAM}
         {script}"
    );
    Some(Command::new("unshare").args(["--net", "bash", "-c", &script]).output().unwrap())
}

fn texts(output: &Output) -> (String, String) {
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_datagram_is_in_the_table_at_the_end() {
    let Some(output) = in_namespace("(sleep 0.5; say; sleep 0.2; say) & $K watch lo --for 2s; wait") else { return };
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{err}");
    let lines: Vec<&str> = out.lines().filter(|line| line.contains("dport=4000 ")).collect();
    assert!(!lines.is_empty() && lines.iter().all(|line| line.starts_with("udp      17 ")), "{out}{err}");
    assert!(err.contains("flow entries have been shown"), "{err}");
    assert!(!out.contains('\x1b'), "no escapes where nobody watches a terminal: {out:?}");
}

#[test]
fn events_come_as_they_happen_and_an_interrupt_ends_it() {
    let script = "$K watch lo --events > events & pid=$!
        for try in $(seq 100); do sleep 0.1; say; [ -s events ] && break; done
        kill -INT $pid; wait $pid; echo ended $?; cat events; rm events";
    let directory = std::env::temp_dir().join(format!("keepstate-watch-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let Some(output) = in_namespace(&format!("cd {}\n{script}", directory.display())) else { return };
    std::fs::remove_dir_all(&directory).unwrap();
    let (out, err) = texts(&output);
    assert!(out.starts_with("ended 0\n"), "{out}{err}");
    let first = out.lines().nth(1).unwrap_or_default();
    assert!(first.trim_start().starts_with("[NEW] udp") && first.contains("dport=4000"), "{out}{err}");
}

#[test]
fn what_is_missing_is_said() {
    let none = keepstate(&["watch", "no-such-device"], &[]);
    // Whoever may not listen at all is told that first.
    let told = none.err.contains("there is no device \"no-such-device\" here; there are: ")
        || none.err.contains("CAP_NET_RAW");
    assert!(none.code == Some(1) && told, "{}", none.err);
    let lowered = Command::new("setpriv").args(["--reuid", "65534", "--clear-groups", PROGRAM, "watch", "lo"]).output();
    match lowered {
        Ok(output) if !texts(&output).1.contains("setpriv") => {
            let (_, err) = texts(&output);
            assert_eq!(output.status.code(), Some(1), "{err}");
            assert!(err.contains("CAP_NET_RAW is missing") && err.contains("sudo setcap cap_net_raw+ep"), "{err}");
        }
        _ => eprintln!("######## SKIPPED: watching without CAP_NET_RAW (needs root and setpriv)"),
    }
}
