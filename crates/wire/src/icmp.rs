//! ICMP (RFC 792) and ICMPv6 (RFC 4443) messages.
use crate::ParseError;

/// Offset of the options in the body of an ICMPv6 redirect: after two addresses.
const REDIRECT_OPTIONS_AT: usize = 32;

/// A message: the fixed header of eight bytes, and its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IcmpMessage<'a> {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The identifier of a query (bytes 4 and 5).
    pub id: u16,
    /// The bytes after the header; in an error, the packet that caused it ([`InnerPacket`](crate::InnerPacket)).
    pub body: &'a [u8],
}

impl<'a> IcmpMessage<'a> {
    /// Parses the message in `transport`.
    ///
    /// # Errors
    /// [`ParseError::IcmpTruncated`] under eight bytes.
    #[inline]
    pub fn parse(transport: &'a [u8]) -> Result<Self, ParseError> {
        let Some((&[kind, code, _, _, a, b, _, _], body)) = transport.split_first_chunk::<8>() else {
            return Err(ParseError::IcmpTruncated);
        };
        Ok(IcmpMessage { kind, code, id: u16::from_be_bytes([a, b]), body })
    }

    /// The packet inside an ICMPv6 redirect (RFC 4861, sections 4.5 and 4.6.3). `None` if the first option is not the redirected
    /// header. Like Linux it reads the first option only, and ignores its length unless that is zero.
    ///
    /// # Errors
    /// [`ParseError::IcmpTruncated`] if there is no option, or one of length zero.
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
            let mut bytes = vec![0; 40];
            bytes.extend(options);
            let message = IcmpMessage::parse(&bytes).unwrap();
            message.redirected_packet().map(|inner| inner.map(<[u8]>::len))
        };
        assert_eq!(redirect(&[]), Err(ParseError::IcmpTruncated));
        assert_eq!(redirect(&[4]), Err(ParseError::IcmpTruncated));
        assert_eq!(redirect(&[4, 0, 0, 0, 0, 0, 0, 0, 6]), Err(ParseError::IcmpTruncated));
        assert_eq!(redirect(&[4, 99, 0, 0, 0, 0, 0, 0, 6, 6, 6]), Ok(Some(3)));
        assert_eq!(redirect(&[4, 1]), Ok(Some(0)));
        assert_eq!(redirect(&[2, 1, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 6]), Ok(None));
    }
}
