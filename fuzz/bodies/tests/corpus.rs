//! Replays the corpus of every fuzz target, and some random input, on stable Rust.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test speaks by panicking, its helpers too")]

use keepstate_fuzz_bodies::{Rng, TARGETS, run_engine, run_ftp};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Number of mutated corpus inputs, and of random inputs, for each target.
const ROUNDS: usize = 600;

/// States and reasons that random scenarios must reach.
const REACHED: &[&str] = &[
    "SYN_SENT",
    "SYN_SENT2",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "COOKIE_WAIT",
    "COOKIE_ECHOED",
    "SHUTDOWN_SENT",
    "HEARTBEAT_SENT",
    "assured",
    "new",
    "established",
    "related",
    "invalid",
    "untracked",
    "early_drop",
    "table_full",
    "checksum",
    "tcp_seq_above",
    "tcp_ignored",
];

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target);
    let files = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut inputs: Vec<_> =
        files.map(|file| file.unwrap().path()).map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{target} has no corpus");
    inputs
}

#[test]
fn corpus_inputs_pass() {
    for (target, body) in TARGETS {
        for (path, input) in corpus(target) {
            println!("{target} {}", path.display());
            body(&input);
        }
    }
}

#[test]
fn mutated_corpus_inputs_pass() {
    for (target, body) in TARGETS {
        let inputs = corpus(target);
        for seed in 0..ROUNDS as u64 {
            // Shown if the test fails: the seed reproduces the input.
            println!("{target} seed {seed}");
            let mut dice = Rng::new(seed);
            let (_, input) = &inputs[dice.below(inputs.len())];
            let mut input = input.clone();
            for _ in 0..=dice.below(4) {
                mutate(&mut input, &mut dice);
            }
            body(&input);
        }
    }
}

#[test]
fn random_inputs_pass() {
    for (target, body) in TARGETS {
        for seed in 0..ROUNDS as u64 {
            println!("{target} seed {seed}");
            let mut dice = Rng::new(seed);
            let len = dice.below(1024);
            body(&dice.bytes(len));
        }
    }
}

/// Random scenarios must reach every state in `REACHED`, or the grammar would find nothing.
#[test]
fn random_engine_inputs_reach_every_state() {
    let mut seen = BTreeSet::new();
    for seed in 0..ROUNDS as u64 {
        seen.extend(run_engine(&Rng::new(seed).bytes(2048)).seen);
    }
    for name in REACHED {
        assert!(seen.contains(name), "no story reached {name}: {seen:?}");
    }
}

/// The same for FTP conversations, which start from the corpus: random bytes rarely form a command.
#[test]
fn ftp_corpus_reaches_every_helper_outcome() {
    let mut seen = BTreeSet::new();
    for (_, input) in corpus("ftp") {
        let engine = run_ftp(&input);
        seen.extend(engine.reason_counts().filter(|(_, count)| *count > 0).map(|(why, _)| why.name()));
        seen.extend((engine.counters().expect_new > 0).then_some("met"));
    }
    for name in ["met", "helper_partial", "expect_clash", "expect_full", "tcp_first"] {
        assert!(seen.contains(name), "no conversation reached {name}: {seen:?}");
    }
}

/// One mutation, as a fuzzer makes: a byte, a boundary value, a truncation, a repetition.
fn mutate(input: &mut Vec<u8>, dice: &mut Rng) {
    let at = dice.below(input.len() + 1);
    match dice.below(5) {
        0 => input.truncate(at),
        1 => input.insert(at, dice.bytes(1)[0]),
        2 => input.extend_from_within(at..),
        3 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff][dice.below(5)],
        _ if at < input.len() => input[at] ^= 1 << dice.below(8),
        _ => {}
    }
    input.truncate(8192);
}

/// The state store corpus has the connections it should have, and they can be read.
#[test]
fn state_store_corpus_is_read() {
    for (path, input) in corpus("keep") {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let held = keepstate_gateway::state_store::state_file::Snapshot::parse(&input)
            .map(|image| image.connections().count());
        let wanted = match name.as_str() {
            "snapshot" | "torn" => Some(7),
            "journal" => Some(8),
            "empty" => Some(0),
            _ => None,
        };
        assert_eq!(held.ok(), wanted, "{name}");
        let alone = keepstate_engine::ConnSnapshot::decode(&input).is_ok();
        assert_eq!(alone, ["udp", "tcp", "ftp", "child", "gre", "sctp", "icmp"].contains(&name.as_str()), "{name}");
    }
}
