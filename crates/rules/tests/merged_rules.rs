//! Runs of rules found by lookup do what the same rules do one after another: verdict, mark, log lines and every counter, on random rulesets and packets.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

use keepstate_engine::{Engine, Instant, Secret, Sysctls, Zone};
use keepstate_rules::ast::Hook;
use keepstate_rules::{EvalCtx, NoIncludes, PacketMeta, Program, compile, parse_with};
use keepstate_test_support::SplitMix64;
use keepstate_wire::Packet;

mod empty_fib;
use empty_fib::EmptyFib;

/// One match; few values, so that many rules match and many share their values.
fn random_match(rng: &mut SplitMix64) -> String {
    let number = rng.below(6);
    match rng.below(14) {
        0..=3 => format!("ip saddr 10.0.{}.{number}", rng.below(2)),
        4 => format!("ip saddr 10.0.{}.0/{}", rng.below(2), 23 + rng.below(8)).replace(".1.0/23", ".0.0/23"),
        5 | 6 => format!("tcp dport {number}"),
        7 => format!("udp dport {number}"),
        8 => format!("ip daddr . tcp dport {{ 10.1.0.1 . {number} }}"),
        9 => format!("meta mark {}", rng.below(3)),
        10 => format!("ip saddr != 10.0.0.{number}"),
        11 => format!("th dport {number}-{}", number + rng.below(4)),
        12 => format!("meta l4proto {}", rng.pick(&["tcp", "udp"])),
        _ => format!("tcp dport {{ {number}, 9 }}"),
    }
}

fn random_rule(rng: &mut SplitMix64, chain: usize) -> String {
    let mut rule = String::new();
    for _ in 0..rng.below(3) + 1 {
        let next = random_match(rng);
        // Matches of two protocols in one rule are refused.
        let both =
            |text: &str| text.contains("tcp") as usize + text.contains("udp") as usize + text.contains("th ") as usize;
        if both(&rule) + both(&next) < 2 {
            rule += &next;
            rule += " ";
        }
    }
    rule += match rng.below(12) {
        0..=5 => "counter",
        6 => "counter meta mark set 1",
        7 => "counter meta mark set 2",
        8 => "log prefix \"here \" counter",
        9 => "counter accept",
        10 if chain > 0 => "counter jump c0",
        11 if chain > 0 => "counter return",
        _ => "counter drop",
    };
    rule
}

fn random_ruleset(rng: &mut SplitMix64) -> String {
    let mut text = String::from("table inet t {\n");
    for chain in 0..2 {
        text += &format!("\tchain c{chain} {{\n");
        if chain == 1 {
            text += "\t\ttype filter hook forward priority 0; policy accept;\n";
        }
        // Long chains of few kinds of rules, so that there are runs.
        let kinds: Vec<String> = (0..rng.below(3)).map(|_| random_rule(rng, chain)).collect();
        for _ in 0..rng.below(60) {
            let mut rule = random_rule(rng, chain);
            if rng.below(3) > 0 && !kinds.is_empty() {
                rule = kinds[rng.below(kinds.len())].clone();
            } else if rng.below(2) > 0 {
                rule = format!("ip saddr 10.0.0.{} counter", rng.below(8));
            }
            text += &format!("\t\t{rule}\n");
        }
        text += "\t}\n";
    }
    text + "}\n"
}

fn random_packet(rng: &mut SplitMix64) -> Vec<u8> {
    let tcp = rng.below(3) > 0;
    let mut bytes = vec![0x45, 0, 0, 40, 0, 1, 0, 0, 64, if tcp { 6 } else { 17 }, 0, 0, 10, 0];
    bytes.extend([rng.below(3) as u8, rng.below(7) as u8, 10, 1, 0, rng.below(3) as u8]);
    bytes.extend([0x0f, 0xa0, 0, rng.below(10) as u8]);
    match tcp {
        true => bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]),
        false => bytes.extend([0, 20, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
    }
    let sum = keepstate_wire::checksum::internet(&bytes[..20]);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// What a packet came to: verdict, mark, log lines.
fn evaluate(program: &mut Program, engine: &mut Engine, bytes: &[u8], mark: u32) -> String {
    let packet = Packet::parse(bytes).unwrap();
    let now = Instant(1);
    let mut tracked = engine.track(&packet, Zone::default(), now);
    let mut meta = PacketMeta { mark, ..PacketMeta::default() };
    let mut ctx = EvalCtx {
        engine,
        packet_ctx: Some(&mut tracked),
        packet: &packet,
        meta: &mut meta,
        fib: &EmptyFib,
        sockets: None,
        now,
    };
    let verdict = program.eval_filter_chains(Hook::Forward, i32::MIN..=i32::MAX, &mut ctx);
    format!("{verdict:?} mark {} log {:?}", meta.mark, meta.log_lines)
}

#[test]
fn rules_found_by_lookup_do_what_they_do_one_after_another() {
    let rounds = std::env::var("KEEPSTATE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(300);
    let (mut matched, mut looked_up) = (0, 0);
    let mut engine = Engine::new(Sysctls::default(), Secret([1; 16]));
    for seed in 0..rounds {
        let mut rng = SplitMix64(seed);
        let text = random_ruleset(&mut rng);
        let (tree, sources) = parse_with("t", &text, &NoIncludes, &[]).unwrap_or_else(|error| panic!("{error}"));
        let program = compile(&tree, &sources).unwrap_or_else(|error| panic!("{error}"));
        let mut plain = program.clone().without_lookup_of_rules();
        let mut merged = program;
        looked_up += merged.rules_found_by_lookup();
        for number in 0..60 {
            let (packet, mark) = (random_packet(&mut rng), rng.below(3) as u32);
            let (ours, theirs) =
                (evaluate(&mut merged, &mut engine, &packet, mark), evaluate(&mut plain, &mut engine, &packet, mark));
            assert_eq!(ours, theirs, "seed {seed}, packet {number}: {packet:02x?}\n{text}");
        }
        let counters = |program: &Program| program.rule_counters().collect::<Vec<_>>();
        assert_eq!(counters(&merged), counters(&plain), "seed {seed}\n{text}");
        matched += counters(&plain).iter().filter(|(_, packets, _)| *packets > 0).count();
    }
    assert!(matched > 1000, "only {matched} rules matched: the packets do not meet the rules");
    assert!(looked_up > 1000, "only {looked_up} rules are found by lookup");
}
