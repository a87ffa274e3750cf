//! Who sets a knob: values that change while we look, values that no file asked for, knobs that cannot be set from here.
use super::finding::{Certainty, Finding, Place, Severity, Step};
use super::observations::{Knob, Namespace, Observations, Wish, Writer};
use super::{Rule, remedy};

/// What this family knows.
pub const RULES: &[Rule] = &[
    Rule {
        name: "value-reverts",
        number: 16,
        title: "somebody else writes this knob too",
        explains: &["lost-at-boot"],
        judge: reverts,
    },
    Rule {
        name: "knob-read-only-here",
        number: 17,
        title: "a file asks for a knob that cannot be set from here",
        explains: &["lost-at-boot"],
        judge: read_only,
    },
];

/// The namespace whose knobs the files of this machine are for.
pub fn own(seen: &Observations) -> Option<&Namespace> {
    seen.namespaces.iter().find(|space| space.is_ours).or(match seen.namespaces.as_slice() {
        [only] => Some(only),
        _ => None,
    })
}

/// What files ask for and is not so.
pub fn unfulfilled(seen: &Observations) -> impl Iterator<Item = (&Wish, &Knob)> {
    let own = own(seen);
    seen.wishes.iter().filter_map(move |wish| {
        let knob = own?.knobs.get(&wish.knob)?;
        (knob.value != wish.value && !is_rounded(wish, knob)).then_some((wish, knob))
    })
}

/// The kernel rounds buckets up to a page.
fn is_rounded(wish: &Wish, knob: &Knob) -> bool {
    wish.knob == "nf_conntrack_buckets" && knob.value == wish.value.next_multiple_of(512)
}

fn reverts(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let mut found = Vec::new();
    for space in &seen.namespaces {
        // Buckets that change are a resize, which has a rule of its own.
        let changed = space.knobs.iter().filter(|(name, knob)| knob.later.is_some() && *name != "nf_conntrack_buckets");
        for (name, knob) in changed.take(1) {
            let later = knob.later.unwrap_or_default();
            let finding = Finding::new(rule, Severity::Warning, Certainty::Certain).inside(&space.name).seen(
                name,
                format!("{} and then {later}", knob.value),
                &format!("{}, read twice", knob.source),
            );
            found.push(
                writers(finding, &of(&seen.writers, name), name)
                    .means("Its value changed while we looked: whatever you set, another one sets again."),
            );
        }
    }
    // Without a writer in sight a value other than a file's may be anybody's deed: boot.rs asks whether the order of boot explains it.
    let open = unfulfilled(seen).filter(|(_, knob)| knob.is_writable != Some(false));
    let ours = open
        .map(|(wish, knob)| (wish, knob, of(&seen.writers, &wish.knob)))
        .find(|(_, _, writers)| !writers.is_empty());
    if let Some((wish, knob, found_writers)) = ours {
        let is_theirs = found_writers.iter().any(|writer| writer.value == Some(knob.value));
        let certainty = if is_theirs { Certainty::Certain } else { Certainty::Likely };
        let finding = Finding::new(rule, Severity::Warning, certainty).seen(&wish.knob, knob.value, &knob.source).seen(
            "asked for",
            wish.value,
            &wish.source,
        );
        found.push(writers(finding, &found_writers, &wish.knob).means(
            "The file's value was set, or never was; what sets this knob on its own came later, and the last to write wins.",
        ));
    }
    found
}

/// Those who write this knob, or may.
pub fn of<'a>(writers: &'a [Writer], knob: &str) -> Vec<&'a Writer> {
    writers.iter().filter(|writer| writer.knob.as_deref().is_none_or(|other| other == knob)).collect()
}

/// Adds the writers, and what to do about each.
fn writers(mut finding: Finding, writers: &[&Writer], knob: &str) -> Finding {
    for writer in writers {
        finding = finding
            .seen("who writes it too", format!("{} {}", writer.name, writer.what), &writer.source)
            .for_good(Step::todo(
                Place::Elsewhere(configuration(writer)),
                format!("set {knob} there, and nowhere else: {} has the last word", writer.name),
            ));
    }
    if writers.is_empty() {
        finding = finding.for_good(Step::todo(
            Place::Host,
            "find who writes it (kube-proxy, tuned, cloud-init, a script) and set the value there: keepstate tune status names those it knows",
        ));
    }
    finding.now(Step::run(
        Place::Host,
        format!("auditctl -w /proc/sys/net/netfilter/{knob} -p w; sleep 60; ausearch -f {knob} -i"),
        "names who writes it, where the kernel audits",
    ))
}

/// Where a writer is told what to write.
fn configuration(writer: &Writer) -> String {
    match writer.name.as_str() {
        "kube-proxy" => format!("kube-proxy's configuration (conntrack.maxPerCore, conntrack.min; {})", writer.source),
        "tuned" => format!("tuned's profile ({})", writer.source),
        _ => writer.source.clone(),
    }
}

fn read_only(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let judge = |(wish, knob): (&Wish, &Knob)| {
        (knob.is_writable == Some(false)).then(|| {
            let mut finding = Finding::new(rule, Severity::Warning, Certainty::Certain)
                .seen(&wish.knob, format!("{}, read-only", knob.value), &knob.source)
                .seen("asked for", wish.value, &wish.source);
            if let Some(container) = &seen.machine.container {
                finding = finding.seen("this is a container", &container.value, &container.source);
            }
            finding
                .means("The limit and the buckets are the machine's: outside the initial network namespace the kernel shows them, and lets nobody set them.")
                .now(remedy::set(Place::Host, &wish.knob, wish.value, "in the host's initial namespace"))
                .for_good(remedy::set_for_good(Place::Host, &wish.knob, wish.value, "and take the line out of the file here, where it can only fail"))
        })
    };
    unfulfilled(seen).filter_map(judge).take(1).collect()
}
