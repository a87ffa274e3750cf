//! What is found: users of connection tracking, and what could not be checked. Plain types.
use super::listed_ruleset::CtFeature;
use crate::command::CommandError;

/// A user of connection tracking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CtUser {
    /// What it needs tracking for.
    pub kind: CtUserKind,
    /// The program that lists it: `nftables`, `iptables-legacy`, `tc`, …
    pub listed_by: &'static str,
    /// Where: table and chain, interface, process.
    pub location: String,
    /// Handle in nftables, number in its chain in iptables.
    pub number: Option<u64>,
    /// The rule, or other object, as its program prints it.
    pub description: String,
    /// The service that owns it, by the name of its chain or table.
    pub owner: Option<&'static str>,
    /// How certain that is.
    pub confidence: Confidence,
}

/// What a user needs connection tracking for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CtUserKind {
    /// A rule, or an object of a table.
    Rule(CtFeature),
    /// A service of IPVS.
    Ipvs,
    /// A flow of Open vSwitch, or its process.
    OpenVswitch,
    /// An action or a discipline of traffic control.
    TrafficControl,
    /// A BPF program that looks into the table.
    Bpf,
    /// A service that writes such rules.
    Service,
    /// A table of the type `nat` without a rule that translates: it only keeps tracking switched on.
    IdleNat,
    /// A rule that looks for untracked packets only, or asks for no tracking: it only keeps the module.
    UntrackedOnly,
}

/// How certain a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// It cannot be determined.
    Possible,
    /// By what the service usually does.
    Likely,
    /// It was observed.
    Certain,
}

/// Something that could not be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotChecked {
    /// What.
    pub what: String,
    /// The reason, and what to do.
    pub why: String,
}

impl CtUserKind {
    /// A stable name, for JSON.
    pub fn name(self) -> &'static str {
        match self {
            CtUserKind::Rule(CtFeature::State) => "state",
            CtUserKind::Rule(CtFeature::Match) => "match",
            CtUserKind::Rule(CtFeature::Mark) => "mark",
            CtUserKind::Rule(CtFeature::Label) => "label",
            CtUserKind::Rule(CtFeature::Helper) => "helper",
            CtUserKind::Rule(CtFeature::Timeout) => "timeout",
            CtUserKind::Rule(CtFeature::Expectation) => "expectation",
            CtUserKind::Rule(CtFeature::Zone) => "zone",
            CtUserKind::Rule(CtFeature::Limit) => "limit",
            CtUserKind::Rule(CtFeature::Nat) => "nat",
            CtUserKind::Rule(CtFeature::Synproxy) => "synproxy",
            CtUserKind::Rule(CtFeature::Flowtable) => "flowtable",
            CtUserKind::Rule(CtFeature::Unknown) => "unknown",
            CtUserKind::Rule(CtFeature::Notrack) => "notrack",
            CtUserKind::Ipvs => "ipvs",
            CtUserKind::OpenVswitch => "openvswitch",
            CtUserKind::TrafficControl => "tc",
            CtUserKind::Bpf => "bpf",
            CtUserKind::Service => "service",
            CtUserKind::IdleNat => "idle-nat",
            CtUserKind::UntrackedOnly => "harmless",
        }
    }

    /// What happens to it without tracking.
    pub fn impact(self) -> &'static str {
        match self {
            CtUserKind::Rule(CtFeature::State) => {
                "no packet has a state: what is let in as established is no longer let in"
            }
            CtUserKind::Rule(CtFeature::Match) => "the condition never holds",
            CtUserKind::Rule(CtFeature::Mark) => {
                "connections keep no mark: what is routed, shaped or accepted by it is not"
            }
            CtUserKind::Rule(CtFeature::Label) => "connections keep no label",
            CtUserKind::Rule(CtFeature::Helper) => "the data connections of FTP, SIP and the like are not recognised",
            CtUserKind::Rule(CtFeature::Timeout) => "there is nothing left to time out",
            CtUserKind::Rule(CtFeature::Expectation) => "no connection is expected",
            CtUserKind::Rule(CtFeature::Zone) => "overlapping addresses can no longer be told apart",
            CtUserKind::Rule(CtFeature::Limit) => "connections are not counted, and not limited",
            CtUserKind::Rule(CtFeature::Nat) => "addresses are not translated: connections through it end",
            CtUserKind::Rule(CtFeature::Synproxy) => "the server behind it cannot be reached",
            CtUserKind::Rule(CtFeature::Flowtable) => "the fast path is not used",
            CtUserKind::Rule(CtFeature::Unknown) => "unknown: the listing does not show what it does",
            CtUserKind::Ipvs => "virtual servers that masquerade, or are filtered by state, do not answer",
            CtUserKind::OpenVswitch => "flows that match ct_state or translate addresses drop packets",
            CtUserKind::TrafficControl => "what is classified or marked by connection is not",
            CtUserKind::Bpf => "the program finds no connection",
            CtUserKind::Service => "it writes rules that need tracking, at any time",
            CtUserKind::IdleNat => "nothing; but it keeps tracking switched on in this namespace",
            CtUserKind::UntrackedOnly | CtUserKind::Rule(CtFeature::Notrack) => {
                "nothing; but it keeps the module loaded"
            }
        }
    }

    /// Does it only keep tracking active, so that nothing breaks without it?
    pub fn is_idle(self) -> bool {
        matches!(self, CtUserKind::IdleNat | CtUserKind::UntrackedOnly | CtUserKind::Rule(CtFeature::Notrack))
    }
}

impl Confidence {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Confidence::Possible => "possible",
            Confidence::Likely => "likely",
            Confidence::Certain => "certain",
        }
    }
}

impl NotChecked {
    /// Not checked, because a program that lists it gave nothing.
    pub(super) fn command(what: &str, error: &CommandError) -> NotChecked {
        let why = match error {
            CommandError::NotInstalled(program) => format!("{program} is not installed: install it and run again"),
            CommandError::Failed { stderr, .. }
                if stderr.contains("ermission denied") || stderr.contains("ermitted") =>
            {
                format!("{error}; run as root (CAP_NET_ADMIN)")
            }
            other => other.to_string(),
        };
        NotChecked { what: what.to_owned(), why }
    }
}
