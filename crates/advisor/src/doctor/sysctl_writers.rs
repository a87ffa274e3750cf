//! Who sets a knob: values that change while we look, values that no file asked for, knobs that cannot be set from here.
use super::finding::{Certainty, Finding, RemedyStep, Severity, StepLocation};
use super::observations::{ConfiguredSysctl, Observations, ObservedNamespace, ObservedSysctl, SysctlWriter};
use super::remedy;
use super::rule::DoctorRule;
use crate::kernel_constants::BUCKETS_PER_PAGE;

/// What this family knows.
pub const RULES: &[DoctorRule] = &[
    DoctorRule {
        name: "value-reverts",
        number: 16,
        title: "somebody else writes this knob too",
        explains: &["lost-at-boot"],
        check: value_reverts,
    },
    DoctorRule {
        name: "knob-read-only-here",
        number: 17,
        title: "a file asks for a knob that cannot be set from here",
        explains: &["lost-at-boot"],
        check: knob_read_only_here,
    },
];

/// The namespace whose knobs the files of this machine are for.
pub fn own_namespace(seen: &Observations) -> Option<&ObservedNamespace> {
    seen.namespaces.iter().find(|space| space.is_ours).or(match seen.namespaces.as_slice() {
        [only] => Some(only),
        _ => None,
    })
}

/// What files ask for and is not so.
pub fn configured_not_in_force(seen: &Observations) -> impl Iterator<Item = (&ConfiguredSysctl, &ObservedSysctl)> {
    let own = own_namespace(seen);
    seen.configured_sysctls.iter().filter_map(move |wish| {
        let knob = own?.sysctls.get(&wish.sysctl)?;
        (knob.value != wish.value && !is_page_rounded(wish, knob)).then_some((wish, knob))
    })
}

/// The kernel rounds buckets up to a page.
fn is_page_rounded(wish: &ConfiguredSysctl, knob: &ObservedSysctl) -> bool {
    wish.sysctl == "nf_conntrack_buckets" && knob.value == wish.value.next_multiple_of(BUCKETS_PER_PAGE)
}

fn value_reverts(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let mut found = Vec::new();
    for space in &seen.namespaces {
        // Buckets that change are a resize, which has a rule of its own.
        let changed =
            space.sysctls.iter().filter(|(name, knob)| knob.reread_value.is_some() && *name != "nf_conntrack_buckets");
        for (name, knob) in changed.take(1) {
            let later = knob.reread_value.unwrap_or_default();
            let finding = rule.finding(Severity::Warning, Certainty::Certain).in_namespace(&space.name).evidence(
                name,
                format!("{} and then {later}", knob.value),
                &format!("{}, read twice", knob.source),
            );
            found.push(
                with_writers(finding, &writers_of(&seen.sysctl_writers, name), name)
                    .meaning("Its value changed while we looked: whatever you set, another one sets again."),
            );
        }
    }
    // Without a writer in sight a value other than a file's may be anybody's deed: boot.rs asks whether the order of boot explains it.
    let open = configured_not_in_force(seen).filter(|(_, knob)| knob.is_writable != Some(false));
    let ours = open
        .map(|(wish, knob)| (wish, knob, writers_of(&seen.sysctl_writers, &wish.sysctl)))
        .find(|(_, _, writers)| !writers.is_empty());
    if let Some((wish, knob, found_writers)) = ours {
        let is_theirs = found_writers.iter().any(|writer| writer.value == Some(knob.value));
        let certainty = if is_theirs { Certainty::Certain } else { Certainty::Likely };
        let finding = rule
            .finding(Severity::Warning, certainty)
            .evidence(&wish.sysctl, knob.value, &knob.source)
            .evidence("asked for", wish.value, &wish.source);
        found.push(with_writers(finding, &found_writers, &wish.sysctl).meaning(
            "The file's value was set, or never was; what sets this knob on its own came later, and the last to write wins.",
        ));
    }
    found
}

/// Those who write this knob, or may.
pub fn writers_of<'a>(writers: &'a [SysctlWriter], knob: &str) -> Vec<&'a SysctlWriter> {
    writers.iter().filter(|writer| writer.sysctl.as_deref().is_none_or(|other| other == knob)).collect()
}

/// Adds the writers, and what to do about each.
fn with_writers(mut finding: Finding, writers: &[&SysctlWriter], knob: &str) -> Finding {
    for writer in writers {
        finding = finding
            .evidence("who writes it too", format!("{} {}", writer.name, writer.what), &writer.source)
            .for_good(RemedyStep::manual(
                StepLocation::Elsewhere(configuration_of(writer)),
                format!("set {knob} there, and nowhere else: {} has the last word", writer.name),
            ));
    }
    if writers.is_empty() {
        finding = finding.for_good(RemedyStep::manual(
            StepLocation::Host,
            "find who writes it (kube-proxy, tuned, cloud-init, a script) and set the value there: keepstate tune status names those it knows",
        ));
    }
    finding.now(RemedyStep::command(
        StepLocation::Host,
        format!("auditctl -w /proc/sys/net/netfilter/{knob} -p w; sleep 60; ausearch -f {knob} -i"),
        "names who writes it, where the kernel audits",
    ))
}

/// Where a writer is told what to write.
fn configuration_of(writer: &SysctlWriter) -> String {
    match writer.name.as_str() {
        "kube-proxy" => format!("kube-proxy's configuration (conntrack.maxPerCore, conntrack.min; {})", writer.source),
        "tuned" => format!("tuned's profile ({})", writer.source),
        _ => writer.source.clone(),
    }
}

fn knob_read_only_here(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let judge = |(wish, knob): (&ConfiguredSysctl, &ObservedSysctl)| {
        (knob.is_writable == Some(false)).then(|| {
            let mut finding = rule.finding(Severity::Warning, Certainty::Certain)
                .evidence(&wish.sysctl, format!("{}, read-only", knob.value), &knob.source)
                .evidence("asked for", wish.value, &wish.source);
            if let Some(container) = &seen.machine.container {
                finding = finding.evidence("this is a container", &container.value, &container.source);
            }
            finding
                .meaning("The limit and the buckets are the machine's: outside the initial network namespace the kernel shows them, and lets nobody set them.")
                .now(remedy::set_sysctl(StepLocation::Host, &wish.sysctl, wish.value, "in the host's initial namespace"))
                .for_good(remedy::persist_sysctl(StepLocation::Host, &wish.sysctl, wish.value, "and take the line out of the file here, where it can only fail"))
        })
    };
    configured_not_in_force(seen).filter_map(judge).take(1).collect()
}
