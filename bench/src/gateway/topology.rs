//! Client, router and server, each in its own network namespace, connected by two veth pairs. Removed on drop.
#![allow(unsafe_code, reason = "setns(2) and sched_setaffinity(2) have no safe wrapper in std")]

use crate::undo::Undo;
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

/// The three hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BenchHost {
    Client,
    Router,
    Server,
}

const HOSTS: [BenchHost; 3] = [BenchHost::Client, BenchHost::Router, BenchHost::Server];

/// The names of the three namespaces, but for the last letter.
pub struct BenchTopology {
    name: String,
    _undo: Undo,
}

impl BenchTopology {
    /// Creates the topology: 10.0.1.2 (c0) and 10.0.1.1 (r0), 10.0.2.1 (r1) and 10.0.2.2 (s0). The server has no route to the client's addresses: it sees only translated ones.
    pub fn new() -> Result<BenchTopology> {
        let name = format!("ksbench{}", std::process::id());
        let before = HOSTS.map(|side| netns(&name, side));
        let undo = Undo::new(move || {
            for name in before {
                end_processes(&name);
                // It may not exist.
                let _ = Command::new("ip").args(["netns", "del", &name]).stderr(Stdio::null()).status();
            }
        });
        let stage = BenchTopology { name, _undo: undo };
        let [c, r, s] = HOSTS.map(|side| stage.netns(side));
        for name in [&c, &r, &s] {
            ip(&format!("netns add {name}"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        ip(&format!("link add c0 netns {c} type veth peer name r0 netns {r}"))?;
        ip(&format!("link add s0 netns {s} type veth peer name r1 netns {r}"))?;
        // The generators' BPF programs are attached here, so that the kernel need not prepare them for each run.
        for (name, device, peer) in [(&c, "x0", "x1"), (&s, "y0", "y1")] {
            ip(&format!("link add {device} netns {name} type veth peer name {peer} netns {name}"))?;
            ip(&format!("-n {name} link set {device} up"))?;
        }
        for (name, device, address) in
            [(&c, "c0", "10.0.1.2"), (&r, "r0", "10.0.1.1"), (&r, "r1", "10.0.2.1"), (&s, "s0", "10.0.2.2")]
        {
            ip(&format!("-n {name} addr add {address}/24 dev {device}"))?;
            ip(&format!("-n {name} link set {device} up"))?;
            // As a card, a veth shows no tags to XDP programs; and it takes their frames only with GRO at the other end.
            run(&format!("ip netns exec {name} ethtool -K {device} gro on rxvlan off"))?;
        }
        ip(&format!("-n {c} route add default via 10.0.1.1"))?;
        let neighbour = stage.mac(BenchHost::Server, "s0")?;
        ip(&format!("-n {r} neigh replace 10.0.2.2 lladdr {neighbour} dev r1"))?;
        Ok(stage)
    }

    pub fn netns(&self, side: BenchHost) -> String {
        netns(&self.name, side)
    }

    /// The MAC address of an interface.
    pub fn mac(&self, side: BenchHost, device: &str) -> Result<String> {
        let out = Command::new("ip").args(["-n", &self.netns(side), "-br", "link", "show", device]).output()?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        text.split_whitespace().nth(2).map(str::to_owned).context("an interface has no MAC address")
    }

    /// Turns off GSO and checksum offload: packets as on a wire.
    pub fn set_offloads(&self, on: bool) -> Result<()> {
        let word = if on { "on" } else { "off" };
        for (side, device) in [(BenchHost::Client, "c0"), (BenchHost::Server, "s0")] {
            run(&format!("ip netns exec {} ethtool -K {device} tx {word}", self.netns(side)))?;
        }
        Ok(())
    }

    /// Routes through the gateway's TUN interfaces r2 and r3 instead of the veth pairs or, if these are gone, through the pairs again.
    pub fn switch_to_tun(&self, on: bool) -> Result<()> {
        let [c, r, s] = HOSTS.map(|side| self.netns(side));
        let state = if on { "down" } else { "up" };
        ip(&format!("-n {c} link set c0 {state}"))?;
        ip(&format!("-n {s} link set s0 {state}"))?;
        if !on {
            return ip(&format!("-n {c} route add default via 10.0.1.1"));
        }
        for (device, name, address) in [("r2", &c, "10.0.1.2"), ("r3", &s, "10.0.2.2")] {
            ip(&format!("-n {r} link set {device} netns {name}"))?;
            ip(&format!("-n {name} addr add {address}/24 dev {device}"))?;
            ip(&format!("-n {name} link set {device} up"))?;
        }
        ip(&format!("-n {c} route add default dev r2"))
    }

    /// Runs a function in a namespace, on its own thread, pinned to a CPU if one is given.
    pub fn spawn_in_netns<T: Send + 'static>(
        &self,
        side: BenchHost,
        processor: Option<usize>,
        what: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> std::thread::JoinHandle<Result<T>> {
        let path = format!("/run/netns/{}", self.netns(side));
        std::thread::spawn(move || {
            let netns = File::open(&path).with_context(|| format!("cannot open {path}"))?;
            // SAFETY: the descriptor is open; only this thread changes its namespace.
            ensure!(unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) } == 0, "cannot enter {path}");
            if let Some(processor) = processor {
                pin_to_cpu(processor)?;
            }
            what()
        })
    }
}

fn netns(name: &str, side: BenchHost) -> String {
    let letter = match side {
        BenchHost::Client => 'c',
        BenchHost::Router => 'r',
        BenchHost::Server => 's',
    };
    format!("{name}{letter}")
}

/// Ends what runs in a namespace still, when the bench has been interrupted.
fn end_processes(netns: &str) {
    let Ok(found) = Command::new("ip").args(["netns", "pids", netns]).stderr(Stdio::null()).output() else { return };
    let ids = String::from_utf8_lossy(&found.stdout).into_owned();
    let own = std::process::id().to_string();
    for id in ids.split_whitespace().filter(|id| *id != own) {
        let _ = Command::new("kill").arg(id).stderr(Stdio::null()).status();
    }
}

/// Pins this thread to a CPU.
fn pin_to_cpu(processor: usize) -> Result<()> {
    // SAFETY: an all-zero set is an empty one; CPU_SET writes within it, since the CPU number is small.
    let done = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    ensure!(done == 0, "cannot pin this thread to CPU {processor}");
    Ok(())
}

fn ip(words: &str) -> Result<()> {
    run(&format!("ip {words}"))
}

/// Runs a command; its arguments contain no blanks.
pub fn run(line: &str) -> Result<()> {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap_or_default();
    let out = Command::new(name).args(words).output().with_context(|| format!("cannot run {name}"))?;
    if !out.status.success() {
        bail!("{line}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}
