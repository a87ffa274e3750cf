//! Looking: at this machine with all its namespaces, or at the files of another one.
//!
//! Each namespace is looked into twice, the interval apart: first everything, then the counters and knobs again. What cannot be seen
//! is noted with the reason and with what would help, and the looking goes on.
use super::{machine, namespace_state};
use anyhow::{Context, Result};
use keepstate_advisor::doctor::{MissingInput, Observations};
use keepstate_bundle::Bundle;
use keepstate_linux::{SysRoot, netns};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What is to be looked at.
#[derive(Clone, Debug)]
pub struct GatherOptions {
    /// One namespace alone.
    pub netns: Option<String>,
    /// Between two readings of the counters.
    pub interval: Duration,
    /// Entries of each table at most.
    pub sample: usize,
    /// Namespaces at most.
    pub namespaces: usize,
    /// A file with the kernel's log.
    pub log: Option<PathBuf>,
}

/// This machine.
///
/// # Errors
/// If the namespace asked for is not there, or may not be entered.
pub fn gather_live(wanted: &GatherOptions) -> Result<Observations> {
    let root = SysRoot::live();
    let mut seen = Observations::default();
    let found = match &wanted.netns {
        Some(name) => {
            let only = netns::find(name).with_context(|| {
                format!("there is no network namespace {name}: `ip netns` lists those with a name; or give a process")
            })?;
            netns::NetnsList { namespaces: vec![only], denied: Vec::new(), over_limit: 0 }
        }
        None => netns::list(wanted.namespaces)?,
    };
    let mut looked = Vec::new();
    for one in &found.namespaces {
        tracing::debug!("looking into {}", one.name);
        let begun = Instant::now();
        let look = || namespace_state::gather(&SysRoot::live(), wanted.sample);
        // One's own needs no entering, and so no right to.
        let first = if one.is_current { Ok(look()) } else { one.enter(look) };
        match first {
            Ok((mut space, unseen)) => {
                space.name.clone_from(&one.name);
                space.inode = Some(one.inode);
                space.is_ours = one.is_current;
                seen.missing_inputs.extend(unseen);
                looked.push((one, begun, space));
            }
            Err(error) if wanted.netns.is_some() => {
                return Err(error).context("entering a network namespace needs CAP_SYS_ADMIN: run it with sudo");
            }
            Err(error) => seen.missing_inputs.push(missing_input(&one.name, &error, "run it as root (CAP_SYS_ADMIN)")),
        }
    }
    if !wanted.interval.is_zero() {
        tracing::debug!("waiting for {:?} to read the counters again", wanted.interval);
        let first = looked.first().map_or_else(Instant::now, |(_, begun, _)| *begun);
        std::thread::sleep(wanted.interval.saturating_sub(first.elapsed()));
    }
    for (one, begun, mut space) in looked {
        if !wanted.interval.is_zero() {
            let mut look = || namespace_state::reread(&SysRoot::live(), &mut space, begun);
            // A namespace that is gone meanwhile has no growth, which is what it then has.
            if one.is_current {
                look();
            } else {
                let _ = one.enter(look);
            }
        }
        seen.namespaces.push(space);
    }
    note_hidden_namespaces(&found, &mut seen);
    machine::gather(&root, wanted.log.as_deref(), &mut seen);
    Ok(seen)
}

/// Namespaces that were not found at all.
fn note_hidden_namespaces(found: &netns::NetnsList, seen: &mut Observations) {
    if let Some(hidden) = found.hidden() {
        seen.missing_inputs.push(MissingInput {
            what: "some processes' network namespaces".into(),
            why: hidden.reason,
            how: format!("run it {}", hidden.hint),
        });
    }
    if found.over_limit > 0 {
        seen.missing_inputs.push(MissingInput {
            what: format!("{} more namespaces", found.over_limit),
            why: "only a bounded number is looked into".into(),
            how: "ask for more with --namespaces".into(),
        });
    }
}

/// Another machine's files.
///
/// # Errors
/// If they hold nothing that speaks of connection tracking.
pub fn gather_bundle(bundle: &Bundle, wanted: &GatherOptions) -> Result<Observations> {
    let mut seen = Observations::default();
    seen.machine.is_remote = true;
    for place in bundle.namespaces() {
        let (mut space, unseen) = namespace_state::gather(&place.root, wanted.sample);
        space.name.clone_from(&place.name);
        space.inode = place.inode;
        space.is_ours = place.is_ours;
        if !bundle.keeps_modes() {
            namespace_state::clear_modes(&mut space);
        }
        if let Some((later, over)) = &place.second_reading {
            namespace_state::compare_readings(later, &mut space, *over);
        }
        seen.missing_inputs.extend(unseen);
        seen.namespaces.push(space);
    }
    machine::gather(bundle.root(), wanted.log.as_deref(), &mut seen);
    seen.missing_inputs.extend(bundle.missing_inputs());
    Ok(seen)
}

/// Something that could not be seen.
pub fn missing_input(what: &str, why: &dyn std::fmt::Display, how: &str) -> MissingInput {
    MissingInput { what: what.to_owned(), why: why.to_string(), how: how.to_owned() }
}
