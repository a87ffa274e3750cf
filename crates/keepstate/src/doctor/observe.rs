//! Looking: at this machine with all its namespaces, or at the files of another one.
//!
//! Each namespace is looked into twice, the interval apart: first everything, then the counters and knobs again. What cannot be seen
//! is noted with the reason and with what would help, and the looking goes on.
use super::{machine, space};
use crate::collect::Bundle;
use anyhow::{Context, Result};
use keepstate_advisor::doctor::{Observations, Unseen};
use keepstate_linux::{Root, namespace};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What is to be looked at.
#[derive(Clone, Debug)]
pub struct Wanted {
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
pub fn live(wanted: &Wanted) -> Result<Observations> {
    let root = Root::live();
    let mut seen = Observations::default();
    let found = match &wanted.netns {
        Some(name) => {
            let only = namespace::named(name).with_context(|| {
                format!("there is no network namespace {name}: `ip netns` lists those with a name; or give a process")
            })?;
            namespace::Found { namespaces: vec![only], denied: Vec::new(), beyond: 0 }
        }
        None => namespace::all(wanted.namespaces)?,
    };
    let mut looked = Vec::new();
    for one in &found.namespaces {
        tracing::debug!("looking into {}", one.name);
        let begun = Instant::now();
        let look = || space::look(&Root::live(), wanted.sample);
        // One's own needs no entering, and so no right to.
        let first = if one.is_ours { Ok(look()) } else { one.enter(look) };
        match first {
            Ok((mut space, unseen)) => {
                space.name.clone_from(&one.name);
                space.inode = Some(one.inode);
                space.is_ours = one.is_ours;
                seen.unseen.extend(unseen);
                looked.push((one, begun, space));
            }
            Err(error) if wanted.netns.is_some() => {
                return Err(error).context("entering a network namespace needs CAP_SYS_ADMIN: run it with sudo");
            }
            Err(error) => seen.unseen.push(unseen(&one.name, &error, "run it as root (CAP_SYS_ADMIN)")),
        }
    }
    if !wanted.interval.is_zero() {
        tracing::debug!("waiting for {:?} to read the counters again", wanted.interval);
        let first = looked.first().map_or_else(Instant::now, |(_, begun, _)| *begun);
        std::thread::sleep(wanted.interval.saturating_sub(first.elapsed()));
    }
    for (one, begun, mut space) in looked {
        if !wanted.interval.is_zero() {
            let mut look = || space::look_again(&Root::live(), &mut space, begun);
            // A namespace that is gone meanwhile has no growth, which is what it then has.
            if one.is_ours {
                look();
            } else {
                let _ = one.enter(look);
            }
        }
        seen.namespaces.push(space);
    }
    hidden(&found, &mut seen);
    machine::look(&root, wanted.log.as_deref(), &mut seen);
    Ok(seen)
}

/// Namespaces that were not found at all.
fn hidden(found: &namespace::Found, seen: &mut Observations) {
    if let Some(hidden) = found.hidden() {
        seen.unseen.push(Unseen {
            what: "some processes' network namespaces".into(),
            why: hidden.why,
            how: format!("run it {}", hidden.how),
        });
    }
    if found.beyond > 0 {
        seen.unseen.push(Unseen {
            what: format!("{} more namespaces", found.beyond),
            why: "only a bounded number is looked into".into(),
            how: "ask for more with --namespaces".into(),
        });
    }
}

/// Another machine's files.
///
/// # Errors
/// If they hold nothing that speaks of connection tracking.
pub fn files(bundle: &Bundle, wanted: &Wanted) -> Result<Observations> {
    let mut seen = Observations::default();
    seen.machine.is_elsewhere = true;
    for place in bundle.places() {
        let (mut space, unseen) = space::look(&place.root, wanted.sample);
        space.name.clone_from(&place.name);
        space.inode = place.inode;
        space.is_ours = place.is_ours;
        if !bundle.keeps_modes() {
            space::forget_modes(&mut space);
        }
        if let Some((later, over)) = &place.later {
            space::compare(later, &mut space, *over);
        }
        seen.unseen.extend(unseen);
        seen.namespaces.push(space);
    }
    machine::look(bundle.root(), wanted.log.as_deref(), &mut seen);
    seen.unseen.extend(bundle.left_out());
    Ok(seen)
}

/// Something that could not be seen.
pub fn unseen(what: &str, why: &dyn std::fmt::Display, how: &str) -> Unseen {
    Unseen { what: what.to_owned(), why: why.to_string(), how: how.to_owned() }
}
