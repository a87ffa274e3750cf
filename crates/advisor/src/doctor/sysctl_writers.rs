//! Programs that write sysctls: values that change, values that no file sets, sysctls that cannot be set from here.
use super::finding::{Certainty, Finding, RemedyStep, Severity, StepLocation};
use super::observations::{ConfiguredSysctl, Observations, ObservedNamespace, ObservedSysctl, SysctlWriter};
use super::remedy;
use super::rule::DoctorRule;
use crate::kernel_constants::BUCKETS_PER_PAGE;

/// The rules of this file.
pub const RULES: &[DoctorRule] = &[
    DoctorRule {
        name: "value-reverts",
        number: 16,
        title: "another program writes this sysctl too",
        explains: &["lost-at-boot"],
        check: value_reverts,
    },
    DoctorRule {
        name: "knob-read-only-here",
        number: 17,
        title: "a file sets a sysctl that cannot be set from here",
        explains: &["lost-at-boot"],
        check: knob_read_only_here,
    },
];

/// The namespace that the configuration files of this machine are for.
pub fn own_namespace(seen: &Observations) -> Option<&ObservedNamespace> {
    seen.namespaces.iter().find(|space| space.is_ours).or(match seen.namespaces.as_slice() {
        [only] => Some(only),
        _ => None,
    })
}

/// Values of configuration files that are not the current ones.
pub fn configured_not_in_force(seen: &Observations) -> impl Iterator<Item = (&ConfiguredSysctl, &ObservedSysctl)> {
    let own = own_namespace(seen);
    seen.configured_sysctls.iter().filter_map(move |configured| {
        let current = own?.sysctls.get(&configured.sysctl)?;
        (current.value != configured.value && !is_page_rounded(configured, current)).then_some((configured, current))
    })
}

/// The kernel rounds buckets up to a page.
fn is_page_rounded(configured: &ConfiguredSysctl, current: &ObservedSysctl) -> bool {
    configured.sysctl == "nf_conntrack_buckets" && current.value == configured.value.next_multiple_of(BUCKETS_PER_PAGE)
}

fn value_reverts(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let mut found = Vec::new();
    for space in &seen.namespaces {
        // Changing buckets are a resize, which has its own rule.
        let changed = space
            .sysctls
            .iter()
            .filter(|(name, current)| current.reread_value.is_some() && *name != "nf_conntrack_buckets");
        for (name, current) in changed.take(1) {
            let later = current.reread_value.unwrap_or_default();
            let finding = rule.finding(Severity::Warning, Certainty::Certain).in_namespace(&space.name).evidence(
                name,
                format!("{}, then {later}", current.value),
                &format!("{}, read twice", current.source),
            );
            found.push(
                with_writers(finding, &writers_of(&seen.sysctl_writers, name), name)
                    .meaning("The value changed during the interval: a value you set will be overwritten."),
            );
        }
    }
    // Without a known writer anything may have set the value: boot.rs checks whether the order of boot explains it.
    let open = configured_not_in_force(seen).filter(|(_, current)| current.is_writable != Some(false));
    let ours = open
        .map(|(configured, current)| (configured, current, writers_of(&seen.sysctl_writers, &configured.sysctl)))
        .find(|(_, _, writers)| !writers.is_empty());
    if let Some((configured, current, found_writers)) = ours {
        let is_theirs = found_writers.iter().any(|writer| writer.value == Some(current.value));
        let certainty = if is_theirs { Certainty::Certain } else { Certainty::Likely };
        let finding = rule
            .finding(Severity::Warning, certainty)
            .evidence(&configured.sysctl, current.value, &current.source)
            .evidence("configured", configured.value, &configured.source);
        found.push(
            with_writers(finding, &found_writers, &configured.sysctl)
                .meaning("Another program wrote the sysctl after the file was read; the last write wins."),
        );
    }
    found
}

/// The programs that write this sysctl, or may.
pub fn writers_of<'a>(writers: &'a [SysctlWriter], knob: &str) -> Vec<&'a SysctlWriter> {
    writers.iter().filter(|writer| writer.sysctl.as_deref().is_none_or(|other| other == knob)).collect()
}

/// Adds the writers, and where to configure each.
fn with_writers(mut finding: Finding, writers: &[&SysctlWriter], knob: &str) -> Finding {
    for writer in writers {
        finding = finding
            .evidence("also written by", format!("{} {}", writer.name, writer.what), &writer.source)
            .for_good(RemedyStep::manual(
                StepLocation::Elsewhere(configuration_of(writer)),
                format!("set {knob} there, and only there: {} writes last", writer.name),
            ));
    }
    if writers.is_empty() {
        finding = finding.for_good(RemedyStep::manual(
            StepLocation::Host,
            "find the program that writes it (kube-proxy, tuned, cloud-init, a script) and set the value there; keepstate tune plan --persist lists known writers",
        ));
    }
    finding.now(RemedyStep::command(
        StepLocation::Host,
        format!("auditctl -w /proc/sys/net/netfilter/{knob} -p w; sleep 60; ausearch -f {knob} -i"),
        "logs every write with its program (needs the audit system)",
    ))
}

/// Where a writer is configured.
fn configuration_of(writer: &SysctlWriter) -> String {
    match writer.name.as_str() {
        "kube-proxy" => format!("kube-proxy's configuration (conntrack.maxPerCore, conntrack.min; {})", writer.source),
        "tuned" => format!("tuned's profile ({})", writer.source),
        _ => writer.source.clone(),
    }
}

fn knob_read_only_here(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |(configured, current): (&ConfiguredSysctl, &ObservedSysctl)| {
        (current.is_writable == Some(false)).then(|| {
            let mut finding = rule.finding(Severity::Warning, Certainty::Certain)
                .evidence(&configured.sysctl, format!("{}, read-only", current.value), &current.source)
                .evidence("configured", configured.value, &configured.source);
            if let Some(container) = &seen.machine.container {
                finding = finding.evidence("container", &container.value, &container.source);
            }
            finding
                .meaning("The limit and the buckets are machine-wide: outside the initial network namespace they are read-only, even for root.")
                .now(remedy::set_sysctl(StepLocation::Host, &configured.sysctl, configured.value, "in the host's initial network namespace"))
                .for_good(remedy::persist_sysctl(StepLocation::Host, &configured.sysctl, configured.value, "and remove the line from the file here, where it cannot work"))
        })
    };
    configured_not_in_force(seen).filter_map(check).take(1).collect()
}
