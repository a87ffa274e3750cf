//! From a [`Flow`] to the kernel's octets: only what is told is sent.
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
        request.nest(cta::TUPLE_MASTER, |octets| master.encode(octets));
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
        request.nest(cta::HELP, |octets| attribute::push_text(octets, help::NAME, name));
    }
    if let Some(name) = &flow.secctx {
        request.nest(cta::SECCTX, |octets| attribute::push_text(octets, secctx::NAME, name));
    }
    for (kind, translation) in [(cta::NAT_SRC, flow.source_nat), (cta::NAT_DST, flow.destination_nat)] {
        if let Some(translation) = translation {
            request.nest(kind, |octets| encode_nat(octets, translation));
        }
    }
    for (kind, correction) in [cta::SEQ_ADJ_ORIG, cta::SEQ_ADJ_REPLY].into_iter().zip(flow.seqadj) {
        if let Some(correction) = correction {
            request.nest(kind, |octets| encode_seqadj(octets, correction));
        }
    }
    encode_kernel_only(request, flow);
    for (kind, labels) in [(cta::LABELS, flow.labels), (cta::LABELS_MASK, flow.labels_mask)] {
        if let Some(labels) = labels {
            request.push(kind, &labels);
        }
    }
}

/// Adds both directions as far as they are told, and the zone: what names a connection.
pub fn tuples(request: &mut NlRequest, flow: &CtFlow) {
    for (kind, tuple) in [(cta::TUPLE_ORIG, &flow.original), (cta::TUPLE_REPLY, &flow.reply)] {
        if *tuple != CtTuple::default() {
            request.nest(kind, |octets| tuple.encode(octets));
        }
    }
    if let Some(zone) = flow.zone {
        request.push(cta::ZONE, &zone.to_be_bytes());
    }
}

/// What only the kernel tells: it passes over them where they are sent to it.
fn encode_kernel_only(request: &mut NlRequest, flow: &CtFlow) {
    for (kind, counts) in [cta::COUNTERS_ORIG, cta::COUNTERS_REPLY].into_iter().zip(flow.counters) {
        if let Some(counts) = counts {
            request.nest(kind, |octets| {
                attribute::push(octets, counters::PACKETS, &counts.packets.to_be_bytes());
                attribute::push(octets, counters::BYTES, &counts.bytes.to_be_bytes());
            });
        }
    }
    if flow.start.is_some() || flow.stop.is_some() {
        request.nest(cta::TIMESTAMP, |octets| {
            for (kind, time) in [(timestamp::START, flow.start), (timestamp::STOP, flow.stop)] {
                if let Some(time) = time {
                    attribute::push(octets, kind, &time.to_be_bytes());
                }
            }
        });
    }
    if let Some(time) = flow.event_timestamp {
        request.push(cta::TIMESTAMP_EVENT, &time.to_be_bytes());
    }
    if let Some(proxied) = flow.synproxy {
        request.nest(cta::SYNPROXY, |octets| {
            let parts = [(synproxy::ISN, proxied.isn), (synproxy::ITS, proxied.its), (synproxy::TSOFF, proxied.tsoff)];
            for (kind, value) in parts {
                attribute::push(octets, kind, &value.to_be_bytes());
            }
        });
    }
}

fn encode_protoinfo(request: &mut NlRequest, protocol: &CtProtoInfo) {
    match protocol {
        CtProtoInfo::Empty => (),
        CtProtoInfo::Tcp(info) => {
            request.nest(cta::PROTOINFO, |octets| {
                attribute::nest(octets, protoinfo::TCP | NLA_F_NESTED, |octets| {
                    if let Some(state) = info.state {
                        attribute::push(octets, tcp::STATE, &[state]);
                    }
                    for (kind, scale) in [tcp::WSCALE_ORIGINAL, tcp::WSCALE_REPLY].into_iter().zip(info.wscale) {
                        if let Some(scale) = scale {
                            attribute::push(octets, kind, &[scale]);
                        }
                    }
                    for (kind, flags) in [tcp::FLAGS_ORIGINAL, tcp::FLAGS_REPLY].into_iter().zip(info.flags) {
                        if let Some(flags) = flags {
                            attribute::push(octets, kind, &flags);
                        }
                    }
                });
            });
        }
        CtProtoInfo::Sctp(info) => {
            request.nest(cta::PROTOINFO, |octets| {
                attribute::nest(octets, protoinfo::SCTP | NLA_F_NESTED, |octets| {
                    if let Some(state) = info.state.map(SctpState::number) {
                        attribute::push(octets, sctp::STATE, &[state]);
                    }
                    for (kind, tag) in [sctp::VTAG_ORIGINAL, sctp::VTAG_REPLY].into_iter().zip(info.vtags) {
                        if let Some(tag) = tag {
                            attribute::push(octets, kind, &tag.to_be_bytes());
                        }
                    }
                });
            });
        }
    }
}

fn encode_nat(octets: &mut Vec<u8>, translation: CtNatRange) {
    match translation.address {
        IpAddr::V4(address) => {
            attribute::push(octets, nat::V4_MINIP, &address.octets());
            attribute::push(octets, nat::V4_MAXIP, &address.octets());
        }
        IpAddr::V6(address) => {
            attribute::push(octets, nat::V6_MINIP, &address.octets());
            attribute::push(octets, nat::V6_MAXIP, &address.octets());
        }
    }
    if let Some([low, high]) = translation.ports {
        attribute::nest(octets, nat::PROTO | NLA_F_NESTED, |octets| {
            attribute::push(octets, protonat::PORT_MIN, &low.to_be_bytes());
            attribute::push(octets, protonat::PORT_MAX, &high.to_be_bytes());
        });
    }
}

fn encode_seqadj(octets: &mut Vec<u8>, correction: CtSeqAdj) {
    attribute::push(octets, seqadj::CORRECTION_POS, &correction.correction_pos.to_be_bytes());
    attribute::push(octets, seqadj::OFFSET_BEFORE, &correction.offset_before.to_be_bytes());
    attribute::push(octets, seqadj::OFFSET_AFTER, &correction.offset_after.to_be_bytes());
}
