//! Which packets can reach each statement of a rule: their family and transport protocol, as the earlier matches and the fields that are read imply.
//!
//! nft adds the implied matches when it loads a rule (`tcp dport` implies the protocol, `ip saddr` the family), and refuses a rule whose parts exclude each
//! other. Measured on nft 1.0.6: `crates/rules/tests/check_beside_nft`.
use super::refusal::Refusal;
use crate::ast::{
    AssignTarget, CtTupleField, Expression, ExthdrOp, IpField, Match, MatchRhs, MetaKey, PayloadBase, PayloadField,
    Reject, RouteKey, Selector, SetRef, Statement, TableFamily,
};
use crate::datatype::DataType;

/// Protocol number of TCP.
const TCP: u8 = 6;
/// Protocol numbers of what carries tunnels.
const UDP: u8 = 17;
const GRE: u8 = 47;

/// Bits of an Ethernet header without a tag.
const LINK_HEADER_BITS: u16 = 112;
/// Types of frames with a VLAN tag.
const VLAN_TYPES: [u128; 2] = [0x8100, 0x88a8];

/// What is known about a rule's packets after the statements so far.
pub(crate) struct ProtocolContext {
    /// Of the table.
    family: TableFamily,
    /// Is the packet IPv6 (with `false`: IPv4)?
    pub(crate) v6: Option<bool>,
    /// A field of the network's header has told the family, so nft has tied the packet to an untagged frame.
    network_told: bool,
    /// The family that the frame's type tells.
    link_v6: Option<bool>,
    /// The frame's type that a match has asked for.
    ether_type: Option<u128>,
    /// A field of the VLAN tag was read.
    tagged: bool,
    /// The transport protocols that it can have, the one learned last at the end; empty if nothing is known.
    pub(super) protocols: Vec<u8>,
}

impl ProtocolContext {
    /// At the start of a rule in a table of this family.
    pub(crate) fn new(family: TableFamily) -> ProtocolContext {
        let v6 = match family {
            TableFamily::Ip => Some(false),
            TableFamily::Ip6 => Some(true),
            TableFamily::Inet => None,
        };
        ProtocolContext {
            family,
            v6,
            network_told: false,
            link_v6: None,
            ether_type: None,
            tagged: false,
            protocols: Vec::new(),
        }
    }

    /// Learns from the next statement while the rule is parsed; a contradiction is an error once the whole ruleset is checked.
    pub(crate) fn follow(&mut self, statement: &Statement) {
        let _ = self.statement(statement);
    }

    /// Checks the next statement, and learns from it.
    pub(super) fn statement(&mut self, statement: &Statement) -> Result<(), Refusal> {
        match statement {
            Statement::Match(one) => {
                self.expressions(&one.left)?;
                self.learn(one);
                Ok(())
            }
            Statement::ObjectMap(_, key, _) | Statement::Vmap(key, _) => self.expressions(key),
            Statement::Assign(target, value) => {
                self.assign_target(*target)?;
                self.expression(value)
            }
            Statement::Dynset(change) => {
                self.expressions(&change.key)?;
                self.expressions(&change.data)
            }
            // Its own check knows more of it.
            Statement::Nat(_) => Ok(()),
            Statement::Reject(reject) => self.reject(*reject),
            Statement::Dup { to, .. } => {
                self.expression(to)?;
                let family = if to.data_type() == DataType::Address6 { TableFamily::Ip6 } else { TableFamily::Ip };
                if self.family == family {
                    return Ok(());
                }
                Err(Refusal::new(
                    format!("dup is possible in a table of its address's family only; this one is {}", self.family),
                    "write it in a table of family ip or ip6",
                ))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn expressions(&mut self, values: &[Expression]) -> Result<(), Refusal> {
        values.iter().try_for_each(|value| self.expression(value))
    }

    /// Checks what a value is read from.
    pub(super) fn expression(&mut self, value: &Expression) -> Result<(), Refusal> {
        match value {
            Expression::Select(selector) => self.selector(*selector),
            Expression::Bitwise(of, ..) | Expression::Shift(of, _) => self.expression(of),
            Expression::Combine(_, left, right) => {
                self.expression(left)?;
                self.expression(right)
            }
            Expression::Map(key, _) => self.expressions(key),
            Expression::Hash { of, .. } => self.expressions(of),
            _ => Ok(()),
        }
    }

    fn selector(&mut self, selector: Selector) -> Result<(), Refusal> {
        match selector {
            Selector::Ip(_) => self.imply_family(false),
            Selector::Ip6(_) => self.imply_family(true),
            Selector::Port(Some(protocol), _) => self.imply_protocol(protocol),
            Selector::Payload(field) => self.payload(field),
            Selector::Tunnel(field) if !field.tunnel.is_udp() => self.imply_protocol(GRE),
            // As in nft, which adds no match of UDP: the tunnel is told by its port.
            Selector::Tunnel(field) if self.protocols.last() != Some(&UDP) => Err(Refusal::new(
                format!("{} is carried by UDP, and nothing before it tells that the packet is", field.tunnel.keyword()),
                format!("write the tunnel's port before it: `udp dport 4789 {} …`", field.tunnel.keyword()),
            )),
            Selector::Exthdr(field) => match field.op {
                ExthdrOp::Ip4Options => self.imply_family(false),
                ExthdrOp::Ipv6ExtHeaders => self.imply_family(true),
                ExthdrOp::TcpOptions | ExthdrOp::SctpChunks | ExthdrOp::DccpOptions => Ok(()),
            },
            Selector::Route(RouteKey::NextHop4) => self.imply_family(false),
            Selector::Route(RouteKey::NextHop6) => self.imply_family(true),
            Selector::Meta(MetaKey::NfProto) if self.family != TableFamily::Inet => Err(Refusal::new(
                format!("meta nfproto tells nothing in a table of family {}: all its packets are of it", self.family),
                "remove this match, or use a table of family inet",
            )),
            Selector::CtTuple(_, CtTupleField::Source4 | CtTupleField::Destination4) => self.require_family(false),
            Selector::CtTuple(_, CtTupleField::Source6 | CtTupleField::Destination6) => self.require_family(true),
            Selector::CtTuple(_, CtTupleField::SourcePort | CtTupleField::DestinationPort)
                if self.protocols.is_empty() =>
            {
                Err(Refusal::new(
                    "the port of a connection is compared without its protocol",
                    "match the protocol before it: `meta l4proto tcp ct original proto-dst 80`",
                ))
            }
            _ => Ok(()),
        }
    }

    /// A field of the VLAN tag: nft refuses it behind what has told that the frame has none.
    fn tag(&mut self) -> Result<(), Refusal> {
        if self.tagged || self.ether_type.is_some_and(|kind| VLAN_TYPES.contains(&kind)) {
            self.tagged = true;
            return Ok(());
        }
        if self.family == TableFamily::Inet && self.network_told {
            return Err(Refusal::new(
                "the rule has selected packets of untagged frames: a field of the network's header stands before that of the VLAN",
                "write the VLAN first: `vlan id 5 ip saddr 192.0.2.1`",
            ));
        }
        if self.ether_type.is_some() {
            return Err(Refusal::new(
                "the rule has already selected frames of another type, which have no VLAN tag",
                "remove one of the two matches",
            ));
        }
        self.tagged = true;
        Ok(())
    }

    fn payload(&mut self, field: PayloadField) -> Result<(), Refusal> {
        if field.base == PayloadBase::Link && field.bits.offset >= LINK_HEADER_BITS {
            return self.tag();
        }
        let Some(protocol) = field.protocol else { return Ok(()) };
        self.imply_protocol(protocol)?;
        // Fields of icmp in an IPv6 packet are a contradiction that nft takes.
        self.v6 = self.v6.or(field.v6);
        self.network_told |= field.v6.is_some();
        Ok(())
    }

    fn assign_target(&mut self, target: AssignTarget) -> Result<(), Refusal> {
        match target {
            AssignTarget::Dscp { v6 } | AssignTarget::Ttl { v6 } | AssignTarget::Address { v6, .. } => {
                self.imply_family(v6)
            }
            AssignTarget::Port { protocol: Some(protocol), .. } => self.imply_protocol(protocol),
            AssignTarget::Payload(field) => {
                if let (Some(v6), None) = (field.v6, field.protocol) {
                    self.imply_family(v6)?;
                }
                self.payload(field)
            }
            _ => Ok(()),
        }
    }

    fn reject(&mut self, reject: Reject) -> Result<(), Refusal> {
        match reject {
            Reject::Icmp(_) => self.require_family(false),
            Reject::Icmpv6(_) => self.require_family(true),
            Reject::Icmpx(_) if self.family != TableFamily::Inet => {
                let word = if self.family == TableFamily::Ip6 { "icmpv6" } else { "icmp" };
                Err(Refusal::new(
                    format!("icmpx stands for ICMP or ICMPv6; a table of family {} has one of them", self.family),
                    format!("write `reject with {word} …`"),
                ))
            }
            // Of several protocols, nft looks at the one written last.
            Reject::TcpReset => match self.protocols.last().filter(|protocol| **protocol != TCP) {
                Some(other) => Err(Refusal::new(
                    format!(
                        "only tcp packets can be answered by a reset; the rule is for {} packets",
                        protocol_name(*other)
                    ),
                    "write `meta l4proto tcp reject with tcp reset`, and `reject` in a rule for the other protocols",
                )),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Learns from a match that holds.
    fn learn(&mut self, one: &Match) {
        if one.not {
            return;
        }
        let [Expression::Select(selector)] = one.left.as_slice() else { return };
        let values = single_values(&one.right);
        match selector {
            // The connection's protocol says something about the packet's once the family is known.
            Selector::CtTuple(_, CtTupleField::Protocol) if self.v6.is_none() => (),
            Selector::Meta(MetaKey::L4Proto)
            | Selector::Ip(IpField::Protocol)
            | Selector::Ip6(IpField::Protocol)
            | Selector::CtTuple(_, CtTupleField::Protocol) => {
                for protocol in values.into_iter().filter_map(|value| u8::try_from(value).ok()) {
                    self.add_protocol(protocol);
                }
            }
            Selector::Meta(MetaKey::NfProto) | Selector::CtTuple(_, CtTupleField::L3Proto)
                if self.family == TableFamily::Inet =>
            {
                // Of several families, nft goes on with the one written last.
                const NFPROTO_IPV6: u128 = 10;
                if let Some(last) = values.last() {
                    self.v6 = Some(*last == NFPROTO_IPV6);
                    self.network_told = true;
                }
            }
            // As nft, the value written last; an address of the other family contradicts it.
            Selector::Payload(field) if field.base == PayloadBase::Link && field.data_type == DataType::EtherType => {
                if field.bits.offset < LINK_HEADER_BITS {
                    self.ether_type = values.last().copied();
                }
                self.link_v6 = match values.last() {
                    Some(0x0800) => Some(false),
                    Some(0x86dd) => Some(true),
                    _ => self.link_v6,
                };
                self.v6 = self.v6.or(self.link_v6);
            }
            _ => (),
        }
    }

    fn add_protocol(&mut self, protocol: u8) {
        self.protocols.retain(|known| *known != protocol);
        self.protocols.push(protocol);
    }

    /// The field exists in packets of this family only.
    fn imply_family(&mut self, v6: bool) -> Result<(), Refusal> {
        self.require_family(v6)?;
        self.network_told |= self.v6.is_none();
        self.v6 = Some(v6);
        Ok(())
    }

    pub(super) fn require_family(&self, v6: bool) -> Result<(), Refusal> {
        let name = |v6| if v6 { "IPv6" } else { "IPv4" };
        match self.v6 {
            Some(known) if known != v6 && self.family != TableFamily::Inet => Err(Refusal::new(
                format!("this is for {} packets, which a table of family {} never sees", name(v6), self.family),
                format!("use a table of family {} or inet", if v6 { "ip6" } else { "ip" }),
            )),
            Some(_) if self.link_v6.is_some_and(|told| told != v6) => Err(Refusal::new(
                format!("this is for {} packets, but the rule has already selected frames of {}", name(v6), name(!v6)),
                "remove one of the two matches",
            )),
            Some(known) if known != v6 => Err(Refusal::new(
                format!("this is for {} packets, but the rule has already selected {} packets", name(v6), name(known)),
                "write a rule for each family",
            )),
            _ => Ok(()),
        }
    }

    /// The field exists in packets of this transport protocol only.
    fn imply_protocol(&mut self, protocol: u8) -> Result<(), Refusal> {
        if let Some(other) = self.protocols.iter().find(|known| **known != protocol) {
            let (name, other) = (protocol_name(protocol), protocol_name(*other));
            let (message, help) = if self.protocols.contains(&protocol) {
                let message = format!("this is for {name} packets, but the rule has selected {other} packets as well");
                (message, format!("remove the match of several protocols: a field of {name} implies its protocol"))
            } else {
                let message = format!("this is for {name} packets, but the rule has already selected {other} packets");
                (message, "write a rule for each protocol".to_owned())
            };
            return Err(Refusal::new(message, help));
        }
        self.add_protocol(protocol);
        Ok(())
    }
}

/// The values of a match that are compared one by one: neither ranges nor named sets.
fn single_values(right: &MatchRhs) -> Vec<u128> {
    match right {
        MatchRhs::Ranges(ranges) => match ranges.as_slice() {
            [(first, last)] if first == last => vec![*first],
            _ => Vec::new(),
        },
        MatchRhs::Set(SetRef::Anonymous(set)) => {
            let keys = set.elements.iter().map(|element| match element.key.as_deref() {
                Some([(first, last)]) if first == last => Some(*first),
                _ => None,
            });
            keys.flatten().collect()
        }
        _ => Vec::new(),
    }
}

/// Name of an IP protocol.
fn protocol_name(protocol: u8) -> String {
    let named = DataType::Protocol.symbols().iter().find(|(_, number)| *number == u128::from(protocol));
    named.map_or_else(|| format!("protocol {protocol}"), |(name, _)| (*name).to_owned())
}
