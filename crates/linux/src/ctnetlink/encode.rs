//! From a [`CtFlow`] to netlink attributes: only the fields that are set.
use super::consts::{counters, cta, help, nat, protoinfo, protonat, sctp, secctx, seqadj, synproxy, tcp, timestamp};
use super::flow::{CtFlow, CtNatRange, CtProtoInfo, CtSeqAdj};
use super::{CtTuple, SctpState};
use crate::netlink::NlRequest;
use crate::netlink::attribute::{self, NLA_F_NESTED};
use std::net::IpAddr;

/// Adds the attributes of a connection to a request.
pub fn flow(request: &mut NlRequest, flow: &CtFlow) {
    tuples(request, flow);
    if let Some(master) = &flow.master {
        request.nest(cta::TUPLE_MASTER, |bytes| master.encode(bytes));
    }
    let words = [
        (cta::STATUS, flow.status.map(|status| status.bits())),
        (cta::TIMEOUT, flow.timeout),
        (cta::MARK, flow.mark),
        (cta::USE, flow.use_count),
        (cta::ID, flow.id),
    ];
    for (kind, value) in words {
        if let Some(value) = value {
            request.push(kind, &value.to_be_bytes());
        }
    }
    encode_protoinfo(request, &flow.protoinfo);
    if let Some(name) = &flow.helper {
        request.nest(cta::HELP, |bytes| attribute::push_text(bytes, help::NAME, name));
    }
    if let Some(name) = &flow.secctx {
        request.nest(cta::SECCTX, |bytes| attribute::push_text(bytes, secctx::NAME, name));
    }
    for (kind, translation) in [(cta::NAT_SRC, flow.source_nat), (cta::NAT_DST, flow.destination_nat)] {
        if let Some(translation) = translation {
            request.nest(kind, |bytes| encode_nat(bytes, translation));
        }
    }
    for (kind, correction) in [cta::SEQ_ADJ_ORIG, cta::SEQ_ADJ_REPLY].into_iter().zip(flow.seqadj) {
        if let Some(correction) = correction {
            request.nest(kind, |bytes| encode_seqadj(bytes, correction));
        }
    }
    if let Some(proxied) = flow.synproxy {
        request.nest(cta::SYNPROXY, |bytes| {
            let parts = [(synproxy::ISN, proxied.isn), (synproxy::ITS, proxied.its), (synproxy::TSOFF, proxied.tsoff)];
            for (kind, value) in parts {
                attribute::push(bytes, kind, &value.to_be_bytes());
            }
        });
    }
    encode_kernel_only(request, flow);
    for (kind, labels) in [(cta::LABELS, flow.labels), (cta::LABELS_MASK, flow.labels_mask)] {
        if let Some(labels) = labels {
            request.push(kind, &labels);
        }
    }
}

/// Adds the tuples that are set, and the zone: they identify a connection.
pub fn tuples(request: &mut NlRequest, flow: &CtFlow) {
    for (kind, tuple) in [(cta::TUPLE_ORIG, &flow.original), (cta::TUPLE_REPLY, &flow.reply)] {
        if *tuple != CtTuple::default() {
            request.nest(kind, |bytes| tuple.encode(bytes));
        }
    }
    if let Some(zone) = flow.zone {
        request.push(cta::ZONE, &zone.to_be_bytes());
    }
}

/// Fields that only the kernel sets; it ignores them in requests.
fn encode_kernel_only(request: &mut NlRequest, flow: &CtFlow) {
    for (kind, counts) in [cta::COUNTERS_ORIG, cta::COUNTERS_REPLY].into_iter().zip(flow.counters) {
        if let Some(counts) = counts {
            request.nest(kind, |bytes| {
                attribute::push(bytes, counters::PACKETS, &counts.packets.to_be_bytes());
                attribute::push(bytes, counters::BYTES, &counts.bytes.to_be_bytes());
            });
        }
    }
    if flow.start.is_some() || flow.stop.is_some() {
        request.nest(cta::TIMESTAMP, |bytes| {
            for (kind, time) in [(timestamp::START, flow.start), (timestamp::STOP, flow.stop)] {
                if let Some(time) = time {
                    attribute::push(bytes, kind, &time.to_be_bytes());
                }
            }
        });
    }
    if let Some(time) = flow.event_timestamp {
        request.push(cta::TIMESTAMP_EVENT, &time.to_be_bytes());
    }
}

fn encode_protoinfo(request: &mut NlRequest, protocol: &CtProtoInfo) {
    match protocol {
        CtProtoInfo::Empty => (),
        CtProtoInfo::Tcp(info) => {
            request.nest(cta::PROTOINFO, |bytes| {
                attribute::nest(bytes, protoinfo::TCP | NLA_F_NESTED, |bytes| {
                    if let Some(state) = info.state {
                        attribute::push(bytes, tcp::STATE, &[state]);
                    }
                    for (kind, scale) in [tcp::WSCALE_ORIGINAL, tcp::WSCALE_REPLY].into_iter().zip(info.wscale) {
                        if let Some(scale) = scale {
                            attribute::push(bytes, kind, &[scale]);
                        }
                    }
                    for (kind, flags) in [tcp::FLAGS_ORIGINAL, tcp::FLAGS_REPLY].into_iter().zip(info.flags) {
                        if let Some(flags) = flags {
                            attribute::push(bytes, kind, &flags);
                        }
                    }
                });
            });
        }
        CtProtoInfo::Sctp(info) => {
            request.nest(cta::PROTOINFO, |bytes| {
                attribute::nest(bytes, protoinfo::SCTP | NLA_F_NESTED, |bytes| {
                    if let Some(state) = info.state.map(SctpState::number) {
                        attribute::push(bytes, sctp::STATE, &[state]);
                    }
                    for (kind, tag) in [sctp::VTAG_ORIGINAL, sctp::VTAG_REPLY].into_iter().zip(info.vtags) {
                        if let Some(tag) = tag {
                            attribute::push(bytes, kind, &tag.to_be_bytes());
                        }
                    }
                });
            });
        }
    }
}

fn encode_nat(bytes: &mut Vec<u8>, translation: CtNatRange) {
    match translation.address {
        IpAddr::V4(address) => {
            attribute::push(bytes, nat::V4_MINIP, &address.octets());
            attribute::push(bytes, nat::V4_MAXIP, &address.octets());
        }
        IpAddr::V6(address) => {
            attribute::push(bytes, nat::V6_MINIP, &address.octets());
            attribute::push(bytes, nat::V6_MAXIP, &address.octets());
        }
    }
    if let Some([low, high]) = translation.ports {
        attribute::nest(bytes, nat::PROTO | NLA_F_NESTED, |bytes| {
            attribute::push(bytes, protonat::PORT_MIN, &low.to_be_bytes());
            attribute::push(bytes, protonat::PORT_MAX, &high.to_be_bytes());
        });
    }
}

fn encode_seqadj(bytes: &mut Vec<u8>, correction: CtSeqAdj) {
    attribute::push(bytes, seqadj::CORRECTION_POS, &correction.correction_pos.to_be_bytes());
    attribute::push(bytes, seqadj::OFFSET_BEFORE, &correction.offset_before.to_be_bytes());
    attribute::push(bytes, seqadj::OFFSET_AFTER, &correction.offset_after.to_be_bytes());
}
