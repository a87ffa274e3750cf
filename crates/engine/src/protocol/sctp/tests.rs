//! SCTP scenarios: the recorded verdict of Linux 6.18 on each packet, one scenario per file in `scenarios/`.
//!
//! ```text
//! # ledger: title of the scenario
//! >  22  SHUTDOWN+DATA   ok  SHUTDOWN_SENT  fresh  22/11  assured
//! │  │   │               │   │              │      │      └ the ASSURED bit
//! │  │   │               │   │              │      tags of the original and the reply direction, hexadecimal
//! │  │   │               │   │              the timer: fresh (restarted), or kept (unchanged)
//! │  │   │               │   the state; - while there is no connection
//! │  │   │               ok or invalid
//! │  │   chunks; `INIT:11` has initiate tag 0x11, `.T` sets the T bit
//! │  verification tag, hexadecimal
//! > from the opener, < from the other end; `forget` starts a new association
//! ```
use super::*;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use proptest::prelude::*;

/// The bytes of one chunk by its name.
fn chunk(word: &str) -> Vec<u8> {
    let (word, flags) = word.strip_suffix(".T").map_or((word, 0), |word| (word, 1));
    let (name, tag) = word.split_once(':').unwrap_or((word, "0"));
    let kind = match name {
        "DATA" => 0,
        "INIT" => 1,
        "INIT_ACK" => 2,
        "SACK" => 3,
        "HEARTBEAT" => 4,
        "HEARTBEAT_ACK" => 5,
        "ABORT" => 6,
        "SHUTDOWN" => 7,
        "SHUTDOWN_ACK" => 8,
        "ERROR" => 9,
        "COOKIE_ECHO" => 10,
        "COOKIE_ACK" => 11,
        "SHUTDOWN_COMPLETE" => 14,
        "X200" => 200,
        other => panic!("chunk {other}"),
    };
    let mut bytes = vec![kind, flags, 0, 4];
    if matches!(kind, 1 | 2) {
        bytes[3] = 20;
        bytes.extend(u32::from_str_radix(tag, 16).unwrap().to_be_bytes());
        bytes.extend([0; 12]);
    }
    bytes
}

fn header(tag: u32, chunks: &[u8]) -> SctpHeader<'_> {
    SctpHeader { source: 1000, destination: 2000, tag, chunks }
}

/// The tracker, as the engine holds it.
#[derive(Default)]
struct ScenarioRunner {
    sctp: Option<Sctp>,
}

impl ScenarioRunner {
    /// Tracks a packet, and returns the result in the format of a scenario line.
    fn track(&mut self, direction: Direction, tag: u32, bytes: &[u8]) -> String {
        let header = header(tag, bytes);
        let known = self.sctp;
        let Ok(mut sctp) = known.map_or_else(|| Sctp::from_first_packet(&header), Ok) else {
            return "invalid -".to_string();
        };
        let step = sctp.track_packet(&header, direction);
        if known.is_none() && step.is_err() {
            return "invalid -".to_string();
        }
        self.sctp = Some(sctp);
        let (verdict, timer) = match step {
            Ok(SctpUpdate { ignored: false, .. }) => ("ok", "fresh"),
            Ok(_) => ("ok", "kept"),
            Err(_) => ("invalid", "kept"),
        };
        let [original, reply] = sctp.vtags;
        let assured = if sctp.was_established() { " assured" } else { "" };
        format!("{verdict} {} {timer} {original:x}/{reply:x}{assured}", sctp.state.name())
    }

    fn run_line(&mut self, line: &str) -> Result<(), String> {
        if line == "forget" {
            *self = ScenarioRunner::default();
            return Ok(());
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let direction = if words[0] == ">" { Direction::Original } else { Direction::Reply };
        let tag = u32::from_str_radix(words[1], 16).unwrap();
        let bytes: Vec<u8> = if words[2] == "nothing" { vec![] } else { words[2].split('+').flat_map(chunk).collect() };
        let (result, expected) = (self.track(direction, tag, &bytes), words[3..].join(" "));
        if result == expected { Ok(()) } else { Err(format!("`{line}` got: {result}")) }
    }
}

fn run_scenario(name: &str, text: &str) {
    let mut runner = ScenarioRunner::default();
    let mut packets = 0;
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.is_empty()) {
        runner.run_line(line).unwrap_or_else(|wrong| panic!("{name} line {}: {wrong}", number + 1));
        packets += 1;
    }
    assert!(packets > 1, "{name} has too few lines");
}

macro_rules! scenarios {
    ($($test:ident $file:literal,)*) => {
        $(#[test] fn $test() { run_scenario($file, include_str!(concat!("scenarios/", $file, ".ledger"))); })*
    };
}

scenarios! {
    an_association "association",
    closed_by_the_server "closed-by-server",
    every_step_twice "repeated",
    abort "abort",
    first_packets "first",
    bundles "bundles",
    picked_up_by_heartbeats "pick-up",
    heartbeats_teach_tags "heartbeat-teaches",
    heartbeats_end_doubt "heartbeat-forgotten",
    heartbeats_in_bundles "heartbeat-bundled",
    restart "restart",
    restart_by_the_server "restart-by-server",
    collision "collision",
    init_ack "init-ack",
    reuse_of_a_closed_association "reuse",
    error "error",
    an_opener_without_answer "unanswered",
    partly_invalid "partial",
    init_again "init-again",
    random_packets "random",
}

/// Chunk lengths are checked as Linux does: only zero is too short, and none is too long.
#[test]
fn chunk_lengths_are_checked_as_linux_does() {
    let established = Sctp { vtags: [0x22, 0x11], state: SctpState::Established, flags: 0 };
    let after = |bytes: &[u8]| {
        let mut sctp = established;
        sctp.track_packet(&header(0x22, bytes), Direction::Original).map(|_| sctp.state)
    };
    assert_eq!(after(&[0, 0, 0, 0]), Err(SctpError::MalformedChunks), "a length of zero");
    assert_eq!(after(&[0, 0]), Err(SctpError::MalformedChunks), "no whole chunk header");
    assert_eq!(after(&[7, 0, 0, 3]), Ok(SctpState::ShutdownSent), "a length of three");
    assert_eq!(after(&[7, 0, 0xff, 0xff, 0]), Ok(SctpState::ShutdownSent), "a length beyond the packet");
    assert_eq!(after(&[7, 0, 0, 5, 9]), Ok(SctpState::ShutdownSent), "no padding at the end");
    assert_eq!(after(&[7, 0, 0, 4, 1, 2, 3]), Ok(SctpState::ShutdownSent), "three bytes after the chunk");
    assert_eq!(after(&[0, 0, 0, 4, 6, 0, 1, 144]), Ok(SctpState::Closed), "a second chunk beyond the packet");
    assert_eq!(after(&[0, 0, 0, 4, 6, 0, 0, 0]), Err(SctpError::MalformedChunks), "a second chunk of length zero");
}

/// A truncated INIT is invalid and changes nothing; its length field alone does not matter.
#[test]
fn truncated_init_is_invalid() {
    let mut sctp = Sctp { vtags: [0x22, 0x11], state: SctpState::ShutdownSent, flags: 0 };
    let before = sctp;
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&[1, 0, 0, 200, 0, 0, 0, 0x55]);
    assert_eq!(sctp.track_packet(&header(0, &bytes[..19]), Direction::Original), Err(SctpError::MalformedChunks));
    assert_eq!(sctp, before);
    assert!(sctp.track_packet(&header(0, &bytes), Direction::Original).is_ok());
    assert_eq!((sctp.state, sctp.vtags), (SctpState::Closed, [0x22, 0x55]));
}

proptest! {
    /// No input makes the tracker panic, and an invalid first packet opens nothing.
    #[test]
    fn arbitrary_bytes_never_panic(packets in prop::collection::vec((any::<bool>(), 0u32..4, prop::collection::vec(0u8..24, 0..48)), 1..20)) {
        let mut runner = ScenarioRunner::default();
        for (reply, tag, bytes) in packets {
            let direction = if reply && runner.sctp.is_some() { Direction::Reply } else { Direction::Original };
            let result = runner.track(direction, tag, &bytes);
            prop_assert_eq!(result == "invalid -", runner.sctp.is_none());
        }
    }
}
