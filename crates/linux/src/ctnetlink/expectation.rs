//! An expectation: a connection announced by a helper.
use super::consts::expect;
use super::flow::{CtFamily, CtFlow};
use super::tuple::CtTuple;
use crate::netlink::message::NlBody;
use crate::netlink::{MalformedNetlink, NlAttr, NlMessage, NlRequest};

/// An expectation; fields that are not in the message are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CtExpectation {
    /// The address family.
    pub family: Option<CtFamily>,
    /// The original tuple of the master connection.
    pub master: CtTuple,
    /// The expected tuple.
    pub expected: CtTuple,
    /// The mask of the expected tuple.
    pub mask: CtTuple,
    /// Seconds until it expires.
    pub timeout: Option<u32>,
    /// Its id.
    pub id: Option<u32>,
    /// The helper.
    pub helper: Option<Box<str>>,
    /// The zone.
    pub zone: Option<u16>,
    /// See [`flags`].
    pub flags: Option<u32>,
    /// The helper's class.
    pub class: Option<u32>,
    /// NAT of the expected connection: direction and tuple.
    pub nat: Option<(u32, CtTuple)>,
    /// The function called when the connection arrives.
    pub expectfn: Option<Box<str>>,
}

/// Flags of an expectation, by the kernel's names.
pub mod flags {
    /// It remains after a connection matched.
    pub const PERMANENT: u32 = 1;
    /// It is inactive.
    pub const INACTIVE: u32 = 2;
    /// A user-space program created it.
    pub const USERSPACE: u32 = 4;
}

impl CtExpectation {
    /// The expectation in a message; `None` for another message type.
    ///
    /// # Errors
    /// An attribute is too short.
    pub fn decode(message: &NlMessage<'_>) -> Result<Option<CtExpectation>, MalformedNetlink> {
        let NlBody::Data { family, .. } = message.body else { return Ok(None) };
        let Some(family) = CtFamily::from_number(family) else { return Ok(None) };
        let mut expectation = CtExpectation { family: Some(family), ..CtExpectation::default() };
        for attribute in message.attributes() {
            expectation.decode_attribute(&attribute?)?;
        }
        Ok(Some(expectation))
    }

    fn decode_attribute(&mut self, attribute: &NlAttr<'_>) -> Result<(), MalformedNetlink> {
        match attribute.kind {
            expect::MASTER => self.master = CtTuple::decode(attribute)?,
            expect::TUPLE => self.expected = CtTuple::decode(attribute)?,
            expect::MASK => self.mask = CtTuple::decode(attribute)?,
            expect::TIMEOUT => self.timeout = Some(attribute.be32("CTA_EXPECT_TIMEOUT")?),
            expect::ID => self.id = Some(attribute.be32("CTA_EXPECT_ID")?),
            expect::HELP_NAME => self.helper = Some(attribute.text()),
            expect::ZONE => self.zone = Some(attribute.be16("CTA_EXPECT_ZONE")?),
            expect::FLAGS => self.flags = Some(attribute.be32("CTA_EXPECT_FLAGS")?),
            expect::CLASS => self.class = Some(attribute.be32("CTA_EXPECT_CLASS")?),
            expect::NAT => self.nat = Some(decode_expect_nat(attribute)?),
            expect::FN => self.expectfn = Some(attribute.text()),
            _ => (),
        }
        Ok(())
    }

    /// Adds the fields that are set to a request.
    pub fn encode(&self, request: &mut NlRequest) {
        for (kind, tuple) in
            [(expect::MASTER, &self.master), (expect::TUPLE, &self.expected), (expect::MASK, &self.mask)]
        {
            if !tuple.is_empty() {
                request.nest(kind, |bytes| tuple.encode(bytes));
            }
        }
        let words = [
            (expect::TIMEOUT, self.timeout),
            (expect::ID, self.id),
            (expect::FLAGS, self.flags),
            (expect::CLASS, self.class),
        ];
        for (kind, value) in words {
            if let Some(value) = value {
                request.push(kind, &value.to_be_bytes());
            }
        }
        if let Some(zone) = self.zone {
            request.push(expect::ZONE, &zone.to_be_bytes());
        }
        for (kind, name) in [(expect::HELP_NAME, &self.helper), (expect::FN, &self.expectfn)] {
            if let Some(name) = name {
                request.push_text(kind, name);
            }
        }
        if let Some((direction, tuple)) = &self.nat {
            request.nest(expect::NAT, |bytes| {
                use super::consts::expect_nat;
                use crate::netlink::attribute::{NLA_F_NESTED, nest, push};
                push(bytes, expect_nat::DIR, &direction.to_be_bytes());
                nest(bytes, expect_nat::TUPLE | NLA_F_NESTED, |bytes| tuple.encode(bytes));
            });
        }
    }

    /// The master connection's tuple and zone.
    pub fn master_flow(&self) -> CtFlow {
        CtFlow { family: self.family, original: self.master, zone: self.zone, ..CtFlow::default() }
    }
}

fn decode_expect_nat(attribute: &NlAttr<'_>) -> Result<(u32, CtTuple), MalformedNetlink> {
    use super::consts::expect_nat;
    let mut nat = (0, CtTuple::default());
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            expect_nat::DIR => nat.0 = part.be32("CTA_EXPECT_NAT_DIR")?,
            expect_nat::TUPLE => nat.1 = CtTuple::decode(&part)?,
            _ => (),
        }
    }
    Ok(nat)
}
