//! What most of the entries without an answer are, and what helps against each kind: remedies are about what the table holds.
use super::finding::{Finding, RemedyStep, StepLocation};
use super::observations::ObservedNamespace;
use super::remedy;
use super::sample_stats::{SampleStats, TCP, UDP};

/// What most of the entries without an answer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// TCP in its handshake.
    Handshakes,
    /// TCP without a handshake, one direction only.
    PickedUp,
    /// UDP.
    Udp,
    /// The number of another protocol.
    Other(u8),
}

impl Unanswered {
    /// The kind that has most entries.
    pub(super) fn most_of(stats: &SampleStats) -> Unanswered {
        let (protocol, others) = stats.other_unreplied().unwrap_or_default();
        let kinds = [
            (others, Unanswered::Other(protocol)),
            (stats.one_way, Unanswered::PickedUp),
            (stats.udp_unreplied, Unanswered::Udp),
            (stats.half_open, Unanswered::Handshakes),
        ];
        kinds.into_iter().max_by_key(|(entries, _)| *entries).map_or(Unanswered::Handshakes, |(_, kind)| kind)
    }
}

/// Against handshakes that are never finished.
pub(super) fn with_syn_flood_remedies(
    finding: Finding,
    space: &ObservedNamespace,
    stats: Option<&SampleStats>,
) -> Finding {
    let here = || remedy::namespace_location(space);
    let port = stats.and_then(|stats| stats.major_port(TCP));
    let dport = port.map_or(String::new(), |port| format!("tcp dport {port} "));
    // Without an answer the entry waits in SYN_SENT, with one in SYN_RECV.
    let answered = stats.map_or(0, |stats| stats.entries_in_state("SYN_RECV"));
    let (timeout, seconds) = match stats {
        Some(stats) if stats.entries_in_state("SYN_SENT") > answered => ("nf_conntrack_tcp_timeout_syn_sent", 30),
        _ => ("nf_conntrack_tcp_timeout_syn_recv", 20),
    };
    let finding = finding
        .now(limit_rate(here(), &format!("{dport}tcp flags & (syn|ack) == syn")))
        .now(remedy::set_sysctl(here(), timeout, seconds, "half-open entries expire sooner"));
    let finding = match port {
        Some(port) => finding.for_good(RemedyStep::command(
            here(),
            remedy::notrack_command("tcp", &port.to_string()),
            "do not track a public port that needs no tracking",
        )),
        None => finding.for_good(remedy::persist_sysctl(here(), timeout, seconds, "the same at every boot")),
    };
    finding.for_good(RemedyStep::manual(
        here(),
        "or put nftables' `synproxy` in front of it, with nf_conntrack_tcp_loose=0",
    ))
}

/// Against UDP that nobody answers.
pub(super) fn with_udp_flood_remedies(
    finding: Finding,
    space: &ObservedNamespace,
    stats: Option<&SampleStats>,
) -> Finding {
    let here = || remedy::namespace_location(space);
    let port = stats.and_then(|stats| stats.major_port(UDP));
    let matched = port.map_or("meta l4proto udp".to_owned(), |port| format!("udp dport {port}"));
    let finding = finding
        .now(remedy::set_sysctl(here(), "nf_conntrack_udp_timeout", 10, "unanswered flows expire sooner"))
        .now(limit_rate(here(), &matched))
        .for_good(remedy::persist_sysctl(
            here(),
            "nf_conntrack_udp_timeout",
            10,
            "if answers come within 10 s, as they nearly always do",
        ));
    match port {
        Some(port) => finding.for_good(RemedyStep::command(
            here(),
            remedy::notrack_command("udp", &port.to_string()),
            "traffic that is not translated need not be tracked",
        )),
        None => finding,
    }
}

/// Against segments without a handshake.
pub(super) fn with_picked_up_remedies(finding: Finding, space: &ObservedNamespace) -> Finding {
    let here = || remedy::namespace_location(space);
    let (timeout, seconds) = ("nf_conntrack_tcp_timeout_unacknowledged", 30);
    finding
        .now(remedy::set_sysctl(
            here(),
            "nf_conntrack_tcp_loose",
            0,
            "segments without a handshake are INVALID and make no entry; connections that are open now keep theirs, those that come over another path are lost",
        ))
        .now(remedy::set_sysctl(here(), timeout, seconds, "what nobody acknowledges expires sooner"))
        .for_good(remedy::persist_sysctl(here(), "nf_conntrack_tcp_loose", 0, "if requests and replies always pass here both"))
        .for_good(RemedyStep::manual(
            StepLocation::Elsewhere("the routers".into()),
            "if replies take another path: make the routes symmetric, or do not track this traffic",
        ))
}

/// Against packets of another protocol that nobody answers.
pub(super) fn with_other_flood_remedies(finding: Finding, space: &ObservedNamespace, protocol: u8) -> Finding {
    let here = || remedy::namespace_location(space);
    // The words of nft, and the timeout of the first packet where there is one.
    let (matched, timeout) = match protocol {
        1 => ("meta l4proto icmp".to_owned(), Some(("nf_conntrack_icmp_timeout", 5))),
        58 => ("meta l4proto icmpv6".to_owned(), Some(("nf_conntrack_icmpv6_timeout", 5))),
        47 => ("meta l4proto gre".to_owned(), Some(("nf_conntrack_gre_timeout", 5))),
        136 => ("meta l4proto udplite".to_owned(), Some(("nf_conntrack_udp_timeout", 10))),
        // Its entries expire after three seconds.
        132 => ("meta l4proto sctp".to_owned(), None),
        other => (format!("meta l4proto {other}"), Some(("nf_conntrack_generic_timeout", 30))),
    };
    let why = "unanswered entries expire sooner";
    let finding = finding.now(limit_rate(here(), &matched));
    let finding = match timeout {
        Some((knob, seconds)) => finding.now(remedy::set_sysctl(here(), knob, seconds, why)).for_good(
            remedy::persist_sysctl(here(), knob, seconds, "if answers come within that time, as they nearly always do"),
        ),
        None => finding,
    };
    finding.for_good(RemedyStep::command(
        here(),
        format!("nft 'table inet untracked {{ chain pre {{ type filter hook prerouting priority -300; {matched} notrack; }}; }}'"),
        "what is not translated need not be tracked; rules that accept only established connections must then accept it explicitly",
    ))
}

/// Limits packets before they are tracked.
fn limit_rate(at: StepLocation, matched: &str) -> RemedyStep {
    RemedyStep::command(
        at,
        format!(
            "nft 'table inet flood_limit {{ chain pre {{ type filter hook prerouting priority -350; {matched} limit rate over 1000/second drop; }}; }}'"
        ),
        "limits these packets before they are tracked; replace 1000/second by a rate above your normal traffic",
    )
}
