//! Which connections are meant: all that fit every option given.
//!
//! As much of it as the kernel understands is asked of the kernel ([`Pick::restriction`]); every answer is looked at again, because older
//! kernels understand less, and none understands masks, states, labels or translations.
use keepstate_linux::ctnetlink::{CtFamily, CtFlow, CtLabels, CtProtoInfo, CtTuple, DumpFilter, SctpState, Status};
use std::net::IpAddr;

/// A choice among connections; the default is all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct FlowFilter {
    pub(super) family: Option<CtFamily>,
    /// Parts of the original direction that must be equal, addresses apart.
    pub(super) original: CtTuple,
    /// Parts of the reply direction that must be equal.
    pub(super) reply: CtTuple,
    pub(super) source: Option<MaskedAddr>,
    pub(super) destination: Option<MaskedAddr>,
    pub(super) mark: Option<[u32; 2]>,
    /// Bits that must be set, bits that may not.
    pub(super) status: Option<[Status; 2]>,
    pub(super) tcp_state: Option<u8>,
    pub(super) sctp_state: Option<SctpState>,
    pub(super) vtags: [Option<u32>; 2],
    pub(super) zone: Option<u16>,
    pub(super) labels: Option<CtLabels>,
    pub(super) id: Option<u32>,
    pub(super) source_nat: Option<NatEndpoint>,
    pub(super) destination_nat: Option<NatEndpoint>,
    pub(super) any_nat: Option<NatEndpoint>,
}

/// An address under a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MaskedAddr {
    pub(super) address: IpAddr,
    pub(super) mask: Option<IpAddr>,
}

/// What a connection is translated to, as far as it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NatEndpoint {
    pub(super) address: Option<IpAddr>,
    pub(super) port: Option<u16>,
}

impl MaskedAddr {
    fn contains(&self, address: Option<IpAddr>) -> bool {
        match (address, self.address, self.mask) {
            (Some(there), wanted, None) => there == wanted,
            (Some(IpAddr::V4(there)), IpAddr::V4(wanted), Some(IpAddr::V4(mask))) => {
                (there.to_bits() ^ wanted.to_bits()) & mask.to_bits() == 0
            }
            (Some(IpAddr::V6(there)), IpAddr::V6(wanted), Some(IpAddr::V6(mask))) => {
                (there.to_bits() ^ wanted.to_bits()) & mask.to_bits() == 0
            }
            _ => false,
        }
    }

    /// The address, if it alone is meant.
    fn exact_address(&self) -> Option<IpAddr> {
        match self.mask {
            None => Some(self.address),
            Some(IpAddr::V4(mask)) => (mask.to_bits() == u32::MAX).then_some(self.address),
            Some(IpAddr::V6(mask)) => (mask.to_bits() == u128::MAX).then_some(self.address),
        }
    }
}

impl FlowFilter {
    /// As much of it as the kernel understands.
    pub(super) fn dump_filter(&self) -> DumpFilter {
        let mut original = CtTuple { zone: None, ..self.original };
        original.source = self.source.and_then(|network| network.exact_address());
        original.destination = self.destination.and_then(|network| network.exact_address());
        let mut reply = CtTuple { zone: None, ..self.reply };
        if reply.source_port.is_some() || reply.destination_port.is_some() {
            // The kernel looks at ports only where it is told of which protocol.
            reply.protocol = original.protocol;
        }
        // Zone 0 is every connection without a zone of both directions, which the kernel sees otherwise.
        let status = self.status.map(|[set, unset]| [set, set | unset]);
        DumpFilter {
            family: self.family,
            original,
            reply,
            mark: self.mark,
            status,
            zone: self.zone.filter(|zone| *zone != 0),
        }
    }

    /// Is this connection meant?
    pub(super) fn matches(&self, flow: &CtFlow) -> bool {
        let bits = flow.status.unwrap_or_default();
        self.family.is_none_or(|family| flow.family == Some(family))
            && tuple_matches(&self.original, &flow.original)
            && tuple_matches(&self.reply, &flow.reply)
            && self.source.is_none_or(|network| network.contains(flow.original.source))
            && self.destination.is_none_or(|network| network.contains(flow.original.destination))
            && self.mark.is_none_or(|[value, mask]| flow.mark.unwrap_or(0) & mask == value)
            && self.status.is_none_or(|[set, unset]| bits.contains(set) && !bits.intersects(unset))
            && eq_if_set(self.zone, flow.zone.or(Some(0)))
            && eq_if_set(self.id, flow.id)
            && self.labels.is_none_or(|labels| has_labels(flow.labels, labels))
            && self.matches_protocol(&flow.protoinfo)
            && self.matches_nat(flow)
    }

    fn matches_protocol(&self, protocol: &CtProtoInfo) -> bool {
        match protocol {
            CtProtoInfo::Tcp(info) => self.sctp_state.is_none() && eq_if_set(self.tcp_state, info.state),
            CtProtoInfo::Sctp(info) => {
                self.tcp_state.is_none()
                    && eq_if_set(self.sctp_state, info.state)
                    && self.vtags.iter().zip(info.vtags).all(|(tag, there)| eq_if_set(*tag, there))
            }
            CtProtoInfo::Empty => self.tcp_state.is_none() && self.sctp_state.is_none(),
        }
    }

    fn matches_nat(&self, flow: &CtFlow) -> bool {
        let source = |wanted: NatEndpoint| {
            is_src_nat(flow) && wanted.matches(flow.reply.destination, flow.reply.destination_port)
        };
        let destination =
            |wanted: NatEndpoint| is_dst_nat(flow) && wanted.matches(flow.reply.source, flow.reply.source_port);
        self.source_nat.is_none_or(source)
            && self.destination_nat.is_none_or(destination)
            && self.any_nat.is_none_or(|wanted| source(wanted) || destination(wanted))
    }
}

impl NatEndpoint {
    fn matches(&self, address: Option<IpAddr>, port: Option<u16>) -> bool {
        eq_if_set(self.address, address) && eq_if_set(self.port, port)
    }
}

/// Nothing wanted is always there.
fn eq_if_set<T: PartialEq>(wanted: Option<T>, there: Option<T>) -> bool {
    wanted.is_none() || wanted == there
}

/// Is every part of `wanted` that is told the same in `there`?
fn tuple_matches(of: &CtTuple, there: &CtTuple) -> bool {
    eq_if_set(of.source, there.source)
        && eq_if_set(of.destination, there.destination)
        && eq_if_set(of.protocol, there.protocol)
        && eq_if_set(of.source_port, there.source_port)
        && eq_if_set(of.destination_port, there.destination_port)
        && eq_if_set(of.icmp_id, there.icmp_id)
        && eq_if_set(of.icmp_type, there.icmp_type)
        && eq_if_set(of.icmp_code, there.icmp_code)
        && eq_if_set(of.zone, there.zone.or(Some(0)))
}

fn has_labels(there: Option<CtLabels>, labels: CtLabels) -> bool {
    let wanted = u128::from_le_bytes(labels);
    u128::from_le_bytes(there.unwrap_or_default()) & wanted == wanted
}

/// Was source NAT done, and did it change anything?
fn is_src_nat(flow: &CtFlow) -> bool {
    let moved =
        flow.reply.destination != flow.original.source || flow.reply.destination_port != flow.original.source_port;
    flow.status.unwrap_or_default().intersects(Status::SRC_NAT | Status::SRC_NAT_DONE) && moved
}

/// Was destination NAT done, and did it change anything?
fn is_dst_nat(flow: &CtFlow) -> bool {
    let moved =
        flow.reply.source != flow.original.destination || flow.reply.source_port != flow.original.destination_port;
    flow.status.unwrap_or_default().intersects(Status::DST_NAT | Status::DST_NAT_DONE) && moved
}
