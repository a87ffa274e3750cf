//! `keepstate who` on files: compressed, in any order, damaged; and by the arithmetic of deterministic NAT.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use common::keepstate;
use std::fs;
use std::io::Write;
use std::path::Path;

const BEGIN: &str = r#"{"seq":2,"at":"2026-11-29T10:00:00.000000Z","event":"session-begin","protocol":"tcp","nat":true,"src":"10.0.0.5","src_port":4000,"dst":"198.51.100.7","dst_port":443,"nat_src":"192.0.2.1","nat_src_port":1024,"nat_dst":"198.51.100.7","nat_dst_port":443}"#;
const START: &str = r#"{"seq":1,"at":"2026-11-29T09:00:00.000000Z","event":"log-start","version":1,"instance":"00000000000000ff","connections":0}"#;
const BLOCK: &str = r#"{"seq":3,"at":"2026-11-29T11:00:00.000000Z","event":"port-block-taken","src":"10.0.0.6","nat_src":"192.0.2.1","first_port":2048,"last_port":2559}"#;

fn end() -> String {
    BEGIN.replace("session-begin", "session-end").replace("\"seq\":2", "\"seq\":4").replace("T10:", "T12:")
}

fn write(folder: &Path, name: &str, lines: &[&str]) -> String {
    let path = folder.join(name);
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    path.to_str().unwrap().to_owned()
}

fn gzip(folder: &Path, name: &str, lines: &[&str]) -> String {
    let path = folder.join(name);
    let mut encoder = flate2::write::GzEncoder::new(fs::File::create(&path).unwrap(), Default::default());
    encoder.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
    encoder.finish().unwrap();
    path.to_str().unwrap().to_owned()
}

fn zstd_file(folder: &Path, name: &str, lines: &[&str]) -> String {
    let path = folder.join(name);
    fs::write(&path, zstd::encode_all((lines.join("\n") + "\n").as_bytes(), 0).unwrap()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn rotated_files_of_any_kind_are_read_in_the_order_of_time() {
    let folder = tempfile::tempdir().unwrap();
    let newest = write(folder.path(), "flows.jsonl", &[&end()]);
    let middle = gzip(folder.path(), "flows.jsonl.1.gz", &[BLOCK]);
    let oldest = zstd_file(folder.path(), "flows.jsonl.2.zst", &[START, BEGIN]);
    let ask = |words: &[&str]| keepstate(&[&["who"][..], words, &[&newest, &middle, &oldest]].concat(), b"");
    let found = ask(&["192.0.2.1:1024", "--at", "2026-11-29T11:30:00Z"]);
    let wanted = "10.0.0.5 port 4000 (tcp) had 192.0.2.1:1024 from 2026-11-29T10:00:00.000000Z until 2026-11-29T12:00:00.000000Z, with 198.51.100.7:443\n";
    assert_eq!((found.code, found.out.as_str()), (Some(0), wanted), "{}", found.err);
    let block = ask(&["192.0.2.1:2100", "--at", "2026-11-29T12:30:00+01:00"]);
    let wanted = "10.0.0.6 had ports 2048-2559 of 192.0.2.1 from 2026-11-29T11:00:00.000000Z; no end is logged\n";
    assert_eq!((block.code, block.out.as_str()), (Some(0), wanted));
    for words in [["--protocol", "udp"], ["--peer", "203.0.113.1"]] {
        let nobody = ask(&[&["192.0.2.1:1024", "--at", "2026-11-29T11:30:00Z"][..], &words].concat());
        assert_eq!(nobody.code, Some(1), "{}", nobody.out);
    }
    // Without the file in the middle there is a gap, and the answer says so.
    let gap = keepstate(&["who", "192.0.2.1:2100", "--at", "2026-11-29T11:30:00Z", &newest, &oldest], b"");
    assert_eq!(gap.code, Some(1));
    assert!(
        gap.out.contains(
            "uncertain: 1 record is missing between 2026-11-29T10:00:00.000000Z and 2026-11-29T12:00:00.000000Z"
        ),
        "{}",
        gap.out
    );
}

/// The log of the gateway that began the session says that it started again meanwhile; that of the one that took it over has the end.
#[test]
fn a_takeover_is_followed_through_the_logs_of_all_gateways() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = ["gw1", "gw2"].map(|name| {
        fs::create_dir(folder.path().join(name)).unwrap();
        folder.path().join(name)
    });
    let again = START.replace("ff", "aa").replace("T09:", "T11:");
    let began = gzip(&one, "flows.jsonl.1.gz", &[START, BEGIN]);
    let came_back = write(&one, "flows.jsonl", &[&again]);
    let started = START.replace("ff", "ee").replace("T09:00", "T09:05");
    let block = BLOCK.replace("\"seq\":3", "\"seq\":2");
    let ended = end().replace("\"seq\":4", "\"seq\":3");
    let took_over = write(&other, "flows.jsonl", &[&started, &block, &ended]);
    let ask = |at: &str| keepstate(&["who", "192.0.2.1:1024", "--at", at, &took_over, &came_back, &began], b"");
    let found = ask("2026-11-29T11:30:00Z");
    let wanted = "10.0.0.5 port 4000 (tcp) had 192.0.2.1:1024 from 2026-11-29T10:00:00.000000Z until 2026-11-29T12:00:00.000000Z, with 198.51.100.7:443\n";
    assert_eq!((found.code, found.out.as_str()), (Some(0), wanted), "{}", found.err);
    assert_eq!(ask("2026-11-29T12:30:00Z").code, Some(1));
}

#[test]
fn a_line_that_is_no_record_is_named_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(10_000);
    for (bad, wanted) in [
        ("garbage", "bad.jsonl:3: not a record"),
        ("\u{1b}[31m{\"seq\":", "bad.jsonl:3: not a record"),
        (&*long, "bad.jsonl:3: longer than 4096"),
    ] {
        let path = write(folder.path(), "bad.jsonl", &[START, BEGIN, bad]);
        let ran = keepstate(&["who", "192.0.2.1:1024", "--at", "2026-11-29T11:30:00Z", &path], b"");
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{}", ran.err);
        assert!(ran.err.contains(wanted) && !ran.err.contains("\u{1b}[31m{"), "{}", ran.err);
    }
    // The last line, which the gateway is writing just now, is no fault.
    let path = folder.path().join("growing.jsonl");
    fs::write(&path, format!("{START}\n{BEGIN}\n{{\"seq\":3,\"at")).unwrap();
    let ran = keepstate(&["who", "192.0.2.1:1024", "--at", "2026-11-29T10:00:00Z", path.to_str().unwrap()], b"");
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let piped = keepstate(
        &["who", "192.0.2.1:1024", "--at", "2026-11-29T10:00:00Z", "-"],
        format!("{START}\n{BEGIN}\n").as_bytes(),
    );
    assert_eq!(piped.code, Some(0), "{}", piped.err);
}

#[test]
fn deterministic_nat_needs_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let text = "version = 1\nruleset = \"r.nft\"\ninterface = [\"eth0\"]\n[nat]\ndeterministic = [\"100.64.0.0/16=192.0.2.0/28\"]";
    let config = write(folder.path(), "gateway.toml", &[text]);
    let ask =
        |what: &str, config: &str| keepstate(&["who", what, "--at", "2026-11-29T11:30:00Z", "--config", config], b"");
    let found = ask("192.0.2.1:1053", &config);
    assert_eq!(found.code, Some(0), "{}", found.err);
    assert!(
        found.out.starts_with("100.64.16.1 had ports 1039-1053 of 192.0.2.1, always\nuncertain: computed"),
        "{}",
        found.out
    );
    assert_eq!(ask("192.0.2.99:1053", &config).code, Some(1));
    assert_eq!(ask("192.0.2.1:80", &config).code, Some(1));
    let none = write(folder.path(), "none.toml", &["version = 1\nruleset = \"r.nft\"\ninterface = [\"eth0\"]"]);
    let error = ask("192.0.2.1:1053", &none);
    assert!(error.code == Some(2) && error.err.contains("no deterministic NAT"), "{}", error.err);
    let usage = keepstate(&["who", "192.0.2.1:1053", "--at", "now"], b"");
    assert!(usage.code == Some(2) && usage.err.contains("where to look?"), "{}", usage.err);
}
