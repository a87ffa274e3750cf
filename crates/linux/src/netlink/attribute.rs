//! Attributes: a length, a kind, octets, padded to a multiple of four; nested ones hold attributes again.
//!
//! Reading borrows the octets and copies nothing; each length is checked before it is believed. A kind that is not known is for the
//! reader to pass over: newer kernels have more of them.
use super::Malformed;

/// The bit in an attribute's kind that says that it holds attributes.
pub const NESTED: u16 = 0x8000;
/// The bits of the kind that are flags.
const FLAGS: u16 = 0xc000;
/// Length and kind.
const HEADER: usize = 4;

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its kind, without flags.
    pub kind: u16,
    /// What it holds.
    pub payload: &'a [u8],
}

/// Attributes one after another, as they are read. After a malformed one there are no more.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
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
        Attributes { rest: octets }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let octets = std::mem::take(&mut self.rest);
        // Fewer octets than a header are padding.
        let (&[low, high, kind_low, kind_high], _) = octets.split_first_chunk::<HEADER>()?;
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let Some(payload) = octets.get(HEADER..length) else {
            return Some(Err(Malformed { what: "an attribute", length }));
        };
        self.rest = octets.get(padded(length)..).unwrap_or_default();
        Some(Ok(Attribute { kind: u16::from_ne_bytes([kind_low, kind_high]) & !FLAGS, payload }))
    }
}

impl<'a> Attribute<'a> {
    /// The attributes inside.
    pub fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.payload)
    }

    /// Exactly `N` octets. Longer ones are cut, as the kernel does with attributes that have grown.
    ///
    /// # Errors
    /// Where there are fewer.
    #[inline]
    pub fn octets<const N: usize>(&self, what: &'static str) -> Result<[u8; N], Malformed> {
        self.payload.first_chunk().copied().ok_or(Malformed { what, length: self.payload.len() })
    }

    /// One octet.
    ///
    /// # Errors
    /// Where there is none.
    #[inline]
    pub fn u8(&self, what: &'static str) -> Result<u8, Malformed> {
        self.octets::<1>(what).map(|[octet]| octet)
    }

    /// A number of two octets in network order.
    ///
    /// # Errors
    /// Where there are fewer.
    #[inline]
    pub fn be16(&self, what: &'static str) -> Result<u16, Malformed> {
        self.octets(what).map(u16::from_be_bytes)
    }

    /// A number of four octets in network order.
    ///
    /// # Errors
    /// Where there are fewer.
    #[inline]
    pub fn be32(&self, what: &'static str) -> Result<u32, Malformed> {
        self.octets(what).map(u32::from_be_bytes)
    }

    /// A number of eight octets in network order.
    ///
    /// # Errors
    /// Where there are fewer.
    #[inline]
    pub fn be64(&self, what: &'static str) -> Result<u64, Malformed> {
        self.octets(what).map(u64::from_be_bytes)
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
    octets.extend_from_slice(&[0; HEADER]);
    fill(octets);
    octets.truncate(start + usize::from(u16::MAX));
    let length = u16::try_from(octets.len() - start).unwrap_or(u16::MAX).to_ne_bytes();
    let kind = kind.to_ne_bytes();
    if let Some(header) = octets.get_mut(start..start + HEADER) {
        header.copy_from_slice(&[length[0], length[1], kind[0], kind[1]]);
    }
    let end = start + padded(octets.len() - start);
    octets.resize(end, 0);
}

/// Lengths are padded to a multiple of four.
#[inline]
pub(super) const fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}
