//! A gateway's shards of a cluster: who decides, whether a standby could take over, whether NATS is there.
//!
//! One gateway knows of itself alone. Whether any standby is ready is seen by who asks all of them: `keepstate doctor --fleet`, or an alert over all metrics.
use super::finding::{Certainty, Finding, RemedyStep, Severity, StepLocation};
use super::observations::Observations;
use super::observed_shard::ObservedShard;
use super::rule::DoctorRule;
use crate::units::Count;

/// The rules of this file.
pub const RULES: &[DoctorRule] = &[
    DoctorRule {
        name: "cluster-two-active",
        number: 28,
        title: "another gateway sends by an epoch that has ended: it still believes that it is active",
        explains: &[],
        check: |rule, seen| each(seen, |shard| two_active(rule, shard)),
    },
    DoctorRule {
        name: "cluster-unreachable",
        number: 29,
        title: "the cluster's NATS servers cannot be reached",
        explains: &[
            "cluster-fenced",
            "cluster-no-active",
            "cluster-lag",
            "cluster-standby-incomplete",
            "cluster-messages-lost",
        ],
        check: |rule, seen| each(seen, |shard| unreachable(rule, shard)),
    },
    DoctorRule {
        name: "cluster-fenced",
        number: 30,
        title: "this gateway has lost its lease: it creates no new connections",
        explains: &["cluster-lag"],
        check: |rule, seen| each(seen, |shard| fenced(rule, shard)),
    },
    DoctorRule {
        name: "cluster-no-active",
        number: 31,
        title: "no gateway of the cluster is active: nothing is forwarded",
        explains: &["cluster-standby-incomplete"],
        check: |rule, seen| each(seen, |shard| no_active(rule, shard)),
    },
    DoctorRule {
        name: "cluster-epoch-not-written",
        number: 32,
        title: "the epoch cannot be written to disk: this gateway cannot become active",
        explains: &[],
        check: |rule, seen| each(seen, |shard| epoch_not_written(rule, shard)),
    },
    DoctorRule {
        name: "cluster-lag",
        number: 33,
        title: "replication is behind: a takeover now would lose connections",
        explains: &[],
        check: |rule, seen| each(seen, |shard| lag(rule, shard)),
    },
    DoctorRule {
        name: "cluster-standby-incomplete",
        number: 34,
        title: "this standby does not have the whole table: it cannot take over yet",
        explains: &[],
        check: |rule, seen| each(seen, |shard| standby_incomplete(rule, shard)),
    },
    DoctorRule {
        name: "cluster-messages-lost",
        number: 35,
        title: "changes are lost on their way to the cluster",
        explains: &[],
        check: |rule, seen| each(seen, |shard| messages_lost(rule, shard)),
    },
    DoctorRule {
        name: "cluster-differs",
        number: 36,
        title: "the active gateway does not run the same as this one",
        explains: &[],
        check: |rule, seen| each(seen, |shard| differs(rule, shard)),
    },
    DoctorRule {
        name: "cluster-name-taken",
        number: 37,
        title: "another gateway of the cluster has this one's name",
        explains: &["cluster-no-active", "cluster-standby-incomplete"],
        check: |rule, seen| each(seen, |shard| name_taken(rule, shard)),
    },
    DoctorRule {
        name: "cluster-lease-unavailable",
        number: 38,
        title: "the lease cannot be asked for: this gateway cannot become active",
        explains: &["cluster-no-active", "cluster-fenced"],
        check: |rule, seen| each(seen, |shard| lease_unavailable(rule, shard)),
    },
];

/// Where the evidence comes from.
const SOURCE: &str = "keepstate control cluster";
/// An active gateway's state is with the cluster within milliseconds; this is not a busy moment any more.
const MAX_AGE_MS: u64 = 5_000;
/// Messages that a standby may be behind.
const MAX_LAG: u64 = 1_000;
/// An active gateway is heard of several times a second, and a takeover by lease takes a few.
const NOBODY_MS: u64 = 10_000;

fn each(seen: &Observations, check: impl Fn(&ObservedShard) -> Option<Finding>) -> Vec<Finding> {
    seen.shards.iter().filter_map(check).collect()
}

fn is_active(shard: &ObservedShard) -> bool {
    shard.role == "active" || shard.role == "demoting"
}

fn name(shard: &ObservedShard) -> String {
    format!("{} of {}", shard.shard, shard.cluster)
}

fn begin(rule: &DoctorRule, shard: &ObservedShard, severity: Severity, certainty: Certainty) -> Finding {
    rule.finding(severity, certainty).evidence(
        "shard",
        format!("{}: {} is {} in epoch {}", name(shard), shard.node, shard.role, shard.epoch),
        SOURCE,
    )
}

fn look_step(why: &str) -> RemedyStep {
    RemedyStep::command(StepLocation::Here, "keepstate control cluster", why)
}

fn two_active(rule: &DoctorRule, shard: &ObservedShard) -> Option<Finding> {
    (shard.stale_epoch_growth > 0).then(|| {
        begin(rule, shard, Severity::Critical, Certainty::Likely)
            .evidence("messages of an ended epoch in the interval", Count(shard.stale_epoch_growth), SOURCE)
            .meaning(
                "They are refused here. But if packets still reach that gateway, it may give outside ports that this cluster gives too: \
                 it was stopped for a while, or its link to NATS is split from its link to the clients.",
            )
            .now(look_step("run it at each gateway: only one may be active"))
            .now(RemedyStep::command(
                StepLocation::Elsewhere("the gateway with the lower epoch".into()),
                format!("keepstate control demote {}", shard.shard),
                "it becomes a standby of the newer one",
            ))
    })
}

fn unreachable(rule: &DoctorRule, shard: &ObservedShard) -> Option<Finding> {
    (!shard.connected).then(|| {
        let by_lease = shard.decided_by == "lease";
        let severity = if by_lease || !is_active(shard) { Severity::Critical } else { Severity::Warning };
        let meaning = if by_lease {
            "A lease that cannot be renewed ends: a gateway without NATS forwards the connections that it knows and creates no new ones. Nothing of \
             the table reaches a standby meanwhile."
        } else {
            "Forwarding goes on, and changes wait in memory. Nothing of the table reaches a standby meanwhile: a takeover now would lose it."
        };
        begin(rule, shard, severity, Certainty::Certain)
            .evidence("reason", shard.unreachable.as_deref().unwrap_or("not connected"), SOURCE)
            .evidence("state that is with the cluster", format!("{} ms old", Count(shard.age_ms)), SOURCE)
            .meaning(meaning)
            .now(RemedyStep::manual(
                StepLocation::Elsewhere("the NATS servers".into()),
                "are they running, and do a majority of them reach each other? Afterwards everything converges by itself",
            ))
            .for_good(RemedyStep::manual(
                StepLocation::Elsewhere("the cluster".into()),
                "three NATS servers on three machines, all of them in servers of [cluster]: two have no majority when one fails",
            ))
    })
}

fn fenced(rule: &DoctorRule, shard: &ObservedShard) -> Option<Finding> {
    (shard.role == "fenced").then(|| {
        begin(rule, shard, Severity::Critical, Certainty::Certain)
            .evidence("decided by", &shard.decided_by, SOURCE)
            .meaning(
                "It could not renew its lease in time, or another gateway has taken over. Packets that still come here get no new connection: \
                 they should go to the active gateway.",
            )
            .now(look_step("at the others: which one is active, and do packets go there?"))
    })
}

fn no_active(rule: &DoctorRule, shard: &ObservedShard) -> Option<Finding> {
    (shard.role == "standby" && shard.connected && shard.age_ms > NOBODY_MS).then(|| {
        let found = begin(rule, shard, Severity::Critical, Certainty::Likely)
            .evidence("an active gateway was last heard of", format!("{} s ago", Count(shard.age_ms / 1000)), SOURCE)
            .meaning("A standby drops packets in silence, and nobody else says that it is active.");
        if shard.decided_by == "lease" {
            found.now(look_step("a lease is taken within seconds: it says why this one cannot"))
        } else {
            found.now(RemedyStep::command(
                StepLocation::Here,
                format!("keepstate control promote {}", shard.shard),
                "if this is the gateway that packets reach",
            ))
        }
    })
}

fn epoch_not_written(rule: &DoctorRule, shard: &ObservedShard) -> Option<Finding> {
    shard.disk_error.as_ref().map(|error| {
        begin(rule, shard, Severity::Critical, Certainty::Certain)
            .evidence("error", error, SOURCE)
            .meaning("An epoch is used only once it is on disk: after a crash it must not be used again.")
            .now(RemedyStep::manual(
                StepLocation::Here,
                "mend the disk, or the directory of [cluster]: full, read-only, or not ours",
            ))
    })
}

fn lag(rule: &DoctorRule, shard: &ObservedShard) -> Option<Finding> {
    let (what, count) = if is_active(shard) {
        let is_late = shard.unacknowledged > 0 && shard.age_ms > MAX_AGE_MS;
        is_late.then_some(("messages that are not acknowledged", shard.unacknowledged))?
    } else {
        (shard.lag > MAX_LAG).then_some(("messages behind", shard.lag))?
    };
    Some(
        begin(rule, shard, Severity::Warning, Certainty::Certain)
            .evidence(what, Count(count), SOURCE)
            .evidence("age", format!("{} ms", Count(shard.age_ms)), SOURCE)
            .meaning("Connections younger than this would be lost if the active gateway died now.")
            .now(look_step("is it getting less? NATS elects a leader for some seconds after a server has died"))
            .for_good(RemedyStep::manual(
                StepLocation::Elsewhere("the NATS servers".into()),
                "a faster network, disk or processor; storage in memory; fewer changes: longer timeouts of short-lived connections do not help, `notrack` for DNS does",
            )),
    )
}

fn standby_incomplete(rule: &DoctorRule, shard: &ObservedShard) -> Option<Finding> {
    let is_standby = shard.role == "standby" && shard.age_ms <= NOBODY_MS;
    if is_standby && shard.refused_growth > 0 {
        return Some(
            begin(rule, shard, Severity::Warning, Certainty::Certain)
                .evidence("connections that could not be entered in the interval", Count(shard.refused_growth), SOURCE)
                .meaning("A takeover would lose them. This table's limit is lower than the active gateway's, or that one is another version.")
                .now(look_step("does it run the same?"))
                .for_good(RemedyStep::manual(
                    StepLocation::Here,
                    "the same limit of connections (nf_conntrack_max) and the same version on all gateways",
                )),
        );
    }
    (is_standby && !shard.in_step).then(|| {
        let sender = shard.follows.as_deref().unwrap_or("nobody yet");
        begin(rule, shard, Severity::Warning, Certainty::Certain)
            .evidence("it follows", sender, SOURCE)
            .meaning("It asks the active gateway for a snapshot, which is sent beside traffic: a million connections take some seconds to minutes.")
            .now(look_step("does it finish? If not, its log says what is missing"))
    })
}

fn messages_lost(rule: &DoctorRule, shard: &ObservedShard) -> Option<Finding> {
    (shard.lost_growth > 0).then(|| {
        begin(rule, shard, Severity::Warning, Certainty::Certain)
            .evidence("messages lost in the interval", Count(shard.lost_growth), SOURCE)
            .meaning(
                "The standby notices the gap and gets a new snapshot; until then it cannot take over without a loss.",
            )
            .now(look_step("is it connected? NATS refuses what it has no room for"))
    })
}

fn differs(rule: &DoctorRule, shard: &ObservedShard) -> Option<Finding> {
    (!shard.differences.is_empty()).then(|| {
        let sender = shard.follows.as_deref().unwrap_or("the active gateway");
        let found = begin(rule, shard, Severity::Warning, Certainty::Certain);
        shard
            .differences
            .iter()
            .fold(found, |found, difference| found.evidence(&format!("{sender} has other"), difference, SOURCE))
            .meaning("After a takeover connections would be judged by something else. While gateways are updated one after the other this is as it should be.")
            .for_good(RemedyStep::manual(
                StepLocation::Elsewhere("both gateways".into()),
                "the same ruleset, services, NAT options, sysctls and version; then `keepstate control reload`",
            ))
    })
}

fn name_taken(rule: &DoctorRule, shard: &ObservedShard) -> Option<Finding> {
    shard.name_taken.then(|| {
        begin(rule, shard, Severity::Critical, Certainty::Certain)
            .evidence("an active gateway with this name, and not this one", &shard.node, SOURCE)
            .meaning(
                "A gateway ignores its own frames, so this one has nothing of the other's table, and it does not become active while the other one is: there is no standby.",
            )
            .now(RemedyStep::manual(
                StepLocation::Here,
                "another node = \"NAME\" in [cluster] of gateway.toml, then restart the gateway: a configuration was copied from the other one",
            ))
    })
}

fn lease_unavailable(rule: &DoctorRule, shard: &ObservedShard) -> Option<Finding> {
    shard.lease_error.as_ref().filter(|_| shard.connected).map(|reason| {
        begin(rule, shard, Severity::Critical, Certainty::Certain)
            .evidence("reason", reason, SOURCE)
            .meaning("NATS is reached, but a gateway that cannot ask for the lease never becomes active, and one that cannot renew it stops creating connections.")
            .now(RemedyStep::manual(
                StepLocation::Elsewhere("the NATS servers".into()),
                "after a server has died, NATS elects a leader within some seconds; else it is this user's rights, or JetStream's limits",
            ))
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Report, diagnose};
    use super::*;

    fn shard(change: impl Fn(&mut ObservedShard)) -> ObservedShard {
        let mut shard = ObservedShard {
            cluster: "site".into(),
            shard: "main".into(),
            node: "gw1".into(),
            role: "active".into(),
            epoch: 3,
            decided_by: "lease".into(),
            in_step: true,
            connected: true,
            ..ObservedShard::default()
        };
        change(&mut shard);
        shard
    }

    fn report(shard: ObservedShard) -> Report {
        diagnose(&Observations { shards: vec![shard], ..Observations::default() })
    }

    #[test]
    fn a_shard_in_order_has_no_finding() {
        let standby = |shard: &mut ObservedShard| (shard.role, shard.age_ms) = ("standby".into(), 300);
        for healthy in [shard(|_| ()), shard(standby)] {
            assert_eq!(report(healthy.clone()).findings, [], "{healthy:?}");
        }
        let busy = shard(|shard| (shard.unacknowledged, shard.age_ms) = (900, 4_000));
        assert_eq!(report(busy).findings, []);
    }

    #[test]
    fn what_is_wrong_with_a_shard_is_found_and_its_consequences_are_hidden() {
        type Change = fn(&mut ObservedShard);
        let cases: [(Change, &str, Severity); 14] = [
            (|shard| shard.stale_epoch_growth = 1, "cluster-two-active", Severity::Critical),
            (
                |shard| (shard.connected, shard.role) = (false, "fenced".into()),
                "cluster-unreachable",
                Severity::Critical,
            ),
            (
                |shard| {
                    (shard.connected, shard.decided_by, shard.unacknowledged, shard.age_ms) =
                        (false, "manual".into(), 9, 60_000)
                },
                "cluster-unreachable",
                Severity::Warning,
            ),
            (|shard| shard.role = "fenced".into(), "cluster-fenced", Severity::Critical),
            (
                |shard| (shard.role, shard.age_ms, shard.in_step) = ("standby".into(), 11_000, false),
                "cluster-no-active",
                Severity::Critical,
            ),
            (|shard| shard.disk_error = Some("No space left".into()), "cluster-epoch-not-written", Severity::Critical),
            (|shard| (shard.unacknowledged, shard.age_ms) = (1, 6_000), "cluster-lag", Severity::Warning),
            (|shard| (shard.role, shard.lag) = ("standby".into(), 2_000), "cluster-lag", Severity::Warning),
            (
                |shard| (shard.role, shard.in_step) = ("standby".into(), false),
                "cluster-standby-incomplete",
                Severity::Warning,
            ),
            (
                |shard| (shard.role, shard.refused_growth) = ("standby".into(), 3),
                "cluster-standby-incomplete",
                Severity::Warning,
            ),
            (|shard| shard.lost_growth = 4, "cluster-messages-lost", Severity::Warning),
            (|shard| shard.differences = vec!["its ruleset differs".into()], "cluster-differs", Severity::Warning),
            (
                |shard| (shard.role, shard.age_ms, shard.name_taken) = ("standby".into(), 11_000, true),
                "cluster-name-taken",
                Severity::Critical,
            ),
            (
                |shard| {
                    (shard.role, shard.age_ms, shard.lease_error) =
                        ("standby".into(), 11_000, Some("maximum number of streams reached".into()))
                },
                "cluster-lease-unavailable",
                Severity::Critical,
            ),
        ];
        for (change, name, severity) in cases {
            let found = report(shard(change)).findings;
            let names: Vec<_> = found.iter().map(|finding| (finding.name, finding.severity)).collect();
            assert_eq!(names, [(name, severity)]);
            assert!(!found.iter().any(|finding| finding.meaning.is_empty() || finding.evidence.is_empty()), "{name}");
        }
    }

    #[test]
    fn what_has_grown_is_compared_by_shard() {
        let before =
            [shard(|shard| (shard.stale_epoch, shard.lost) = (5, 2)), shard(|shard| shard.shard = "other".into())];
        let later = ObservedShard { stale_epoch: 9, ..before[0].clone() }.grown_since(&before);
        assert_eq!((later.stale_epoch_growth, later.lost_growth), (4, 0));
        let unknown = ObservedShard { shard: "new".into(), ..later }.grown_since(&before);
        assert_eq!(unknown.lost_growth, 0, "without an earlier reading nothing has grown");
    }
}
