//! An announced connection.
use super::consts::expect;
use super::flow::{CtFamily, CtFlow};
use super::tuple::CtTuple;
use crate::netlink::message::NlBody;
use crate::netlink::{MalformedNetlink, NlAttr, NlMessage, NlRequest};

/// An announced connection, as far as it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CtExpectation {
    /// Of the addresses.
    pub family: Option<CtFamily>,
    /// The original direction of the connection that announced it.
    pub master: CtTuple,
    /// What is announced.
    pub expected: CtTuple,
    /// Which bits of it must fit.
    pub mask: CtTuple,
    /// Seconds until it expires.
    pub timeout: Option<u32>,
    /// Stable for its life.
    pub id: Option<u32>,
    /// The helper that announced it.
    pub helper: Option<Box<str>>,
    /// The zone.
    pub zone: Option<u16>,
    /// See [`flags`].
    pub flags: Option<u32>,
    /// The helper's class of it.
    pub class: Option<u32>,
    /// The direction, and what the expected connection is translated to.
    pub nat: Option<(u32, CtTuple)>,
    /// The function that is called when it comes.
    pub expectfn: Option<Box<str>>,
}

/// Flags of an expectation, by the kernel's names.
pub mod flags {
    /// It stays after a connection came.
    pub const PERMANENT: u32 = 1;
    /// It takes no effect.
    pub const INACTIVE: u32 = 2;
    /// A program made it.
    pub const USERSPACE: u32 = 4;
}

impl CtExpectation {
    /// The expectation that a message tells of; `None` where it is a message of another kind.
    ///
    /// # Errors
    /// Where a part is shorter than it must be.
    pub fn decode(message: &NlMessage<'_>) -> Result<Option<CtExpectation>, MalformedNetlink> {
        let NlBody::Data { family, .. } = message.body else { return Ok(None) };
        let Some(family) = CtFamily::from_number(family) else { return Ok(None) };
        let mut told = CtExpectation { family: Some(family), ..CtExpectation::default() };
        for attribute in message.attributes() {
            told.decode_attribute(&attribute?)?;
        }
        Ok(Some(told))
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

    /// Adds what is told to a request.
    pub fn encode(&self, request: &mut NlRequest) {
        for (kind, tuple) in
            [(expect::MASTER, &self.master), (expect::TUPLE, &self.expected), (expect::MASK, &self.mask)]
        {
            if !tuple.is_empty() {
                request.nest(kind, |octets| tuple.encode(octets));
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
            request.nest(expect::NAT, |octets| {
                use super::consts::expect_nat;
                use crate::netlink::attribute::{NLA_F_NESTED, nest, push};
                push(octets, expect_nat::DIR, &direction.to_be_bytes());
                nest(octets, expect_nat::TUPLE | NLA_F_NESTED, |octets| tuple.encode(octets));
            });
        }
    }

    /// The connection that announced it, as far as it is told here.
    pub fn master_flow(&self) -> CtFlow {
        CtFlow { family: self.family, original: self.master, zone: self.zone, ..CtFlow::default() }
    }
}

fn decode_expect_nat(attribute: &NlAttr<'_>) -> Result<(u32, CtTuple), MalformedNetlink> {
    use super::consts::expect_nat;
    let mut told = (0, CtTuple::default());
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            expect_nat::DIR => told.0 = part.be32("CTA_EXPECT_NAT_DIR")?,
            expect_nat::TUPLE => told.1 = CtTuple::decode(&part)?,
            _ => (),
        }
    }
    Ok(told)
}
