//! Which line wins for each sysctl key.
use super::file_line::FileLine;
use super::ineffective_line::{IneffectiveLine, number_without_separators};
use super::module_load::{ModuleLoad, parse_kernel_number};
use super::overlay::Overlay;
use super::setting::{SysctlWrite, canonical_key, resolve_writes};
use super::sysctl_loader::SysctlLoader;
use super::udev_rule::{UdevRule, UdevSysctlRun};
use std::collections::BTreeMap;

/// The result for one key, from `sysctl.d` and udev rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveSysctl {
    /// The winning value, as written.
    pub value: String,
    /// The winning line: the one written last.
    pub source: FileLine,
    /// The other lines that set this key, in the order they are read.
    pub overridden: Vec<SysctlAssignment>,
    /// Whether and when the winning value takes effect.
    pub effect: SysctlEffect,
}

impl EffectiveSysctl {
    /// The value as the kernel reads it: the first word, decimal, hexadecimal after `0x`, octal after `0`.
    pub fn number(&self) -> Option<u64> {
        parse_kernel_number(self.value.split_whitespace().next()?)
    }
}

/// A line that sets a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SysctlAssignment {
    /// The line.
    pub location: FileLine,
    /// The value, as written.
    pub value: String,
}

/// When a value takes effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SysctlEffect {
    /// At every boot, before any connection is tracked.
    Always,
    /// When the module is loaded on first use, by a udev rule; not before.
    OnlyIfModuleLoaded,
    /// Never; with the reason.
    Never(String),
}

/// All conntrack keys that some line sets.
pub(super) fn effective_sysctls(
    tree: &Overlay<'_>,
    reader: &SysctlLoader,
    module: &ModuleLoad,
    rules: &[UdevRule],
) -> BTreeMap<String, EffectiveSysctl> {
    let keys = existing_keys(tree);
    let run = |systemd: bool| resolve_writes(&SysctlLoader::settings_in_order(tree, systemd), &keys, systemd);
    let systemd = *reader != SysctlLoader::Procps;
    let boot = run(systemd);
    let writes = resolve_writes(&SysctlLoader::settings_in_order(tree, systemd), &keys, false);
    note_removed_keys(tree, &writes);
    let mut later = Vec::new();
    for rule in rules {
        if let UdevSysctlRun::NoEffect(why) = &rule.run {
            tree.add_note(format!("{} has no effect: {why}", rule.location));
        }
        let collects =
            !matches!(rule.run, UdevSysctlRun::Directories { systemd: false, .. } | UdevSysctlRun::Assignments(_));
        let lines = rule.run.settings(tree, &rule.location, |systemd| SysctlLoader::settings_in_order(tree, systemd));
        later.extend(
            resolve_writes(&lines, &keys, collects).into_iter().filter(|write| rule.run.covers_key(&write.key)),
        );
    }
    if !rules.is_empty() && *module == ModuleLoad::OnFirstUse {
        note_udev_race_before_5_10(tree);
    }
    let mut named = BTreeMap::<String, (Vec<&SysctlWrite>, Vec<&SysctlWrite>)>::new();
    for write in &boot {
        if let Some(key) = canonical_key(&write.key) {
            named.entry(key).or_default().0.push(write);
        }
    }
    for write in &later {
        if let Some(key) = canonical_key(&write.key) {
            named.entry(key).or_default().1.push(write);
        }
    }
    let found = named.into_iter().filter_map(|(key, (boot, later))| {
        let (winner, effect) = last_write(tree, &key, reader, module, (boot.last().copied(), later.last().copied()))?;
        let effect = rejected_by_kernel(&key, &winner.value).map_or(effect, SysctlEffect::Never);
        let others =
            writes.iter().filter(|write| canonical_key(&write.key).as_ref() == Some(&key)).chain(later.iter().copied());
        let mut losers = Vec::new();
        for write in others.filter(|write| write.location != winner.location) {
            let writes = SysctlAssignment { location: write.location.clone(), value: write.value.clone() };
            if !losers.contains(&writes) {
                losers.push(writes);
            }
        }
        Some((
            key,
            EffectiveSysctl {
                value: winner.value.clone(),
                source: winner.location.clone(),
                overridden: losers,
                effect,
            },
        ))
    });
    found.collect()
}

/// Whether the run at boot or a udev rule writes last, and whether that takes effect.
fn last_write<'a>(
    tree: &Overlay<'_>,
    key: &str,
    reader: &SysctlLoader,
    module: &ModuleLoad,
    (boot, later): (Option<&'a SysctlWrite>, Option<&'a SysctlWrite>),
) -> Option<(&'a SysctlWrite, SysctlEffect)> {
    let present = *module != ModuleLoad::OnFirstUse;
    if let Some(later) = later {
        if let Some(boot) = boot.filter(|boot| present && boot.value != later.value) {
            let (key, first, last) = (key, &boot.location, &later.location);
            tree.add_note(format!(
                "{key}: {first} at boot and {last} by a udev rule disagree, and which is last is not certain"
            ));
        }
        return Some((later, if present { SysctlEffect::Always } else { SysctlEffect::OnlyIfModuleLoaded }));
    }
    let effect = match (reader, present) {
        (SysctlLoader::NotLoaded(why), _) => {
            SysctlEffect::Never(format!("{} is not read at boot: {why}", boot?.location.file))
        }
        (_, true) => SysctlEffect::Always,
        (_, false) => SysctlEffect::Never(
            "sysctl.d is read before the module is loaded, and nothing reads it again for this key".to_owned(),
        ),
    };
    Some((boot?, effect))
}

/// Why the kernel would reject the value. It reads the first word only.
fn rejected_by_kernel(key: &str, value: &str) -> Option<String> {
    if key.ends_with(".nf_conntrack_count") {
        return Some("the key is read-only".to_owned());
    }
    let Some(word) = value.split_whitespace().next() else {
        return Some("the value is empty: nothing changes".to_owned());
    };
    let digits = word.strip_prefix('-').unwrap_or(word);
    parse_kernel_number(digits).is_none().then(|| format!("the kernel rejects {value:?}: not a number"))
}

/// The keys that patterns are matched against: those that exist, or those that Linux has.
fn existing_keys(tree: &Overlay<'_>) -> Vec<String> {
    let there = tree.list_dir("/proc/sys/net/netfilter");
    let there = there.iter().map(String::as_str).filter(|name| name.starts_with("nf_conntrack_")).collect::<Vec<_>>();
    let names = if there.contains(&"nf_conntrack_max") { there } else { KNOWN_KEYS.to_vec() };
    let below = names.into_iter().map(|name| format!("net/netfilter/{name}"));
    below.chain(["net/nf_conntrack_max".to_owned()]).collect()
}

/// Values that the kernel rejects because they are no numbers.
pub(super) fn rejected_lines(sysctls: &BTreeMap<String, EffectiveSysctl>) -> Vec<IneffectiveLine> {
    let rejected = sysctls.iter().filter_map(|(key, effective)| {
        let SysctlEffect::Never(why) = &effective.effect else { return None };
        // A negative number is one: what was meant is not known.
        effective.number().is_none().then(|| IneffectiveLine {
            location: effective.source.clone(),
            setting: format!("{key} = {}", effective.value),
            reason: format!("has no effect: {why}"),
            key: Some(key.clone()),
            value: number_without_separators(&effective.value),
        })
    });
    rejected.collect()
}

/// Keys that Linux has removed: a line with one has no effect.
fn note_removed_keys(tree: &Overlay<'_>, writes: &[SysctlWrite]) {
    if kernel_release(tree).is_some_and(|release| release < (4, 19)) {
        return;
    }
    for write in writes.iter().filter(|write| write.key.starts_with("net/ipv4/") && write.key.contains("ip_conntrack"))
    {
        let key = write.key.replace('/', ".");
        let name = write.key.rsplit('/').next().unwrap_or_default().replacen("ip_conntrack", "nf_conntrack", 1);
        tree.add_ineffective(IneffectiveLine {
            location: write.location.clone(),
            setting: format!("{key} = {}", write.value),
            reason: format!("has no effect: Linux 4.19 and later have no {key}"),
            key: Some(format!("net.netfilter.{name}")),
            value: number_without_separators(&write.value),
        });
    }
}

/// The running kernel's version, if the files tell it.
fn kernel_release(tree: &Overlay<'_>) -> Option<(u32, u32)> {
    let release = tree.read("/proc/sys/kernel/osrelease")?;
    let mut parts = release.trim().split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    parts.next().zip(parts.next())
}

/// On old kernels the event came before the module had created its sysctls.
fn note_udev_race_before_5_10(tree: &Overlay<'_>) {
    if kernel_release(tree).is_some_and(|release| release < (5, 10)) {
        let release = tree.read("/proc/sys/kernel/osrelease").unwrap_or_default();
        let release = release.trim();
        tree.add_note(format!(
            "on Linux {release} udev's event may come before the module's sysctls: modules-load.d is safer"
        ));
    }
}

/// The conntrack sysctls of a recent Linux, for a root without `/proc/sys`.
const KNOWN_KEYS: [&str; 41] = [
    "nf_conntrack_acct",
    "nf_conntrack_buckets",
    "nf_conntrack_checksum",
    "nf_conntrack_count",
    "nf_conntrack_events",
    "nf_conntrack_expect_max",
    "nf_conntrack_frag6_high_thresh",
    "nf_conntrack_frag6_low_thresh",
    "nf_conntrack_frag6_timeout",
    "nf_conntrack_generic_timeout",
    "nf_conntrack_gre_timeout",
    "nf_conntrack_gre_timeout_stream",
    "nf_conntrack_icmp_timeout",
    "nf_conntrack_icmpv6_timeout",
    "nf_conntrack_log_invalid",
    "nf_conntrack_max",
    "nf_conntrack_sctp_timeout_closed",
    "nf_conntrack_sctp_timeout_cookie_echoed",
    "nf_conntrack_sctp_timeout_cookie_wait",
    "nf_conntrack_sctp_timeout_established",
    "nf_conntrack_sctp_timeout_heartbeat_sent",
    "nf_conntrack_sctp_timeout_shutdown_ack_sent",
    "nf_conntrack_sctp_timeout_shutdown_recd",
    "nf_conntrack_sctp_timeout_shutdown_sent",
    "nf_conntrack_tcp_be_liberal",
    "nf_conntrack_tcp_ignore_invalid_rst",
    "nf_conntrack_tcp_loose",
    "nf_conntrack_tcp_max_retrans",
    "nf_conntrack_tcp_timeout_close",
    "nf_conntrack_tcp_timeout_close_wait",
    "nf_conntrack_tcp_timeout_established",
    "nf_conntrack_tcp_timeout_fin_wait",
    "nf_conntrack_tcp_timeout_last_ack",
    "nf_conntrack_tcp_timeout_max_retrans",
    "nf_conntrack_tcp_timeout_syn_recv",
    "nf_conntrack_tcp_timeout_syn_sent",
    "nf_conntrack_tcp_timeout_time_wait",
    "nf_conntrack_tcp_timeout_unacknowledged",
    "nf_conntrack_timestamp",
    "nf_conntrack_udp_timeout",
    "nf_conntrack_udp_timeout_stream",
];
