//! A ruleset as far as it matters here: which packets a rule may match, what it decides, and what it needs of connection tracking.
//!
//! One model for nftables and iptables: made by their parsers, then only read. A condition that is not understood is kept as
//! [`RuleMatch::Unknown`], which may hold or not: it must never be left out, or a rule would seem to match more than it does.
use std::ops::RangeInclusive;

/// Who wrote a rule down, and who lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RulesetFormat {
    /// `nft`.
    Nftables,
    /// `iptables-nft` and `ip6tables-nft`: iptables' rules kept by nftables.
    IptablesNft,
    /// `iptables-legacy` and `ip6tables-legacy`.
    IptablesLegacy,
}

impl RulesetFormat {
    /// The name of the program that lists such rules.
    pub fn name(self) -> &'static str {
        match self {
            RulesetFormat::Nftables => "nftables",
            RulesetFormat::IptablesNft => "iptables-nft",
            RulesetFormat::IptablesLegacy => "iptables-legacy",
        }
    }
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTable {
    /// Whose it is.
    pub format: RulesetFormat,
    /// `ip`, `ip6`, `inet`, `bridge`, `arp`, `netdev`.
    pub family: String,
    /// Its name.
    pub name: String,
    /// Its chains, in the order they were listed.
    pub chains: Vec<ListedChain>,
    /// What else it holds that belongs to connection tracking: helpers, timeouts, flowtables.
    pub objects: Vec<ListedObject>,
}

/// A helper, a timeout policy, an expectation, a synproxy or a flowtable that a table declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    /// What it needs.
    pub ct_feature: CtFeature,
    /// Its type and name: `flowtable fast`.
    pub text: String,
}

/// One chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedChain {
    /// Its name.
    pub name: String,
    /// Where packets enter it by themselves, and when; `None` for a chain that is only jumped to.
    pub base: Option<ListedBaseChain>,
    /// Its rules, in order.
    pub rules: Vec<ListedRule>,
}

/// What makes a chain a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedBaseChain {
    /// `prerouting`, `input`, `forward`, `output`, `postrouting`, `ingress`, `egress`.
    pub hook: String,
    /// Is it of the type `nat`? Then only the first packet of a connection comes by.
    pub is_nat: bool,
    /// Lower ones come first.
    pub priority: i64,
    /// What becomes of a packet at its end: accepted, or dropped.
    pub policy_accept: bool,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedRule {
    /// Its handle in nftables; its number in its chain, from 1, in iptables.
    pub number: u64,
    /// As its program prints it.
    pub text: String,
    /// What must hold, all of it, for the rule to decide anything.
    pub matches: Vec<RuleMatch>,
    /// What it decides: the first branch whose test holds. None for a rule that only counts or marks.
    pub branches: Vec<VerdictBranch>,
    /// What it needs of connection tracking.
    pub ct_features: Vec<CtFeature>,
    /// The ports it translates to, where it names them.
    pub nat_ports: Vec<RangeInclusive<u16>>,
}

/// One way out of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictBranch {
    /// The condition beside the rule's own; none for the plain verdict of a rule.
    pub condition: Option<RuleMatch>,
    /// What is decided.
    pub verdict: ListedVerdict,
}

/// What a rule decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListedVerdict {
    /// This chain's hook lets it pass.
    Accept,
    /// Dropped or rejected.
    Drop,
    /// Goes on in another chain, and comes back at its end.
    Jump(String),
    /// Goes on in another chain, and does not come back here.
    Goto(String),
    /// Back to where it came from.
    Return,
    /// Taken away from here: to user space, to another device. What becomes of it is not known.
    Unknown,
}

/// A condition on a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleMatch {
    /// The protocol is one of these; `not`: none of them.
    Protocol {
        /// Names as in `/etc/protocols`.
        names: Vec<String>,
        /// The opposite is asked for.
        not: bool,
    },
    /// A port is one of these.
    Port {
        /// Which of the two.
        side: PortSide,
        /// The ports.
        ports: Vec<RangeInclusive<u16>>,
        /// The opposite is asked for.
        not: bool,
    },
    /// The state of the connection is one of these: `new`, `established`, `related`, `invalid`, `untracked`.
    CtState {
        /// In lower case.
        states: Vec<String>,
        /// The opposite is asked for.
        not: bool,
    },
    /// A segment of TCP that does not open a connection: anything but a SYN alone.
    NotSyn,
    /// Something else of the connection; an untracked packet has none, so this never holds for it.
    CtField,
    /// Something that is not understood here, and may hold or not.
    Unknown,
}

/// An end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortSide {
    /// The source port.
    Source,
    /// The destination port.
    Destination,
    /// Either.
    Any,
}

/// What a rule or an object needs of connection tracking; the weightier, the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CtFeature {
    /// Asks for packets not to be tracked: it loses nothing.
    Notrack,
    /// Some use that the program at hand does not print.
    Unknown,
    /// Matches the state of the connection.
    State,
    /// Matches something else that tracking knows.
    Match,
    /// The mark that is kept with a connection.
    Mark,
    /// Labels kept with a connection.
    Label,
    /// A helper, such as FTP's.
    Helper,
    /// A timeout policy.
    Timeout,
    /// An expectation.
    Expectation,
    /// Puts packets into a zone.
    Zone,
    /// Limits the number of connections.
    Limit,
    /// Translates addresses.
    Nat,
    /// Answers for a server, and hands over what it accepted.
    Synproxy,
    /// Fast path of tracked connections.
    Flowtable,
}

impl RuleMatch {
    /// The opposite of the test where it has one.
    pub fn negate_if(self, negate: bool) -> RuleMatch {
        match self {
            RuleMatch::Protocol { names, not } => RuleMatch::Protocol { names, not: not != negate },
            RuleMatch::Port { side: end, ports, not } => RuleMatch::Port { side: end, ports, not: not != negate },
            RuleMatch::CtState { states, not } => RuleMatch::CtState { states, not: not != negate },
            other => other,
        }
    }
}

/// The name of a protocol that may be given by number.
pub fn protocol_name(text: &str) -> String {
    let name = match text {
        "6" => "tcp",
        "17" => "udp",
        "33" => "dccp",
        "132" => "sctp",
        "136" => "udplite",
        other => other,
    };
    name.to_ascii_lowercase()
}
