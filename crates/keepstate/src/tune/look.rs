//! What is there: every knob of connection tracking, whether it may be written, and how full the table is.
use super::knob;
use crate::size::observe;
use anyhow::{Context, Result};
use keepstate_advisor::tune::{COUNT, Present, Situation};
use keepstate_linux::{Root, sysctl};

/// Looks at the knobs below `root`.
///
/// # Errors
/// The directory of knobs cannot be read.
pub(super) fn situation(root: &Root) -> Result<Situation> {
    let mut situation = Situation { object: 256, ..Situation::default() };
    for name in root.names("/proc/sys/net/netfilter").context("the knobs")? {
        if !name.starts_with("nf_conntrack_") {
            continue;
        }
        let key = format!("net.netfilter.{name}");
        let Ok(value) = sysctl::number(root, &key) else { continue };
        situation.knobs.insert(key.clone(), Present { value, writable: knob::is_writable(root, &key) });
    }
    situation.count = situation.knobs.get(COUNT).and_then(|present| present.value);
    if let Ok(machine) = observe::machine(root) {
        situation.object = machine.object.0;
    }
    Ok(situation)
}
