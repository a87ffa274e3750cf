//! What a boot leaves of the values that files ask for.
use super::finding::{Certainty, Finding, Severity, Step};
use super::observations::Observations;
use super::owners::unfulfilled;
use super::{Rule, remedy};

/// What this family knows.
pub const RULES: &[Rule] = &[
    Rule {
        name: "lost-at-boot",
        number: 18,
        title: "the value in the file does not survive a boot",
        explains: &[],
        judge: lost,
    },
    Rule {
        name: "value-not-in-force",
        number: 16,
        title: "a file asks for another value than the one in force",
        explains: &[],
        judge: other,
    },
];

fn lost(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let Some(module) = &seen.machine.module else { return Vec::new() };
    let state = &module.value;
    if state.is_builtin || state.loaded_early_by.is_some() || state.reapplied_by.is_some() {
        return Vec::new();
    }
    let Some(wish) = seen.wishes.first() else { return Vec::new() };
    let now = unfulfilled(seen).next();
    // Today's value may be right because somebody set it by hand; the next boot's will not be.
    let certainty = if now.is_some() { Certainty::Certain } else { Certainty::Likely };
    let mut finding = Finding::new(rule, Severity::Warning, certainty)
        .seen("asked for", format!("{} = {}", wish.knob, wish.value), &wish.source)
        .seen("what loads nf_conntrack before that file is read", "nothing", &module.source);
    if let Some((wish, knob)) = now {
        finding = finding.seen("in force", format!("{} = {}", wish.knob, knob.value), &knob.source);
    }
    vec![
        finding
            .means("sysctl.d is read early at boot. The module comes later, with the first rule that needs it, and brings its defaults: the key is not there when its line is read.")
            .now(Step::run(remedy::owner(seen), "sysctl --system", "sets it for this time, now that the module is there"))
            .for_good(Step::run(
                remedy::owner(seen),
                "echo nf_conntrack > /etc/modules-load.d/nf_conntrack.conf",
                "loads it before the files are read",
            ))
            .for_good(remedy::set_for_good(remedy::owner(seen), &wish.knob, wish.value, "writes both, and says who would win at boot")),
    ]
}

fn other(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let late = seen.machine.module.as_ref().is_some_and(|module| {
        let state = &module.value;
        !state.is_builtin && state.loaded_early_by.is_none() && state.reapplied_by.is_none()
    });
    if late || !seen.writers.is_empty() {
        return Vec::new();
    }
    let Some((wish, knob)) = unfulfilled(seen).find(|(_, knob)| knob.is_writable != Some(false)) else {
        return Vec::new();
    };
    vec![
        Finding::new(rule, Severity::Warning, Certainty::Possible)
            .seen(&wish.knob, knob.value, &knob.source)
            .seen("asked for", wish.value, &wish.source)
            .means("Somebody set another value since boot, or the file was written and never read.")
            .now(Step::run(remedy::owner(seen), "sysctl --system", "reads the files again"))
            .for_good(Step::run(
                remedy::owner(seen),
                "keepstate tune status",
                "who asks for what, and who would win at boot",
            )),
    ]
}
