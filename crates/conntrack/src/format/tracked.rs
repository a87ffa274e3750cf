//! Connections of our own engine in the words of Linux's interface, so that one set of formats serves both.
//!
//! The kernel tells less in events than in listings; [`told`] leaves out the same.
use keepstate_engine::{Entry, Event, EventKind, ProtocolInfo, Tuple as EngineTuple, ZoneDirection};
use keepstate_linux::ctnetlink::{
    Counts, Family, Flow, Happening, Labels, Protocol, SctpInfo, SctpState, TcpInfo, Tuple, protocol,
};

/// All that the engine knows of a connection.
pub fn flow(entry: &Entry) -> Flow {
    let zone = |direction| (entry.zone.id != 0 && entry.zone.direction == direction).then_some(entry.zone.id);
    let counts = |at: usize| {
        let counts = entry.accounting?.get(at).copied()?;
        Some(Counts { packets: counts.packets, bytes: counts.bytes })
    };
    Flow {
        family: Some(Family::of(entry.original.source)),
        original: Tuple { zone: zone(ZoneDirection::Original), ..tuple(&entry.original) },
        reply: Tuple { zone: zone(ZoneDirection::Reply), ..tuple(&entry.reply) },
        master: entry.master.as_ref().map(tuple),
        status: Some(entry.status.0.into()),
        timeout: Some(entry.timeout),
        mark: Some(entry.mark),
        uses: Some(entry.uses),
        id: Some(entry.id),
        zone: zone(ZoneDirection::Both),
        protocol: known(&entry.protocol),
        counts: [counts(0), counts(1)],
        start: entry.start.map(|at| at.0),
        stop: entry.stop.map(|at| at.0),
        labels: entry.labels,
        helper: entry.helper.map(Into::into),
        ..Flow::default()
    }
}

/// As much of an event as Linux would tell.
pub fn told(event: &Event) -> Flow {
    let mut flow = flow(&event.entry);
    let destroy = event.kind == EventKind::Destroy;
    // What ended because its time ran out has none left.
    flow.timeout = flow.timeout.filter(|timeout| !destroy || *timeout != 0);
    flow.mark = flow.mark.filter(|mark| *mark != 0);
    flow.uses = None;
    if event.kind != EventKind::New {
        flow.labels = None::<Labels>;
    }
    if destroy {
        flow.helper = None;
    } else {
        flow.counts = [None; 2];
        flow.start = None;
        flow.stop = None;
    }
    flow
}

/// What happened, in Linux's terms.
pub fn happening(kind: EventKind) -> Happening {
    match kind {
        EventKind::New => Happening::New,
        EventKind::Update => Happening::Update,
        EventKind::Destroy => Happening::Destroy,
    }
}

/// One direction.
pub fn tuple(tuple: &EngineTuple) -> Tuple {
    let mut told = Tuple {
        source: Some(tuple.source),
        destination: Some(tuple.destination),
        protocol: Some(tuple.protocol),
        ..Tuple::default()
    };
    match tuple.protocol {
        protocol::ICMP | protocol::ICMPV6 => {
            told.icmp_type = Some(tuple.icmp_type());
            told.icmp_code = Some(tuple.icmp_code());
            told.icmp_id = Some(tuple.source_key);
        }
        // The kernel knows no ports of DCCP any more.
        protocol::DCCP => (),
        _ => {
            told.source_port = Some(tuple.source_key);
            told.destination_port = Some(tuple.destination_key);
        }
    }
    told
}

fn known(protocol: &ProtocolInfo) -> Protocol {
    match *protocol {
        ProtocolInfo::Tcp { state, sides } => Protocol::Tcp(TcpInfo {
            state: Some(state as u8),
            scales: sides.map(|side| Some(side.scale)),
            flags: sides.map(|side| Some([side.flags, 0xff])),
        }),
        ProtocolInfo::Sctp { state, tags } => {
            Protocol::Sctp(SctpInfo { state: SctpState::numbered(state as u8), tags: tags.map(Some) })
        }
        ProtocolInfo::Stateless => Protocol::Nothing,
    }
}
