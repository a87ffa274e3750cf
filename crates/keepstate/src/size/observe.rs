//! What is read of a machine to size its table. What cannot be read is left out, and a note says so where it changes an answer.
use crate::notes::note;
use anyhow::{Result, bail};
use keepstate_advisor::size::{Machine, Observed, Source, generations};
use keepstate_engine::{Knob, Knobs};
use keepstate_linux::counters::{self, Counters};
use keepstate_linux::memory::{self, Memory};
use keepstate_linux::{Root, processors, slab, snmp, sysctl};
use std::time::{Duration, Instant};

/// The machine's memory; nothing where it cannot be read.
pub fn memory(root: &Root) -> Memory {
    memory::read(root).unwrap_or_default()
}

/// The kernel as it names itself.
pub fn release(root: &Root) -> Option<String> {
    sysctl::read(root, "kernel.osrelease").ok().filter(|release| !release.is_empty())
}

/// The machine whose files are below `root`.
pub fn machine(root: &Root) -> Result<Machine> {
    let memory = memory(root);
    let Some(total) = memory.total else {
        bail!("{} has no MemTotal that can be read: give --memory", root.path(memory::PATH).display());
    };
    let release = release(root);
    let generation = release.as_deref().and_then(generations::of_release).unwrap_or_default();
    let mut machine = Machine::new(generation, total);
    match slab::read(root) {
        Ok(slabs) => {
            machine.object = slabs.connection_size().map_or(machine.object, |size| (size, Source::Measured));
        }
        Err(error) => tracing::debug!("{error}: the object size of this generation of kernels is taken"),
    }
    machine.available = memory.available;
    machine.cpus = processors::online(root);
    machine.release = release;
    machine.namespaces = root.names("/run/netns").map_or(1, |names| names.len() as u64 + 1);
    machine.max = number(root, Knob::Max);
    machine.buckets = number(root, Knob::Buckets);
    settings(root, &mut machine.knobs);
    Ok(machine)
}

/// Every knob that can be read, as it is set.
fn settings(root: &Root, knobs: &mut Knobs) {
    for knob in Knob::ALL {
        if let Some(value) = number(root, *knob) {
            // One that another kernel keeps in another range stays at its default.
            let _ = knobs.set(*knob, value);
        }
    }
}

fn number(root: &Root, knob: Knob) -> Option<u64> {
    let value = sysctl::number(root, &format!("net.netfilter.{}", knob.name()));
    value.inspect_err(|error| tracing::trace!("{error}")).ok().flatten()
}

/// What the table carries now; looked at twice, so many milliseconds apart, where the files are live.
pub fn table(root: &Root, interval: u64) -> Result<Observed> {
    let first = look(root)?;
    if !root.is_live() || interval == 0 {
        return Ok(Observed { connections: first.connections, max: number(root, Knob::Max), ..Observed::default() });
    }
    tracing::debug!(interval, "watching the live counters (milliseconds)");
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(interval));
    let second = look(root)?;
    let seconds = begun.elapsed().as_secs_f64();
    let rise = |name| second.counters.as_ref()?.rise(first.counters.as_ref()?, name);
    // Kernels before 4.9 or so count what packets begin; on later ones the machine's own sockets tell at least of their own.
    let counted = rise("new").filter(|new| *new > 0);
    let opened = second.opens.zip(first.opens).and_then(|(now, then)| now.checked_sub(then)).filter(|opens| *opens > 0);
    Ok(Observed {
        connections: second.connections,
        max: number(root, Knob::Max),
        interval: seconds,
        growth: Some((second.count as f64 - first.count as f64) / seconds),
        rate: counted.or(opened).map(|begun| begun as f64 / seconds),
        dropped: rise("drop"),
        chain_too_long: rise("chainlength"),
    })
}

/// One look.
struct Look {
    /// Of this namespace.
    count: u64,
    /// Of this namespace, or of all of them by the slab, whichever is more.
    connections: u64,
    counters: Option<Counters>,
    opens: Option<u64>,
}

fn look(root: &Root) -> Result<Look> {
    let counters = counters::read(root).inspect_err(|error| tracing::debug!("{error}")).ok();
    let count = number(root, Knob::Count).or_else(|| counters.as_ref().map(Counters::entries));
    let Some(count) = count else {
        bail!(
            "{} cannot be read: tracking is not loaded, or this is no network namespace of its own. Describe the demand instead: keepstate size --connections 100000 --lifetime 1h",
            root.path(sysctl::path("net.netfilter.nf_conntrack_count")).display()
        );
    };
    // The slab also counts what each processor keeps ready for itself; only what is clearly more than the count tells of other namespaces.
    let in_slabs: u64 = slab::read(root).map_or(0, |slabs| slabs.connections().map(|slab| slab.active).sum());
    let connections = if in_slabs > count.saturating_mul(2).saturating_add(10_000) {
        note(format!(
            "{count} connections in this network namespace, about {in_slabs} on the whole machine: sized for all"
        ));
        in_slabs
    } else {
        count
    };
    Ok(Look { count, connections, counters, opens: snmp::opens(root).ok().flatten() })
}
