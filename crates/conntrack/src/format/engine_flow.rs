//! Connections of our own engine in ctnetlink's terms, so that one set of formats serves both.
//!
//! The kernel's events have fewer attributes than its dumps; [`from_event`] leaves out the same ones.
use keepstate_engine::{Entry, Event, EventKind, ProtocolInfo, Tuple as EngineTuple, ZoneDirection};
use keepstate_linux::ctnetlink::{
    CtCounters, CtFamily, CtFlow, CtLabels, CtProtoInfo, CtSctpInfo, CtTcpInfo, CtTuple, protocol,
};

/// A connection with all its attributes, as in a dump.
pub fn from_entry(entry: &Entry) -> CtFlow {
    let zone = |direction| (entry.zone.id != 0 && entry.zone.direction == direction).then_some(entry.zone.id);
    let counts = |at: usize| {
        let counts = entry.accounting?.get(at).copied()?;
        Some(CtCounters { packets: counts.packets, bytes: counts.bytes })
    };
    CtFlow {
        family: Some(CtFamily::of(entry.original.source)),
        original: CtTuple { zone: zone(ZoneDirection::Original), ..to_ct_tuple(&entry.original) },
        reply: CtTuple { zone: zone(ZoneDirection::Reply), ..to_ct_tuple(&entry.reply) },
        master: entry.master.as_ref().map(to_ct_tuple),
        status: Some(entry.status),
        timeout: Some(entry.timeout),
        mark: Some(entry.mark),
        use_count: Some(entry.uses),
        id: Some(entry.id),
        zone: zone(ZoneDirection::Both),
        protoinfo: to_ct_protocol(&entry.protocol),
        counters: [counts(0), counts(1)],
        start: entry.start.map(|at| at.0),
        stop: entry.stop.map(|at| at.0),
        labels: entry.labels,
        helper: entry.helper.map(Into::into),
        ..CtFlow::default()
    }
}

/// A connection that has these tuples, and nothing else is known of it.
pub fn from_tuples(original: &EngineTuple, reply: &EngineTuple) -> CtFlow {
    CtFlow {
        family: Some(CtFamily::of(original.source)),
        original: to_ct_tuple(original),
        reply: to_ct_tuple(reply),
        ..CtFlow::default()
    }
}

/// An event with the attributes that Linux sends.
pub fn from_event(event: &Event) -> CtFlow {
    let mut flow = from_entry(&event.entry);
    let destroy = event.kind == EventKind::Destroy;
    // A connection that timed out has no timeout left.
    flow.timeout = flow.timeout.filter(|timeout| !destroy || *timeout != 0);
    flow.mark = flow.mark.filter(|mark| *mark != 0);
    flow.use_count = None;
    if event.kind != EventKind::New {
        flow.labels = None::<CtLabels>;
    }
    if destroy {
        flow.helper = None;
    } else {
        flow.counters = [None; 2];
        flow.start = None;
        flow.stop = None;
    }
    flow
}

/// One direction.
pub fn to_ct_tuple(tuple: &EngineTuple) -> CtTuple {
    let mut ct = CtTuple {
        source: Some(tuple.source),
        destination: Some(tuple.destination),
        protocol: Some(tuple.protocol),
        ..CtTuple::default()
    };
    match tuple.protocol {
        protocol::ICMP | protocol::ICMPV6 => {
            ct.icmp_type = Some(tuple.icmp_type());
            ct.icmp_code = Some(tuple.icmp_code());
            ct.icmp_id = Some(tuple.source_key);
        }
        // Recent kernels have no ports of DCCP.
        protocol::DCCP => (),
        _ => {
            ct.source_port = Some(tuple.source_key);
            ct.destination_port = Some(tuple.destination_key);
        }
    }
    ct
}

fn to_ct_protocol(protocol: &ProtocolInfo) -> CtProtoInfo {
    match *protocol {
        ProtocolInfo::Tcp { state, sides } => CtProtoInfo::Tcp(CtTcpInfo {
            state: Some(state as u8),
            wscale: sides.map(|side| Some(side.scale)),
            flags: sides.map(|side| Some([side.flags, 0xff])),
        }),
        ProtocolInfo::Sctp { state, tags } => {
            CtProtoInfo::Sctp(CtSctpInfo { state: Some(state), vtags: tags.map(Some) })
        }
        ProtocolInfo::Stateless => CtProtoInfo::Empty,
    }
}
