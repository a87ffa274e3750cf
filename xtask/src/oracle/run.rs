//! One run: stories until enough packets were sent, divergences made short, and a summary.
use super::grammar::{self, Grammar};
use super::judges::{Care, Divergence, Judges};
use super::ledger;
use super::random::Random;
use super::shrink::shrink;
use super::story::Story;
use anyhow::Result;
use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

/// What to run.
pub struct Plan {
    pub packets: u64,
    pub seed: u64,
    pub families: Vec<bool>,
    pub grammars: Vec<Grammar>,
    /// How many different divergences to show.
    pub show: usize,
}

/// Packets of one story.
const STORY: usize = 20_000;

/// Plays the plan; the number of divergences.
pub fn run(judges: &mut Judges, plan: &Plan) -> Result<u64> {
    let began = Instant::now();
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    let mut shown = HashSet::new();
    let mut sent = 0;
    let mut number = 0;
    while sent < plan.packets {
        let v6 = plan.families[number % plan.families.len()];
        let grammar = plan.grammars[number / plan.families.len() % plan.grammars.len()];
        let seed = Random::new(plan.seed ^ (number as u64) << 32).bits();
        let left = usize::try_from(plan.packets - sent).unwrap_or(STORY);
        let story = grammar::story(grammar, v6, seed, STORY.min(left));
        judges.coverage.forget_states();
        let findings = judges.play(&story, Care::Sweep)?;
        sent += findings.heard.len() as u64;
        for divergence in &findings.divergences {
            *kinds.entry(divergence.kind.clone()).or_default() += 1;
            if shown.len() < plan.show {
                let title = format!(
                    "{} of seed {}, story {number} ({grammar:?}, {})",
                    divergence.kind,
                    plan.seed,
                    if v6 { "IPv6" } else { "IPv4" }
                );
                show(judges, &story, divergence, &title, &mut shown)?;
            }
        }
        number += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("\n{}", judges.coverage);
    println!(
        "{sent} packets in {number} stories, seed {}, {seconds:.1} s, {:.0} packets/s",
        plan.seed,
        sent as f64 / seconds
    );
    let total: u64 = kinds.values().sum();
    println!("divergences: {total}");
    for (kind, count) in kinds {
        println!("{count:8}  {kind}");
    }
    Ok(total)
}

/// Plays a capture; the number of divergences.
pub fn play_capture(judges: &mut Judges, story: &Story) -> Result<usize> {
    let findings = judges.play(story, Care::Sweep)?;
    let mut shown = HashSet::new();
    for divergence in &findings.divergences {
        show(judges, story, divergence, &divergence.kind, &mut shown)?;
    }
    println!("\n{}\n{} packets, {} divergences", judges.coverage, story.steps.len(), findings.divergences.len());
    Ok(findings.divergences.len())
}

/// Makes a divergence short and prints it, unless one like it was printed.
fn show(
    judges: &mut Judges,
    story: &Story,
    divergence: &Divergence,
    title: &str,
    shown: &mut HashSet<String>,
) -> Result<()> {
    let Some((short, root)) = shrink(judges, story, divergence)? else {
        if shown.insert(divergence.kind.clone()) {
            let step = story.steps.get(divergence.at).map(ledger::describe).unwrap_or_default();
            println!(
                "\n# NOT REPRODUCED: {title}\n# {step}\n#   kernel {}, engine {}",
                divergence.kernel, divergence.engine
            );
        }
        return Ok(());
    };
    // Stories that end with the same kind of packet, differing in the same way, have most likely the same cause.
    let last = short.steps.last().map(ledger::describe).unwrap_or_default();
    let shape: Vec<&str> = last.split_whitespace().take(2).collect();
    if shown.insert(format!("{} {}", root.kind, shape.join(" "))) {
        print_story(judges, &short, &root, title)?;
    }
    Ok(())
}

/// Prints a short story with what both say of each packet.
pub fn print_story(judges: &mut Judges, story: &Story, root: &Divergence, title: &str) -> Result<()> {
    let remarks = remarks(judges, story)?;
    println!("\n{}", ledger::write(story, title, &remarks));
    println!("#   {}\n#   kernel: {}\n#   engine: {}", root.kind, root.kernel, root.engine);
    Ok(())
}

/// Plays a story once more, and says of each packet what both said, and the connections after it.
pub fn remarks(judges: &mut Judges, story: &Story) -> Result<Vec<String>> {
    let mut remarks = Vec::new();
    for length in 1..=story.steps.len() {
        let findings = judges.play(&story.with(story.steps[..length].to_vec()), Care::Sweep)?;
        let Some([kernel, engine]) = findings.heard.last() else { break };
        let heard = if kernel == engine { kernel.to_string() } else { format!("kernel {kernel}, engine {engine}") };
        let why = judges.why.map_or(String::new(), |why| format!(" ({})", why.name()));
        remarks.push(format!("{heard}{why}; {}", judges.table()?));
    }
    Ok(remarks)
}
