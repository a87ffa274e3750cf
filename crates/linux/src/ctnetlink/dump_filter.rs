//! The filter of a dump, as far as the kernel can apply it.
//!
//! Kernels before 5.8 cannot filter by tuple and return more: the caller checks each answer again. IPv6 addresses
//! are never sent: the kernel (6.18) inverts that comparison.
use super::consts::{cta, filter};
use super::flow::CtFamily;
use super::{CtTuple, Status};
use crate::netlink::NlRequest;
use std::net::IpAddr;

/// What to match; `None` matches anything, and so does the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpFilter {
    /// Of this family.
    pub family: Option<CtFamily>,
    /// These parts of the original direction.
    pub original: CtTuple,
    /// These parts of the reply direction.
    pub reply: CtTuple,
    /// Mark and mask.
    pub mark: Option<[u32; 2]>,
    /// Status bits and mask.
    pub status: Option<[Status; 2]>,
    /// The zone of both directions.
    pub zone: Option<u16>,
}

impl DumpFilter {
    /// Is everything wanted?
    pub fn is_empty(&self) -> bool {
        *self == DumpFilter::default()
    }

    /// The family to put into a request; 0 is any.
    pub fn family_number(&self) -> u8 {
        self.family.map_or(0, CtFamily::number)
    }

    /// Adds it to a request.
    pub fn encode(&self, request: &mut NlRequest) {
        let (told_original, told_reply) = (kernel_filterable(&self.original), kernel_filterable(&self.reply));
        let (original, reply) = (tuple_filter_flags(&told_original), tuple_filter_flags(&told_reply));
        // The kernel compares tuples of one family only, and must be told which.
        if self.family.is_some() && (original != 0 || reply != 0) {
            for (kind, tuple, flags) in
                [(cta::TUPLE_ORIG, &told_original, original), (cta::TUPLE_REPLY, &told_reply, reply)]
            {
                if flags != 0 {
                    request.nest(kind, |bytes| tuple.encode(bytes));
                }
            }
            request.nest(cta::FILTER, |bytes| {
                use crate::netlink::attribute::push;
                push(bytes, filter::ORIG_FLAGS, &original.to_ne_bytes());
                push(bytes, filter::REPLY_FLAGS, &reply.to_ne_bytes());
            });
        }
        let status = self.status.map(|pair| pair.map(|bits| bits.bits()));
        let pairs = [(cta::MARK, cta::MARK_MASK, self.mark), (cta::STATUS, cta::STATUS_MASK, status)];
        for (value_kind, mask_kind, pair) in pairs {
            if let Some([value, mask]) = pair {
                request.push(value_kind, &value.to_be_bytes()).push(mask_kind, &mask.to_be_bytes());
            }
        }
        if let Some(zone) = self.zone {
            request.push(cta::ZONE, &zone.to_be_bytes());
        }
    }
}

/// What of a tuple the kernel compares as it should.
fn kernel_filterable(tuple: &CtTuple) -> CtTuple {
    CtTuple {
        source: tuple.source.filter(IpAddr::is_ipv4),
        destination: tuple.destination.filter(IpAddr::is_ipv4),
        ..*tuple
    }
}

/// Which parts of a tuple are to be compared, in the kernel's bits.
fn tuple_filter_flags(tuple: &CtTuple) -> u32 {
    let v6 = tuple.protocol == Some(super::protocol::ICMPV6);
    let icmp = if v6 { 9 } else { 6 };
    let parts = [
        (0, tuple.source.is_some()),
        (1, tuple.destination.is_some()),
        (2, tuple.zone.is_some()),
        (3, tuple.protocol.is_some()),
        (4, tuple.source_port.is_some()),
        (5, tuple.destination_port.is_some()),
        (icmp, tuple.icmp_type.is_some()),
        (icmp + 1, tuple.icmp_code.is_some()),
        (icmp + 2, tuple.icmp_id.is_some()),
    ];
    parts.into_iter().filter(|(_, wanted)| *wanted).fold(0, |flags, (bit, _)| flags | 1 << bit)
}
