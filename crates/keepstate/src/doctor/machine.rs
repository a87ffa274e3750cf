//! What is seen of the machine as a whole: kernel, memory, log, modules, devices.
use super::observe::unseen;
use keepstate_advisor::doctor::{Device, Full, Log, Memory, Module, Observations, Seen, Slab, Wish, Writer};
use keepstate_linux::boot::{self, Boot, Effect, Standing};
use keepstate_linux::kernel_log::{self, KernelLog};
use keepstate_linux::{Root, devices, memory, program, slab};
use std::path::Path;

/// Adds what is seen of the machine.
pub fn look(root: &Root, log: Option<&Path>, seen: &mut Observations) {
    let line = |path: &str| root.read(path).ok().map(|text| text.trim().to_owned());
    seen.machine.kernel =
        line("/proc/sys/kernel/osrelease").map(|kernel| Seen::at("/proc/sys/kernel/osrelease", kernel));
    seen.machine.uptime = line("/proc/uptime")
        .and_then(|text| text.split(['.', ' ']).next()?.parse().ok())
        .map(|seconds| Seen::at("/proc/uptime", seconds));
    seen.machine.memory = memory::read(root).ok().and_then(|found| {
        let total = found.total?;
        Some(Seen::at(memory::PATH, Memory { total, available: found.available.unwrap_or(total) }))
    });
    seen.machine.container = container(root);
    seen.machine.module = module(root);
    configuration(root, seen);
    match slab::read(root) {
        Ok(slabs) => {
            let objects = slabs.connections().map(|slab| slab.objects).sum();
            let found =
                Slab { objects, object_size: slabs.connection_size().unwrap_or(0), octets: slabs.connection_bytes() };
            seen.slab = (objects > 0).then(|| Seen::at(slab::PATH, found));
        }
        Err(error) => seen.unseen.push(unseen("the size of the kernel's objects", &error, "run it as root")),
    }
    let found = devices::allowances(root);
    let counters: Vec<Device> = found
        .counters
        .into_iter()
        .map(|counter| Device { device: counter.device, name: counter.name, packets: counter.packets })
        .collect();
    seen.devices = (!counters.is_empty()).then(|| Seen::at("ethtool -S", counters));
    for silent in found.silent {
        seen.unseen.push(unseen("limits of network devices", &silent, "install ethtool"));
    }
    look_at_log(root, log, seen);
}

/// Is this the inside of a container? The files that runtimes leave say so; a namespace alone does not.
fn container(root: &Root) -> Option<Seen<String>> {
    let marks = [("/run/.containerenv", "podman"), ("/.dockerenv", "docker")];
    let mark = marks.into_iter().find(|(path, _)| root.exists(path));
    if let Some((path, kind)) = mark {
        return Some(Seen::at(path, kind.to_owned()));
    }
    let path = "/run/systemd/container";
    root.read(path).ok().map(|kind| Seen::at(path, kind.trim().to_owned()))
}

/// How tracking is in the kernel: built in, loaded, or not.
fn module(root: &Root) -> Option<Seen<Module>> {
    let directory = "/sys/module/nf_conntrack";
    let list = root.read("/proc/modules");
    // Only what can be unloaded has a state.
    let is_builtin = root.exists(directory) && !root.exists(format!("{directory}/initstate"));
    let listed = list.as_ref().is_ok_and(|list| list.lines().any(|line| line.starts_with("nf_conntrack ")));
    let is_builtin = is_builtin && !listed;
    let is_loaded = listed || root.exists(directory) || root.exists("/proc/sys/net/netfilter/nf_conntrack_max");
    if list.is_err() && !root.is_live() && !root.exists(directory) {
        return None;
    }
    Some(Seen::at(directory, Module { is_builtin, is_loaded }))
}

/// Where systemd is, on a machine that has it.
const SYSTEMD: &str = "/usr/lib/systemd/systemd";

/// What configuration asks for, whether a boot brings it into force, and who sets knobs on its own.
fn configuration(root: &Root, seen: &mut Observations) {
    // Files that somebody collected rarely tell who reads them at boot; most machines have systemd.
    let is_untold =
        !root.is_live() && !["/proc/1/comm", SYSTEMD, "/etc/init.d/procps"].iter().any(|path| root.exists(path));
    let programs: &[&str] = if is_untold { &[SYSTEMD, "/usr/lib/systemd/systemd-sysctl"] } else { &[] };
    let assumed = programs.iter().map(|path| (path.into(), String::new())).collect();
    let boot = match Boot::with(root, &assumed) {
        Ok(boot) => boot,
        Err(error) => return seen.unseen.push(unseen("what configuration asks for", &error, "run it as root")),
    };
    let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
    let wish = |(key, standing): (&String, &Standing)| {
        let lost = match &standing.effect {
            Effect::Never(why) => Some(why.clone()),
            Effect::Always | Effect::OnlyIfModuleLoaded => None,
        };
        Some(Wish { knob: last(key), value: standing.number()?, source: standing.winner.to_string(), lost })
    };
    let writer = |writer: boot::Writer| Writer {
        name: writer.name,
        what: writer.what,
        source: writer.place.to_string(),
        knob: writer.key.as_deref().map(last),
        value: writer.value.and_then(|value| value.parse().ok()),
    };
    seen.wishes = boot.standings.iter().filter_map(wish).collect();
    seen.writers = boot.writers.into_iter().map(writer).collect();
}

/// Files that hold a kernel's log, the most telling first: ours, sos's, the system's own.
const LOGS: [&str; 4] = ["/kernel.log", "/var/log/dmesg", "/var/log/kern.log", "/var/log/messages"];

fn look_at_log(root: &Root, log: Option<&Path>, seen: &mut Observations) {
    let found = match log {
        Some(path) => kernel_log::file(&Root::at("/"), path).map(|log| (path.display().to_string(), log)),
        None if root.is_live() => kernel_log::ring().map(|log| ("/dev/kmsg".to_owned(), log)),
        None => kept(root),
    };
    let found = found.or_else(|error| {
        let words = ["journalctl", "-k", "-b", "-q", "--no-pager", "-o", "short-monotonic"];
        let journal =
            program::output(root, &words, 64 << 20).map(|text| ("journalctl -k".to_owned(), kernel_log::text(&text)));
        // A journal with no line of the kernel's is one that this user may not see.
        journal.ok().filter(|(_, log)| log.looked_at > 0).ok_or(error)
    });
    match found {
        Ok((source, log)) => {
            let uptime = seen.machine.uptime.as_ref().map(|uptime| uptime.value);
            seen.log = Some(Seen::at(source, told(&log, uptime)));
        }
        Err(error) => seen.unseen.push(unseen(
            "the kernel's log",
            &error,
            "run it as root (CAP_SYSLOG), or give a file with --log",
        )),
    }
}

/// A log among another machine's files.
fn kept(root: &Root) -> Result<(String, KernelLog), keepstate_linux::Unreadable> {
    let mut paths = vec![LOGS[0].to_owned()];
    for words in [&["dmesg"][..], &["journalctl"]] {
        paths.extend(program::kept_beginning(root, words));
    }
    paths.extend(LOGS.iter().skip(1).map(|path| (*path).to_owned()));
    let path = paths.iter().find(|path| root.exists(path)).map_or(LOGS[0], String::as_str);
    kernel_log::file(root, path).map(|log| (path.to_owned(), log))
}

/// Lines of other kinds that are told, the latest.
const OTHERS: usize = 20;

fn told(log: &KernelLog, uptime: Option<u64>) -> Log {
    let mut told = Log::default();
    for line in &log.lines {
        let full = match line.full {
            Some(kernel_log::Full::Initial) => &mut told.initial,
            Some(kernel_log::Full::Inside(inode)) => told.inside.entry(inode).or_default(),
            None => {
                told.others.push(line.text.clone());
                continue;
            }
        };
        count(full, &line.text, line.uptime.zip(uptime).map(|(then, now)| now.saturating_sub(then)));
    }
    let surplus = told.others.len().saturating_sub(OTHERS);
    told.others.drain(..surplus);
    told
}

fn count(full: &mut Full, text: &str, age: Option<u64>) {
    full.lines += 1;
    full.age = age;
    text.clone_into(&mut full.latest);
}
