//! Reading a machine to size its table. What cannot be read is left out; a note says so if it changes the result.
use crate::stderr::note;
use anyhow::{Result, bail};
use keepstate_advisor::size::{ObjectSizeSource, ObservedLoad, SizingMachine, kernel_defaults};
use keepstate_engine::{Sysctl, Sysctls};
use keepstate_linux::meminfo::{self, MemInfo};
use keepstate_linux::proc_ct_stat::{self, ProcCtStats};
use keepstate_linux::{SysRoot, cpus, slabinfo, snmp, sysctl};
use std::time::{Duration, Instant};

/// The machine's memory; empty if it cannot be read.
pub fn read_memory(root: &SysRoot) -> MemInfo {
    meminfo::read(root).unwrap_or_default()
}

/// The kernel release.
pub fn kernel_release(root: &SysRoot) -> Option<String> {
    sysctl::read(root, "kernel.osrelease").ok().filter(|release| !release.is_empty())
}

/// The machine whose files are below `root`.
pub fn read_machine(root: &SysRoot) -> Result<SizingMachine> {
    let memory = read_memory(root);
    let Some(total) = memory.total else {
        bail!("cannot read MemTotal from {}: give --memory", root.path(meminfo::PATH).display());
    };
    let release = kernel_release(root);
    let generation = release.as_deref().and_then(kernel_defaults::version_of_release).unwrap_or_default();
    let mut machine = SizingMachine::new(generation, total);
    match slabinfo::read(root) {
        Ok(slabs) => {
            machine.object_size =
                slabs.conntrack_object_size().map_or(machine.object_size, |size| (size, ObjectSizeSource::Measured));
        }
        Err(error) => tracing::debug!("{error}: using the usual object size of this kernel version"),
    }
    machine.available = memory.available;
    machine.cpus = cpus::online(root);
    machine.release = release;
    machine.namespaces = root.list_dir("/run/netns").map_or(1, |names| names.len() as u64 + 1);
    machine.max = sysctl_number(root, Sysctl::Max);
    machine.buckets = sysctl_number(root, Sysctl::Buckets);
    read_sysctls(root, &mut machine.knobs);
    Ok(machine)
}

/// Reads every sysctl that can be read.
fn read_sysctls(root: &SysRoot, sysctls: &mut Sysctls) {
    for sysctl in Sysctl::ALL {
        if let Some(value) = sysctl_number(root, *sysctl) {
            // A value outside this kernel's range stays at its default.
            let _ = sysctls.set(*sysctl, value);
        }
    }
}

fn sysctl_number(root: &SysRoot, knob: Sysctl) -> Option<u64> {
    let value = sysctl::read_u64(root, &format!("net.netfilter.{}", knob.name()));
    value.inspect_err(|error| tracing::trace!("{error}")).ok().flatten()
}

/// The load of the live table, read twice `interval` milliseconds apart; of files it is read once.
pub fn observe_load(root: &SysRoot, interval: u64) -> Result<ObservedLoad> {
    let first = read_table(root)?;
    if !root.is_live() || interval == 0 {
        return Ok(ObservedLoad {
            connections: first.connections,
            max: sysctl_number(root, Sysctl::Max),
            ..ObservedLoad::default()
        });
    }
    tracing::debug!(interval_ms = interval, "reading the live counters twice");
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(interval));
    let second = read_table(root)?;
    let seconds = begun.elapsed().as_secs_f64();
    let growth = |name| second.counters.as_ref()?.delta(first.counters.as_ref()?, name);
    // Kernels before about 4.9 count new connections; on later ones the machine's own sockets are at least a part.
    let counted = growth("new").filter(|new| *new > 0);
    let opened =
        second.tcp_opens.zip(first.tcp_opens).and_then(|(now, then)| now.checked_sub(then)).filter(|opens| *opens > 0);
    Ok(ObservedLoad {
        connections: second.connections,
        max: sysctl_number(root, Sysctl::Max),
        interval: seconds,
        growth: Some((second.count as f64 - first.count as f64) / seconds),
        rate: counted.or(opened).map(|begun| begun as f64 / seconds),
        dropped: growth("drop"),
        chain_too_long: growth("chainlength"),
    })
}

/// One reading.
struct TableReading {
    /// Connections of this namespace.
    count: u64,
    /// Connections of this namespace, or of all by the slab, whichever is more.
    connections: u64,
    counters: Option<ProcCtStats>,
    tcp_opens: Option<u64>,
}

fn read_table(root: &SysRoot) -> Result<TableReading> {
    let counters = proc_ct_stat::read(root).inspect_err(|error| tracing::debug!("{error}")).ok();
    let count = sysctl_number(root, Sysctl::Count).or_else(|| counters.as_ref().map(ProcCtStats::entries));
    let Some(count) = count else {
        bail!(
            "cannot read {}: nf_conntrack is not loaded here. Describe the load instead: keepstate size --connections 100000 --lifetime 1h",
            root.path(sysctl::path("net.netfilter.nf_conntrack_count")).display()
        );
    };
    // The slab also counts objects that each CPU keeps in reserve; only a clearly higher number means other namespaces.
    let in_slabs: u64 =
        slabinfo::read(root).map_or(0, |slabs| slabs.conntrack_caches().map(|slab| slab.active_objects).sum());
    let connections = if in_slabs > count.saturating_mul(2).saturating_add(10_000) {
        note(format!(
            "connections: {count} in this network namespace, about {in_slabs} on the whole machine; sizing for all"
        ));
        in_slabs
    } else {
        count
    };
    Ok(TableReading { count, connections, counters, tcp_opens: snmp::read_tcp_opens(root).ok().flatten() })
}
