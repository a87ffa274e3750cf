//! Observations of the machine as a whole: kernel, memory, log, modules, interfaces.
use keepstate_advisor::doctor::{
    ConfiguredSysctl, IneffectiveSetting, MissingInput, NicLimitCounter, Observations, ObservedLog, ObservedMemory,
    ObservedModule, ObservedSlab, Sourced, SysctlWriter, TableFullLines,
};
use keepstate_linux::boot::{self, BootConfig, EffectiveSysctl, IneffectiveLine, SysctlEffect};
use keepstate_linux::kernel_log::{self, KernelLog};
use keepstate_linux::{SysRoot, command, meminfo, nic_allowances, slabinfo};
use std::path::Path;

/// Adds the observations of the machine.
///
/// `before` are the limit counters of the interfaces at the begin of the interval.
pub fn gather(root: &SysRoot, log: Option<&Path>, before: Option<&[NicLimitCounter]>, seen: &mut Observations) {
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
        Err(error) => seen.missing_inputs.push(MissingInput::new("conntrack slabs", &error, "run as root")),
    }
    let (mut counters, errors) = nic_limits(root);
    for counter in &mut counters {
        let same =
            |other: &&NicLimitCounter| (&other.interface, &other.counter) == (&counter.interface, &counter.counter);
        let earlier = before.and_then(|before| before.iter().find(same));
        counter.growth = earlier.map(|earlier| counter.packets.saturating_sub(earlier.packets));
    }
    seen.nic_limits = (!counters.is_empty()).then(|| Sourced::at("ethtool -S", counters));
    for error in errors {
        seen.missing_inputs.push(MissingInput::new("limit counters of network interfaces", &error, "install ethtool"));
    }
    gather_kernel_log(root, log, seen);
}

/// The limit counters of the network interfaces, and why others could not be read.
pub fn nic_limits(root: &SysRoot) -> (Vec<NicLimitCounter>, Vec<command::CommandError>) {
    let found = nic_allowances::read(root);
    let counters = found.counters.into_iter().map(|counter| NicLimitCounter {
        interface: counter.interface,
        counter: counter.name,
        packets: counter.packets,
        growth: None,
    });
    (counters.collect(), found.errors)
}

/// The kind of container, by the files of the runtimes; a namespace alone is not a container.
fn detect_container(root: &SysRoot) -> Option<Sourced<String>> {
    let marks = [("/run/.containerenv", "podman"), ("/.dockerenv", "docker")];
    let mark = marks.into_iter().find(|(path, _)| root.exists(path));
    if let Some((path, kind)) = mark {
        return Some(Sourced::at(path, kind.to_owned()));
    }
    let path = "/run/systemd/container";
    root.read(path).ok().map(|kind| Sourced::at(path, kind.trim().to_owned()))
}

/// Is nf_conntrack built in, loaded, or absent?
fn detect_module(root: &SysRoot) -> Option<Sourced<ObservedModule>> {
    let directory = "/sys/module/nf_conntrack";
    let list = root.read("/proc/modules");
    // Only loadable modules have an initstate.
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

/// Configured values, whether they are set at boot, and programs that write sysctls.
fn gather_configuration(root: &SysRoot, seen: &mut Observations) {
    // Collected files rarely show who reads them at boot; most machines have systemd.
    let is_unknown =
        !root.is_live() && !["/proc/1/comm", SYSTEMD, "/etc/init.d/procps"].iter().any(|path| root.exists(path));
    let programs: &[&str] = if is_unknown { &[SYSTEMD, "/usr/lib/systemd/systemd-sysctl"] } else { &[] };
    let assumed = programs.iter().map(|path| (path.into(), String::new())).collect();
    let boot = match BootConfig::read_with_overlay(root, &assumed) {
        Ok(boot) => boot,
        Err(error) => {
            return seen.missing_inputs.push(MissingInput::new("configured sysctls", &error, "run as root"));
        }
    };
    let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
    let configured = |(key, effective): (&String, &EffectiveSysctl)| {
        let lost = match &effective.effect {
            SysctlEffect::Never(why) => Some(why.clone()),
            SysctlEffect::Always | SysctlEffect::OnlyIfModuleLoaded => None,
        };
        Some(ConfiguredSysctl {
            sysctl: last(key),
            value: effective.number()?,
            source: effective.source.to_string(),
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
    let is_set_elsewhere = |line: &IneffectiveLine| {
        let effective = line.key.as_deref().and_then(|key| boot.effective(key));
        effective.is_some_and(|effective| effective.number().is_some() && effective.number() == line.value)
    };
    let ineffective = boot.ineffective_lines.iter().filter(|line| !is_set_elsewhere(line));
    seen.ineffective_settings = ineffective
        .map(|line| IneffectiveSetting {
            setting: line.setting.clone(),
            source: line.location.to_string(),
            reason: line.reason.clone(),
            sysctl: line.key.as_deref().map(last),
            value: line.value,
        })
        .collect();
    seen.configured_sysctls = boot.sysctls.iter().filter_map(configured).collect();
    seen.sysctl_writers = boot.other_writers.into_iter().map(writer).collect();
}

/// Files with a kernel log, the best first: ours, sos's, the system's.
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
        // A journal without kernel lines is one this user may not read.
        journal.ok().filter(|(_, log)| log.lines_read > 0).ok_or(error)
    });
    match found {
        Ok((source, log)) => {
            let uptime = seen.machine.uptime.as_ref().map(|uptime| uptime.value);
            seen.log = Some(Sourced::at(source, summarize_log(&log, uptime)));
        }
        Err(error) => seen.missing_inputs.push(MissingInput::new(
            "the kernel log",
            &error,
            "run as root (CAP_SYSLOG), or give a file with --log",
        )),
    }
}

/// The kernel log in another machine's files.
fn bundled_log(root: &SysRoot) -> Result<(String, KernelLog), keepstate_linux::FileError> {
    let mut paths = vec![LOG_FILES[0].to_owned()];
    for words in [&["dmesg"][..], &["journalctl"]] {
        paths.extend(command::collected_files(root, words));
    }
    paths.extend(LOG_FILES.iter().skip(1).map(|path| (*path).to_owned()));
    let path = paths.iter().find(|path| root.exists(path)).map_or(LOG_FILES[0], String::as_str);
    kernel_log::read_file(root, path).map(|log| (path.to_owned(), log))
}

/// Limit on other log lines; the latest are kept.
const MAX_OTHER_LINES: usize = 20;

fn summarize_log(log: &KernelLog, uptime: Option<u64>) -> ObservedLog {
    let mut summary = ObservedLog::default();
    for line in &log.lines {
        let full = match line.table_full {
            Some(kernel_log::TableFullNetns::Initial) => &mut summary.initial,
            Some(kernel_log::TableFullNetns::Netns(inode)) => summary.by_inode.entry(inode).or_default(),
            None => {
                summary.other_lines.push(line.text.clone());
                continue;
            }
        };
        count_line(full, &line.text, line.uptime.zip(uptime).map(|(then, now)| now.saturating_sub(then)));
    }
    let surplus = summary.other_lines.len().saturating_sub(MAX_OTHER_LINES);
    summary.other_lines.drain(..surplus);
    summary
}

fn count_line(full: &mut TableFullLines, text: &str, age: Option<u64>) {
    full.lines += 1;
    full.age = age;
    text.clone_into(&mut full.latest);
}
