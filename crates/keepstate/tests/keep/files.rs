//! Files that are torn, foreign, somebody else's, or cannot be written; and what a turn may cost.
use super::common::{Scratch, datagram, keepstate, skipped};
use super::lab::{Folder, until};
use keepstate_engine::{Engine, Instant, Knobs, Secret, Zone};
use keepstate_gateway::keep::Keep;
use keepstate_wire::Packet;
use std::fs;
use std::io::BufRead;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn now() -> Instant {
    Instant(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64)
}

fn engine() -> Engine {
    Engine::new(Knobs::default(), Secret([1; 16]), Instant(0))
}

/// `count` connections, from the port `from` on.
fn talk(engine: &mut Engine, from: u16, count: u16) {
    for port in from..from + count {
        engine.handle(&Packet::parse(&datagram(port, false)).unwrap(), Zone::default(), now());
    }
}

/// Turns until the file stands in its place and nothing is left to do.
fn settle(keep: &mut Keep, engine: &mut Engine, path: &Path) {
    let modified = || fs::metadata(path).ok().and_then(|there| there.modified().ok());
    until("the file", || {
        keep.turn(engine, now());
        modified().is_some() && !path.with_extension("table.new").exists()
    });
    keep.turn(engine, now());
}

fn open(path: &Path, engine: &mut Engine) -> (Keep, usize, String) {
    let (keep, restored) = Keep::open(path, engine, now()).unwrap();
    (keep, restored.connections, restored.lines(path).join("\n"))
}

#[test]
fn whatever_was_told_before_a_sudden_end_is_there_after_it() {
    let folder = Folder::new("sudden");
    let path = folder.file();
    let mut first = engine();
    talk(&mut first, 1000, 300);
    let (mut keep, restored, said) = open(&folder.0, &mut first);
    assert_eq!((restored, said.as_str()), (0, ""), "there was no file");
    talk(&mut first, 2000, 200);
    settle(&mut keep, &mut first, &path);
    talk(&mut first, 3000, 50);
    let gone = first.find(&first.entries(now()).next().unwrap().original, Zone::default(), now()).unwrap().0;
    first.remove(gone, now());
    keep.turn(&mut first, now());
    // Dropped without a word: as a killed process leaves it.
    drop(keep);
    let mut second = engine();
    let (keep, restored, said) = open(&path, &mut second);
    assert_eq!(restored, 549, "{said}");
    assert!(said.contains("549 connections were restored") && !said.contains("torn"), "{said}");
    second.check().unwrap();
    keep.end(&mut second, now());
    let mut third = engine();
    assert_eq!(open(&path, &mut third).1, 549);
}

#[test]
fn a_torn_end_is_cut_off_and_a_torn_snapshot_refused() {
    let folder = Folder::new("torn");
    let path = folder.file();
    let mut first = engine();
    talk(&mut first, 1000, 10);
    let (mut keep, ..) = open(&path, &mut first);
    settle(&mut keep, &mut first, &path);
    let snapshot = fs::metadata(&path).unwrap().len() as usize;
    talk(&mut first, 2000, 1);
    keep.turn(&mut first, now());
    talk(&mut first, 3000, 1);
    keep.turn(&mut first, now());
    drop(keep);
    let whole = fs::read(&path).unwrap();
    assert!(whole.len() > snapshot);
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    let mut second = engine();
    let (keep, restored, said) = open(&path, &mut second);
    assert_eq!(restored, 11, "all but the last: {said}");
    assert!(said.contains("are torn, as a sudden end leaves them: all before them is used"), "{said}");
    drop(keep);

    for (octets, wanted) in [
        (whole[..snapshot - 1].to_vec(), "damaged at octet "),
        (whole[..50].to_vec(), "damaged at octet 0"),
        ([&whole[..8], &9u32.to_le_bytes(), &whole[12..]].concat(), "of version 9"),
        (b"127.0.0.1 localhost\n".to_vec(), "no table that a gateway has kept"),
    ] {
        fs::write(&path, &octets).unwrap();
        let mut third = engine();
        let error = format!("{:#}", Keep::open(&path, &mut third, now()).err().unwrap());
        assert!(error.contains(wanted) && error.contains("move it away: mv "), "{wanted}: {error}");
        assert_eq!(third.count(), 0);
        assert_eq!(fs::read(&path).unwrap(), octets, "it is left as it is");
    }
    // Nothing in it is nothing said, too: somebody may have made it for its owner and its mode.
    fs::write(&path, b"").unwrap();
    assert_eq!(open(&path, &mut engine()).1, 0);
}

#[test]
fn there_is_one_writer() {
    let folder = Folder::new("lock");
    let mut own = engine();
    let (mut keep, ..) = open(&folder.0, &mut own);
    settle(&mut keep, &mut own, &folder.file());
    let ruleset = Scratch::new("lock.nft", b"table ip t { chain c { }; }");
    let words = ["gateway", "--ruleset", ruleset.path(), "--device", "ksnone0=10.0.0.1/24", "--state"];
    let ran = keepstate(&[&words[..], &[folder.0.to_str().unwrap()]].concat(), b"");
    let wanted =
        format!("another gateway (process {}) keeps its table in {}", std::process::id(), folder.file().display());
    assert!(ran.code == Some(1) && ran.err.contains(&wanted), "{:?} {}", ran.code, ran.err);
    drop(keep);
    fs::write(folder.file(), b"#!/bin/sh\n").unwrap();
    let ran = keepstate(&[&words[..], &[folder.0.to_str().unwrap()]].concat(), b"");
    assert!(ran.code == Some(1) && ran.err.contains("no table that a gateway has kept"), "{}", ran.err);
    let ran = keepstate(&[&words[..], &["/dev/null/x"]].concat(), b"");
    assert!(ran.code == Some(1) && ran.err.contains("/dev/null"), "{}", ran.err);
}

#[test]
fn the_time_without_a_gateway_counts() {
    let folder = Folder::new("gap");
    let mut first = engine();
    talk(&mut first, 1000, 5);
    let (mut keep, ..) = open(&folder.0, &mut first);
    settle(&mut keep, &mut first, &folder.file());
    let before = first.entries(now()).next().unwrap().timeout;
    std::thread::sleep(Duration::from_millis(1100));
    keep.turn(&mut first, now());
    drop(keep);
    std::thread::sleep(Duration::from_millis(2100));
    let mut second = engine();
    let (_keep, restored, _) = open(&folder.0, &mut second);
    let after = second.entries(now()).next().unwrap().timeout;
    // Two seconds dead; the second before, it may have been refreshed.
    assert!(
        restored == 5 && (25..=28).contains(&after) && before > after,
        "{restored} connections, {before} s, {after} s"
    );
}

#[test]
fn a_next_file_is_made_in_pieces() {
    let folder = Folder::new("pieces");
    let path = folder.file();
    let mut first = engine();
    let (mut keep, ..) = open(&path, &mut first);
    settle(&mut keep, &mut first, &path);
    let new = path.with_extension("table.new");
    // A journal of more than four megabytes is due to be replaced.
    let mut longest = 0;
    let mut before = 0;
    for round in 0..40 {
        talk(&mut first, 1000, 3000);
        keep.turn(&mut first, now());
        first.flush(now());
        keep.turn(&mut first, now());
        talk(&mut first, 1000, 30_000);
        for _ in 0..40 {
            keep.turn(&mut first, now());
            let length = fs::metadata(&new).map_or(0, |there| there.len());
            longest = longest.max(length.saturating_sub(before));
            before = length;
        }
        assert!(round < 39 || longest > 0, "there was no next file");
    }
    // A turn's worth of connections, and of changes.
    assert!(longest < (2048 + 8192) * 120, "{longest} octets in one turn");
    settle(&mut keep, &mut first, &path);
    drop(keep);
    let mut second = engine();
    assert_eq!(open(&path, &mut second).1, first.count());
}

#[test]
fn a_full_disk_ends_nothing() {
    let folder = Folder::new("full");
    let place = folder.0.to_str().unwrap();
    let ruleset = Scratch::new("full.nft", b"table ip t { chain c { }; }");
    // Its own mounts and its own network: nobody else sees either.
    let script = format!(
        "mount -t tmpfs -o size=16k none {place} && dd if=/dev/zero of={place}/filler bs=4k count=3 2>/dev/null; exec {} gateway --ruleset {} --device lan0=10.0.0.1/24 --state {place}",
        env!("CARGO_BIN_EXE_keepstate"),
        ruleset.path()
    );
    let mut gateway = Command::new("unshare")
        .args(["--mount", "--net", "--propagation", "private", "sh", "-c", &script])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut notes = std::io::BufReader::new(gateway.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("routing between") {
        if notes.read_line(&mut said).unwrap() == 0 {
            gateway.wait().unwrap();
            assert!(!said.contains("keepstate:") || said.contains("/dev/net/tun"), "{said}");
            skipped("a full disk: it needs root, for a small file system and a TUN device of its own");
            return;
        }
    }
    assert!(said.contains("the table cannot be kept in") && said.contains("No space left on device"), "{said}");
    gateway.kill().unwrap();
    gateway.wait().unwrap();
}
