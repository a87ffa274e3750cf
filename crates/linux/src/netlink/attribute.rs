//! Attributes: length, type, payload, padded to a multiple of four; nested ones contain attributes.
//!
//! Decoding borrows and copies nothing; each length is checked before it is used. Callers skip types they do not know:
//! newer kernels have more of them.
use super::malformed::MalformedNetlink;

/// The flag in an attribute's type for nested attributes.
pub const NLA_F_NESTED: u16 = 0x8000;
/// The flag bits of the type.
const NLA_TYPE_FLAGS: u16 = 0xc000;
/// Length and type, in bytes.
const NLA_HEADER_LEN: usize = 4;

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NlAttr<'a> {
    /// Its type, without flags.
    pub kind: u16,
    /// Its payload.
    pub payload: &'a [u8],
}

/// An iterator over attributes. It ends after a malformed one.
#[derive(Clone, Debug)]
pub struct NlAttrs<'a> {
    rest: &'a [u8],
}

impl<'a> NlAttrs<'a> {
    /// The attributes in `bytes`.
    ///
    /// ```
    /// use keepstate_linux::netlink::NlAttrs;
    /// let mut attributes = NlAttrs::new(&[5, 0, 1, 0, 42, 0, 0, 0]);
    /// let first = attributes.next().unwrap().unwrap();
    /// assert_eq!((first.kind, first.payload), (1, &[42][..]));
    /// assert!(attributes.next().is_none());
    /// ```
    pub fn new(bytes: &'a [u8]) -> Self {
        NlAttrs { rest: bytes }
    }
}

impl<'a> Iterator for NlAttrs<'a> {
    type Item = Result<NlAttr<'a>, MalformedNetlink>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.rest);
        // Fewer bytes than a header are padding.
        let (&[low, high, kind_low, kind_high], _) = bytes.split_first_chunk::<NLA_HEADER_LEN>()?;
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let Some(payload) = bytes.get(NLA_HEADER_LEN..length) else {
            return Some(Err(MalformedNetlink { what: "attribute", length }));
        };
        self.rest = bytes.get(nla_align(length)..).unwrap_or_default();
        Some(Ok(NlAttr { kind: u16::from_ne_bytes([kind_low, kind_high]) & !NLA_TYPE_FLAGS, payload }))
    }
}

impl<'a> NlAttr<'a> {
    /// The attributes inside.
    pub fn nested(&self) -> NlAttrs<'a> {
        NlAttrs::new(self.payload)
    }

    /// Exactly `N` bytes. A longer payload is cut, as the kernel does with attributes that have grown.
    ///
    /// # Errors
    /// The payload is shorter.
    #[inline]
    pub fn bytes<const N: usize>(&self, what: &'static str) -> Result<[u8; N], MalformedNetlink> {
        self.payload.first_chunk().copied().ok_or(MalformedNetlink { what, length: self.payload.len() })
    }

    /// One byte.
    ///
    /// # Errors
    /// The payload is empty.
    #[inline]
    pub fn u8(&self, what: &'static str) -> Result<u8, MalformedNetlink> {
        self.bytes::<1>(what).map(|[byte]| byte)
    }

    /// A 16-bit number in network byte order.
    ///
    /// # Errors
    /// The payload is shorter.
    #[inline]
    pub fn be16(&self, what: &'static str) -> Result<u16, MalformedNetlink> {
        self.bytes(what).map(u16::from_be_bytes)
    }

    /// A 32-bit number in network byte order.
    ///
    /// # Errors
    /// The payload is shorter.
    #[inline]
    pub fn be32(&self, what: &'static str) -> Result<u32, MalformedNetlink> {
        self.bytes(what).map(u32::from_be_bytes)
    }

    /// A 64-bit number in network byte order.
    ///
    /// # Errors
    /// The payload is shorter.
    #[inline]
    pub fn be64(&self, what: &'static str) -> Result<u64, MalformedNetlink> {
        self.bytes(what).map(u64::from_be_bytes)
    }

    /// Text up to its first zero; invalid UTF-8 becomes U+FFFD.
    pub fn text(&self) -> Box<str> {
        let end = self.payload.iter().position(|byte| *byte == 0).unwrap_or(self.payload.len());
        String::from_utf8_lossy(self.payload.get(..end).unwrap_or_default()).into()
    }
}

/// Appends one attribute with its padding.
pub fn push(bytes: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    nest(bytes, kind, |bytes| bytes.extend_from_slice(payload));
}

/// Appends one attribute whose payload `fill` appends. An attribute longer than 65,535 bytes is cut.
pub fn nest(bytes: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; NLA_HEADER_LEN]);
    fill(bytes);
    bytes.truncate(start + usize::from(u16::MAX));
    let length = u16::try_from(bytes.len() - start).unwrap_or(u16::MAX).to_ne_bytes();
    let kind = kind.to_ne_bytes();
    if let Some(header) = bytes.get_mut(start..start + NLA_HEADER_LEN) {
        header.copy_from_slice(&[length[0], length[1], kind[0], kind[1]]);
    }
    let end = start + nla_align(bytes.len() - start);
    bytes.resize(end, 0);
}

/// Appends one attribute of text, with a terminating zero. Text after a zero is cut.
pub fn push_text(bytes: &mut Vec<u8>, kind: u16, text: &str) {
    nest(bytes, kind, |bytes| {
        bytes.extend(text.bytes().take_while(|byte| *byte != 0));
        bytes.push(0);
    });
}

/// Pads a length to a multiple of four.
#[inline]
pub(super) const fn nla_align(length: usize) -> usize {
    length.next_multiple_of(4)
}
