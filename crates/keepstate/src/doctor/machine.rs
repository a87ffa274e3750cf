//! What is seen of the machine as a whole: kernel, memory, log, modules, devices.
use super::gather::missing_input;
use keepstate_advisor::doctor::{
    ConfiguredSysctl, NicLimitCounter, Observations, ObservedLog, ObservedMemory, ObservedModule, ObservedSlab,
    Sourced, SysctlWriter, TableFullLines,
};
use keepstate_linux::boot::{self, BootConfig, EffectiveSysctl, SysctlEffect};
use keepstate_linux::kernel_log::{self, KernelLog};
use keepstate_linux::{SysRoot, command, meminfo, nic_allowances, slabinfo};
use std::path::Path;

/// Adds what is seen of the machine.
pub fn gather(root: &SysRoot, log: Option<&Path>, seen: &mut Observations) {
    let line = |path: &str| root.read(path).ok().map(|text| text.trim().to_owned());
    seen.machine.kernel =
        line("/proc/sys/kernel/osrelease").map(|kernel| Sourced::at("/proc/sys/kernel/osrelease", kernel));
    seen.machine.uptime = line("/proc/uptime")
        .and_then(|text| text.split(['.', ' ']).next()?.parse().ok())
        .map(|seconds| Sourced::at("/proc/uptime", seconds));
    seen.machine.memory = meminfo::read(root).ok().and_then(|found| {
        let total = found.total?;
        Some(Sourced::at(meminfo::PATH, ObservedMemory { total, available: found.available.unwrap_or(total) }))
    });
    seen.machine.container = detect_container(root);
    seen.machine.module = detect_module(root);
    gather_configuration(root, seen);
    match slabinfo::read(root) {
        Ok(slabs) => {
            let objects = slabs.conntrack_caches().map(|slab| slab.total_objects).sum();
            let found = ObservedSlab {
                objects,
                object_size: slabs.conntrack_object_size().unwrap_or(0),
                bytes: slabs.conntrack_bytes(),
            };
            seen.slab = (objects > 0).then(|| Sourced::at(slabinfo::PATH, found));
        }
        Err(error) => {
            seen.missing_inputs.push(missing_input("the size of the kernel's objects", &error, "run it as root"))
        }
    }
    let found = nic_allowances::read(root);
    let counters: Vec<NicLimitCounter> = found
        .counters
        .into_iter()
        .map(|counter| NicLimitCounter {
            interface: counter.interface,
            counter: counter.name,
            packets: counter.packets,
        })
        .collect();
    seen.nic_limits = (!counters.is_empty()).then(|| Sourced::at("ethtool -S", counters));
    for silent in found.errors {
        seen.missing_inputs.push(missing_input("limits of network devices", &silent, "install ethtool"));
    }
    gather_kernel_log(root, log, seen);
}

/// Is this the inside of a container? The files that runtimes leave say so; a namespace alone does not.
fn detect_container(root: &SysRoot) -> Option<Sourced<String>> {
    let marks = [("/run/.containerenv", "podman"), ("/.dockerenv", "docker")];
    let mark = marks.into_iter().find(|(path, _)| root.exists(path));
    if let Some((path, kind)) = mark {
        return Some(Sourced::at(path, kind.to_owned()));
    }
    let path = "/run/systemd/container";
    root.read(path).ok().map(|kind| Sourced::at(path, kind.trim().to_owned()))
}

/// How tracking is in the kernel: built in, loaded, or not.
fn detect_module(root: &SysRoot) -> Option<Sourced<ObservedModule>> {
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
    Some(Sourced::at(directory, ObservedModule { is_builtin, is_loaded }))
}

/// Where systemd is, on a machine that has it.
const SYSTEMD: &str = "/usr/lib/systemd/systemd";

/// What configuration asks for, whether a boot brings it into force, and who sets knobs on its own.
fn gather_configuration(root: &SysRoot, seen: &mut Observations) {
    // Files that somebody collected rarely tell who reads them at boot; most machines have systemd.
    let is_untold =
        !root.is_live() && !["/proc/1/comm", SYSTEMD, "/etc/init.d/procps"].iter().any(|path| root.exists(path));
    let programs: &[&str] = if is_untold { &[SYSTEMD, "/usr/lib/systemd/systemd-sysctl"] } else { &[] };
    let assumed = programs.iter().map(|path| (path.into(), String::new())).collect();
    let boot = match BootConfig::read_with_overlay(root, &assumed) {
        Ok(boot) => boot,
        Err(error) => {
            return seen.missing_inputs.push(missing_input("what configuration asks for", &error, "run it as root"));
        }
    };
    let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
    let wish = |(key, standing): (&String, &EffectiveSysctl)| {
        let lost = match &standing.effect {
            SysctlEffect::Never(why) => Some(why.clone()),
            SysctlEffect::Always | SysctlEffect::OnlyIfModuleLoaded => None,
        };
        Some(ConfiguredSysctl {
            sysctl: last(key),
            value: standing.number()?,
            source: standing.source.to_string(),
            ineffective_reason: lost,
        })
    };
    let writer = |writer: boot::OtherWriter| SysctlWriter {
        name: writer.name,
        what: writer.description,
        source: writer.location.to_string(),
        sysctl: writer.key.as_deref().map(last),
        value: writer.value.and_then(|value| value.parse().ok()),
    };
    seen.configured_sysctls = boot.sysctls.iter().filter_map(wish).collect();
    seen.sysctl_writers = boot.other_writers.into_iter().map(writer).collect();
}

/// Files that hold a kernel's log, the most telling first: ours, sos's, the system's own.
const LOG_FILES: [&str; 4] = ["/kernel.log", "/var/log/dmesg", "/var/log/kern.log", "/var/log/messages"];

fn gather_kernel_log(root: &SysRoot, log: Option<&Path>, seen: &mut Observations) {
    let found = match log {
        Some(path) => kernel_log::read_file(&SysRoot::at("/"), path).map(|log| (path.display().to_string(), log)),
        None if root.is_live() => kernel_log::read_kmsg().map(|log| ("/dev/kmsg".to_owned(), log)),
        None => bundled_log(root),
    };
    let found = found.or_else(|error| {
        let words = ["journalctl", "-k", "-b", "-q", "--no-pager", "-o", "short-monotonic"];
        let journal =
            command::output(root, &words, 64 << 20).map(|text| ("journalctl -k".to_owned(), kernel_log::parse(&text)));
        // A journal with no line of the kernel's is one that this user may not see.
        journal.ok().filter(|(_, log)| log.lines_read > 0).ok_or(error)
    });
    match found {
        Ok((source, log)) => {
            let uptime = seen.machine.uptime.as_ref().map(|uptime| uptime.value);
            seen.log = Some(Sourced::at(source, summarize_log(&log, uptime)));
        }
        Err(error) => seen.missing_inputs.push(missing_input(
            "the kernel's log",
            &error,
            "run it as root (CAP_SYSLOG), or give a file with --log",
        )),
    }
}

/// A log among another machine's files.
fn bundled_log(root: &SysRoot) -> Result<(String, KernelLog), keepstate_linux::FileError> {
    let mut paths = vec![LOG_FILES[0].to_owned()];
    for words in [&["dmesg"][..], &["journalctl"]] {
        paths.extend(command::collected_files(root, words));
    }
    paths.extend(LOG_FILES.iter().skip(1).map(|path| (*path).to_owned()));
    let path = paths.iter().find(|path| root.exists(path)).map_or(LOG_FILES[0], String::as_str);
    kernel_log::read_file(root, path).map(|log| (path.to_owned(), log))
}

/// Lines of other kinds that are told, the latest.
const MAX_OTHER_LINES: usize = 20;

fn summarize_log(log: &KernelLog, uptime: Option<u64>) -> ObservedLog {
    let mut told = ObservedLog::default();
    for line in &log.lines {
        let full = match line.table_full {
            Some(kernel_log::TableFullNetns::Initial) => &mut told.initial,
            Some(kernel_log::TableFullNetns::Netns(inode)) => told.by_inode.entry(inode).or_default(),
            None => {
                told.other_lines.push(line.text.clone());
                continue;
            }
        };
        count_line(full, &line.text, line.uptime.zip(uptime).map(|(then, now)| now.saturating_sub(then)));
    }
    let surplus = told.other_lines.len().saturating_sub(MAX_OTHER_LINES);
    told.other_lines.drain(..surplus);
    told
}

fn count_line(full: &mut TableFullLines, text: &str, age: Option<u64>) {
    full.lines += 1;
    full.age = age;
    text.clone_into(&mut full.latest);
}
