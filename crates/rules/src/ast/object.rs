//! Named objects that rules share.
use super::action::Limit;
use crate::source::Span;
use keepstate_engine::{ExpectationPolicy, Sysctl};

/// A named object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Name.
    pub name: String,
    /// Place in the text.
    pub span: Span,
    /// Kind and contents.
    pub body: ObjectBody,
    /// Its contents as written, on one line.
    pub text: String,
    /// Number by which commands name it.
    pub handle: u64,
}

/// Kind and contents of a named object.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ObjectBody {
    /// A counter: packets and bytes.
    Counter(u64, u64),
    /// A byte quota.
    Quota {
        /// Match only beyond the quota.
        over: bool,
        /// Bytes.
        bytes: u64,
        /// Of which this many were used when the text was written.
        used: u64,
    },
    /// A rate limit.
    Limit(Limit),
    /// A connection tracking helper: the kernel's name, and the transport protocol.
    CtHelper(String, u8),
    /// A timeout policy.
    CtTimeout(CtTimeoutPolicy),
    /// A connection that is expected of another.
    CtExpectation(ExpectationPolicy),
    /// A security context.
    SecMark(String),
    /// Options of a SYN proxy.
    Synproxy(SynproxyInfo),
}

impl ObjectBody {
    /// How the object is declared in a table.
    pub fn keyword(&self) -> &'static str {
        match self {
            ObjectBody::Counter(..) => "counter",
            ObjectBody::Quota { .. } => "quota",
            ObjectBody::Limit(_) => "limit",
            ObjectBody::CtHelper(..) => "ct helper",
            ObjectBody::CtTimeout(_) => "ct timeout",
            ObjectBody::CtExpectation(_) => "ct expectation",
            ObjectBody::SecMark(_) => "secmark",
            ObjectBody::Synproxy(_) => "synproxy",
        }
    }
}

/// The TCP options that a SYN proxy offers to clients; a client gets at most those it asked for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynproxyInfo {
    /// MSS.
    pub mss: Option<u16>,
    /// Window scale; must be the server's own.
    pub wscale: Option<u8>,
    /// Timestamps.
    pub timestamp: bool,
    /// Selective acknowledgements.
    pub sack: bool,
}

/// Connection timeouts for one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CtTimeoutPolicy {
    /// IP protocol number of TCP or UDP.
    pub protocol: u8,
    /// IPv6 only (with `false`: IPv4 only).
    pub v6: Option<bool>,
    /// By state: the engine's sysctl for it, and seconds.
    pub seconds: Vec<(Sysctl, u32)>,
}
