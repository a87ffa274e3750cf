//! One run: runs scenarios until enough packets were sent, shrinks divergences, and prints a summary.
use super::comparator::{Comparator, CompareMode};
use super::divergence::Divergence;
use super::grammar::{self, Grammar};
use super::rng::OracleRng;
use super::scenario::OracleScenario;
use super::scenario_file;
use super::shrink::shrink;
use anyhow::Result;
use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

/// What to run.
pub struct OracleConfig {
    pub packets: u64,
    pub seed: u64,
    pub families: Vec<bool>,
    pub grammars: Vec<Grammar>,
    /// Maximum number of different divergences to show.
    pub show: usize,
    /// Run only the scenario with this number.
    pub number: Option<usize>,
}

/// Number of packets in one scenario.
const SCENARIO_PACKETS: usize = 20_000;

/// Runs the plan; returns the number of divergences.
pub fn run(comparator: &mut Comparator, plan: &OracleConfig) -> Result<u64> {
    let began = Instant::now();
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    let mut shown = HashSet::new();
    let mut sent = 0;
    let mut number = plan.number.unwrap_or(0);
    while sent < plan.packets && plan.number.is_none_or(|only| only == number) {
        let v6 = plan.families[number % plan.families.len()];
        let grammar = plan.grammars[number / plan.families.len() % plan.grammars.len()];
        let seed = OracleRng::new(plan.seed ^ (number as u64) << 32).next_u64();
        let left = usize::try_from(plan.packets - sent).unwrap_or(SCENARIO_PACKETS);
        let scenario = grammar::generate_scenario(grammar, v6, seed, SCENARIO_PACKETS.min(left));
        comparator.coverage.reset_states();
        let findings = comparator.run_scenario(&scenario, CompareMode::Periodic)?;
        sent += findings.verdicts.len() as u64;
        for divergence in &findings.divergences {
            *kinds.entry(divergence.kind.clone()).or_default() += 1;
            if shown.len() < plan.show {
                let title = format!(
                    "{} of seed {}, scenario {number} ({grammar:?}, {})",
                    divergence.kind,
                    plan.seed,
                    if v6 { "IPv6" } else { "IPv4" }
                );
                shrink_and_print(comparator, &scenario, divergence, &title, &mut shown)?;
            }
        }
        number += 1;
    }
    let scenarios = number - plan.number.unwrap_or(0);
    let seconds = began.elapsed().as_secs_f64();
    println!("\n{}", comparator.coverage);
    println!(
        "{sent} packets in {scenarios} scenarios, seed {}, {seconds:.1} s, {:.0} packets/s",
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

/// Runs a capture; returns the number of divergences.
pub fn run_capture(comparator: &mut Comparator, scenario: &OracleScenario) -> Result<usize> {
    let findings = comparator.run_scenario(scenario, CompareMode::Periodic)?;
    let mut shown = HashSet::new();
    for divergence in &findings.divergences {
        shrink_and_print(comparator, scenario, divergence, &divergence.kind, &mut shown)?;
    }
    println!("\n{}\n{} packets, {} divergences", comparator.coverage, scenario.steps.len(), findings.divergences.len());
    Ok(findings.divergences.len())
}

/// Shrinks a divergence and prints it, unless one of the same kind was printed.
fn shrink_and_print(
    comparator: &mut Comparator,
    scenario: &OracleScenario,
    divergence: &Divergence,
    title: &str,
    shown: &mut HashSet<String>,
) -> Result<()> {
    let Some((short, root)) = shrink(comparator, scenario, divergence)? else {
        if shown.insert(divergence.kind.clone()) {
            let step = scenario.steps.get(divergence.step_index).map(scenario_file::describe).unwrap_or_default();
            println!(
                "\n# NOT REPRODUCED: {title}\n# {step}\n#   kernel {}, engine {}",
                divergence.kernel, divergence.engine
            );
        }
        return Ok(());
    };
    // Scenarios that end with the same kind of packet and differ in the same way most likely have the same cause.
    let last = short.steps.last().map(scenario_file::describe).unwrap_or_default();
    let shape: Vec<&str> = last.split_whitespace().take(2).collect();
    if shown.insert(format!("{} {}", root.kind, shape.join(" "))) {
        print_scenario(comparator, &short, &root, title)?;
    }
    Ok(())
}

/// Prints a short scenario with both verdicts on each packet.
pub fn print_scenario(
    comparator: &mut Comparator,
    scenario: &OracleScenario,
    root: &Divergence,
    title: &str,
) -> Result<()> {
    let remarks = annotate(comparator, scenario)?;
    println!("\n{}", scenario_file::write_scenario(scenario, title, &remarks));
    println!("#   {}\n#   kernel: {}\n#   engine: {}", root.kind, root.kernel, root.engine);
    Ok(())
}

/// Runs a scenario again: both verdicts on each packet, and the connections after it.
pub fn annotate(comparator: &mut Comparator, scenario: &OracleScenario) -> Result<Vec<String>> {
    let mut remarks = Vec::new();
    for length in 1..=scenario.steps.len() {
        let findings =
            comparator.run_scenario(&scenario.with_steps(scenario.steps[..length].to_vec()), CompareMode::Periodic)?;
        let Some([kernel, engine]) = findings.verdicts.last() else { break };
        let verdict = if kernel == engine { kernel.to_string() } else { format!("kernel {kernel}, engine {engine}") };
        let reason = comparator.last_reason.map_or(String::new(), |reason| format!(" ({})", reason.name()));
        remarks.push(format!("{verdict}{reason}; {}", comparator.describe_tables()?));
    }
    Ok(remarks)
}
