//! The mistakes people make on the command line of `keepstate replay`: each is told with what, where, why and what to do.
#![allow(clippy::unwrap_used, reason = "a test speaks by panicking, its helpers too")]
mod common;

use common::{
    ByteOrder, ProgramOutput, TempFile, keepstate, linktype, pcap, report_skipped, udp_packet, udp_request_and_reply,
};
use std::fs::File;
use std::process::{Command, Stdio};

fn capture() -> Vec<u8> {
    pcap(ByteOrder::Little, false, linktype::RAW, &udp_request_and_reply())
}

fn replay(capture: &[u8], options: &[&str]) -> ProgramOutput {
    keepstate(&[&["replay", "-"], options].concat(), capture)
}

/// Nothing on standard output, this exit code, and on standard error a sentence with these pieces.
#[track_caller]
fn assert_fails(ran: &ProgramOutput, code: i32, pieces: &[&str]) {
    assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""), "{}", ran.err);
    for piece in pieces {
        assert!(ran.err.contains(piece), "no {piece:?} in: {}", ran.err);
    }
    assert!(!ran.err.contains("panicked") && !ran.err.contains("RUST_BACKTRACE"), "{}", ran.err);
}

#[test]
fn non_captures_are_rejected() {
    let text = TempFile::new("notes.txt", b"# this is text and no capture at all\n");
    let empty = TempFile::new("empty.pcap", b"");
    assert_fails(&keepstate(&["replay", "/no/such/file"], &[]), 1, &["/no/such/file: no such file"]);
    assert_fails(&keepstate(&["replay", "/"], &[]), 1, &["/ is a directory: give a capture file in it"]);
    assert_fails(&keepstate(&["replay", "/dev/null"], &[]), 1, &["/dev/null is empty"]);
    assert_fails(&keepstate(&["replay", empty.path()], &[]), 1, &[empty.path(), "is empty"]);
    assert_fails(&keepstate(&["replay", text.path()], &[]), 1, &[text.path(), "is no capture", "tcpdump -i any -w"]);
    assert_fails(&keepstate(&["replay", &format!("{}/x", text.path())], &[]), 1, &["cannot be opened"]);
    assert_fails(&replay(b"", &[]), 1, &["empty"]);
    for compressed in [&b"\x1f\x8b"[..], b"\x1f\x8b\x08\0not gzip at all", b"\x28\xb5\x2f\xfdnot zstd at all"] {
        assert_fails(&replay(compressed, &[]), 1, &["- cannot be read"]);
    }
}

#[test]
fn unreadable_file_is_rejected() {
    let file = TempFile::new("secret.pcap", &capture());
    let mode = Command::new("chmod").args(["000", file.path()]).status().unwrap();
    assert!(mode.success());
    if File::open(file.path()).is_err() {
        return assert_fails(&keepstate(&["replay", file.path()], &[]), 1, &["cannot be opened: Permission denied"]);
    }
    // Root may read everything, so we step down.
    let program = env!("CARGO_BIN_EXE_keepstate");
    let lowered = ["--reuid", "65534", "--clear-groups", program, "replay", file.path()];
    match Command::new("setpriv").args(lowered).output() {
        Ok(output) if output.status.code() == Some(1) => {
            let err = String::from_utf8(output.stderr).unwrap();
            assert!(err.contains("cannot be opened: Permission denied"), "{err}");
        }
        other => report_skipped(&format!(
            "a file one may not read (needs setpriv, and a program that all may run): {other:?}"
        )),
    }
}

#[test]
fn invalid_sysctls_are_rejected() {
    for (setting, pieces) in [
        ("nf_conntrack_tcp_lose=1", &["no sysctl nf_conntrack_tcp_lose", "did you mean nf_conntrack_tcp_loose?"][..]),
        ("nf_conntrack_tcp_loose=2", &["nf_conntrack_tcp_loose takes 0 to 1, not 2"]),
        ("nf_conntrack_max=-1", &["a whole number"]),
        ("nf_conntrack_max=", &["a whole number"]),
        ("nf_conntrack_max=99999999999999999999", &["a whole number"]),
        ("nf_conntrack_max=4294967296", &["takes"]),
        ("nf_conntrack_max", &["KEY=VALUE"]),
        ("net.ipv4.ip_forward=1", &["no sysctl of connection tracking"]),
        ("nf_conntrack_count=1", &["can only be read"]),
    ] {
        assert_fails(
            &replay(&capture(), &["--set", setting]),
            2,
            &[&["error: invalid value", setting], pieces].concat(),
        );
    }
    assert_fails(&replay(&capture(), &["--as-linux", "5.10"]), 2, &["4.19, 5.15, 6.18"]);
    assert_fails(&replay(&capture(), &["--memory", "much"]), 2, &["4G or 512M"]);
    assert_fails(&replay(&capture(), &["--helper", "irc"]), 2, &["known: ftp"]);
}

#[test]
fn sysctl_file_errors_name_the_line() {
    let broken = |line: &str| {
        TempFile::new("broken.conf", format!("net.netfilter.nf_conntrack_max = 10\n\n{line}\n").as_bytes())
    };
    for (line, pieces) in [
        ("net.netfilter.nf_conntrack_max = many", ["line 3", "whole number"]),
        ("net.netfilter.nf_conntrack_tcp_lose = 1", ["line 3", "did you mean nf_conntrack_tcp_loose?"]),
        ("net.netfilter.nf_conntrack_tcp_loose = 7", ["line 3", "takes 0 to 1, not 7"]),
        ("net.netfilter.nf_conntrack_max", ["line 3", "KEY=VALUE"]),
    ] {
        let file = broken(line);
        assert_fails(&replay(&capture(), &["--sysctl", file.path()]), 1, &[&[file.path()], &pieces[..]].concat());
    }
    assert_fails(
        &replay(&capture(), &["--sysctl", "/no/such.conf"]),
        1,
        &["/no/such.conf cannot be read", "No such file"],
    );
}

#[test]
fn invalid_filters_and_formats_are_rejected() {
    for (options, pieces) in [
        (&["-s", "10.0.0.400"][..], &["10.0.0.400", "--src"][..]),
        (&["-d", "10.0.0.0/33"], &["netmask", "0 to 32"]),
        (&["-s", "::1", "-d", "10.0.0.1"], &["mismatched address family"]),
        (&["-p", "foo"], &["unsupported protocol", "tcp, udp"]),
        (&["--sport", "53"], &["--sport", "add -p tcp"]),
        (&["-p", "tcp", "--sport", "65536"], &["65536"]),
        (&["-p", "tcp", "--state", "OPEN"], &["unknown state", "ESTABLISHED"]),
        (&["--state", "ESTABLISHED"], &["add -p tcp or -p sctp"]),
        (&["-w", "70000"], &["70000"]),
        (&["-o", "yaml"], &["unknown output option", "ktimestamp"]),
        (&["-o", "xml,json"], &["choose one"]),
        (&["-o", "xml", "-o", "json"], &["choose one"]),
        (&["-o", "id", "-o", "save"], &["-o save alone"]),
        (&["--each", "--events", "-o", "xml"], &["exclude each other", "document of events"]),
        (&["--stats", "--events", "-o", "json"], &["exclude each other", "document of events"]),
    ] {
        assert_fails(&replay(&capture(), options), 2, pieces);
    }
}

#[test]
fn invalid_times_and_arguments_are_rejected() {
    for time in ["yesterday", "nan", "inf", "-1", "2026-13-01T00:00:00Z", "", "2026-11-23", "1960-01-01T00:00:00Z"] {
        let option = format!("--at={time}");
        assert_fails(&replay(&capture(), &[&option]), 2, &["--at"]);
    }
    assert_fails(&replay(&capture(), &["--at", "yesterday"]), 2, &["12.5", "2026-11-23T14:00:00Z"]);
    assert_fails(&replay(&capture(), &["--evnts"]), 2, &["a similar argument exists: '--events'"]);
    assert_fails(&replay(&capture(), &["another"]), 2, &["unexpected argument 'another'"]);
    assert_fails(&keepstate(&["reply"], &[]), 2, &["replay"]);
    assert_fails(&keepstate(&["replay"], &[]), 2, &["<FILE>", "Usage: keepstate replay"]);
    assert_fails(&keepstate(&[], &[]), 2, &["Usage: keepstate [OPTIONS] <COMMAND>"]);
}

#[test]
fn help_lists_exit_codes() {
    for arguments in [&["--help"][..], &["replay", "--help"], &["replay", "-h"], &["watch", "--help"]] {
        let ran = keepstate(arguments, &[]);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
        for piece in ["Examples:", "Exit codes: 0 done", "2 usage error"] {
            assert!(ran.out.contains(piece), "{arguments:?}: no {piece:?}");
        }
    }
}

/// The program with a capture of many connections and its ends where a test wants them.
fn replay_with_much_output(options: &[&str], out: Stdio, err: Stdio) -> (Command, TempFile) {
    let frames: Vec<_> = (0..20_000u16).map(|port| (1_700_000_000_000_000_000, udp_packet(port, false))).collect();
    let file = TempFile::new(
        &format!("many{}.pcap", options.concat()),
        &pcap(ByteOrder::Little, false, linktype::RAW, &frames),
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_keepstate"));
    command.args(["replay", file.path()]).args(options).stdout(out).stderr(err);
    (command, file)
}

#[test]
fn closed_pipe_is_success() {
    for options in [&[][..], &["--events"], &["--each"], &["-o", "xml"]] {
        let (mut command, _file) = replay_with_much_output(options, Stdio::piped(), Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.success() && !err.contains("panicked") && !err.contains("Broken pipe"),
            "{options:?} {err}"
        );
    }
    // Nobody reads the notes, either.
    let (mut command, _file) = replay_with_much_output(&["--stats"], Stdio::null(), Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn full_disk_is_an_error() {
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        return report_skipped("a full disk (needs /dev/full)");
    };
    let (mut command, _file) = replay_with_much_output(&["-p", "udp"], full.into(), Stdio::piped());
    let output = command.output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && err.contains("No space left on device"), "{err}");
}
