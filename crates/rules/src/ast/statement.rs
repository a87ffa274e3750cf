//! Rules and their statements: matches, NAT, set updates, and everything else a rule consists of.
use super::action::{AssignTarget, Limit, Log, NftVerdict, Reject, SecMarkCopy, StatefulSpec};
use super::expression::Expression;
use super::object::SynproxyInfo;
use super::queue::QueueSpec;
use super::set::SetRef;
use crate::datatype::ObjectKind;
use crate::source::Span;
use keepstate_engine::{Manip, PortSelection};
use std::net::IpAddr;

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Place in the text.
    pub span: Span,
    /// Statements, in order; the first that does not match ends the rule.
    pub statements: Vec<Statement>,
    /// Place of each statement in the text.
    pub places: Vec<Span>,
    /// Number by which commands name it.
    pub handle: u64,
    /// Sets written in it, which take a handle each, before the rule's own.
    pub anonymous_sets: u64,
    /// How often `replace rule` has replaced it: the handle stays, its counters do not.
    pub replaced: u32,
    /// As written, on one line and with variables replaced by their values.
    pub text: String,
    /// Comment.
    pub comment: Option<String>,
}

impl Rule {
    /// The rules of the chains without a name that stand in it.
    pub fn nested_rules(&self) -> impl Iterator<Item = &Rule> {
        self.statements.iter().flat_map(|statement| match statement {
            Statement::AnonymousChain(chain) => chain.rules.as_slice(),
            _ => &[],
        })
    }

    /// Gives it the next handle, if it has none.
    pub(crate) fn assign_handle(&mut self, handles: &mut u64) {
        if self.handle == 0 {
            for statement in &mut self.statements {
                if let Statement::AnonymousChain(chain) = statement {
                    // The chain takes one too.
                    *handles += 1;
                    chain.rules.iter_mut().for_each(|rule| rule.assign_handle(handles));
                }
            }
            *handles += self.anonymous_sets + 1;
            self.handle = *handles;
        }
    }
}

/// One statement of a rule.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Statement {
    /// Continues only if the comparison holds.
    Match(Match),
    /// Counts packets and bytes, starting from these.
    Counter(u64, u64),
    /// Uses a named counter, quota, limit or synproxy.
    ObjectRef(ObjectKind, String, Span),
    /// The same, with the object looked up in a map.
    ObjectMap(ObjectKind, Vec<Expression>, SetRef),
    /// Continues only within a rate (with `over`: only beyond it).
    Limit(Limit),
    /// Continues only until a byte quota is used up (with `over`: only afterwards).
    Quota {
        /// Match only beyond the quota.
        over: bool,
        /// Bytes.
        bytes: u64,
        /// Of which this many were used when the text was written.
        used: u64,
    },
    /// Continues only up to a number of connections (with `over`: only above it).
    ConnLimit {
        /// Match only above the number.
        over: bool,
        /// Connections.
        count: u32,
    },
    /// Writes a log line.
    Log(Log),
    /// Excludes the packet from connection tracking.
    Notrack,
    /// Sets a mark, a header field, ….
    Assign(AssignTarget, Expression),
    /// Replaces the TCP option of this number by no-operations.
    TcpOptStrip(u8),
    /// Attaches the connection tracking helper of this named object.
    CtHelper(String, Span),
    /// Attaches the timeout policy of this named object.
    CtTimeout(String, Span),
    /// Expects the connection of this named object.
    CtExpectation(String, Span),
    /// Gives the connection to a flowtable: the fast path does that by itself.
    FlowOffload(String, Span),
    /// Remembers when it was reached last; no packet is treated differently.
    Last,
    /// Translates addresses or ports.
    Nat(Nat),
    /// Drops the packet and sends an error.
    Reject(Reject),
    /// Copies a security mark; there are none here.
    SecMark(SecMarkCopy),
    /// Gives the packet to a program.
    Queue(QueueSpec),
    /// Gives the packet to a transparent proxy.
    Tproxy(TproxySpec),
    /// Sends a copy of the packet to a gateway.
    Dup {
        /// The gateway's address.
        to: Expression,
        /// The interface that it is behind, by name.
        device: Option<String>,
    },
    /// Answers TCP handshakes for the server.
    Synproxy(SynproxyInfo),
    /// Looks up a verdict map.
    Vmap(Vec<Expression>, SetRef),
    /// Adds to, updates, or deletes from a named set.
    Dynset(Dynset),
    /// Ends the rule.
    Verdict(NftVerdict),
    /// Runs rules that stand in the rule itself, a chain without a name.
    AnonymousChain(AnonymousChain),
}

/// `jump { … }` or `goto { … }`.
#[derive(Clone, Debug)]
pub struct AnonymousChain {
    /// Written with `jump`: comes back behind its last rule.
    pub comes_back: bool,
    /// Rules.
    pub rules: Vec<Rule>,
    /// Where its rules stand in the text of the rule that it belongs to, which leaves them out: the number of bytes before them.
    pub text_offset: usize,
}

/// `left operator right`.
#[derive(Clone, Debug)]
pub struct Match {
    /// One value, or the parts of a concatenation.
    pub left: Vec<Expression>,
    /// The result is negated.
    pub not: bool,
    /// Right-hand side.
    pub right: MatchRhs,
    /// How it was written, if as a comparison; `right` says which values that are.
    pub order: Option<Order>,
}

/// `<`, `<=`, `>` or `>=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the operators")]
pub enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Right-hand side of a match.
#[derive(Clone, Debug)]
pub enum MatchRhs {
    /// A range for each part, both ends included.
    Ranges(Vec<(u128, u128)>),
    /// At least one of these bits.
    AnyBit(u128),
    /// An element of the set.
    Set(SetRef),
}

/// A NAT statement.
#[derive(Clone, Debug)]
pub struct Nat {
    /// Source or destination.
    pub manip: Manip,
    /// Family as written (`dnat ip6 to …`): is it IPv6?
    pub v6: Option<bool>,
    /// New address.
    pub target: NatTarget,
    /// New port.
    pub ports: Option<NatPorts>,
    /// How a port is chosen.
    pub port_selection: PortSelection,
    /// Written as `fully-random`, which means `random` since Linux 5.0.
    pub fully_random: bool,
    /// The same client always gets the same address.
    pub persistent: bool,
    /// Only the prefix of the address is replaced.
    pub netmap: bool,
}

/// Gives the packet to the socket of a transparent proxy; if none is there, the rule does not match.
#[derive(Clone, Debug)]
pub struct TproxySpec {
    /// Family as written (`tproxy ip6 to …`): is it IPv6?
    pub v6: Option<bool>,
    /// The proxy's address; unchanged is the first of the interface that the packet came in by.
    pub target: NatTarget,
    /// The proxy's port; without one it is the packet's own.
    pub port: Option<NatPorts>,
}

/// The address of a NAT statement.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NatTarget {
    /// The address is not changed.
    Unchanged,
    /// One of a range.
    Addresses(IpAddr, IpAddr),
    /// A value; a map's values may be ranges, or address and port.
    Value(Expression),
    /// The address of the outgoing interface.
    Masquerade,
    /// This machine.
    Redirect,
}

/// The port of a NAT statement.
#[derive(Clone, Debug)]
pub enum NatPorts {
    /// One of a range.
    Range(u16, u16),
    /// A value.
    Value(Expression),
}

/// A change of a named set by a packet.
#[derive(Clone, Debug)]
pub struct Dynset {
    /// Operation.
    pub op: DynsetOp,
    /// Name of the set.
    pub set: String,
    /// Place of the name.
    pub span: Span,
    /// The set belongs to this `meter` statement and holds at most this many elements.
    pub meter_size: Option<u32>,
    /// Key of the element.
    pub key: Vec<Expression>,
    /// Timeout in seconds.
    pub timeout: Option<u64>,
    /// Limits, quotas, counters and connection limits of each element.
    pub stateful: Vec<StatefulSpec>,
    /// Value, for a map.
    pub data: Vec<Expression>,
}

/// See [`Dynset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum DynsetOp {
    Add,
    Update,
    Delete,
}
