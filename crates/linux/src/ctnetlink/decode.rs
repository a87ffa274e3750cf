//! From netlink messages to a [`CtFlow`].
use super::consts::{counters, cta, help, nat, protoinfo, protonat, sctp, secctx, seqadj, synproxy, tcp, timestamp};
use super::flow::{
    CtCounters, CtFamily, CtFlow, CtLabels, CtNatRange, CtProtoInfo, CtSctpInfo, CtSeqAdj, CtSynproxy, CtTcpInfo,
};
use super::{CtTuple, SctpState, Status};
use crate::netlink::message::NlBody;
use crate::netlink::{MalformedNetlink, NlAttr, NlMessage};

/// The connection in a message; `None` for another message type or an unknown address family.
///
/// # Errors
/// An attribute is too short.
pub fn flow(message: &NlMessage<'_>) -> Result<Option<CtFlow>, MalformedNetlink> {
    let mut flow = CtFlow::default();
    Ok(flow_into(message, &mut flow)?.then_some(flow))
}

/// As [`flow`], into a buffer; returns whether there was a connection.
///
/// # Errors
/// As [`flow`].
pub fn flow_into(message: &NlMessage<'_>, flow: &mut CtFlow) -> Result<bool, MalformedNetlink> {
    let NlBody::Data { family, .. } = message.body else { return Ok(false) };
    let Some(family) = CtFamily::from_number(family) else { return Ok(false) };
    *flow = CtFlow { family: Some(family), ..CtFlow::default() };
    for attribute in message.attributes() {
        decode_attribute(flow, &attribute?)?;
    }
    Ok(true)
}

/// Takes in one attribute of a connection.
fn decode_attribute(flow: &mut CtFlow, attribute: &NlAttr<'_>) -> Result<(), MalformedNetlink> {
    match attribute.kind {
        cta::TUPLE_ORIG => flow.original = CtTuple::decode(attribute)?,
        cta::TUPLE_REPLY => flow.reply = CtTuple::decode(attribute)?,
        cta::TUPLE_MASTER => flow.master = Some(CtTuple::decode(attribute)?),
        cta::STATUS => flow.status = Some(Status::from_bits_retain(attribute.be32("CTA_STATUS")?)),
        cta::TIMEOUT => flow.timeout = Some(attribute.be32("CTA_TIMEOUT")?),
        cta::MARK => flow.mark = Some(attribute.be32("CTA_MARK")?),
        cta::USE => flow.use_count = Some(attribute.be32("CTA_USE")?),
        cta::ID => flow.id = Some(attribute.be32("CTA_ID")?),
        cta::ZONE => flow.zone = Some(attribute.be16("CTA_ZONE")?),
        cta::PROTOINFO => flow.protoinfo = decode_protoinfo(attribute)?,
        cta::COUNTERS_ORIG => flow.counters[0] = Some(decode_counters(attribute)?),
        cta::COUNTERS_REPLY => flow.counters[1] = Some(decode_counters(attribute)?),
        cta::TIMESTAMP => decode_timestamps(flow, attribute)?,
        cta::TIMESTAMP_EVENT => flow.event_timestamp = Some(attribute.be64("CTA_TIMESTAMP_EVENT")?),
        cta::LABELS => flow.labels = Some(decode_labels(attribute)),
        cta::LABELS_MASK => flow.labels_mask = Some(decode_labels(attribute)),
        cta::HELP => flow.helper = nested_text(attribute, help::NAME)?,
        cta::SECCTX => flow.secctx = nested_text(attribute, secctx::NAME)?,
        cta::SEQ_ADJ_ORIG => flow.seqadj[0] = Some(decode_seqadj(attribute)?),
        cta::SEQ_ADJ_REPLY => flow.seqadj[1] = Some(decode_seqadj(attribute)?),
        cta::SYNPROXY => flow.synproxy = Some(decode_synproxy(attribute)?),
        // These two are only ever told to a table, never by one.
        cta::NAT_SRC => flow.source_nat = decode_nat(attribute)?,
        cta::NAT_DST => flow.destination_nat = decode_nat(attribute)?,
        _ => (),
    }
    Ok(())
}

fn decode_protoinfo(attribute: &NlAttr<'_>) -> Result<CtProtoInfo, MalformedNetlink> {
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            protoinfo::TCP => return decode_tcp(&part).map(CtProtoInfo::Tcp),
            protoinfo::SCTP => return decode_sctp(&part).map(CtProtoInfo::Sctp),
            _ => (),
        }
    }
    Ok(CtProtoInfo::Empty)
}

fn decode_tcp(attribute: &NlAttr<'_>) -> Result<CtTcpInfo, MalformedNetlink> {
    let mut info = CtTcpInfo::default();
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            tcp::STATE => info.state = Some(part.u8("CTA_PROTOINFO_TCP_STATE")?),
            tcp::WSCALE_ORIGINAL => info.wscale[0] = Some(part.u8("CTA_PROTOINFO_TCP_WSCALE_ORIGINAL")?),
            tcp::WSCALE_REPLY => info.wscale[1] = Some(part.u8("CTA_PROTOINFO_TCP_WSCALE_REPLY")?),
            tcp::FLAGS_ORIGINAL => info.flags[0] = Some(part.bytes("CTA_PROTOINFO_TCP_FLAGS_ORIGINAL")?),
            tcp::FLAGS_REPLY => info.flags[1] = Some(part.bytes("CTA_PROTOINFO_TCP_FLAGS_REPLY")?),
            _ => (),
        }
    }
    Ok(info)
}

fn decode_sctp(attribute: &NlAttr<'_>) -> Result<CtSctpInfo, MalformedNetlink> {
    let mut info = CtSctpInfo::default();
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            sctp::STATE => info.state = SctpState::from_number(part.u8("CTA_PROTOINFO_SCTP_STATE")?),
            sctp::VTAG_ORIGINAL => info.vtags[0] = Some(part.be32("CTA_PROTOINFO_SCTP_VTAG_ORIGINAL")?),
            sctp::VTAG_REPLY => info.vtags[1] = Some(part.be32("CTA_PROTOINFO_SCTP_VTAG_REPLY")?),
            _ => (),
        }
    }
    Ok(info)
}

fn decode_counters(attribute: &NlAttr<'_>) -> Result<CtCounters, MalformedNetlink> {
    let mut counts = CtCounters::default();
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            counters::PACKETS => counts.packets = part.be64("CTA_COUNTERS_PACKETS")?,
            counters::BYTES => counts.bytes = part.be64("CTA_COUNTERS_BYTES")?,
            _ => (),
        }
    }
    Ok(counts)
}

fn decode_timestamps(flow: &mut CtFlow, attribute: &NlAttr<'_>) -> Result<(), MalformedNetlink> {
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            timestamp::START => flow.start = Some(part.be64("CTA_TIMESTAMP_START")?),
            timestamp::STOP => flow.stop = Some(part.be64("CTA_TIMESTAMP_STOP")?),
            _ => (),
        }
    }
    Ok(())
}

/// The kernel tells as many bytes of them as it keeps; what is missing is zero.
fn decode_labels(attribute: &NlAttr<'_>) -> CtLabels {
    let mut labels = CtLabels::default();
    for (label, decoded) in labels.iter_mut().zip(attribute.payload) {
        *label = *decoded;
    }
    labels
}

fn decode_seqadj(attribute: &NlAttr<'_>) -> Result<CtSeqAdj, MalformedNetlink> {
    let mut correction = CtSeqAdj::default();
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            seqadj::CORRECTION_POS => correction.correction_pos = part.be32("CTA_SEQADJ_CORRECTION_POS")?,
            seqadj::OFFSET_BEFORE => correction.offset_before = part.be32("CTA_SEQADJ_OFFSET_BEFORE")?,
            seqadj::OFFSET_AFTER => correction.offset_after = part.be32("CTA_SEQADJ_OFFSET_AFTER")?,
            _ => (),
        }
    }
    Ok(correction)
}

fn decode_synproxy(attribute: &NlAttr<'_>) -> Result<CtSynproxy, MalformedNetlink> {
    let mut proxied = CtSynproxy::default();
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            synproxy::ISN => proxied.isn = part.be32("CTA_SYNPROXY_ISN")?,
            synproxy::ITS => proxied.its = part.be32("CTA_SYNPROXY_ITS")?,
            synproxy::TSOFF => proxied.tsoff = part.be32("CTA_SYNPROXY_TSOFF")?,
            _ => (),
        }
    }
    Ok(proxied)
}

/// One address, of which the kernel takes a range; none where there is no address.
fn decode_nat(attribute: &NlAttr<'_>) -> Result<Option<CtNatRange>, MalformedNetlink> {
    let (mut address, mut ports) = (None, None);
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            nat::V4_MINIP => address = Some(part.bytes::<4>("CTA_NAT_V4_MINIP")?.into()),
            nat::V6_MINIP => address = Some(part.bytes::<16>("CTA_NAT_V6_MINIP")?.into()),
            nat::PROTO => {
                let (mut low, mut high) = (None, None);
                for port in part.nested() {
                    let port = port?;
                    match port.kind {
                        protonat::PORT_MIN => low = Some(port.be16("CTA_PROTONAT_PORT_MIN")?),
                        protonat::PORT_MAX => high = Some(port.be16("CTA_PROTONAT_PORT_MAX")?),
                        _ => (),
                    }
                }
                ports = low.map(|low| [low, high.unwrap_or(low)]);
            }
            _ => (),
        }
    }
    Ok(address.map(|address| CtNatRange { address, ports }))
}

/// The text of the nested attribute of this kind.
fn nested_text(attribute: &NlAttr<'_>, kind: u16) -> Result<Option<Box<str>>, MalformedNetlink> {
    for part in attribute.nested() {
        let part = part?;
        if part.kind == kind {
            return Ok(Some(part.text()));
        }
    }
    Ok(None)
}
