//! The packet that an ICMP error quotes.
//!
//! It was cut short by whoever sent the error and may have been changed on its way, so that neither its length fields
//! nor its checksums nor its version are believed, as in Linux. What tracking needs of it is a tuple: addresses, protocol, the first transport octets.
use crate::extension::{self, Walk};
use crate::packet::addresses;
use crate::{Addresses, Family, Refusal};

/// The packet that an ICMP error quotes: an IP header and at least eight octets behind it, lengths not believed.
#[derive(Clone, Copy, Debug)]
pub struct Quote<'a> {
    /// Of the quoted packet, as quoted.
    pub addresses: Addresses,
    /// Transport protocol.
    pub protocol: u8,
    /// What is there of the transport header and beyond.
    pub transport: &'a [u8],
}

impl<'a> Quote<'a> {
    /// Reads the quote that begins at `bytes`, of the family of the error that carries it.
    pub fn parse(bytes: &'a [u8], family: Family) -> Result<Self, Refusal> {
        match family {
            Family::V4 => Self::parse_v4(bytes),
            Family::V6 => Self::parse_v6(bytes),
        }
    }

    fn parse_v4(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let Some(h) = bytes.first_chunk::<20>() else {
            return Err(Refusal::QuoteTruncated);
        };
        let header_len = usize::from(h[0] & 15) * 4;
        if header_len < 20 {
            return Err(Refusal::QuoteHeader);
        }
        if u16::from_be_bytes([h[6], h[7]]) & 0x1fff != 0 {
            return Err(Refusal::QuoteFragment);
        }
        let transport = bytes.get(header_len..).ok_or(Refusal::QuoteTruncated)?;
        Ok(Quote { addresses: addresses(bytes, Family::V4), protocol: h[9], transport })
    }

    fn parse_v6(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let Some(header) = bytes.first_chunk::<40>() else {
            return Err(Refusal::QuoteTruncated);
        };
        let end = extension::walk(bytes, 40, header[6], Walk::Through).map_err(|_| Refusal::QuoteTruncated)?;
        if end.fragment_at.is_some() {
            return Err(Refusal::QuoteFragment);
        }
        let transport = bytes.get(end.transport_at..).ok_or(Refusal::QuoteTruncated)?;
        Ok(Quote { addresses: addresses(bytes, Family::V6), protocol: end.protocol, transport })
    }

    /// The first four octets of the transport header, as two ports; `None` when they are not there.
    #[inline]
    pub fn ports(&self) -> Option<(u16, u16)> {
        let &[a, b, c, d] = self.transport.first_chunk()?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }
}
