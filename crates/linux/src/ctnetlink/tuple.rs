//! One direction of a connection.
use super::consts::{ip, proto, tuple};
use crate::netlink::{MalformedNetlink, NlAttr, attribute};
use keepstate_types::ipproto as protocol;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses, protocol, ports; fields that are not in the message are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CtTuple {
    /// Source address.
    pub source: Option<IpAddr>,
    /// Destination address.
    pub destination: Option<IpAddr>,
    /// Transport protocol by number.
    pub protocol: Option<u8>,
    /// Source port, or GRE's source key.
    pub source_port: Option<u16>,
    /// Destination port, or GRE's destination key.
    pub destination_port: Option<u16>,
    /// ICMP's or ICMPv6's id.
    pub icmp_id: Option<u16>,
    /// ICMP's or ICMPv6's type.
    pub icmp_type: Option<u8>,
    /// ICMP's or ICMPv6's code.
    pub icmp_code: Option<u8>,
    /// The zone of this direction alone.
    pub zone: Option<u16>,
}

impl CtTuple {
    /// Is every field that is set here, apart from the zone, the same in `actual`?
    pub fn matches(&self, actual: &CtTuple) -> bool {
        fn same<T: PartialEq>(wanted: Option<T>, actual: Option<T>) -> bool {
            wanted.is_none() || wanted == actual
        }
        same(self.source, actual.source)
            && same(self.destination, actual.destination)
            && same(self.protocol, actual.protocol)
            && same(self.source_port, actual.source_port)
            && same(self.destination_port, actual.destination_port)
            && same(self.icmp_id, actual.icmp_id)
            && same(self.icmp_type, actual.icmp_type)
            && same(self.icmp_code, actual.icmp_code)
    }

    /// Decodes the attributes of a tuple.
    ///
    /// # Errors
    /// An attribute is too short.
    pub fn decode(attribute: &NlAttr<'_>) -> Result<CtTuple, MalformedNetlink> {
        let mut decoded = CtTuple::default();
        for part in attribute.nested() {
            let part = part?;
            match part.kind {
                tuple::IP => decoded.decode_addresses(&part)?,
                tuple::PROTO => decoded.decode_transport(&part)?,
                tuple::ZONE => decoded.zone = Some(part.be16("CTA_TUPLE_ZONE")?),
                _ => (),
            }
        }
        Ok(decoded)
    }

    fn decode_addresses(&mut self, attribute: &NlAttr<'_>) -> Result<(), MalformedNetlink> {
        for part in attribute.nested() {
            let part = part?;
            let v4 = || part.bytes("CTA_IP_V4").map(|bytes: [u8; 4]| IpAddr::V4(bytes.into()));
            let v6 = || part.bytes("CTA_IP_V6").map(|bytes: [u8; 16]| IpAddr::V6(bytes.into()));
            match part.kind {
                ip::V4_SRC => self.source = Some(v4()?),
                ip::V4_DST => self.destination = Some(v4()?),
                ip::V6_SRC => self.source = Some(v6()?),
                ip::V6_DST => self.destination = Some(v6()?),
                _ => (),
            }
        }
        Ok(())
    }

    fn decode_transport(&mut self, attribute: &NlAttr<'_>) -> Result<(), MalformedNetlink> {
        for part in attribute.nested() {
            let part = part?;
            match part.kind {
                proto::NUM => self.protocol = Some(part.u8("CTA_PROTO_NUM")?),
                proto::SRC_PORT => self.source_port = Some(part.be16("CTA_PROTO_SRC_PORT")?),
                proto::DST_PORT => self.destination_port = Some(part.be16("CTA_PROTO_DST_PORT")?),
                proto::ICMP_ID | proto::ICMPV6_ID => self.icmp_id = Some(part.be16("CTA_PROTO_ICMP_ID")?),
                proto::ICMP_TYPE | proto::ICMPV6_TYPE => self.icmp_type = Some(part.u8("CTA_PROTO_ICMP_TYPE")?),
                proto::ICMP_CODE | proto::ICMPV6_CODE => self.icmp_code = Some(part.u8("CTA_PROTO_ICMP_CODE")?),
                _ => (),
            }
        }
        Ok(())
    }

    /// Appends the fields that are set as the attributes of a tuple.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        if self.source.is_some() || self.destination.is_some() {
            attribute::nest(bytes, tuple::IP | attribute::NLA_F_NESTED, |bytes| {
                push_address(bytes, [ip::V4_SRC, ip::V6_SRC], self.source);
                push_address(bytes, [ip::V4_DST, ip::V6_DST], self.destination);
            });
        }
        if (CtTuple { source: None, destination: None, zone: None, ..*self }) != CtTuple::default() {
            attribute::nest(bytes, tuple::PROTO | attribute::NLA_F_NESTED, |bytes| self.encode_transport(bytes));
        }
        if let Some(zone) = self.zone {
            attribute::push(bytes, tuple::ZONE, &zone.to_be_bytes());
        }
    }

    fn encode_transport(&self, bytes: &mut Vec<u8>) {
        if let Some(number) = self.protocol {
            attribute::push(bytes, proto::NUM, &[number]);
        }
        let v6 = self.protocol == Some(protocol::ICMPV6);
        let words = [
            (proto::SRC_PORT, self.source_port),
            (proto::DST_PORT, self.destination_port),
            (if v6 { proto::ICMPV6_ID } else { proto::ICMP_ID }, self.icmp_id),
        ];
        for (kind, value) in words {
            if let Some(value) = value {
                attribute::push(bytes, kind, &value.to_be_bytes());
            }
        }
        let single = [
            (if v6 { proto::ICMPV6_TYPE } else { proto::ICMP_TYPE }, self.icmp_type),
            (if v6 { proto::ICMPV6_CODE } else { proto::ICMP_CODE }, self.icmp_code),
        ];
        for (kind, value) in single {
            if let Some(value) = value {
                attribute::push(bytes, kind, &[value]);
            }
        }
    }

    /// Is no field set?
    pub fn is_empty(&self) -> bool {
        *self == CtTuple::default()
    }
}

/// Appends an address under the kind of its family.
fn push_address(bytes: &mut Vec<u8>, [v4, v6]: [u16; 2], address: Option<IpAddr>) {
    match address {
        None => (),
        Some(IpAddr::V4(address)) => attribute::push(bytes, v4, &Ipv4Addr::octets(&address)),
        Some(IpAddr::V6(address)) => attribute::push(bytes, v6, &Ipv6Addr::octets(&address)),
    }
}
