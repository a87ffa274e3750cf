//! `keepstate watch` on interfaces of a network namespace of the test.
#![allow(clippy::unwrap_used, reason = "a test speaks by panicking, its helpers too")]
mod common;

use common::{TempFile, keepstate, report_skipped};
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_keepstate");

/// What the scripts begin with. `ready` waits until keepstate captures, by its packet socket for every protocol; `say` sends a datagram to
/// a closed port; `until_found TEXT FILE [COUNT]` waits for lines in a file; `K` runs the program with a time limit.
const SHELL_FUNCTIONS: &str = "
    ip link set lo up || exit 99
    say() { echo ping > /dev/udp/127.0.0.1/$1; }
    ready() { for try in $(seq 3000); do grep -q ' 0003 ' /proc/net/packet && break; sleep 0.02; done; }
    until_found() { for try in $(seq 1200); do [ \"$(grep -ac -- \"$1\" $2)\" -ge ${3:-1} ] && break; sleep 0.05; done; }
    K() { timeout -s KILL 60 \"$PROGRAM\" watch \"$@\"; }";

/// Runs a script in a network namespace with loopback up. `None` (reported) if there are no namespaces here.
fn in_namespace(script: &str) -> Option<Output> {
    let made =
        Command::new("unshare").args(["--net", "ip", "link"]).output().is_ok_and(|output| output.status.success());
    if !made {
        report_skipped("watching a device (needs root, unshare and ip)");
        return None;
    }
    let script = format!("{SHELL_FUNCTIONS}\n{script}");
    Some(Command::new("unshare").args(["--net", "bash", "-c", &script]).env("PROGRAM", PROGRAM).output().unwrap())
}

fn stdout_and_stderr(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn prints_the_table_when_the_duration_ends() {
    // Datagrams of one socket, again and again: however late the shell is, some fall into these seconds.
    let script =
        "(exec 3> /dev/udp/127.0.0.1/4000; while :; do echo ping >&3; say 4001; sleep 0.05; done) 2> /dev/null & pid=$!
        K lo --for 4s -p udp --dport 4000; echo code $?; kill $pid";
    let Some(output) = in_namespace(script) else { return };
    let (out, err) = stdout_and_stderr(&output);
    let lines: Vec<&str> = out.lines().collect();
    let [line, "code 0"] = lines[..] else { unreachable!("{out}{err}") };
    assert!(line.starts_with("udp      17 ") && line.contains(" dport=4000 [UNREPLIED] "), "{out}{err}");
    assert!(err.contains("1 flow entries have been shown"), "{err}");
    assert!(err.contains(" seen on lo, 0 lost by the ring"), "{err}");
    assert!(!out.contains('\x1b') && !err.contains('\x1b'), "no escapes where nobody watches a terminal: {out:?}");
}

#[test]
fn tracks_tcp_in_both_directions() {
    // A listener and its client, by the shell's own means and python where it is.
    let talk = "python3 -c 'import socket as s; l = s.create_server((\"127.0.0.1\", 4000)); c = s.create_connection((\"127.0.0.1\", 4000)); \
                a, _ = l.accept(); c.sendall(b\"hi\"); a.recv(2); c.close(); a.close()'";
    if !Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return report_skipped("watching TCP (needs python3)");
    }
    let events = TempFile::new("events-tcp", b"");
    let script = format!(
        "\"$PROGRAM\" watch lo --events -p tcp > {0} & pid=$!; ready; {talk}
         for try in $(seq 1200); do grep -q TIME_WAIT {0} && break; sleep 0.05; done; kill -INT $pid; wait $pid; cat {0}",
        events.path()
    );
    let Some(output) = in_namespace(&script) else { return };
    let (out, err) = stdout_and_stderr(&output);
    let states: Vec<&str> = out.lines().filter_map(|line| line.split(" 6 ").nth(1)?.split(' ').nth(1)).collect();
    assert_eq!(states[..3], ["SYN_SENT", "SYN_RECV", "ESTABLISHED"], "{out}{err}");
    assert!(states.contains(&"FIN_WAIT") && states.last() == Some(&"TIME_WAIT"), "{out}{err}");
}

#[test]
fn streams_events_until_a_signal() {
    for signal in ["INT", "TERM"] {
        let events = TempFile::new(&format!("events-{signal}"), b"");
        // The event must be there while keepstate runs, not only at its end.
        let script = format!(
            "\"$PROGRAM\" watch lo --events > {0} & pid=$!; ready; say 4000
             for try in $(seq 1200); do [ -s {0} ] && break; sleep 0.05; done
             [ -s {0} ] && echo at once; kill -{signal} $pid; wait $pid; echo ended $?; cat {0}",
            events.path()
        );
        let Some(output) = in_namespace(&script) else { return };
        let (out, err) = stdout_and_stderr(&output);
        assert!(out.starts_with("at once\nended 0\n    [NEW] udp"), "{out}{err}");
        assert!(err.contains(" seen on lo, 0 lost by the ring"), "{err}");
    }
}

#[test]
fn interface_goes_down_and_is_deleted() {
    let notes = TempFile::new("notes-down", b"");
    let script = format!(
        "ip tuntap add d0 mode tun && ip link set d0 up || {{ echo no tun; exit; }}
        (ready; ip link set d0 down; until_found 'd0 is down' {0}; ip link del d0) &
        K d0 --events 2> {0}; echo code $?; cat {0} >&2",
        notes.path()
    );
    let Some(output) = in_namespace(&script) else { return };
    let (out, err) = stdout_and_stderr(&output);
    if out.contains("no tun") {
        return report_skipped(&format!("a device that goes (needs /dev/net/tun): {err}"));
    }
    assert_eq!(out, "code 1\n", "{err}");
    assert_eq!(err.matches("d0 is down: no traffic").count(), 1, "{err}");
    assert!(err.contains(" seen on d0, ") && err.contains("d0 no longer exists"), "{err}");
}

#[test]
fn restores_the_terminal() {
    if !Command::new("script").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return report_skipped("watching on a terminal (needs script)");
    }
    // `script` gives a terminal; what is typed there comes from its standard input.
    for (key, name) in [("q", "q"), ("\\003", "Ctrl-C")] {
        let inner = "stty rows 24 cols 80; stty -a; \\\"$PROGRAM\\\" watch lo; echo code $?; stty -a";
        // The key is pressed once the connection is shown; the terminal closes once its modes are printed again.
        let typescript = TempFile::new(&format!("typescript-{name}"), b"");
        let script = format!(
            "(ready; say 4000; until_found '> 127.0.0.1:4000' {0}; printf '{key}'; until_found 'rows 24;' {0} 2) |
             timeout -s KILL 60 script -qfec \"bash -c '{1}'\" {0}",
            typescript.path(),
            inner.replace('$', "\\$")
        );
        let Some(output) = in_namespace(&script) else { return };
        let (out, err) = stdout_and_stderr(&output);
        let out = out.replace('\r', "");
        let (before, rest) =
            out.split_once("\x1b[?1049h\x1b[?25l").unwrap_or_else(|| unreachable!("{name}: {out}{err}"));
        let (pictures, after) =
            rest.split_once("\x1b[?25h\x1b[?1049l").unwrap_or_else(|| unreachable!("{name}: {out}{err}"));
        assert!(
            pictures.contains("unreplied 127.0.0.1:") && pictures.contains(" > 127.0.0.1:4000\x1b[K"),
            "{name}: {pictures:?}"
        );
        let (notes, modes) = after.split_once("code 0\n").unwrap_or_else(|| unreachable!("{name}: {after}"));
        assert!(notes.contains(" seen on lo, 0 lost by the ring"), "{name}: {notes}");
        assert_eq!(modes.trim(), before.trim().trim_start_matches("^C").trim(), "{name}: the terminal's modes");
    }
}

#[test]
fn missing_capability_or_interface_is_reported() {
    let none = keepstate(&["watch", "no-such-device"], &[]);
    let told = none.err.contains("no interface \"no-such-device\" here; there are: ") && none.err.contains("lo");
    assert!(none.code == Some(1) && told, "{}", none.err);
    let lowered = Command::new("setpriv").args(["--reuid", "65534", "--clear-groups", PROGRAM, "watch", "lo"]).output();
    match lowered {
        Ok(output) if !stdout_and_stderr(&output).1.contains("setpriv") => {
            let (_, err) = stdout_and_stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{err}");
            assert!(err.contains("CAP_NET_RAW is missing") && err.contains("sudo setcap cap_net_raw+ep"), "{err}");
        }
        _ => report_skipped("watching without CAP_NET_RAW (needs root and setpriv)"),
    }
}

#[test]
fn usage_errors() {
    for (options, piece) in [
        (&["watch"][..], "<DEVICE>"),
        (&["watch", "lo", "--for", "soon"], "10s, 5m or 1h"),
        (&["watch", "lo", "--for=-1s"], "--for"),
        (&["watch", "lo", "--sport", "53"], "add -p tcp"),
        (&["watch", "lo", "--each"], "unexpected argument '--each'"),
        (&["watch", "lo", "--set", "nf_conntrack_maxx=1"], "did you mean nf_conntrack_max?"),
    ] {
        let ran = keepstate(options, &[]);
        assert!(ran.code == Some(2) && ran.err.contains(piece), "{options:?}: {:?} {}", ran.code, ran.err);
    }
}
