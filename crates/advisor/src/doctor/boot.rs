//! What a boot leaves of the values that files ask for.
use super::finding::{Certainty, Finding, RemedyStep, Severity};
use super::observations::{ConfiguredSysctl, Observations, ObservedSysctl};
use super::remedy;
use super::rule::DoctorRule;
use super::sysctl_writers::{configured_not_in_force, writers_of};

/// What this family knows.
pub const RULES: &[DoctorRule] = &[
    DoctorRule {
        name: "lost-at-boot",
        number: 18,
        title: "the value in the file does not survive a boot",
        explains: &[],
        check: lost_at_boot,
    },
    DoctorRule {
        name: "value-not-in-force",
        number: 16,
        title: "a file asks for another value than the one in force",
        explains: &[],
        check: value_not_in_force,
    },
];

fn lost_at_boot(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let lost: Vec<&ConfiguredSysctl> =
        seen.configured_sysctls.iter().filter(|wish| wish.ineffective_reason.is_some()).collect();
    // What is not in force today shows it best.
    let now = configured_not_in_force(seen).find(|(wish, _)| wish.ineffective_reason.is_some());
    let Some(wish) = now.map(|(wish, _)| wish).or_else(|| lost.first().copied()) else { return Vec::new() };
    let why = wish.ineffective_reason.as_deref().unwrap_or_default();
    // Today's value may be right because somebody set it by hand; the next boot's will not be.
    let certainty = if now.is_some() { Certainty::Certain } else { Certainty::Likely };
    let mut finding = rule
        .finding(Severity::Warning, certainty)
        .evidence("asked for", format!("{} = {}", wish.sysctl, wish.value), &wish.source)
        .evidence("at boot", why, "the files of sysctl.d, modules-load.d and udev");
    if let Some((_, knob)) = now {
        finding = finding.evidence("in force", knob.value, &knob.source);
    }
    if lost.len() > 1 {
        finding = finding.evidence("other values lost so", lost.len() - 1, "the same files");
    }
    vec![
        finding
            .meaning("The key is there only once connection tracking is. A line that is read before is passed over, and the module brings its defaults.")
            .now(remedy::set_sysctl(remedy::sysctl_location(seen), &wish.sysctl, wish.value, "for this time; `sysctl --system` sets all of them"))
            .for_good(RemedyStep::command(
                remedy::sysctl_location(seen),
                "echo nf_conntrack > /etc/modules-load.d/nf_conntrack.conf",
                "loads it before the files are read",
            ))
            .for_good(remedy::persist_sysctl(remedy::sysctl_location(seen), &wish.sysctl, wish.value, "or this: writes both, and says who would win at boot")),
    ]
}

fn value_not_in_force(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let open = |(wish, knob): &(&ConfiguredSysctl, &ObservedSysctl)| {
        wish.ineffective_reason.is_none()
            && knob.is_writable != Some(false)
            && writers_of(&seen.sysctl_writers, &wish.sysctl).is_empty()
    };
    let Some((wish, knob)) = configured_not_in_force(seen).find(open) else { return Vec::new() };
    vec![
        rule.finding(Severity::Warning, Certainty::Possible)
            .evidence(&wish.sysctl, knob.value, &knob.source)
            .evidence("asked for", wish.value, &wish.source)
            .meaning("Somebody set another value since boot, or the file was written and never read.")
            .now(RemedyStep::command(remedy::sysctl_location(seen), "sysctl --system", "reads the files again"))
            .for_good(RemedyStep::command(
                remedy::sysctl_location(seen),
                "keepstate tune status",
                "who asks for what, and who would win at boot",
            )),
    ]
}
