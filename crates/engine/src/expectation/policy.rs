//! What a rule expects of a new connection: nftables' `ct expectation`, for protocols without a helper.
//!
//! An [`ExpectationPolicy`] belongs to the ruleset. Applied to an unconfirmed connection it makes an expectation that waits with it in a [`PendingExpectations`], and enters the table when the
//! connection is confirmed: until then it matches nothing, as in Linux (`nf_ct_find_expectation`). If the connection is dropped, its expectations are gone with it.
use super::Expectation;
use alloc::vec::Vec;

/// An expected connection, as an object `ct expectation` describes it: from the server to the client of the connection that it is applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectationPolicy {
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port.
    pub port: u16,
    /// IPv6; else IPv4.
    pub v6: bool,
    /// How long it is waited for, in milliseconds.
    pub timeout_millis: u32,
    /// How many one connection may expect at a time.
    pub size: u8,
}

/// What has become of an expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectResult {
    /// It is made.
    Expected,
    /// It is none for this packet: there is no new connection, or it expects as many as it may. In Linux the rule ends.
    NotApplicable,
    /// Another connection's expectation overlaps it, or there is no room. In Linux the packet is dropped.
    Refused,
}

/// The expectations of an unconfirmed connection, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct PendingExpectations(pub(crate) Vec<Expectation>);
