//! Attributes: a length, a kind, octets, padded to a multiple of four; nested ones hold attributes again.
//!
//! Reading borrows the octets and copies nothing; each length is checked before it is believed. A kind that is not known is for the
//! reader to pass over: newer kernels have more of them.
use super::MalformedNetlink;

/// The bit in an attribute's kind that says that it holds attributes.
pub const NLA_F_NESTED: u16 = 0x8000;
/// The bits of the kind that are flags.
const NLA_TYPE_FLAGS: u16 = 0xc000;
/// Length and kind.
const NLA_HEADER_LEN: usize = 4;

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NlAttr<'a> {
    /// Its kind, without flags.
    pub kind: u16,
    /// What it holds.
    pub payload: &'a [u8],
}

/// Attributes one after another, as they are read. After a malformed one there are no more.
#[derive(Clone, Debug)]
pub struct NlAttrs<'a> {
    rest: &'a [u8],
}

impl<'a> NlAttrs<'a> {
    /// The attributes in `octets`.
    ///
    /// ```
    /// use keepstate_linux::netlink::Attributes;
    /// let mut attributes = Attributes::new(&[5, 0, 1, 0, 42, 0, 0, 0]);
    /// let first = attributes.next().unwrap().unwrap();
    /// assert_eq!((first.kind, first.payload), (1, &[42][..]));
    /// assert!(attributes.next().is_none());
    /// ```
    pub fn new(octets: &'a [u8]) -> Self {
        NlAttrs { rest: octets }
    }
}

impl<'a> Iterator for NlAttrs<'a> {
    type Item = Result<NlAttr<'a>, MalformedNetlink>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let octets = std::mem::take(&mut self.rest);
        // Fewer octets than a header are padding.
        let (&[low, high, kind_low, kind_high], _) = octets.split_first_chunk::<NLA_HEADER_LEN>()?;
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let Some(payload) = octets.get(NLA_HEADER_LEN..length) else {
            return Some(Err(MalformedNetlink { what: "an attribute", length }));
        };
        self.rest = octets.get(nla_align(length)..).unwrap_or_default();
        Some(Ok(NlAttr { kind: u16::from_ne_bytes([kind_low, kind_high]) & !NLA_TYPE_FLAGS, payload }))
    }
}

impl<'a> NlAttr<'a> {
    /// The attributes inside.
    pub fn nested(&self) -> NlAttrs<'a> {
        NlAttrs::new(self.payload)
    }

    /// Exactly `N` octets. Longer ones are cut, as the kernel does with attributes that have grown.
    ///
    /// # Errors
    /// Where there are fewer.
    #[inline]
    pub fn bytes<const N: usize>(&self, what: &'static str) -> Result<[u8; N], MalformedNetlink> {
        self.payload.first_chunk().copied().ok_or(MalformedNetlink { what, length: self.payload.len() })
    }

    /// One octet.
    ///
    /// # Errors
    /// Where there is none.
    #[inline]
    pub fn u8(&self, what: &'static str) -> Result<u8, MalformedNetlink> {
        self.bytes::<1>(what).map(|[octet]| octet)
    }

    /// A number of two octets in network order.
    ///
    /// # Errors
    /// Where there are fewer.
    #[inline]
    pub fn be16(&self, what: &'static str) -> Result<u16, MalformedNetlink> {
        self.bytes(what).map(u16::from_be_bytes)
    }

    /// A number of four octets in network order.
    ///
    /// # Errors
    /// Where there are fewer.
    #[inline]
    pub fn be32(&self, what: &'static str) -> Result<u32, MalformedNetlink> {
        self.bytes(what).map(u32::from_be_bytes)
    }

    /// A number of eight octets in network order.
    ///
    /// # Errors
    /// Where there are fewer.
    #[inline]
    pub fn be64(&self, what: &'static str) -> Result<u64, MalformedNetlink> {
        self.bytes(what).map(u64::from_be_bytes)
    }

    /// Text up to its first zero; octets that are no UTF-8 become U+FFFD.
    pub fn text(&self) -> Box<str> {
        let end = self.payload.iter().position(|octet| *octet == 0).unwrap_or(self.payload.len());
        String::from_utf8_lossy(self.payload.get(..end).unwrap_or_default()).into()
    }
}

/// Appends one attribute with its padding.
pub fn push(octets: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    nest(octets, kind, |octets| octets.extend_from_slice(payload));
}

/// Appends one attribute that holds what `fill` appends. Attributes here are short: one longer than 65,535 octets is cut off.
pub fn nest(octets: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = octets.len();
    octets.extend_from_slice(&[0; NLA_HEADER_LEN]);
    fill(octets);
    octets.truncate(start + usize::from(u16::MAX));
    let length = u16::try_from(octets.len() - start).unwrap_or(u16::MAX).to_ne_bytes();
    let kind = kind.to_ne_bytes();
    if let Some(header) = octets.get_mut(start..start + NLA_HEADER_LEN) {
        header.copy_from_slice(&[length[0], length[1], kind[0], kind[1]]);
    }
    let end = start + nla_align(octets.len() - start);
    octets.resize(end, 0);
}

/// Lengths are padded to a multiple of four.
#[inline]
pub(super) const fn nla_align(length: usize) -> usize {
    length.next_multiple_of(4)
}
