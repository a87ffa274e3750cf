//! GRE (RFC 2784, 2890) and the enhanced GRE of PPTP (RFC 2637).
use crate::Refusal;

/// A GRE header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version: 0 plain, 1 enhanced.
    pub version: u8,
    /// EtherType of the payload.
    pub protocol: u16,
    /// The call id of enhanced GRE (version 1).
    pub call_id: Option<u16>,
}

impl Header {
    /// Reads the header in `transport`.
    pub fn parse(_transport: &[u8]) -> Result<Self, Refusal> { unimplemented!() }
}
