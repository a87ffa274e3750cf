//! Configured values that do not survive a boot.
use super::finding::{Certainty, Finding, RemedyStep, Severity};
use super::observations::{ConfiguredSysctl, Observations, ObservedSysctl};
use super::remedy;
use super::rule::DoctorRule;
use super::sysctl_writers::{configured_not_in_force, own_namespace, writers_of};

/// The rules of this file.
pub const RULES: &[DoctorRule] = &[
    DoctorRule {
        name: "lost-at-boot",
        number: 18,
        title: "a configured value is not set at boot",
        explains: &[],
        check: lost_at_boot,
    },
    DoctorRule {
        name: "setting-without-effect",
        number: 18,
        title: "a line of a configuration file does nothing",
        explains: &[],
        check: setting_without_effect,
    },
    DoctorRule {
        name: "value-not-in-force",
        number: 16,
        title: "the current value differs from the configured one",
        explains: &[],
        check: value_not_in_force,
    },
];

fn lost_at_boot(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let lost: Vec<&ConfiguredSysctl> =
        seen.configured_sysctls.iter().filter(|configured| configured.ineffective_reason.is_some()).collect();
    // A value that is not in force today is the best example.
    let now = configured_not_in_force(seen).find(|(configured, _)| configured.ineffective_reason.is_some());
    let Some(configured) = now.map(|(configured, _)| configured).or_else(|| lost.first().copied()) else {
        return Vec::new();
    };
    let why = configured.ineffective_reason.as_deref().unwrap_or_default();
    // Today's value may have been set by hand; it will be lost at the next boot.
    let certainty = if now.is_some() { Certainty::Certain } else { Certainty::Likely };
    let mut finding = rule
        .finding(Severity::Warning, certainty)
        .evidence("configured", format!("{} = {}", configured.sysctl, configured.value), &configured.source)
        .evidence("at boot", why, "sysctl.d, modules-load.d and udev rules");
    if let Some((_, current)) = now {
        finding = finding.evidence("current value", current.value, &current.source);
    }
    if lost.len() > 1 {
        finding = finding.evidence("other values lost at boot", lost.len() - 1, "the same files");
    }
    finding.now.extend(remedy::load_module(seen));
    vec![
        finding
            .meaning("The sysctl exists only while the module is loaded. A line that is read earlier at boot is ignored, and the module starts with its defaults.")
            .now(remedy::set_sysctl(remedy::sysctl_location(seen), &configured.sysctl, configured.value, "until the next boot; `sysctl --system` sets all configured values"))
            .for_good(RemedyStep::command(
                remedy::sysctl_location(seen),
                "echo nf_conntrack > /etc/modules-load.d/nf_conntrack.conf",
                "loads the module before the files are read",
            ))
            .for_good(remedy::persist_sysctl(remedy::sysctl_location(seen), &configured.sysctl, configured.value, "or this: writes both files, and reports settings that would override them")),
    ]
}

fn setting_without_effect(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let Some(first) = seen.ineffective_settings.first() else { return Vec::new() };
    let mut finding = rule.finding(Severity::Warning, Certainty::Certain);
    for setting in &seen.ineffective_settings {
        finding = finding.evidence("line", format!("{}: {}", setting.setting, setting.reason), &setting.source);
    }
    finding.now.extend(remedy::load_module(seen));
    let here = || remedy::sysctl_location(seen);
    for setting in &seen.ineffective_settings {
        let exists = |sysctl: &String| {
            own_namespace(seen).is_none_or(|own| own.sysctls.is_empty() || own.sysctls.contains_key(sysctl))
        };
        finding = match (setting.sysctl.as_ref().filter(|sysctl| exists(sysctl)), setting.value) {
            (Some(sysctl), Some(value)) => finding
                .now(remedy::set_sysctl(here(), sysctl, value, "what the line was meant to set"))
                .for_good(remedy::persist_sysctl(
                    here(),
                    sysctl,
                    value,
                    &format!("writes a line that has effect; remove {}", setting.source),
                )),
            (Some(sysctl), None) => finding.for_good(RemedyStep::manual(
                here(),
                format!("in {}: give {sysctl} a whole number, without separators or units", setting.source),
            )),
            (None, Some(value)) if setting.setting.contains("hashsize") => finding
                .now(remedy::set_buckets(seen, value, "what the line was meant to set"))
                .for_good(RemedyStep::manual(here(), format!("in {}: write hashsize={value}", setting.source))),
            (None, _) => finding.for_good(RemedyStep::manual(
                here(),
                format!("remove {}, or write it as the kernel understands it", setting.source),
            )),
        };
    }
    if finding.now.is_empty() {
        finding =
            finding.now(RemedyStep::manual(here(), "correct the file: the value that it should set is not clear"));
    }
    let meaning = format!("Whoever wrote the line at {} believes that it is in force. It is not.", first.source);
    vec![finding.meaning(meaning)]
}

fn value_not_in_force(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let open = |(configured, current): &(&ConfiguredSysctl, &ObservedSysctl)| {
        configured.ineffective_reason.is_none()
            && current.is_writable != Some(false)
            && writers_of(&seen.sysctl_writers, &configured.sysctl).is_empty()
    };
    let Some((configured, current)) = configured_not_in_force(seen).find(open) else { return Vec::new() };
    vec![
        rule.finding(Severity::Warning, Certainty::Possible)
            .evidence(&configured.sysctl, current.value, &current.source)
            .evidence("configured", configured.value, &configured.source)
            .meaning("Another value was set after boot, or the file was changed and not loaded.")
            .now(RemedyStep::command(remedy::sysctl_location(seen), "sysctl --system", "loads the files again"))
            .for_good(RemedyStep::command(
                remedy::sysctl_location(seen),
                "keepstate tune status",
                "shows what keepstate tune has applied",
            )),
    ]
}
