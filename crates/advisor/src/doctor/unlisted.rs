//! A count far above what the table lists.
use super::finding::{Certainty, Finding, RemedyStep, Severity};
use super::observations::{Observations, ObservedNamespace};
use super::remedy;
use super::rule::DoctorRule;
use super::table_full::{FULL_PERCENT, OF_A_FULL_TABLE};
use crate::units::Count;

/// The rules of this file.
pub const RULES: &[DoctorRule] = &[DoctorRule {
    name: "count-not-listed",
    number: 4,
    title: "most of the entries that the kernel counts are not in the table",
    explains: OF_A_FULL_TABLE,
    check: count_not_listed,
}];

/// Entries that may come and go between the reading of the count and of the table.
const MIN_UNLISTED: u64 = 100;

fn count_not_listed(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    // The files of another machine may hold a part of its table.
    if seen.machine.is_remote {
        return Vec::new();
    }
    seen.namespaces.iter().filter_map(|space| count_not_listed_in(rule, space)).collect()
}

fn count_not_listed_in(rule: &DoctorRule, space: &ObservedNamespace) -> Option<Finding> {
    let (count, sample) = (space.count.as_ref()?, space.sample.as_ref().filter(|sample| sample.value.is_complete)?);
    let listed = sample.value.flows.len() as u64;
    let unlisted = count.value.saturating_sub(listed);
    if unlisted < MIN_UNLISTED || unlisted <= count.value / 2 {
        return None;
    }
    let is_full = space.fill_percent().is_some_and(|share| share >= FULL_PERCENT);
    let severity = if is_full { Severity::Critical } else { Severity::Warning };
    let here = || remedy::namespace_location(space);
    Some(
        rule.finding(severity, Certainty::Certain)
            .in_namespace(&space.name)
            .evidence("entries by the count", Count(count.value), &count.source)
            .evidence("entries in the table", Count(listed), &sample.source)
            .meaning(
                "The count includes connections that are not in the table: those whose first packet still waits (in an NFQUEUE that \
                 a program does not empty, for a neighbour), and those that ended and wait until a listener for events reads. They \
                 count against the limit, and neither timeouts nor deleting entries remove them.",
            )
            .now(RemedyStep::command(
                here(),
                "cat /proc/net/netfilter/nfnetlink_queue",
                "a line for each queue: number, process, packets waiting (third); a queue that stays full has a program that does not read",
            ))
            .now(RemedyStep::command(
                here(),
                "keepstate conntrack -L dying",
                "lists those that ended and wait for a listener",
            ))
            .for_good(RemedyStep::manual(
                here(),
                "restart or mend the program that reads the queue or the events; `queue … bypass` lets packets pass while no program reads",
            )),
    )
}
