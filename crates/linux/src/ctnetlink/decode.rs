//! From the kernel's octets to a [`Flow`].
use super::flow::{Correction, Counts, Family, Flow, Labels, Protocol, SctpInfo, Synproxy, TcpInfo, Translation};
use super::number::{counters, cta, help, nat, protoinfo, protonat, sctp, secctx, seqadj, synproxy, tcp, timestamp};
use super::{SctpState, Tuple};
use crate::netlink::message::Body;
use crate::netlink::{Attribute, Malformed, Message};

/// The connection that a message tells of; `None` where it is a message of another kind, or of a family that is not known here.
///
/// # Errors
/// Where a part is shorter than it must be.
pub fn flow(message: &Message<'_>) -> Result<Option<Flow>, Malformed> {
    let mut flow = Flow::default();
    Ok(flow_into(message, &mut flow)?.then_some(flow))
}

/// As [`flow`], into one that is used again; says whether there was a connection.
///
/// # Errors
/// As [`flow`].
pub fn flow_into(message: &Message<'_>, flow: &mut Flow) -> Result<bool, Malformed> {
    let Body::Data { family, .. } = message.body else { return Ok(false) };
    let Some(family) = Family::numbered(family) else { return Ok(false) };
    *flow = Flow { family: Some(family), ..Flow::default() };
    for attribute in message.attributes() {
        one(flow, &attribute?)?;
    }
    Ok(true)
}

/// Takes in one attribute of a connection.
fn one(flow: &mut Flow, attribute: &Attribute<'_>) -> Result<(), Malformed> {
    match attribute.kind {
        cta::TUPLE_ORIG => flow.original = Tuple::decode(attribute)?,
        cta::TUPLE_REPLY => flow.reply = Tuple::decode(attribute)?,
        cta::TUPLE_MASTER => flow.master = Some(Tuple::decode(attribute)?),
        cta::STATUS => flow.status = Some(attribute.be32("CTA_STATUS")?),
        cta::TIMEOUT => flow.timeout = Some(attribute.be32("CTA_TIMEOUT")?),
        cta::MARK => flow.mark = Some(attribute.be32("CTA_MARK")?),
        cta::USE => flow.uses = Some(attribute.be32("CTA_USE")?),
        cta::ID => flow.id = Some(attribute.be32("CTA_ID")?),
        cta::ZONE => flow.zone = Some(attribute.be16("CTA_ZONE")?),
        cta::PROTOINFO => flow.protocol = protocol(attribute)?,
        cta::COUNTERS_ORIG => flow.counts[0] = Some(counts(attribute)?),
        cta::COUNTERS_REPLY => flow.counts[1] = Some(counts(attribute)?),
        cta::TIMESTAMP => times(flow, attribute)?,
        cta::TIMESTAMP_EVENT => flow.happened = Some(attribute.be64("CTA_TIMESTAMP_EVENT")?),
        cta::LABELS => flow.labels = Some(labels(attribute)),
        cta::LABELS_MASK => flow.labels_mask = Some(labels(attribute)),
        cta::HELP => flow.helper = text(attribute, help::NAME)?,
        cta::SECCTX => flow.context = text(attribute, secctx::NAME)?,
        cta::SEQ_ADJ_ORIG => flow.corrections[0] = Some(correction(attribute)?),
        cta::SEQ_ADJ_REPLY => flow.corrections[1] = Some(correction(attribute)?),
        cta::SYNPROXY => flow.synproxy = Some(proxied(attribute)?),
        // These two are only ever told to a table, never by one.
        cta::NAT_SRC => flow.source_nat = translation(attribute)?,
        cta::NAT_DST => flow.destination_nat = translation(attribute)?,
        _ => (),
    }
    Ok(())
}

fn protocol(attribute: &Attribute<'_>) -> Result<Protocol, Malformed> {
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            protoinfo::TCP => return tcp(&part).map(Protocol::Tcp),
            protoinfo::SCTP => return sctp(&part).map(Protocol::Sctp),
            _ => (),
        }
    }
    Ok(Protocol::Nothing)
}

fn tcp(attribute: &Attribute<'_>) -> Result<TcpInfo, Malformed> {
    let mut info = TcpInfo::default();
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            tcp::STATE => info.state = Some(part.u8("CTA_PROTOINFO_TCP_STATE")?),
            tcp::WSCALE_ORIGINAL => info.scales[0] = Some(part.u8("CTA_PROTOINFO_TCP_WSCALE_ORIGINAL")?),
            tcp::WSCALE_REPLY => info.scales[1] = Some(part.u8("CTA_PROTOINFO_TCP_WSCALE_REPLY")?),
            tcp::FLAGS_ORIGINAL => info.flags[0] = Some(part.octets("CTA_PROTOINFO_TCP_FLAGS_ORIGINAL")?),
            tcp::FLAGS_REPLY => info.flags[1] = Some(part.octets("CTA_PROTOINFO_TCP_FLAGS_REPLY")?),
            _ => (),
        }
    }
    Ok(info)
}

fn sctp(attribute: &Attribute<'_>) -> Result<SctpInfo, Malformed> {
    let mut info = SctpInfo::default();
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            sctp::STATE => info.state = SctpState::numbered(part.u8("CTA_PROTOINFO_SCTP_STATE")?),
            sctp::VTAG_ORIGINAL => info.tags[0] = Some(part.be32("CTA_PROTOINFO_SCTP_VTAG_ORIGINAL")?),
            sctp::VTAG_REPLY => info.tags[1] = Some(part.be32("CTA_PROTOINFO_SCTP_VTAG_REPLY")?),
            _ => (),
        }
    }
    Ok(info)
}

fn counts(attribute: &Attribute<'_>) -> Result<Counts, Malformed> {
    let mut counts = Counts::default();
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

fn times(flow: &mut Flow, attribute: &Attribute<'_>) -> Result<(), Malformed> {
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

/// The kernel tells as many octets of them as it keeps; what is missing is zero.
fn labels(attribute: &Attribute<'_>) -> Labels {
    let mut labels = Labels::default();
    for (label, told) in labels.iter_mut().zip(attribute.payload) {
        *label = *told;
    }
    labels
}

fn correction(attribute: &Attribute<'_>) -> Result<Correction, Malformed> {
    let mut correction = Correction::default();
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            seqadj::CORRECTION_POS => correction.position = part.be32("CTA_SEQADJ_CORRECTION_POS")?,
            seqadj::OFFSET_BEFORE => correction.before = part.be32("CTA_SEQADJ_OFFSET_BEFORE")?,
            seqadj::OFFSET_AFTER => correction.after = part.be32("CTA_SEQADJ_OFFSET_AFTER")?,
            _ => (),
        }
    }
    Ok(correction)
}

fn proxied(attribute: &Attribute<'_>) -> Result<Synproxy, Malformed> {
    let mut proxied = Synproxy::default();
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

/// One address, of which the kernel takes a range; none where no address is told.
fn translation(attribute: &Attribute<'_>) -> Result<Option<Translation>, Malformed> {
    let (mut address, mut ports) = (None, None);
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            nat::V4_MINIP => address = Some(part.octets::<4>("CTA_NAT_V4_MINIP")?.into()),
            nat::V6_MINIP => address = Some(part.octets::<16>("CTA_NAT_V6_MINIP")?.into()),
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
    Ok(address.map(|address| Translation { address, ports }))
}

/// The text of the nested attribute of this kind.
fn text(attribute: &Attribute<'_>, kind: u16) -> Result<Option<Box<str>>, Malformed> {
    for part in attribute.nested() {
        let part = part?;
        if part.kind == kind {
            return Ok(Some(part.text()));
        }
    }
    Ok(None)
}
