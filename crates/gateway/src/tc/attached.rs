//! The governed interfaces that have programs: attached as interfaces come, and forgotten as they go. Interfaces come and go at any moment, so one that is gone before its turn is no error; one that cannot be
//! governed while the gateway runs is told, and tried again.
use super::governed::GovernedInterfaces;
use super::options::Lifeline;
use anyhow::{Context, Result};
use keepstate_linux::rtnetlink::RtLink;
use keepstate_linux::tc::TcHooks;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// The interfaces with programs.
pub(super) struct AttachedInterfaces {
    governed: GovernedInterfaces,
    lifeline: Option<Lifeline>,
    /// Their names, by index.
    names: BTreeMap<u32, String>,
    /// What was said of interfaces that cannot be governed.
    refused: Vec<String>,
    /// Interfaces that could not be attached to, and when that is tried again.
    failed: BTreeSet<u32>,
    next_try: Option<Instant>,
}

const RETRY_INTERVAL: Duration = Duration::from_secs(1);

impl AttachedInterfaces {
    pub(super) fn new(governed: GovernedInterfaces, lifeline: Option<Lifeline>) -> AttachedInterfaces {
        AttachedInterfaces {
            governed,
            lifeline,
            names: BTreeMap::new(),
            refused: Vec::new(),
            failed: BTreeSet::new(),
            next_try: None,
        }
    }

    /// The names of the governed interfaces, by index.
    pub(super) fn names(&self) -> &BTreeMap<u32, String> {
        &self.names
    }

    /// Is it time to try again what has failed?
    pub(super) fn is_retry_due(&self) -> bool {
        self.next_try.is_some_and(|at| Instant::now() >= at)
    }

    /// Attaches to interfaces that have come, and forgets those that have gone. Returns the chosen ones that have programs. At the `start` every failure is an error.
    ///
    /// # Errors
    /// An interface cannot be attached to, or not be given back.
    pub(super) fn follow<'a>(
        &mut self,
        links: &[&'a RtLink],
        hooks: &mut TcHooks,
        start: bool,
    ) -> Result<Vec<&'a RtLink>> {
        let (selected, refused) = self.governed.select(links);
        for why in refused.iter().filter(|why| !self.refused.contains(why)) {
            tracing::warn!("not governed: {why}");
        }
        self.refused = refused;
        let mut failed = BTreeSet::new();
        for link in &selected {
            match self.names.get(&link.index) {
                None => match self.attach(link, hooks) {
                    Ok(true) => (),
                    // The kernel tells what became of it.
                    Ok(false) => continue,
                    Err(error) if start => return Err(error),
                    Err(error) => {
                        if failed.insert(link.index) && !self.failed.contains(&link.index) {
                            tracing::error!(
                                "{}: not governed, so what comes by it passes without the rules; trying again each second: {error:#}",
                                link.name
                            );
                        }
                        continue;
                    }
                },
                Some(before) if *before != link.name => tracing::info!("{before} is called {} now", link.name),
                Some(_) => (),
            }
            self.names.insert(link.index, link.name.clone());
        }
        for index in hooks.attached() {
            if !selected.iter().any(|link| link.index == index) {
                let name = self.names.remove(&index).unwrap_or_else(|| format!("interface {index}"));
                match hooks.detach(index) {
                    Ok(()) => tracing::warn!("{name}: no longer governed"),
                    Err(error) if start => return Err(error).with_context(|| format!("detaching from {name}")),
                    Err(error) => tracing::error!("{name}: no longer governed, but it stays closed: {error}"),
                }
            }
        }
        self.next_try = (!failed.is_empty()).then(|| Instant::now() + RETRY_INTERVAL);
        self.failed = failed;
        Ok(selected.into_iter().filter(|link| self.names.contains_key(&link.index)).collect())
    }

    /// Attaches to an interface; false if it is gone.
    fn attach(&self, link: &RtLink, hooks: &mut TcHooks) -> Result<bool> {
        if !hooks.attach(link.index).with_context(|| format!("--interface {}", link.name))? {
            return Ok(false);
        }
        tracing::info!("{}: governed", link.name);
        if let Some(lifeline) = self.lifeline.as_ref().filter(|lifeline| lifeline.interface == link.name) {
            hooks.set_lifeline(link.index, lifeline.port).context("--lifeline")?;
            tracing::info!("{}: TCP port {} stays open when no gateway runs", link.name, lifeline.port);
        }
        Ok(true)
    }
}
