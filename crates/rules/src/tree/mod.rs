//! A ruleset as it was read: typed and checked, names still names.
mod select;
pub use select::*;

use crate::kind::Kind;
use crate::source::Span;
use keepstate_engine::{Choice, Knob, Manip};
use std::net::IpAddr;

/// Whose packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
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
    pub family: Family,
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
    pub base: Option<Base>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// Where a chain stands on a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Does it translate?
    pub nat: bool,
    /// The place.
    pub hook: Hook,
    /// The order among the chains there, lowest first.
    pub priority: i32,
    /// What becomes of what comes to its end: dropped, or not.
    pub drops: bool,
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
    Object(ObjectKind, String, Span),
    /// Goes on only within a rate (or, with `over`, only beyond it).
    Limit(Limit),
    /// Goes on only until (or, with `over`, only after) so many octets.
    Quota {
        /// Only beyond it.
        over: bool,
        /// Octets.
        octets: u64,
    },
    /// Goes on only while (or, with `over`, once) there are so many connections.
    Connections {
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
    Set(Target, Expression),
    /// Attaches the helper of this named object.
    Helper(String, Span),
    /// Gives the connection the timeouts of this named object.
    Timeout(String, Span),
    /// Translates.
    Nat(Nat),
    /// Refuses with an answer.
    Reject(Reject),
    /// Answers handshakes in the server's name.
    Synproxy(Synproxy),
    /// Asks a verdict map.
    Vmap(Vec<Expression>, SetRef),
    /// Adds to, refreshes in, or deletes from a named set.
    Dynamic(Dynamic),
    /// Ends the rule.
    Verdict(Verdict),
}

/// `left operator right`.
#[derive(Clone, Debug)]
pub struct Match {
    /// One value, or several put together.
    pub left: Vec<Expression>,
    /// Must it not be so?
    pub not: bool,
    /// What it is held against.
    pub right: Right,
}

/// What values are held against.
#[derive(Clone, Debug)]
pub enum Right {
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
    Here(Box<Set>),
}

/// A value.
#[derive(Clone, Debug)]
pub enum Expression {
    /// Looked up in the packet.
    Select(Selector),
    /// Always the same.
    Constant(u128, Kind),
    /// `(of & and) ^ xor`.
    Bits(Box<Expression>, u128, u128),
    /// Shifted: to the left by a positive number.
    Shift(Box<Expression>, i8),
    /// Looked up in a map.
    Map(Vec<Expression>, SetRef),
    /// Counted round, or random, below a modulus.
    Number {
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
    pub fn kind(&self) -> Kind {
        match self {
            Expression::Select(selector) => selector.kind(),
            Expression::Constant(_, kind) => *kind,
            Expression::Bits(of, ..) | Expression::Shift(of, _) => of.kind(),
            Expression::Map(_, SetRef::Here(map)) => {
                map.data.as_ref().and_then(|data| data.first()).copied().unwrap_or(Kind::Number(32))
            }
            Expression::Map(..) | Expression::Number { .. } | Expression::Hash { .. } => Kind::Number(32),
        }
    }
}

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum Target {
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
        end: End,
    },
    /// A port of this protocol (of any that has ports), likewise.
    Port {
        protocol: Option<u8>,
        end: End,
    },
    /// The greatest segment that SYNs announce; never raised.
    MaxSegment,
}

/// A translation.
#[derive(Clone, Debug)]
pub struct Nat {
    /// Which end.
    pub manip: Manip,
    /// To which address.
    pub to: To,
    /// To which ports.
    pub ports: Option<Ports>,
    /// How a port is chosen.
    pub choice: Choice,
    /// The same client gets the same address.
    pub persistent: bool,
    /// The address's prefix alone is replaced.
    pub prefix: bool,
}

/// The address of a translation.
#[derive(Clone, Debug)]
pub enum To {
    /// It keeps its own.
    Kept,
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
pub enum Ports {
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
    pub octets: bool,
}

/// A line for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// What it begins with.
    pub prefix: String,
    /// Its level, by syslog's number; 4 is a warning.
    pub level: Option<u8>,
}

/// An answer that refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// ICMP port unreachable of the packet's family.
    Default,
    /// A TCP reset.
    Reset,
    /// ICMP destination unreachable with this code.
    Icmp(u8),
    /// ICMPv6 destination unreachable with this code.
    Icmp6(u8),
    /// Of the packet's family.
    Icmpx(Icmpx),
}

/// Reasons that both families have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum Icmpx {
    NoRoute,
    Port,
    Host,
    Admin,
}

/// What a packet's way is from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
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

/// A change of a named set by a packet.
#[derive(Clone, Debug)]
pub struct Dynamic {
    /// What is done.
    pub operation: Operation,
    /// The set.
    pub set: String,
    /// Where it is named.
    pub span: Span,
    /// The element.
    pub key: Vec<Expression>,
    /// How long it stays, in seconds.
    pub timeout: Option<u64>,
    /// What each element has of its own: a limit, a counter, a number of connections.
    pub each: Vec<Statement>,
}

/// See [`Dynamic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum Operation {
    Add,
    Update,
    Delete,
}

/// A set or a map.
#[derive(Clone, Debug, Default)]
pub struct Set {
    /// Its name; empty in place.
    pub name: String,
    /// What its keys are made of.
    pub key: Vec<Kind>,
    /// What its values are made of; `None` for a set, empty for verdicts.
    pub data: Option<Vec<Kind>>,
    /// May packets change it?
    pub dynamic: bool,
    /// How long elements stay, in seconds.
    pub timeout: Option<u64>,
    /// At most so many elements.
    pub size: Option<u32>,
    /// Are overlapping ranges put together?
    pub merges: bool,
    /// Its elements.
    pub elements: Vec<Element>,
}

/// An element.
#[derive(Clone, Debug)]
pub struct Element {
    /// Where.
    pub span: Span,
    /// A range for each part; `None` for what no other element has.
    pub key: Option<Vec<(u128, u128)>>,
    /// What it maps to.
    pub data: Option<Data>,
    /// How long it stays, in seconds.
    pub timeout: Option<u64>,
}

/// What an element maps to.
#[derive(Clone, Debug)]
pub enum Data {
    /// A range for each part.
    Values(Vec<(u128, u128)>),
    /// A verdict.
    Verdict(Verdict),
}

/// A named object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// Where.
    pub span: Span,
    /// What it is.
    pub what: ObjectBody,
}

/// What a named object is.
#[derive(Clone, Debug)]
pub enum ObjectBody {
    /// Packets and octets.
    Counter(u64, u64),
    /// Octets.
    Quota {
        /// Only beyond it.
        over: bool,
        /// Octets.
        octets: u64,
    },
    /// A rate.
    Limit(Limit),
    /// A helper by the kernel's name, and its protocol.
    Helper(String, u8),
    /// Timeouts of connections of one protocol.
    Timeout(Timeout),
    /// What clients are promised.
    Synproxy(Synproxy),
}

/// What clients are promised while their handshakes are answered in their server's name: at most what they have asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Synproxy {
    /// The largest segment.
    pub mss: Option<u16>,
    /// The window's scale; it must be the server's own.
    pub wscale: Option<u8>,
    /// Timestamps.
    pub timestamp: bool,
    /// Selective acknowledgements.
    pub sack: bool,
}

/// See [`ObjectBody::Timeout`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// The transport protocol's number: TCP or UDP.
    pub protocol: u8,
    /// Of IPv6 (or, with `false`, IPv4) only.
    pub v6: Option<bool>,
    /// By state: the engine's knob for it, and seconds.
    pub seconds: Vec<(Knob, u32)>,
}

/// Which kind of object a rule names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum ObjectKind {
    Counter,
    Quota,
    Limit,
    Synproxy,
}
