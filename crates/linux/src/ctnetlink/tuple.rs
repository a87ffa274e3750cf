//! One direction of a connection, as far as it is told.
use super::consts::{ip, proto, tuple};
use crate::netlink::{MalformedNetlink, NlAttr, attribute};
use keepstate_types::ipproto as protocol;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses, transport and its keys; what nobody told is `None`.
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
    /// Reads the attributes of a tuple.
    ///
    /// # Errors
    /// Where one is too short.
    pub fn decode(attribute: &NlAttr<'_>) -> Result<CtTuple, MalformedNetlink> {
        let mut told = CtTuple::default();
        for part in attribute.nested() {
            let part = part?;
            match part.kind {
                tuple::IP => told.decode_addresses(&part)?,
                tuple::PROTO => told.decode_transport(&part)?,
                tuple::ZONE => told.zone = Some(part.be16("CTA_TUPLE_ZONE")?),
                _ => (),
            }
        }
        Ok(told)
    }

    fn decode_addresses(&mut self, attribute: &NlAttr<'_>) -> Result<(), MalformedNetlink> {
        for part in attribute.nested() {
            let part = part?;
            let v4 = || part.bytes("CTA_IP_V4").map(|octets: [u8; 4]| IpAddr::V4(octets.into()));
            let v6 = || part.bytes("CTA_IP_V6").map(|octets: [u8; 16]| IpAddr::V6(octets.into()));
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

    /// Appends what is told as the attributes of a tuple.
    pub fn encode(&self, octets: &mut Vec<u8>) {
        if self.source.is_some() || self.destination.is_some() {
            attribute::nest(octets, tuple::IP | attribute::NLA_F_NESTED, |octets| {
                push_address(octets, [ip::V4_SRC, ip::V6_SRC], self.source);
                push_address(octets, [ip::V4_DST, ip::V6_DST], self.destination);
            });
        }
        if (CtTuple { source: None, destination: None, zone: None, ..*self }) != CtTuple::default() {
            attribute::nest(octets, tuple::PROTO | attribute::NLA_F_NESTED, |octets| self.encode_transport(octets));
        }
        if let Some(zone) = self.zone {
            attribute::push(octets, tuple::ZONE, &zone.to_be_bytes());
        }
    }

    fn encode_transport(&self, octets: &mut Vec<u8>) {
        if let Some(number) = self.protocol {
            attribute::push(octets, proto::NUM, &[number]);
        }
        let v6 = self.protocol == Some(protocol::ICMPV6);
        let words = [
            (proto::SRC_PORT, self.source_port),
            (proto::DST_PORT, self.destination_port),
            (if v6 { proto::ICMPV6_ID } else { proto::ICMP_ID }, self.icmp_id),
        ];
        for (kind, value) in words {
            if let Some(value) = value {
                attribute::push(octets, kind, &value.to_be_bytes());
            }
        }
        let single = [
            (if v6 { proto::ICMPV6_TYPE } else { proto::ICMP_TYPE }, self.icmp_type),
            (if v6 { proto::ICMPV6_CODE } else { proto::ICMP_CODE }, self.icmp_code),
        ];
        for (kind, value) in single {
            if let Some(value) = value {
                attribute::push(octets, kind, &[value]);
            }
        }
    }

    /// Is nothing of it told?
    pub fn is_empty(&self) -> bool {
        *self == CtTuple::default()
    }
}

/// Appends an address under the kind of its family.
fn push_address(octets: &mut Vec<u8>, [v4, v6]: [u16; 2], address: Option<IpAddr>) {
    match address {
        None => (),
        Some(IpAddr::V4(address)) => attribute::push(octets, v4, &Ipv4Addr::octets(&address)),
        Some(IpAddr::V6(address)) => attribute::push(octets, v6, &Ipv6Addr::octets(&address)),
    }
}
