//! ICMP (RFC 792) and ICMPv6 (RFC 4443): the fixed header.
use crate::Refusal;

/// The first eight octets of a message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The identifier of queries (octets 4 and 5).
    pub id: u16,
    /// What follows the eight octets: of an error, the quoted packet.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads the header in `transport`; eight octets must be there.
    #[inline]
    pub fn parse(transport: &'a [u8]) -> Result<Self, Refusal> {
        let Some((&[kind, code, _, _, a, b, _, _], body)) = transport.split_first_chunk::<8>() else {
            return Err(Refusal::IcmpTruncated);
        };
        Ok(Message { kind, code, id: u16::from_be_bytes([a, b]), body })
    }
}
