//! ICMP (RFC 792) and ICMPv6 (RFC 4443): the fixed header.
use crate::ParseError;

/// Where in its body a redirect's options begin: behind two addresses.
const REDIRECT_OPTIONS_AT: usize = 32;

/// The first eight octets of a message.
#[derive(Clone, Copy, Debug)]
pub struct IcmpMessage<'a> {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The identifier of queries (octets 4 and 5).
    pub id: u16,
    /// What follows the eight octets: of an error, the quoted packet.
    pub body: &'a [u8],
}

impl<'a> IcmpMessage<'a> {
    /// Reads the header in `transport`; eight octets must be there.
    #[inline]
    pub fn parse(transport: &'a [u8]) -> Result<Self, ParseError> {
        let Some((&[kind, code, _, _, a, b, _, _], body)) = transport.split_first_chunk::<8>() else {
            return Err(ParseError::IcmpTruncated);
        };
        Ok(IcmpMessage { kind, code, id: u16::from_be_bytes([a, b]), body })
    }

    /// The packet that an ICMPv6 redirect quotes (RFC 4861, 4.5 and 4.6.3). `None` if the first option is another: Linux looks at the first only,
    /// and does not believe its length, but that it must not be zero.
    pub fn redirected_packet(&self) -> Result<Option<&'a [u8]>, ParseError> {
        const REDIRECTED_HEADER: u8 = 4;
        match self.body.get(REDIRECT_OPTIONS_AT..REDIRECT_OPTIONS_AT + 2) {
            Some(&[_, 0]) | None => Err(ParseError::IcmpTruncated),
            Some(&[REDIRECTED_HEADER, _]) => Ok(Some(self.body.get(REDIRECT_OPTIONS_AT + 8..).unwrap_or_default())),
            Some(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn only_the_first_redirect_option_is_read() {
        let redirect = |options: &[u8]| {
            let mut octets = vec![0; 40];
            octets.extend(options);
            let message = IcmpMessage::parse(&octets).unwrap();
            message.redirected_packet().map(|quote| quote.map(<[u8]>::len))
        };
        assert_eq!(redirect(&[]), Err(ParseError::IcmpTruncated));
        assert_eq!(redirect(&[4]), Err(ParseError::IcmpTruncated));
        assert_eq!(redirect(&[4, 0, 0, 0, 0, 0, 0, 0, 6]), Err(ParseError::IcmpTruncated));
        assert_eq!(redirect(&[4, 99, 0, 0, 0, 0, 0, 0, 6, 6, 6]), Ok(Some(3)));
        assert_eq!(redirect(&[4, 1]), Ok(Some(0)));
        assert_eq!(redirect(&[2, 1, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 6]), Ok(None));
    }
}
