//! Shrinks a long scenario with a divergence to the shortest that still shows it.
//!
//! It tries the flow's own packets first, then those between its hosts, then all; after that it removes packets in ever smaller groups, as long
//! as a divergence of the same kind remains.
use super::comparator::{Comparator, CompareMode};
use super::divergence::Divergence;
use super::scenario::OracleScenario;
use super::step::{OracleStep, RawPacketView};
use anyhow::Result;
use std::time::{Duration, Instant};

/// Time limit for one divergence.
const TIME_LIMIT: Duration = Duration::from_secs(15);
/// Time limit for a slow scenario, which has to wait in each run.
const SLOW_TIME_LIMIT: Duration = Duration::from_secs(60);

/// The shortest scenario found, and what diverges in it. `None` if the divergence does not show again.
pub fn shrink(
    comparator: &mut Comparator,
    scenario: &OracleScenario,
    found: &Divergence,
) -> Result<Option<(OracleScenario, Divergence)>> {
    let until = Instant::now() + if scenario.slow { SLOW_TIME_LIMIT } else { TIME_LIMIT };
    let steps = &scenario.steps[..=found.step_index];
    let own = |step: &OracleStep| step.flow == found.flow;
    let culprit = steps.iter().rfind(|step| own(step)).and_then(address_pair);
    let candidates = [
        steps.iter().filter(|step| own(step)).cloned().collect::<Vec<_>>(),
        steps.iter().filter(|step| culprit.is_some() && address_pair(step) == culprit).cloned().collect(),
        steps.to_vec(),
    ];
    for steps in candidates {
        if steps.is_empty() {
            continue;
        }
        let scenario = scenario.with_steps(steps);
        if let Some(divergence) = first_divergence(comparator, &scenario)? {
            return reduce(comparator, scenario, divergence, until).map(Some);
        }
    }
    Ok(None)
}

/// The unordered pair of addresses.
fn address_pair(step: &OracleStep) -> Option<[std::net::IpAddr; 2]> {
    let view = RawPacketView::parse(&step.bytes)?;
    Some([view.source.min(view.destination), view.source.max(view.destination)])
}

fn first_divergence(comparator: &mut Comparator, scenario: &OracleScenario) -> Result<Option<Divergence>> {
    Ok(comparator.run_scenario(scenario, CompareMode::EveryStep)?.divergences.into_iter().next())
}

/// Removes groups of packets, halving their size, until nothing more can be removed.
fn reduce(
    comparator: &mut Comparator,
    scenario: OracleScenario,
    divergence: Divergence,
    until: Instant,
) -> Result<(OracleScenario, Divergence)> {
    let mut best = (scenario.with_steps(scenario.steps[..=divergence.step_index].to_vec()), divergence);
    let mut group = best.0.steps.len().div_ceil(2);
    loop {
        let mut at = 0;
        let mut went = false;
        while at < best.0.steps.len() && Instant::now() < until {
            let end = (at + group).min(best.0.steps.len());
            let mut steps = best.0.steps.clone();
            steps.drain(at..end);
            let candidate = best.0.with_steps(steps);
            match first_divergence(comparator, &candidate)? {
                Some(again) if again.kind == best.1.kind => {
                    best = (candidate.with_steps(candidate.steps[..=again.step_index].to_vec()), again);
                    went = true;
                }
                _ => at = end,
            }
        }
        if Instant::now() >= until || (group == 1 && !went) {
            return Ok(best);
        }
        if !went || group > 1 {
            group = (group / 2).max(1);
        }
    }
}
