//! ICMP (RFC 792) and ICMPv6 (RFC 4443): the fixed header.
use crate::Refusal;

/// Where in its body a redirect's options begin: behind two addresses.
const REDIRECT_OPTIONS: usize = 32;

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

    /// The packet that an ICMPv6 redirect quotes (RFC 4861, 4.5 and 4.6.3). `None` if the first option is another: Linux looks at the first only,
    /// and does not believe its length, but that it must not be zero.
    pub fn redirected(&self) -> Result<Option<&'a [u8]>, Refusal> {
        const REDIRECTED_HEADER: u8 = 4;
        match self.body.get(REDIRECT_OPTIONS..REDIRECT_OPTIONS + 2) {
            Some(&[_, 0]) | None => Err(Refusal::IcmpTruncated),
            Some(&[REDIRECTED_HEADER, _]) => Ok(Some(self.body.get(REDIRECT_OPTIONS + 8..).unwrap_or_default())),
            Some(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn only_the_first_option_of_a_redirect_is_looked_at() {
        let redirect = |options: &[u8]| {
            let mut octets = vec![0; 40];
            octets.extend(options);
            let message = Message::parse(&octets).unwrap();
            message.redirected().map(|quote| quote.map(<[u8]>::len))
        };
        assert_eq!(redirect(&[]), Err(Refusal::IcmpTruncated));
        assert_eq!(redirect(&[4]), Err(Refusal::IcmpTruncated));
        assert_eq!(redirect(&[4, 0, 0, 0, 0, 0, 0, 0, 6]), Err(Refusal::IcmpTruncated));
        assert_eq!(redirect(&[4, 99, 0, 0, 0, 0, 0, 0, 6, 6, 6]), Ok(Some(3)));
        assert_eq!(redirect(&[4, 1]), Ok(Some(0)));
        assert_eq!(redirect(&[2, 1, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 6]), Ok(None));
    }
}
