//! A ruleset as it was read: typed and checked, names still names.
mod object;
mod selector;
mod set;
pub use object::*;
pub use selector::*;
pub use set::*;

use crate::datatype::DataType;
use crate::source::Span;
use keepstate_engine::{Manip, PortSelection};
use std::net::IpAddr;

/// Whose packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableFamily {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
}

/// A ruleset.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    /// Its tables, in their order.
    pub tables: Vec<Table>,
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its family.
    pub family: TableFamily,
    /// Its name.
    pub name: String,
    /// Its chains.
    pub chains: Vec<Chain>,
    /// Its named sets and maps.
    pub sets: Vec<Set>,
    /// Its named counters, quotas, limits, helpers, timeouts and synproxies.
    pub objects: Vec<Object>,
}

/// A chain.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where.
    pub span: Span,
    /// Where packets enter it by themselves.
    pub base: Option<BaseChainSpec>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// Where a chain stands on a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseChainSpec {
    /// Does it translate?
    pub nat: bool,
    /// The place.
    pub hook: Hook,
    /// The order among the chains there, lowest first.
    pub priority: i32,
    /// What becomes of what comes to its end: dropped, or not.
    pub policy_drop: bool,
}

/// A place on a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Where.
    pub span: Span,
    /// What it does, in order, until something does not match.
    pub statements: Vec<Statement>,
    /// What its author says of it.
    pub comment: Option<String>,
}

/// One thing that a rule does or asks.
#[derive(Clone, Debug)]
pub enum Statement {
    /// Goes on only if it is so.
    Match(Match),
    /// Counts packets and octets, from these on.
    Counter(u64, u64),
    /// Counts in a named counter, takes from a named quota or limit.
    ObjectRef(ObjectKind, String, Span),
    /// The same, the object found in a map.
    ObjectMap(ObjectKind, Vec<Expression>, SetRef),
    /// Goes on only within a rate (or, with `over`, only beyond it).
    Limit(Limit),
    /// Goes on only until (or, with `over`, only after) so many octets.
    Quota {
        /// Only beyond it.
        over: bool,
        /// Octets.
        bytes: u64,
    },
    /// Goes on only while (or, with `over`, once) there are so many connections.
    ConnLimit {
        /// More than it.
        over: bool,
        /// Connections.
        count: u32,
    },
    /// Writes a line.
    Log(Log),
    /// The packet is not tracked.
    Notrack,
    /// Sets something.
    Assign(AssignTarget, Expression),
    /// Blanks the option of TCP of this number.
    TcpOptStrip(u8),
    /// Attaches the helper of this named object.
    CtHelper(String, Span),
    /// Gives the connection the timeouts of this named object.
    CtTimeout(String, Span),
    /// Translates.
    Nat(Nat),
    /// Refuses with an answer.
    Reject(Reject),
    /// Answers handshakes in the server's name.
    Synproxy(SynproxyInfo),
    /// Asks a verdict map.
    Vmap(Vec<Expression>, SetRef),
    /// Adds to, refreshes in, or deletes from a named set.
    Dynset(Dynset),
    /// Ends the rule.
    Verdict(NftVerdict),
}

/// `left operator right`.
#[derive(Clone, Debug)]
pub struct Match {
    /// One value, or several put together.
    pub left: Vec<Expression>,
    /// Must it not be so?
    pub not: bool,
    /// What it is held against.
    pub right: MatchRhs,
}

/// What values are held against.
#[derive(Clone, Debug)]
pub enum MatchRhs {
    /// Each in its range; both ends belong to it.
    Ranges(Vec<(u128, u128)>),
    /// Any of these bits.
    AnyBit(u128),
    /// In the set.
    Set(SetRef),
}

/// A set: by its name, or written in place.
#[derive(Clone, Debug)]
pub enum SetRef {
    /// Named.
    Named(String, Span),
    /// In place.
    Anonymous(Box<Set>),
}

/// A value.
#[derive(Clone, Debug)]
pub enum Expression {
    /// Looked up in the packet.
    Select(Selector),
    /// Always the same.
    Constant(u128, DataType),
    /// `(of & and) ^ xor`.
    Bitwise(Box<Expression>, u128, u128),
    /// Shifted: to the left by a positive number.
    Shift(Box<Expression>, i8),
    /// Looked up in a map.
    Map(Vec<Expression>, SetRef),
    /// Counted round, or random, below a modulus.
    Numgen {
        /// Random, else one after the other.
        random: bool,
        /// Below this.
        modulus: u32,
        /// Added.
        offset: u32,
    },
    /// A hash below a modulus.
    Hash {
        /// Of these; of the whole connection without any.
        of: Vec<Expression>,
        /// Below this.
        modulus: u32,
        /// The seed; 0 stands for one that nobody knows.
        seed: u32,
        /// Added.
        offset: u32,
    },
}

impl Expression {
    /// What its value means.
    pub fn data_type(&self) -> DataType {
        match self {
            Expression::Select(selector) => selector.data_type(),
            Expression::Constant(_, kind) => *kind,
            Expression::Bitwise(of, ..) | Expression::Shift(of, _) => of.data_type(),
            Expression::Map(_, SetRef::Anonymous(map)) => {
                map.data.as_ref().and_then(|data| data.first()).copied().unwrap_or(DataType::Number(32))
            }
            Expression::Map(..) | Expression::Numgen { .. } | Expression::Hash { .. } => DataType::Number(32),
        }
    }
}

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum AssignTarget {
    MetaMark,
    MetaPriority,
    NfTrace,
    CtMark,
    CtZone,
    CtLabel,
    /// Of IPv6, or of IPv4.
    Dscp {
        v6: bool,
    },
    Ttl {
        v6: bool,
    },
    /// An address, without any translation of a connection.
    Address {
        v6: bool,
        endpoint: Endpoint,
    },
    /// A port of this protocol (of any that has ports), likewise.
    Port {
        protocol: Option<u8>,
        endpoint: Endpoint,
    },
    /// The greatest segment that SYNs announce; never raised.
    TcpMss,
    /// Bits of a header.
    Payload(PayloadField),
}

/// A translation.
#[derive(Clone, Debug)]
pub struct Nat {
    /// Which end.
    pub manip: Manip,
    /// To which address.
    pub target: NatTarget,
    /// To which ports.
    pub ports: Option<NatPorts>,
    /// How a port is chosen.
    pub port_selection: PortSelection,
    /// The same client gets the same address.
    pub persistent: bool,
    /// The address's prefix alone is replaced.
    pub netmap: bool,
}

/// The address of a translation.
#[derive(Clone, Debug)]
pub enum NatTarget {
    /// It keeps its own.
    Unchanged,
    /// One of these.
    Addresses(IpAddr, IpAddr),
    /// A value; of a map whose values may be ranges, or address and port.
    Value(Expression),
    /// The address of the device it leaves by.
    Masquerade,
    /// This machine.
    Redirect,
}

/// The ports of a translation.
#[derive(Clone, Debug)]
pub enum NatPorts {
    /// One of these.
    Range(u16, u16),
    /// A value.
    Value(Expression),
}

/// A rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Only what is beyond it.
    pub over: bool,
    /// How many …
    pub rate: u64,
    /// … in so many seconds.
    pub seconds: u64,
    /// How many more at once.
    pub burst: u64,
    /// Octets are counted, not packets.
    pub per_byte: bool,
}

/// A line for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// What it begins with.
    pub prefix: String,
    /// Its level, by syslog's number; 4 is a warning.
    pub level: Option<u8>,
    /// The group that would get it from a kernel (nfnetlink_log).
    pub group: Option<u16>,
}

/// An answer that refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// ICMP port unreachable of the packet's family.
    Default,
    /// A TCP reset.
    TcpReset,
    /// ICMP destination unreachable with this code.
    Icmp(u8),
    /// ICMPv6 destination unreachable with this code.
    Icmpv6(u8),
    /// Of the packet's family.
    Icmpx(Icmpx),
}

/// Reasons that both families have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum Icmpx {
    NoRoute,
    PortUnreachable,
    HostUnreachable,
    AdminProhibited,
}

/// What a packet's way is from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NftVerdict {
    /// Past this base chain.
    Accept,
    /// Gone.
    Drop,
    /// To the next rule.
    Continue,
    /// Back to where it was sent here from.
    Return,
    /// Through that chain, and back.
    Jump(String, Span),
    /// Through that chain, and not back.
    Goto(String, Span),
}
