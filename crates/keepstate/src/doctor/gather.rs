//! Gathering observations: of this machine with all its network namespaces, or from the files of another one.
//!
//! Each namespace is read twice, the interval apart: first everything, then counters and sysctls again. An input that cannot be read
//! is recorded with the reason and the remedy, and gathering goes on.
use super::{machine, namespace_state};
use crate::netns_arg::find_netns;
use anyhow::{Context, Result};
use keepstate_advisor::doctor::{MissingInput, Observations};
use keepstate_bundle::Bundle;
use keepstate_linux::{SysRoot, netns};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What to gather.
#[derive(Clone, Debug)]
pub struct GatherOptions {
    /// Only this namespace.
    pub netns: Option<String>,
    /// Time between the two readings of the counters.
    pub interval: Duration,
    /// Limit on the entries of each table.
    pub sample: usize,
    /// Limit on the namespaces.
    pub namespaces: usize,
    /// A file with the kernel log.
    pub log: Option<PathBuf>,
}

/// Observes this machine.
///
/// # Errors
/// If the requested namespace does not exist, or cannot be entered.
pub fn gather_live(wanted: &GatherOptions) -> Result<Observations> {
    let root = SysRoot::live();
    let mut seen = Observations::default();
    let found = match &wanted.netns {
        Some(name) => netns::NetnsList { namespaces: vec![find_netns(name)?], denied: Vec::new(), over_limit: 0 },
        None => netns::list(wanted.namespaces)?,
    };
    let nic_limits = (!wanted.interval.is_zero()).then(|| machine::nic_limits(&root).0);
    let (mut gathered, mut not_entered) = (Vec::new(), Vec::new());
    for one in &found.namespaces {
        tracing::debug!("reading namespace {}", one.name);
        let begun = Instant::now();
        let read = || namespace_state::gather(&SysRoot::live(), wanted.sample);
        // The current namespace needs no entering, and so no privilege.
        let first = if one.is_current { Ok(read()) } else { one.enter(read) };
        match first {
            Ok((mut space, unseen)) => {
                space.name.clone_from(&one.name);
                space.inode = Some(one.inode);
                space.is_ours = one.is_current;
                seen.missing_inputs.extend(unseen);
                gathered.push((one, begun, space));
            }
            Err(error) if wanted.netns.is_some() => {
                return Err(error).context("cannot enter the network namespace (needs CAP_SYS_ADMIN): run as root");
            }
            Err(error) => not_entered.push((one.name.as_str(), error)),
        }
    }
    if let [(first, error), others @ ..] = not_entered.as_slice() {
        // All for one reason, mostly: said once.
        let what = match others.len() {
            0 => (*first).to_owned(),
            more => format!("network namespace {first} and {more} more"),
        };
        seen.missing_inputs.push(MissingInput::new(&what, error, "run as root (CAP_SYS_ADMIN)"));
    }
    if !wanted.interval.is_zero() {
        tracing::debug!("reading the counters again after {:?}", wanted.interval);
        let first = gathered.first().map_or_else(Instant::now, |(_, begun, _)| *begun);
        std::thread::sleep(wanted.interval.saturating_sub(first.elapsed()));
    }
    for (one, begun, mut space) in gathered {
        if !wanted.interval.is_zero() {
            let mut reread = || namespace_state::reread(&SysRoot::live(), &mut space, begun);
            // A namespace that is gone meanwhile has no growth.
            if one.is_current {
                reread();
            } else {
                let _ = one.enter(reread);
            }
        }
        seen.namespaces.push(space);
    }
    note_hidden_namespaces(&found, &mut seen);
    machine::gather(&root, wanted.log.as_deref(), nic_limits.as_deref(), &mut seen);
    Ok(seen)
}

/// Records namespaces that could not be found.
fn note_hidden_namespaces(found: &netns::NetnsList, seen: &mut Observations) {
    if let Some(hidden) = found.hidden() {
        seen.missing_inputs.push(MissingInput {
            what: "network namespaces of some processes".into(),
            why: hidden.reason,
            how: format!("run {}", hidden.hint),
        });
    }
    if found.over_limit > 0 {
        seen.missing_inputs.push(MissingInput {
            what: format!("{} more namespaces", found.over_limit),
            why: "more than the limit".into(),
            how: "raise --namespaces".into(),
        });
    }
}

/// Observes another machine by its files.
///
/// # Errors
/// If they cannot be read.
pub fn gather_bundle(bundle: &Bundle, wanted: &GatherOptions) -> Result<Observations> {
    let mut seen = Observations::default();
    seen.machine.is_remote = true;
    for listed in bundle.namespaces() {
        let (mut space, unseen) = namespace_state::gather(&listed.root, wanted.sample);
        space.name.clone_from(&listed.name);
        space.inode = listed.inode;
        space.is_ours = listed.is_ours;
        if !bundle.keeps_modes() {
            namespace_state::clear_modes(&mut space);
        }
        if let Some((later, over)) = &listed.second_reading {
            namespace_state::compare_readings(later, &mut space, *over);
        }
        seen.missing_inputs.extend(unseen);
        seen.namespaces.push(space);
    }
    machine::gather(bundle.root(), wanted.log.as_deref(), None, &mut seen);
    seen.missing_inputs.extend(bundle.missing_inputs());
    Ok(seen)
}
