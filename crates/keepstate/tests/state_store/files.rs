//! State files that are torn, of another format, locked, or cannot be written; and what a turn may cost.
use super::common::{TempFile, keepstate, report_skipped, udp_packet};
use super::gateway_testbed::{TempFolder, wait_until};
use keepstate_engine::{Engine, Instant, Secret, Sysctls, Zone};
use keepstate_gateway::state_store::StateStore;
use keepstate_gateway::state_store::state_file::ClockPair;
use keepstate_wire::Packet;
use std::fs;
use std::io::BufRead;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

fn now() -> Instant {
    Instant(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64)
}

fn engine() -> Engine {
    Engine::new(Sysctls::default(), Secret([1; 16]))
}

/// `count` connections, from the port `from` on.
fn open_connections(engine: &mut Engine, from: u16, count: u16) {
    for port in from..from + count {
        engine.handle(&Packet::parse(&udp_packet(port, false)).unwrap(), Zone::default(), now());
    }
}

/// Turns until the file stands in its place and nothing is left to do.
fn run_until_written(keep: &mut StateStore, engine: &mut Engine, path: &Path) {
    let modified = || fs::metadata(path).ok().and_then(|there| there.modified().ok());
    wait_until("the file", || {
        keep.poll(engine, now());
        keep.flush();
        modified().is_some() && !path.with_extension("table.new").exists()
    });
    keep.poll(engine, now());
}

fn open(path: &Path, engine: &mut Engine) -> (StateStore, usize, String) {
    // A program that another test starts meanwhile has the lock of the one before too, from its fork until it is executed.
    let mut opened = None;
    wait_until("the lock", || {
        let tried = StateStore::open(path, engine, now());
        let is_locked = tried.as_ref().is_err_and(|error| error.to_string().contains("another gateway"));
        opened = (!is_locked).then_some(tried);
        opened.is_some()
    });
    let (keep, restored) = opened.unwrap().unwrap();
    (keep, restored.connections, restored.lines(path).join("\n"))
}

#[test]
fn written_entries_survive_a_crash() {
    let folder = TempFolder::new("sudden");
    let path = folder.file();
    let mut first = engine();
    open_connections(&mut first, 1000, 300);
    let (mut keep, restored, said) = open(&folder.0, &mut first);
    assert_eq!((restored, said.as_str()), (0, ""), "there was no file");
    open_connections(&mut first, 2000, 200);
    run_until_written(&mut keep, &mut first, &path);
    open_connections(&mut first, 3000, 50);
    let gone = first.find(&first.entries(now()).next().unwrap().original, Zone::default(), now()).unwrap().0;
    first.remove(gone, now());
    keep.poll(&mut first, now());
    // Dropped without a word: as a killed process leaves it.
    drop(keep);
    let mut second = engine();
    let (keep, restored, said) = open(&path, &mut second);
    assert_eq!(restored, 549, "{said}");
    assert!(
        said.contains("connections restored 549, expired 0, not restored 0") && !said.contains("incomplete"),
        "{said}"
    );
    second.check_invariants().unwrap();
    keep.close(&mut second, now());
    let mut third = engine();
    assert_eq!(open(&path, &mut third).1, 549);
}

#[test]
fn torn_journal_tail_is_truncated_and_torn_snapshot_rejected() {
    let folder = TempFolder::new("torn");
    let path = folder.file();
    let mut first = engine();
    open_connections(&mut first, 1000, 10);
    let (mut keep, ..) = open(&path, &mut first);
    run_until_written(&mut keep, &mut first, &path);
    let snapshot = fs::metadata(&path).unwrap().len() as usize;
    open_connections(&mut first, 2000, 1);
    keep.poll(&mut first, now());
    open_connections(&mut first, 3000, 1);
    keep.poll(&mut first, now());
    drop(keep);
    let whole = fs::read(&path).unwrap();
    assert!(whole.len() > snapshot);
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    let mut second = engine();
    let (keep, restored, said) = open(&path, &mut second);
    assert_eq!(restored, 11, "all but the last: {said}");
    assert!(said.contains("ignored, as a crash leaves it; all before it is used"), "{said}");
    drop(keep);

    for (octets, wanted) in [
        (whole[..snapshot - 1].to_vec(), "damaged at byte "),
        (whole[..50].to_vec(), "damaged at byte 0"),
        ([&whole[..8], &9u32.to_le_bytes(), &whole[12..]].concat(), "format version 9"),
        (b"127.0.0.1 localhost\n".to_vec(), "not a state file"),
    ] {
        fs::write(&path, &octets).unwrap();
        let mut third = engine();
        let error = format!("{:#}", StateStore::open(&path, &mut third, now()).err().unwrap());
        assert!(error.contains(wanted) && error.contains("move it away: mv "), "{wanted}: {error}");
        assert_eq!(third.count(), 0);
        assert_eq!(fs::read(&path).unwrap(), octets, "it is left as it is");
    }
    // Nothing in it is nothing said, too: somebody may have made it for its owner and its mode.
    fs::write(&path, b"").unwrap();
    assert_eq!(open(&path, &mut engine()).1, 0);
}

#[test]
fn state_file_has_one_writer() {
    let folder = TempFolder::new("lock");
    let mut own = engine();
    let (mut keep, ..) = open(&folder.0, &mut own);
    run_until_written(&mut keep, &mut own, &folder.file());
    let ruleset = TempFile::new("lock.nft", b"table ip t { chain c { }; }");
    let words = ["gateway", "--ruleset", ruleset.path(), "--device", "ksnone0=10.0.0.1/24", "--state"];
    let ran = keepstate(&[&words[..], &[folder.0.to_str().unwrap()]].concat(), b"");
    let wanted =
        format!("another gateway (process {}) uses state file {}", std::process::id(), folder.file().display());
    assert!(ran.code == Some(1) && ran.err.contains(&wanted), "{:?} {}", ran.code, ran.err);
    drop(keep);
    fs::write(folder.file(), b"#!/bin/sh\n").unwrap();
    let ran = keepstate(&[&words[..], &[folder.0.to_str().unwrap()]].concat(), b"");
    assert!(ran.code == Some(1) && ran.err.contains("not a state file"), "{}", ran.err);
    let ran = keepstate(&[&words[..], &["/dev/null/x"]].concat(), b"");
    assert!(ran.code == Some(1) && ran.err.contains("/dev/null"), "{}", ran.err);
}

#[test]
fn timeouts_run_while_the_gateway_is_down() {
    let folder = TempFolder::new("gap");
    // Milliseconds after the start, on clocks of the test's own.
    let start = now();
    let at = |milliseconds: u64| Instant(start.0 + milliseconds * 1_000_000);
    let clocks = move |now: Instant| ClockPair { boot: [1; 16], since_boot: now.0 - start.0 + 1_000_000, wall: now.0 };
    let mut first = engine();
    for port in 1000..1005 {
        first.handle(&Packet::parse(&udp_packet(port, false)).unwrap(), Zone::default(), at(0));
    }
    let (mut store, _) = StateStore::open_with_clocks(&folder.0, &mut first, Box::new(clocks), at(0)).unwrap();
    wait_until("the file", || {
        store.poll(&mut first, at(0));
        folder.file().exists() && !folder.file().with_extension("table.new").exists()
    });
    store.poll(&mut first, at(0));
    assert_eq!(first.entries(at(0)).next().unwrap().timeout, 30);
    // A heartbeat after a second, then a crash; the next start is two seconds later.
    store.poll(&mut first, at(1100));
    drop(store);
    let mut second = engine();
    let (_store, restored) = StateStore::open_with_clocks(&folder.0, &mut second, Box::new(clocks), at(3200)).unwrap();
    let after = second.entries(at(3200)).next().unwrap().timeout;
    // The time from the heartbeat to the restart is subtracted; the time before it is not, since the file does not say whether the connection was refreshed.
    assert!(restored.connections == 5 && (26..=28).contains(&after), "{} connections, {after} s", restored.connections);
}

#[test]
fn new_snapshot_is_written_incrementally() {
    let folder = TempFolder::new("pieces");
    let path = folder.file();
    let mut first = engine();
    let (mut keep, ..) = open(&path, &mut first);
    run_until_written(&mut keep, &mut first, &path);
    let new = path.with_extension("table.new");
    // A journal of more than four megabytes is due to be replaced.
    let mut longest = 0;
    let mut before = 0;
    for round in 0..40 {
        open_connections(&mut first, 1000, 3000);
        keep.poll(&mut first, now());
        first.flush(now());
        keep.poll(&mut first, now());
        open_connections(&mut first, 1000, 30_000);
        for _ in 0..40 {
            keep.poll(&mut first, now());
            keep.flush();
            let length = fs::metadata(&new).map_or(0, |there| there.len());
            longest = longest.max(length.saturating_sub(before));
            before = length;
        }
        assert!(round < 39 || longest > 0, "there was no next file");
    }
    // A turn's worth of connections, and of changes.
    assert!(longest < (2048 + 8192) * 120, "{longest} octets in one turn");
    run_until_written(&mut keep, &mut first, &path);
    drop(keep);
    let mut second = engine();
    assert_eq!(open(&path, &mut second).1, first.count());
}

#[test]
fn full_disk_does_not_stop_tracking() {
    let folder = TempFolder::new("full");
    let place = folder.0.to_str().unwrap();
    let ruleset = TempFile::new("full.nft", b"table ip t { chain c { }; }");
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
            report_skipped("a full disk: it needs root, for a small file system and a TUN device of its own");
            return;
        }
    }
    assert!(said.contains("write error: ") && said.contains("No space left on device"), "{said}");
    gateway.kill().unwrap();
    gateway.wait().unwrap();
}
