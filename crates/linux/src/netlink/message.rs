//! Messages: a header of sixteen octets, four more that every netfilter message has (family, version, resource), attributes.
use super::attribute::{self, NlAttrs};
use super::{MalformedNetlink, NlAttr};

/// The header of netlink.
const NLMSG_HEADER_LEN: usize = 16;
/// With netfilter's own.
const NFNL_HEADER_LEN: usize = 20;

/// Flags of a message, by the kernel's names.
pub mod flag {
    /// It asks for something.
    pub const REQUEST: u16 = 0x1;
    /// More parts follow.
    pub const MULTI: u16 = 0x2;
    /// It wants an answer even if nothing goes wrong.
    pub const ACK: u16 = 0x4;
    /// The table changed while it was dumped.
    pub const DUMP_INTERRUPTED: u16 = 0x10;
    /// All of them.
    pub const DUMP: u16 = 0x300;
    /// It may not exist yet.
    pub const EXCLUSIVE: u16 = 0x200;
    /// Make it if it does not exist.
    pub const CREATE: u16 = 0x400;
}

/// Kinds of message that netlink itself has.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Events were lost: the kernel's buffer ran over.
const NLMSG_OVERRUN: u16 = 4;

/// One message of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct NlMessage<'a> {
    /// Subsystem (high octet) and message of it (low octet).
    pub kind: u16,
    /// See [`flag`].
    pub flags: u16,
    /// That of the request it answers; 0 in events.
    pub sequence: u32,
    /// The port of the socket that caused it: in events, of the program that did.
    pub port: u32,
    /// What it says.
    pub body: NlBody<'a>,
}

/// What a message says.
#[derive(Clone, Copy, Debug)]
pub enum NlBody<'a> {
    /// An answer, an entry, an event.
    Data {
        /// The address family, as of sockets.
        family: u8,
        /// Of netfilter's messages their version; of rtnetlink's the length of a prefix.
        version: u8,
        /// In network order; for statistics the processor's number.
        resource: u16,
        /// Its attributes, unread.
        attributes: &'a [u8],
    },
    /// The request failed with this error number, or (0) it did not.
    Error(i32),
    /// A dump is complete; negative: it failed with this error number.
    Done(i32),
    /// Something was lost.
    Overrun,
    /// Nothing.
    Noop,
}

impl<'a> NlMessage<'a> {
    /// Its attributes; none where it has none.
    pub fn attributes(&self) -> NlAttrs<'a> {
        match self.body {
            NlBody::Data { attributes, .. } => NlAttrs::new(attributes),
            _ => NlAttrs::new(&[]),
        }
    }
}

/// The messages in what one read from a socket gave. After a malformed one there are no more.
#[derive(Clone, Debug)]
pub struct NlMessages<'a> {
    rest: &'a [u8],
}

impl<'a> NlMessages<'a> {
    /// The messages in `octets`.
    pub fn new(octets: &'a [u8]) -> Self {
        NlMessages { rest: octets }
    }
}

impl<'a> Iterator for NlMessages<'a> {
    type Item = Result<NlMessage<'a>, MalformedNetlink>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let octets = std::mem::take(&mut self.rest);
        if octets.is_empty() {
            return None;
        }
        let malformed = |length| Some(Err(MalformedNetlink { what: "a message", length }));
        let Some((header, _)) = octets.split_first_chunk::<NLMSG_HEADER_LEN>() else { return malformed(octets.len()) };
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, p0, p1, p2, p3] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(payload) = octets.get(NLMSG_HEADER_LEN..length) else { return malformed(length) };
        self.rest = octets.get(attribute::nla_align(length)..).unwrap_or_default();
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

/// What a message of this kind says; `None` where it is too short.
fn parse_body(kind: u16, payload: &[u8]) -> Option<NlBody<'_>> {
    let number = |payload: &[u8]| payload.first_chunk().map(|octets| i32::from_ne_bytes(*octets));
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

/// Appends how a request ended: 0, or a number of errno(3).
pub fn push_error(octets: &mut Vec<u8>, sequence: u32, number: i32) {
    // Behind the number stands the header of the request, as far as it matters.
    push_control(
        octets,
        NLMSG_ERROR,
        0,
        sequence,
        &[number.wrapping_neg().to_ne_bytes(), [0; 4], [0; 4], [0; 4], [0; 4]].concat(),
    );
}

/// Appends the end of a dump.
pub fn push_done(octets: &mut Vec<u8>, sequence: u32) {
    push_control(octets, NLMSG_DONE, flag::MULTI, sequence, &[0; 4]);
}

/// Appends that something was lost.
pub fn push_overrun(octets: &mut Vec<u8>) {
    push_control(octets, NLMSG_OVERRUN, 0, 0, &[]);
}

/// Appends a message of netlink's own, with `payload` of a length that needs no padding.
fn push_control(octets: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, payload: &[u8]) {
    let length = u32::try_from(NLMSG_HEADER_LEN + payload.len()).unwrap_or(u32::MAX);
    octets.extend_from_slice(&length.to_ne_bytes());
    octets.extend_from_slice(&kind.to_ne_bytes());
    octets.extend_from_slice(&flags.to_ne_bytes());
    octets.extend_from_slice(&sequence.to_ne_bytes());
    octets.extend_from_slice(&[0; 4]);
    octets.extend_from_slice(payload);
}

/// A message of ours on its way to the kernel; several may stand in one buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NlRequest {
    bytes: Vec<u8>,
}

impl NlRequest {
    /// A request of `kind`, about `family` (0: of any). [`flag::REQUEST`] is added.
    pub fn new(kind: u16, flags: u16, family: u8) -> NlRequest {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | flag::REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&[family, 0, 0, 0]);
        NlRequest { bytes }
    }

    /// What is told, not asked: an answer, an entry, an event, as the kernel sends them. `port` is that of the program that caused it, or 0.
    pub fn notification(kind: u16, flags: u16, family: u8, port: u32) -> NlRequest {
        let mut told = NlRequest::new(kind, flags, family);
        if let Some(header) = told.bytes.first_chunk_mut::<NLMSG_HEADER_LEN>() {
            let [low, high] = flags.to_ne_bytes();
            (header[6], header[7]) = (low, high);
            for (to, from) in header.iter_mut().skip(12).zip(port.to_ne_bytes()) {
                *to = from;
            }
        }
        told
    }

    /// About this resource, in network order; 0 if this is not called. In statistics it is the processor's number.
    #[must_use]
    pub fn res_id(mut self, resource: u16) -> NlRequest {
        for (to, from) in self.bytes.iter_mut().skip(NLMSG_HEADER_LEN + 2).zip(resource.to_be_bytes()) {
            *to = from;
        }
        self
    }

    /// In this version of the messages; 0 if this is not called. (The kernel looks at the family of a flush in version 1 only.)
    #[must_use]
    pub fn version(mut self, version: u8) -> NlRequest {
        if let Some(octet) = self.bytes.get_mut(NLMSG_HEADER_LEN + 1) {
            *octet = version;
        }
        self
    }

    /// Adds an attribute.
    pub fn push(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        attribute::push(&mut self.bytes, kind, payload);
        self
    }

    /// Adds an attribute that holds what `fill` appends.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        attribute::nest(&mut self.bytes, kind | attribute::NLA_F_NESTED, fill);
        self
    }

    /// Adds attributes that are encoded already.
    pub fn append(&mut self, attributes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(attributes);
        self
    }

    /// The octets to send, numbered.
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
