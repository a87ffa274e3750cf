//! TCP scenarios: sequences of segments with Linux's state and timeout after each, one scenario per file in `tests/tcp_scenarios/` (its README has the format).
//!
//! ```text
//! # ledger: title of the scenario
//! set nf_conntrack_tcp_loose 0
//! wait 5
//! >  S    0   1000     -   64240   SYN_SENT   120   new
//! │  │    │    │       │     │        │        │     └ remarks: new, invalid, the name of a reason, assured
//! │  │    │    seq    ack  window   state   timeout
//! │  │    data bytes; then options: w7 (window scale), s (SACK permitted)
//! │  flags of SAFRPU, or - for none
//! > from the client, < from the server
//! ```
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by failing")]
mod common;

use common::{CLIENT, SERVER, Segment, tcp};
use keepstate_engine::{CtInfo, Engine, Instant, Outcome, ProtocolInfo, Secret, Status, Sysctl, Sysctls, Zone};
use keepstate_wire::Packet;

struct Scenario {
    engine: Engine,
    now: Instant,
}

fn flags(text: &str) -> u8 {
    text.chars().map(|flag| 1 << "FSRPAU".find(flag).unwrap_or_else(|| panic!("flag {flag}"))).sum()
}

/// Parses `0`, `100`, `0w7s`: number of data bytes, then options.
fn data_and_options(text: &str) -> (usize, Vec<u8>) {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let mut options = Vec::new();
    let mut rest = &text[digits..];
    while let Some(option) = rest.chars().next() {
        rest = &rest[1..];
        match option {
            's' => options.extend([4, 2]),
            'w' => {
                let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                options.extend([3, 3, rest[..end].parse().unwrap()]);
                rest = &rest[end..];
            }
            other => panic!("option {other}"),
        }
    }
    options.resize(options.len().next_multiple_of(4), 1);
    (text[..digits].parse().unwrap(), options)
}

impl Scenario {
    fn new() -> Self {
        Scenario { engine: Engine::new(Sysctls::default(), Secret([1; 16])), now: Instant::from_secs(1000) }
    }

    fn run_line(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            "set" => self
                .engine
                .set_sysctl(Sysctl::from_name(words[1]).unwrap(), words[2].parse().unwrap())
                .map_err(|e| e.to_string()),
            "wait" => {
                self.now = Instant(self.now.0 + words[1].parse::<u64>().unwrap() * 1_000_000_000);
                Ok(())
            }
            _ => self.run_segment(&words),
        }
    }

    fn run_segment(&mut self, words: &[&str]) -> Result<(), String> {
        let number = |text: &str| if text == "-" { 0 } else { text.parse::<u32>().unwrap() };
        let (data, options) = data_and_options(words[2]);
        let segment = Segment {
            flags: if words[1] == "-" { 0 } else { flags(words[1]) },
            seq: number(words[3]),
            ack: number(words[4]),
            window: number(words[5]) as u16,
            data,
            options,
        };
        let (client, server) = ((CLIENT, 40000), (SERVER, 1883));
        let bytes = if words[0] == ">" { tcp(client, server, &segment) } else { tcp(server, client, &segment) };
        let before = self.engine.entries(self.now).next();
        let outcome = self.engine.handle(&Packet::parse(&bytes).unwrap(), Zone::default(), self.now);
        let after = self.engine.entries(self.now).next();
        let (state, timeout, assured) = match &after {
            Some(entry) => match entry.protocol {
                ProtocolInfo::Tcp { state, .. } => {
                    (state.name(), entry.timeout.to_string(), entry.status.contains(Status::ASSURED))
                }
                _ => return Err("no TCP entry".into()),
            },
            None => ("-", "-".to_string(), false),
        };
        let mut result = vec![state.to_string(), timeout];
        result.extend(remarks(&outcome, before.map(|entry| entry.id) != after.map(|entry| entry.id), assured));
        let expected: Vec<String> = words[6..].iter().map(|word| word.to_string()).collect();
        self.engine.check_invariants()?;
        if result == expected { Ok(()) } else { Err(format!("got {}", result.join(" "))) }
    }
}

fn remarks(outcome: &Outcome, other_entry: bool, assured: bool) -> Vec<String> {
    let mut remarks = Vec::new();
    match outcome.info {
        CtInfo::New if other_entry => remarks.push("new".into()),
        CtInfo::Invalid => remarks.push("invalid".into()),
        _ => (),
    }
    remarks.extend(outcome.reason.map(|reason| reason.name().to_string()));
    if assured {
        remarks.push("assured".into());
    }
    remarks
}

#[test]
fn all_tcp_scenarios_pass() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tcp_scenarios");
    let mut failures = Vec::new();
    let mut scenarios = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "ledger") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mut scenario = Scenario::new();
        scenarios += 1;
        for (at, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if let Err(what) = scenario.run_line(line) {
                failures.push(format!("{}:{}: {line}\n    {what}", path.display(), at + 1));
            }
        }
    }
    assert!(scenarios >= 10, "only {scenarios} scenarios were found");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
