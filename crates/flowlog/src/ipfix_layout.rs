//! The templates: which information elements of IANA's registry a record has, in which order (RFC 8158, 4 to 6; RFC 5103 for the reverse direction).
//!
//! A template's number says its layout, so it is the same in every gateway; only those of records that occur are announced.
use crate::record::{LogEvent, LogRecord};
use std::net::IpAddr;

/// One field of a template: number of the information element, length, and whether it is of the reverse direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IpfixField {
    pub(crate) element: u16,
    pub(crate) length: u16,
    pub(crate) is_reverse: bool,
}

const fn field(element: u16, length: u16) -> IpfixField {
    IpfixField { element, length, is_reverse: false }
}

const fn reverse(element: u16, length: u16) -> IpfixField {
    IpfixField { element, length, is_reverse: true }
}

/// What a record's template has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IpfixLayout {
    /// A session.
    Session(SessionLayout),
    /// A port block.
    PortBlock { is_v6: bool, has_inside: bool },
    /// Ports exhausted.
    Exhausted { is_v6: bool, has_peer: bool },
    /// The limit of the table.
    Limit,
    /// Records lost: an options template.
    Lost,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionLayout {
    pub(crate) is_v6: bool,
    pub(crate) is_translated: bool,
    pub(crate) has_source: bool,
    pub(crate) has_destination: bool,
    pub(crate) has_translated_source: bool,
    pub(crate) has_translated_destination: bool,
    pub(crate) has_start: bool,
    pub(crate) has_end: bool,
    pub(crate) has_counters: bool,
}

/// The number of the first template (RFC 7011, 3.4.1); sessions have nine bits from there on.
const FIRST_TEMPLATE: u16 = 256;
const FIRST_PORT_BLOCK: u16 = FIRST_TEMPLATE + 512;
const FIRST_EXHAUSTED: u16 = FIRST_PORT_BLOCK + 4;
const LIMIT: u16 = FIRST_EXHAUSTED + 4;
const LOST: u16 = LIMIT + 1;

impl IpfixLayout {
    /// The layout of a record; `None` for what IPFIX has no record for: begin and end of the log, which the observation domain and the sequence tell.
    pub(crate) fn of(record: &LogRecord) -> Option<IpfixLayout> {
        Some(match &record.event {
            LogEvent::LogStart { .. } | LogEvent::LogEnd => return None,
            LogEvent::SessionBegin(session) => {
                IpfixLayout::Session(SessionLayout { has_start: true, ..SessionLayout::of(session) })
            }
            LogEvent::SessionEnd(end) => IpfixLayout::Session(SessionLayout {
                has_start: end.start.is_some(),
                has_end: true,
                has_counters: end.counters.is_some(),
                ..SessionLayout::of(&end.session)
            }),
            LogEvent::PortBlockTaken(block) | LogEvent::PortBlockReturned(block) => {
                IpfixLayout::PortBlock { is_v6: block.outside.is_ipv6(), has_inside: block.inside.is_some() }
            }
            LogEvent::PortsExhausted { address, peer, .. } => {
                IpfixLayout::Exhausted { is_v6: address.is_ipv6(), has_peer: peer.is_some() }
            }
            LogEvent::LimitReached { .. } => IpfixLayout::Limit,
            LogEvent::RecordsLost { .. } => IpfixLayout::Lost,
        })
    }

    pub(crate) fn template_id(self) -> u16 {
        let bits = |flags: &[bool]| flags.iter().fold(0, |bits: u16, flag| bits << 1 | u16::from(*flag));
        match self {
            IpfixLayout::Session(layout) => {
                FIRST_TEMPLATE
                    + bits(&[
                        layout.is_v6,
                        layout.is_translated,
                        layout.has_source,
                        layout.has_destination,
                        layout.has_translated_source,
                        layout.has_translated_destination,
                        layout.has_start,
                        layout.has_end,
                        layout.has_counters,
                    ])
            }
            IpfixLayout::PortBlock { is_v6, has_inside } => FIRST_PORT_BLOCK + bits(&[is_v6, has_inside]),
            IpfixLayout::Exhausted { is_v6, has_peer } => FIRST_EXHAUSTED + bits(&[is_v6, has_peer]),
            IpfixLayout::Limit => LIMIT,
            IpfixLayout::Lost => LOST,
        }
    }

    /// The fields of scope, for an options template.
    pub(crate) fn scope_fields(self) -> u16 {
        u16::from(self == IpfixLayout::Lost)
    }

    pub(crate) fn fields(self) -> Vec<IpfixField> {
        match self {
            IpfixLayout::Session(layout) => layout.fields(),
            IpfixLayout::PortBlock { is_v6, has_inside } => {
                let ports = [PORT_RANGE_START, PORT_RANGE_END];
                let inside = has_inside.then_some(source_address(is_v6));
                [OBSERVATION_TIME, NAT_EVENT]
                    .into_iter()
                    .chain(inside)
                    .chain([post_source(is_v6)])
                    .chain(ports)
                    .collect()
            }
            IpfixLayout::Exhausted { is_v6, has_peer } => {
                let peer = has_peer.then_some([destination_address(is_v6), DESTINATION_PORT]);
                [OBSERVATION_TIME, NAT_EVENT, PROTOCOL, post_source(is_v6)]
                    .into_iter()
                    .chain(peer.into_iter().flatten())
                    .chain([DROPPED_PACKETS])
                    .collect()
            }
            IpfixLayout::Limit => vec![OBSERVATION_TIME, NAT_EVENT, QUOTA_EVENT, MAX_SESSIONS, DROPPED_PACKETS],
            IpfixLayout::Lost => vec![OBSERVATION_DOMAIN, OBSERVATION_TIME, EXPORTED_RECORDS, NOT_SENT_RECORDS],
        }
    }
}

impl SessionLayout {
    fn of(session: &crate::LogSession) -> SessionLayout {
        let ends = [session.source, session.destination, session.translated_source, session.translated_destination];
        SessionLayout {
            is_v6: ends.iter().flatten().any(|end| matches!(end.address, IpAddr::V6(_))),
            is_translated: session.is_translated,
            has_source: session.source.is_some(),
            has_destination: session.destination.is_some(),
            has_translated_source: session.translated_source.is_some(),
            has_translated_destination: session.translated_destination.is_some(),
            ..SessionLayout::default()
        }
    }

    fn fields(self) -> Vec<IpfixField> {
        let event = if self.is_translated { NAT_EVENT } else { FIREWALL_EVENT };
        let mut fields = vec![OBSERVATION_TIME];
        let mut add = |is_there: bool, more: &[IpfixField]| fields.extend(more.iter().filter(|_| is_there));
        add(self.has_start, &[FLOW_START]);
        add(self.has_end, &[FLOW_END]);
        add(true, &[event, PROTOCOL, INGRESS_VRF]);
        add(self.has_source, &[source_address(self.is_v6), SOURCE_PORT]);
        add(self.has_destination, &[destination_address(self.is_v6), DESTINATION_PORT]);
        add(self.has_translated_source, &[post_source(self.is_v6), POST_SOURCE_PORT]);
        add(self.has_translated_destination, &[post_destination(self.is_v6), POST_DESTINATION_PORT]);
        add(self.has_counters, &[BYTES, PACKETS, REVERSE_BYTES, REVERSE_PACKETS]);
        fields
    }
}

fn source_address(is_v6: bool) -> IpfixField {
    if is_v6 { field(27, 16) } else { field(8, 4) }
}

fn destination_address(is_v6: bool) -> IpfixField {
    if is_v6 { field(28, 16) } else { field(12, 4) }
}

fn post_source(is_v6: bool) -> IpfixField {
    if is_v6 { field(281, 16) } else { field(225, 4) }
}

fn post_destination(is_v6: bool) -> IpfixField {
    if is_v6 { field(282, 16) } else { field(226, 4) }
}

/// observationTimeMilliseconds
const OBSERVATION_TIME: IpfixField = field(323, 8);
/// flowStartMilliseconds
const FLOW_START: IpfixField = field(152, 8);
/// flowEndMilliseconds
const FLOW_END: IpfixField = field(153, 8);
/// natEvent
const NAT_EVENT: IpfixField = field(230, 1);
/// firewallEvent
const FIREWALL_EVENT: IpfixField = field(233, 1);
/// protocolIdentifier
const PROTOCOL: IpfixField = field(4, 1);
/// ingressVRFID: the zone
const INGRESS_VRF: IpfixField = field(234, 4);
/// sourceTransportPort
const SOURCE_PORT: IpfixField = field(7, 2);
/// destinationTransportPort
const DESTINATION_PORT: IpfixField = field(11, 2);
/// postNAPTSourceTransportPort
const POST_SOURCE_PORT: IpfixField = field(227, 2);
/// postNAPTDestinationTransportPort
const POST_DESTINATION_PORT: IpfixField = field(228, 2);
/// octetDeltaCount
const BYTES: IpfixField = field(1, 8);
/// packetDeltaCount
const PACKETS: IpfixField = field(2, 8);
const REVERSE_BYTES: IpfixField = reverse(1, 8);
const REVERSE_PACKETS: IpfixField = reverse(2, 8);
/// portRangeStart
const PORT_RANGE_START: IpfixField = field(361, 2);
/// portRangeEnd
const PORT_RANGE_END: IpfixField = field(362, 2);
/// droppedPacketDeltaCount: a refused connection is a dropped packet
const DROPPED_PACKETS: IpfixField = field(133, 8);
/// natQuotaExceededEvent
const QUOTA_EVENT: IpfixField = field(466, 4);
/// maxSessionEntries
const MAX_SESSIONS: IpfixField = field(471, 4);
/// observationDomainId
const OBSERVATION_DOMAIN: IpfixField = field(149, 4);
/// exportedFlowRecordTotalCount
const EXPORTED_RECORDS: IpfixField = field(42, 8);
/// notSentFlowTotalCount
const NOT_SENT_RECORDS: IpfixField = field(166, 8);
