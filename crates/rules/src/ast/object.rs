//! Named objects: what rules share.
use super::Limit;
use crate::source::Span;
use keepstate_engine::Sysctl;

/// A named object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// Where.
    pub span: Span,
    /// What it is.
    pub body: ObjectBody,
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
        bytes: u64,
    },
    /// A rate.
    Limit(Limit),
    /// A helper by the kernel's name, and its protocol.
    CtHelper(String, u8),
    /// Timeouts of connections of one protocol.
    CtTimeout(CtTimeoutPolicy),
    /// What clients are promised.
    Synproxy(SynproxyInfo),
}

/// What clients are promised while their handshakes are answered in their server's name: at most what they have asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynproxyInfo {
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
pub struct CtTimeoutPolicy {
    /// The transport protocol's number: TCP or UDP.
    pub protocol: u8,
    /// Of IPv6 (or, with `false`, IPv4) only.
    pub v6: Option<bool>,
    /// By state: the engine's knob for it, and seconds.
    pub seconds: Vec<(Sysctl, u32)>,
}

/// Which kind of object a rule names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum ObjectKind {
    Counter,
    Quota,
    Limit,
    Synproxy,
}
