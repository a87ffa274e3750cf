//! Messages: netlink's header of 16 bytes, nfnetlink's header of 4 (family, version, resource id), attributes.
use super::attribute::{self, NlAttr, NlAttrs};
use super::malformed::MalformedNetlink;

/// Length of `struct nlmsghdr`.
const NLMSG_HEADER_LEN: usize = 16;
/// With `struct nfgenmsg`.
const NFNL_HEADER_LEN: usize = 20;

/// Flags of a message, by the kernel's names.
pub mod flag {
    /// A request.
    pub const REQUEST: u16 = 0x1;
    /// Part of a multipart answer.
    pub const MULTI: u16 = 0x2;
    /// Acknowledge success too.
    pub const ACK: u16 = 0x4;
    /// The table changed while it was dumped.
    pub const DUMP_INTERRUPTED: u16 = 0x10;
    /// Return all entries.
    pub const DUMP: u16 = 0x300;
    /// It takes the place of what is there.
    pub const REPLACE: u16 = 0x100;
    /// It goes behind what is there.
    pub const APPEND: u16 = 0x800;
    /// Fail if it exists.
    pub const EXCLUSIVE: u16 = 0x200;
    /// Create it if it does not exist.
    pub const CREATE: u16 = 0x400;
}

/// Netlink's own message types.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Events were lost: the receive buffer was full.
const NLMSG_OVERRUN: u16 = 4;

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct NlMessage<'a> {
    /// Its type: subsystem (high byte) and message (low byte).
    pub kind: u16,
    /// See [`flag`].
    pub flags: u16,
    /// The sequence number of the request it answers; 0 in events.
    pub sequence: u32,
    /// The port id of the socket that caused it.
    pub port: u32,
    /// Its contents.
    pub body: NlBody<'a>,
}

/// The contents of a message.
#[derive(Clone, Copy, Debug)]
pub enum NlBody<'a> {
    /// An answer, an entry, an event.
    Data {
        /// The address family, as of sockets.
        family: u8,
        /// The version in nfnetlink; the prefix length in rtnetlink.
        version: u8,
        /// The resource id; the CPU number in statistics.
        resource: u16,
        /// Its attributes, encoded.
        attributes: &'a [u8],
    },
    /// The request failed with this errno; 0: it succeeded.
    Error(i32),
    /// The dump ended; not 0: it failed with this errno.
    Done(i32),
    /// Events were lost.
    Overrun,
    /// No operation.
    Noop,
}

impl<'a> NlMessage<'a> {
    /// Its attributes.
    pub fn attributes(&self) -> NlAttrs<'a> {
        match self.body {
            NlBody::Data { attributes, .. } => NlAttrs::new(attributes),
            _ => NlAttrs::new(&[]),
        }
    }
}

/// An iterator over the messages of one read. It ends after a malformed one.
#[derive(Clone, Debug)]
pub struct NlMessages<'a> {
    rest: &'a [u8],
}

impl<'a> NlMessages<'a> {
    /// The messages in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        NlMessages { rest: bytes }
    }
}

impl<'a> Iterator for NlMessages<'a> {
    type Item = Result<NlMessage<'a>, MalformedNetlink>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.rest);
        if bytes.is_empty() {
            return None;
        }
        let malformed = |length| Some(Err(MalformedNetlink { what: "nlmsghdr", length }));
        let Some((header, _)) = bytes.split_first_chunk::<NLMSG_HEADER_LEN>() else { return malformed(bytes.len()) };
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, p0, p1, p2, p3] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(payload) = bytes.get(NLMSG_HEADER_LEN..length) else { return malformed(length) };
        self.rest = bytes.get(attribute::nla_align(length)..).unwrap_or_default();
        let kind = u16::from_ne_bytes([k0, k1]);
        let Some(body) = parse_body(kind, payload) else { return malformed(length) };
        Some(Ok(NlMessage {
            kind,
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            port: u32::from_ne_bytes([p0, p1, p2, p3]),
            body,
        }))
    }
}

/// The contents of a message of this type; `None` if it is too short.
fn parse_body(kind: u16, payload: &[u8]) -> Option<NlBody<'_>> {
    let number = |payload: &[u8]| payload.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
    match kind {
        NLMSG_ERROR => number(payload).map(|number| NlBody::Error(number.wrapping_neg())),
        NLMSG_DONE => Some(NlBody::Done(number(payload).unwrap_or(0).wrapping_neg())),
        NLMSG_OVERRUN => Some(NlBody::Overrun),
        0..16 => Some(NlBody::Noop),
        _ => {
            let (&[family, version, high, low], attributes) = payload.split_first_chunk::<4>()?;
            Some(NlBody::Data { family, version, resource: u16::from_be_bytes([high, low]), attributes })
        }
    }
}

/// Appends the result of a request: 0 or an errno.
pub fn push_error(bytes: &mut Vec<u8>, sequence: u32, number: i32) {
    // The errno is followed by the header of the request.
    push_control(
        bytes,
        NLMSG_ERROR,
        0,
        sequence,
        &[number.wrapping_neg().to_ne_bytes(), [0; 4], [0; 4], [0; 4], [0; 4]].concat(),
    );
}

/// Appends the end of a dump.
pub fn push_done(bytes: &mut Vec<u8>, sequence: u32) {
    push_control(bytes, NLMSG_DONE, flag::MULTI, sequence, &[0; 4]);
}

/// Appends the message that events were lost.
pub fn push_overrun(bytes: &mut Vec<u8>) {
    push_control(bytes, NLMSG_OVERRUN, 0, 0, &[]);
}

/// Appends one of netlink's own messages. The payload's length is a multiple of four.
fn push_control(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, payload: &[u8]) {
    let length = u32::try_from(NLMSG_HEADER_LEN + payload.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
}

/// A message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NlRequest {
    bytes: Vec<u8>,
}

impl NlRequest {
    /// A request of type `kind` about `family` (0: any). [`flag::REQUEST`] is added.
    pub fn new(kind: u16, flags: u16, family: u8) -> NlRequest {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | flag::REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&[family, 0, 0, 0]);
        NlRequest { bytes }
    }

    /// An answer, an entry or an event, as the kernel sends them. `port` is the port id of the program that caused it, or 0.
    pub fn notification(kind: u16, flags: u16, family: u8, port: u32) -> NlRequest {
        let mut message = NlRequest::new(kind, flags, family);
        if let Some(header) = message.bytes.first_chunk_mut::<NLMSG_HEADER_LEN>() {
            let [low, high] = flags.to_ne_bytes();
            (header[6], header[7]) = (low, high);
            for (to, from) in header.iter_mut().skip(12).zip(port.to_ne_bytes()) {
                *to = from;
            }
        }
        message
    }

    /// Sets the resource id, 0 by default. In statistics it is the CPU number.
    #[must_use]
    pub fn res_id(mut self, resource: u16) -> NlRequest {
        for (to, from) in self.bytes.iter_mut().skip(NLMSG_HEADER_LEN + 2).zip(resource.to_be_bytes()) {
            *to = from;
        }
        self
    }

    /// Sets the version, 0 by default. (The kernel respects the family of a flush in version 1 only.)
    #[must_use]
    pub fn version(mut self, version: u8) -> NlRequest {
        if let Some(byte) = self.bytes.get_mut(NLMSG_HEADER_LEN + 1) {
            *byte = version;
        }
        self
    }

    /// Adds an attribute.
    pub fn push(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        attribute::push(&mut self.bytes, kind, payload);
        self
    }

    /// Adds an attribute whose payload `fill` appends.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        attribute::nest(&mut self.bytes, kind | attribute::NLA_F_NESTED, fill);
        self
    }

    /// Adds an attribute of text, with a terminating zero.
    pub fn push_text(&mut self, kind: u16, text: &str) -> &mut Self {
        attribute::push_text(&mut self.bytes, kind, text);
        self
    }

    /// Adds encoded attributes.
    pub fn append(&mut self, attributes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(attributes);
        self
    }

    /// The bytes to send, with this sequence number.
    pub fn finish(&mut self, sequence: u32) -> &[u8] {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        if let Some((length_field, rest)) = self.bytes.split_first_chunk_mut::<4>() {
            *length_field = length.to_ne_bytes();
            if let Some(sequence_field) = rest.get_mut(4..8) {
                sequence_field.copy_from_slice(&sequence.to_ne_bytes());
            }
        }
        &self.bytes
    }

    /// Its attributes, as the kernel would read them.
    pub fn attributes(&self) -> impl Iterator<Item = Result<NlAttr<'_>, MalformedNetlink>> {
        NlAttrs::new(self.bytes.get(NFNL_HEADER_LEN..).unwrap_or_default())
    }
}
