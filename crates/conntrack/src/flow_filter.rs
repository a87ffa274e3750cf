//! Which connections a command selects: those that match every option given.
//!
//! The kernel does as much of it as it can ([`FlowFilter::dump_filter`]); every answer is compared again, because older kernels can do
//! less, and none compares masks, states, labels or translations. The fields are filled once, from a command line or from
//! [`FilterArgs`](crate::FilterArgs), and never change.
use keepstate_linux::ctnetlink::{CtFamily, CtFlow, CtLabels, CtProtoInfo, CtTuple, DumpFilter, SctpState, Status};
use std::net::IpAddr;

/// A selection of connections; the default selects all.
#[derive(Clone, Debug, Default)]
pub(crate) struct FlowFilter {
    /// IPv4 or IPv6.
    pub(crate) family: Option<CtFamily>,
    /// Parts of the original direction that must be equal, addresses apart.
    pub(crate) original: CtTuple,
    /// Parts of the reply direction that must be equal.
    pub(crate) reply: CtTuple,
    pub(crate) source: Option<MaskedAddr>,
    pub(crate) destination: Option<MaskedAddr>,
    pub(crate) mark: Option<[u32; 2]>,
    /// Bits that must be set, bits that may not.
    pub(crate) status: Option<[Status; 2]>,
    pub(crate) tcp_state: Option<u8>,
    pub(crate) sctp_state: Option<SctpState>,
    pub(crate) vtags: [Option<u32>; 2],
    pub(crate) zone: Option<u16>,
    pub(crate) labels: Option<CtLabels>,
    pub(crate) id: Option<u32>,
    /// Seconds left.
    pub(crate) timeout: Option<u32>,
    pub(crate) source_nat: Option<NatEndpoint>,
    pub(crate) destination_nat: Option<NatEndpoint>,
    pub(crate) any_nat: Option<NatEndpoint>,
}

/// An address under a mask; without a mask, that address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct MaskedAddr {
    pub(crate) address: IpAddr,
    pub(crate) mask: Option<IpAddr>,
}

/// What a connection's address or port is translated to, as far as it was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NatEndpoint {
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: Option<u16>,
}

impl MaskedAddr {
    pub(crate) fn contains(&self, address: Option<IpAddr>) -> bool {
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
    /// The part of it that the kernel can compare itself.
    pub(crate) fn dump_filter(&self) -> DumpFilter {
        let mut original = CtTuple { zone: None, ..self.original };
        original.source = self.source.and_then(|network| network.exact_address());
        original.destination = self.destination.and_then(|network| network.exact_address());
        let mut reply = CtTuple { zone: None, ..self.reply };
        if reply.source_port.is_some() || reply.destination_port.is_some() {
            // The kernel compares ports only if the protocol is given too.
            reply.protocol = original.protocol;
        }
        // `-w 0` selects every connection without a zone of both directions; the kernel compares zones differently.
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

    /// Is this connection selected?
    pub(crate) fn matches(&self, flow: &CtFlow) -> bool {
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
            && eq_if_set(self.timeout, flow.timeout)
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

/// `None` in `wanted` matches everything.
fn eq_if_set<T: PartialEq>(wanted: Option<T>, there: Option<T>) -> bool {
    wanted.is_none() || wanted == there
}

/// Is every part of `wanted` that is set the same in `there`?
fn tuple_matches(wanted: &CtTuple, there: &CtTuple) -> bool {
    wanted.matches(there) && eq_if_set(wanted.zone, there.zone.or(Some(0)))
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
