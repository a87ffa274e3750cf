//! What a boot leaves of the values that files ask for.
use super::finding::{Certainty, Finding, Severity, Step};
use super::observations::{Knob, Observations, Wish};
use super::owners::{of, unfulfilled};
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
    let lost: Vec<&Wish> = seen.wishes.iter().filter(|wish| wish.lost.is_some()).collect();
    // What is not in force today shows it best.
    let now = unfulfilled(seen).find(|(wish, _)| wish.lost.is_some());
    let Some(wish) = now.map(|(wish, _)| wish).or_else(|| lost.first().copied()) else { return Vec::new() };
    let why = wish.lost.as_deref().unwrap_or_default();
    // Today's value may be right because somebody set it by hand; the next boot's will not be.
    let certainty = if now.is_some() { Certainty::Certain } else { Certainty::Likely };
    let mut finding = Finding::new(rule, Severity::Warning, certainty)
        .seen("asked for", format!("{} = {}", wish.knob, wish.value), &wish.source)
        .seen("at boot", why, "the files of sysctl.d, modules-load.d and udev");
    if let Some((_, knob)) = now {
        finding = finding.seen("in force", knob.value, &knob.source);
    }
    if lost.len() > 1 {
        finding = finding.seen("other values lost so", lost.len() - 1, "the same files");
    }
    vec![
        finding
            .means("The key is there only once connection tracking is. A line that is read before is passed over, and the module brings its defaults.")
            .now(remedy::set(remedy::owner(seen), &wish.knob, wish.value, "for this time; `sysctl --system` sets all of them"))
            .for_good(Step::run(
                remedy::owner(seen),
                "echo nf_conntrack > /etc/modules-load.d/nf_conntrack.conf",
                "loads it before the files are read",
            ))
            .for_good(remedy::set_for_good(remedy::owner(seen), &wish.knob, wish.value, "or this: writes both, and says who would win at boot")),
    ]
}

fn other(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let open = |(wish, knob): &(&Wish, &Knob)| {
        wish.lost.is_none() && knob.is_writable != Some(false) && of(&seen.writers, &wish.knob).is_empty()
    };
    let Some((wish, knob)) = unfulfilled(seen).find(open) else { return Vec::new() };
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
