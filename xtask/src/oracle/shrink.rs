//! From a long story that shows a divergence to the shortest that still shows it.
//!
//! First only the flow's own packets, then only those between its hosts, then all; after that packets are left out, in ever smaller groups, as long
//! as a divergence of the same kind remains.
use super::judges::{Care, Divergence, Judges};
use super::step::{Step, View};
use super::story::Story;
use anyhow::Result;
use std::time::{Duration, Instant};

/// How long one divergence may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// A slow story has to wait each time it is played.
const LONG_PATIENCE: Duration = Duration::from_secs(60);

/// The shortest story found, and what diverges in it. `None` if the divergence does not show again.
pub fn shrink(judges: &mut Judges, story: &Story, found: &Divergence) -> Result<Option<(Story, Divergence)>> {
    let until = Instant::now() + if story.slow { LONG_PATIENCE } else { PATIENCE };
    let told = &story.steps[..=found.at];
    let own = |step: &Step| step.flow == found.flow;
    let culprit = told.iter().rfind(|step| own(step)).and_then(hosts);
    let candidates = [
        told.iter().filter(|step| own(step)).cloned().collect::<Vec<_>>(),
        told.iter().filter(|step| culprit.is_some() && hosts(step) == culprit).cloned().collect(),
        told.to_vec(),
    ];
    for steps in candidates {
        if steps.is_empty() {
            continue;
        }
        let story = story.with(steps);
        if let Some(divergence) = first(judges, &story)? {
            return reduce(judges, story, divergence, until).map(Some);
        }
    }
    Ok(None)
}

/// The unordered pair of addresses.
fn hosts(step: &Step) -> Option<[std::net::IpAddr; 2]> {
    let view = View::read(&step.bytes)?;
    Some([view.source.min(view.destination), view.source.max(view.destination)])
}

fn first(judges: &mut Judges, story: &Story) -> Result<Option<Divergence>> {
    Ok(judges.play(story, Care::EachStep)?.divergences.into_iter().next())
}

/// Leaves out groups of packets, halving the groups, until nothing more can go.
fn reduce(judges: &mut Judges, story: Story, divergence: Divergence, until: Instant) -> Result<(Story, Divergence)> {
    let mut best = (story.with(story.steps[..=divergence.at].to_vec()), divergence);
    let mut group = best.0.steps.len().div_ceil(2);
    loop {
        let mut at = 0;
        let mut went = false;
        while at < best.0.steps.len() && Instant::now() < until {
            let end = (at + group).min(best.0.steps.len());
            let mut steps = best.0.steps.clone();
            steps.drain(at..end);
            let candidate = best.0.with(steps);
            match first(judges, &candidate)? {
                Some(again) if again.kind == best.1.kind => {
                    best = (candidate.with(candidate.steps[..=again.at].to_vec()), again);
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
