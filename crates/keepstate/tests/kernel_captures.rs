//! Recorded traffic gives the table, and the events, that the running kernel had for the same packets.
//!
//! `captures/README.md` says how they were recorded. A remaining time may differ by a second, since the kernel's table was read a moment after
//! the last packet; everything else must be the same to the letter.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test speaks by panicking, its helpers too")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Seconds by which a remaining time may differ.
const TOLERANCE: i64 = 1;

/// What the kernel said of a capture: `ending` is `conntrack` or `events`.
fn golden_file(capture: &str, ending: &str) -> String {
    fs::read_to_string(captures_dir().join(stem(capture)).with_extension(ending)).unwrap()
}

fn captures_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../captures")
}

/// What `keepstate replay` prints of a capture, with the knobs and under the rules it was recorded with.
fn replay(capture: &str, options: &[&str]) -> String {
    let golden = golden_file(capture, "conntrack");
    let mut command = Command::new(env!("CARGO_BIN_EXE_keepstate"));
    command.arg("replay").arg(captures_dir().join(capture)).args(options);
    for line in golden.lines() {
        if let Some(at) = line.strip_prefix("# at ") {
            command.args(["--at", at]);
        } else if let Some(setting) = line.strip_prefix("# set ") {
            command.args(["--set", setting]);
        } else if let Some(option) = line.strip_prefix("# option ") {
            command.args(option.split(' '));
        }
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{capture}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn stem(capture: &str) -> &str {
    capture.split('.').next().unwrap()
}

/// A line of `conntrack -L` as everything but the remaining time, and that.
fn split_timeout(line: &str) -> (String, i64) {
    let time = line.split_whitespace().nth(2).unwrap_or_else(|| panic!("no line of a table: {line}"));
    let at = time.as_ptr() as usize - line.as_ptr() as usize;
    let (before, after) = (&line[..at], &line[at + time.len()..]);
    (format!("{before}_{after}"), time.parse().unwrap_or_else(|_| panic!("no remaining time: {line}")))
}

fn parse_table(text: &str) -> BTreeMap<String, i64> {
    text.lines().filter(|line| !line.starts_with('#')).map(split_timeout).collect()
}

#[track_caller]
fn assert_table_matches(capture: &str) {
    let (kernel, ours) = (parse_table(&golden_file(capture, "conntrack")), parse_table(&replay(capture, &[])));
    assert!(!kernel.is_empty());
    let mut differences = Vec::new();
    for (line, time) in &kernel {
        match ours.get(line) {
            None => differences.push(format!("only the kernel: {line}")),
            Some(own) if (own - time).abs() > TOLERANCE => {
                differences.push(format!("{time} the kernel, {own} we: {line}"))
            }
            Some(_) => {}
        }
    }
    differences.extend(ours.keys().filter(|line| !kernel.contains_key(*line)).map(|line| format!("only we: {line}")));
    assert!(differences.is_empty(), "{capture}:\n{}", differences.join("\n"));
}

/// The NEW and UPDATE events of each connection, in their order. When an expired connection is destroyed, the kernel's garbage collector decides.
fn parse_events(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut events = BTreeMap::<String, Vec<String>>::new();
    for line in text.lines().filter(|line| !line.contains("[DESTROY]")) {
        let tuple = line.split_whitespace().skip_while(|word| !word.starts_with("src=")).take(5);
        let tuple: Vec<&str> = tuple.filter(|word| !word.starts_with('[')).collect();
        let words: Vec<&str> = line.split_whitespace().collect();
        events.entry(tuple.join(" ")).or_default().push(words.join(" "));
    }
    events
}

#[track_caller]
fn assert_events_match(capture: &str) {
    let (kernel, ours) = (parse_events(&golden_file(capture, "events")), parse_events(&replay(capture, &["--events"])));
    assert!(!kernel.is_empty());
    for (tuple, kernel) in &kernel {
        let ours = ours.get(tuple).map_or(&[][..], Vec::as_slice);
        assert_eq!(ours, kernel, "{capture}: {tuple}");
    }
    assert_eq!(ours.len(), kernel.len(), "{capture}: connections that the kernel did not see");
}

macro_rules! captures {
    ($($name:ident $file:literal;)*) => { $(
        mod $name {
            #[test]
            fn gives_the_kernels_table() {
                super::assert_table_matches($file);
            }
            #[test]
            fn gives_the_kernels_events() {
                super::assert_events_match($file);
            }
        }
    )* };
}

captures! {
    expiry "expiry.pcap";
    fragments "fragments.pcap.gz";
    ftp "ftp.pcap";
    mqtt "mqtt.pcapng";
    names "names.pcap";
    web "web.pcap";
}
