//! IPFIX messages (RFC 7011) of records: templates before the first record that needs them, then records, as many as fit.
//!
//! An exporter lives as long as its gateway runs: its observation domain is a new one after a restart, so a collector takes no old template for a new one, and its sequence
//! numbers begin at 0. Over UDP [`IpfixExporter::resend_templates`] repeats what was announced (RFC 7011, 8.4).
use crate::ipfix_layout::IpfixLayout;
use crate::record::{LogEvent, LogRecord, LogSession, SocketAddress};
use std::net::IpAddr;

/// The longest message, in bytes: with the headers of IPv6 and UDP it fits into an MTU of 1400.
pub const MAX_IPFIX_MESSAGE: usize = 1352;

const VERSION: u16 = 10;
const HEADER: usize = 16;
const SET_HEADER: usize = 4;
const TEMPLATE_SET: u16 = 2;
const OPTIONS_TEMPLATE_SET: u16 = 3;
/// The enterprise number that marks a field of the reverse direction (RFC 5103, 6.1).
const REVERSE_PEN: u32 = 29_305;
/// The bit that says that an enterprise number follows.
const ENTERPRISE_BIT: u16 = 0x8000;

/// One exporting process: its observation domain, its sequence, and what it has announced.
#[derive(Clone, Debug)]
pub struct IpfixExporter {
    domain: u32,
    /// Data records before the message in the making.
    sequence: u32,
    announced: Vec<IpfixLayout>,
    exported: u64,
    message: Vec<u8>,
    /// Where the last set begins, and which it is.
    set: Option<(usize, u16)>,
    /// Data records in the message.
    records: u32,
}

impl IpfixExporter {
    /// An exporter whose observation domain is `domain`.
    pub fn new(domain: u32) -> IpfixExporter {
        IpfixExporter {
            domain,
            sequence: 0,
            announced: Vec::new(),
            exported: 0,
            message: Vec::new(),
            set: None,
            records: 0,
        }
    }

    /// Adds a record. Messages that are full go to `send`, each with the number of its records; the last one waits for [`IpfixExporter::flush`]. `now`: seconds since 1970.
    pub fn push(&mut self, record: &LogRecord, now: u32, send: &mut dyn FnMut(&[u8], u32)) {
        let Some(layout) = IpfixLayout::of(record) else { return };
        if !self.announced.contains(&layout) {
            self.announced.push(layout);
            self.put(template_set_id(layout), &template_bytes(layout), now, send);
        }
        let bytes = self.record_bytes(record);
        self.put(layout.template_id(), &bytes, now, send);
        self.records += 1;
        self.exported += 1;
    }

    /// Sends what waits.
    pub fn flush(&mut self, now: u32, send: &mut dyn FnMut(&[u8], u32)) {
        if self.message.is_empty() {
            return;
        }
        self.end_set();
        let length = u16::try_from(self.message.len()).unwrap_or(u16::MAX);
        let mut header = [VERSION.to_be_bytes(), length.to_be_bytes()].concat();
        for word in [now, self.sequence, self.domain] {
            header.extend(word.to_be_bytes());
        }
        if let Some(place) = self.message.get_mut(..HEADER) {
            place.copy_from_slice(&header);
        }
        send(&self.message, self.records);
        self.message.clear();
        self.sequence = self.sequence.wrapping_add(self.records);
        self.records = 0;
    }

    /// Sends every template once more: over UDP now and then, over TCP after each connection.
    pub fn resend_templates(&mut self, now: u32, send: &mut dyn FnMut(&[u8], u32)) {
        for layout in self.announced.clone() {
            self.put(template_set_id(layout), &template_bytes(layout), now, send);
        }
        self.flush(now, send);
    }

    /// Appends to the set `id`, in a new message if this one is full.
    fn put(&mut self, id: u16, bytes: &[u8], now: u32, send: &mut dyn FnMut(&[u8], u32)) {
        let more = if self.set.is_some_and(|(_, set)| set == id) { 0 } else { SET_HEADER };
        if self.message.len() + more + bytes.len() > MAX_IPFIX_MESSAGE {
            self.flush(now, send);
        }
        if self.message.is_empty() {
            self.message.resize(HEADER, 0);
        }
        if self.set.is_none_or(|(_, set)| set != id) {
            self.end_set();
            self.set = Some((self.message.len(), id));
            self.message.extend(id.to_be_bytes());
            self.message.extend([0, 0]);
        }
        self.message.extend(bytes);
    }

    /// Writes the length of the last set.
    fn end_set(&mut self) {
        let Some((begin, _)) = self.set.take() else { return };
        let length = u16::try_from(self.message.len().saturating_sub(begin)).unwrap_or(u16::MAX);
        if let Some(place) = self.message.get_mut(begin + 2..begin + 4) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }

    fn record_bytes(&self, record: &LogRecord) -> Vec<u8> {
        let mut out = FieldWriter(Vec::with_capacity(128));
        if let LogEvent::RecordsLost { .. } = record.event {
            out.u32(self.domain);
        }
        out.u64(record.at.millis());
        match &record.event {
            LogEvent::LogStart { .. } | LogEvent::LogEnd => (),
            LogEvent::SessionBegin(session) => {
                out.u64(record.at.millis());
                out.session(session, SessionEvent::Begin);
            }
            LogEvent::SessionEnd(end) => {
                end.start.iter().for_each(|start| out.u64(start.millis()));
                out.u64(record.at.millis());
                out.session(&end.session, SessionEvent::End);
                for counters in end.counters.iter().flatten() {
                    out.u64(counters.bytes);
                    out.u64(counters.packets);
                }
            }
            LogEvent::PortBlockTaken(block) | LogEvent::PortBlockReturned(block) => {
                let is_taken = matches!(record.event, LogEvent::PortBlockTaken(_));
                out.u8(if is_taken { PORT_BLOCK_ALLOCATED } else { PORT_BLOCK_RELEASED });
                block.inside.iter().for_each(|inside| out.address(*inside));
                out.address(block.outside);
                out.u16(block.first_port);
                out.u16(block.last_port);
            }
            LogEvent::PortsExhausted { address, peer, protocol, refused } => {
                out.u8(NAT_PORTS_EXHAUSTED);
                out.u8(*protocol);
                out.address(*address);
                out.end(*peer);
                out.u64(*refused);
            }
            LogEvent::LimitReached { limit, refused } => {
                out.u8(QUOTA_EXCEEDED);
                out.u32(MAX_SESSION_ENTRIES);
                out.u32(u32::try_from(*limit).unwrap_or(u32::MAX));
                out.u64(*refused);
            }
            LogEvent::RecordsLost { total, .. } => {
                out.u64(self.exported);
                out.u64(*total);
            }
        }
        out.0
    }
}

/// Values of natEvent, in IANA's registry.
const NAT44_SESSION: [u8; 2] = [4, 5];
/// The same without a family: IANA has no number for NAT66.
const NAT_TRANSLATION: [u8; 2] = [1, 2];
/// Values of firewallEvent: flow created, flow deleted.
const FLOW: [u8; 2] = [1, 2];
const NAT_PORTS_EXHAUSTED: u8 = 12;
const QUOTA_EXCEEDED: u8 = 13;
const PORT_BLOCK_ALLOCATED: u8 = 16;
const PORT_BLOCK_RELEASED: u8 = 17;
/// A value of natQuotaExceededEvent.
const MAX_SESSION_ENTRIES: u32 = 1;

#[derive(Clone, Copy)]
enum SessionEvent {
    Begin,
    End,
}

/// Values one after the other, in network order.
struct FieldWriter(Vec<u8>);

impl FieldWriter {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.0.extend(value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_be_bytes());
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.0.extend(address.octets()),
            IpAddr::V6(address) => self.0.extend(address.octets()),
        }
    }

    fn end(&mut self, end: Option<SocketAddress>) {
        if let Some(end) = end {
            self.address(end.address);
            self.u16(end.port);
        }
    }

    fn session(&mut self, session: &LogSession, event: SessionEvent) {
        let ends = [session.source, session.destination, session.translated_source, session.translated_destination];
        let is_v6 = ends.iter().flatten().any(|end| end.address.is_ipv6());
        let [begin, end] = match (session.is_translated, is_v6) {
            (true, false) => NAT44_SESSION,
            (true, true) => NAT_TRANSLATION,
            (false, _) => FLOW,
        };
        self.u8(match event {
            SessionEvent::Begin => begin,
            SessionEvent::End => end,
        });
        self.u8(session.protocol);
        self.u32(session.zone.into());
        ends.into_iter().for_each(|end| self.end(end));
    }
}

fn template_set_id(layout: IpfixLayout) -> u16 {
    if layout.scope_fields() > 0 { OPTIONS_TEMPLATE_SET } else { TEMPLATE_SET }
}

fn template_bytes(layout: IpfixLayout) -> Vec<u8> {
    let fields = layout.fields();
    let mut out = FieldWriter(Vec::new());
    out.u16(layout.template_id());
    out.u16(u16::try_from(fields.len()).unwrap_or(u16::MAX));
    if layout.scope_fields() > 0 {
        out.u16(layout.scope_fields());
    }
    for field in fields {
        out.u16(field.element | if field.is_reverse { ENTERPRISE_BIT } else { 0 });
        out.u16(field.length);
        if field.is_reverse {
            out.u32(REVERSE_PEN);
        }
    }
    out.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{LogTime, LoggedPortBlock, SessionCounters, SessionEnd};

    /// Every record is as long as its template says.
    #[test]
    fn records_are_as_long_as_their_templates_say() {
        let end = |text: &str, port| SocketAddress { address: text.parse().unwrap(), port };
        for (inside, outside, peer) in
            [("10.0.0.5", "192.0.2.1", "198.51.100.7"), ("fd00::5", "2001:db8::1", "2001:db8:9::7")]
        {
            let (inside, outside, peer) = (end(inside, 4000), end(outside, 1024), end(peer, 443));
            let nat = LogSession::new(6, 3, [inside, peer], [outside, peer]);
            let plain = LogSession::new(6, 3, [inside, peer], [inside, peer]);
            let block = |inside: Option<IpAddr>| LoggedPortBlock {
                inside,
                outside: outside.address,
                first_port: 1,
                last_port: 2,
            };
            let mut events = Vec::new();
            for session in [nat, plain, LogSession { source: None, ..nat }, LogSession { destination: None, ..nat }] {
                events.push(LogEvent::SessionBegin(session));
                for start in [None, Some(LogTime(5))] {
                    for counters in [None, Some([SessionCounters::default(); 2])] {
                        events.push(LogEvent::SessionEnd(SessionEnd { session, start, counters }));
                    }
                }
            }
            events.push(LogEvent::PortBlockTaken(block(Some(inside.address))));
            events.push(LogEvent::PortBlockReturned(block(None)));
            for peer in [None, Some(peer)] {
                events.push(LogEvent::PortsExhausted { address: outside.address, peer, protocol: 6, refused: 1 });
            }
            events.push(LogEvent::LimitReached { limit: 1, refused: 2 });
            events.push(LogEvent::RecordsLost { lost: 1, total: 2 });
            let mut templates = Vec::new();
            for event in events {
                let record = LogRecord { at: LogTime(1), event };
                let layout = IpfixLayout::of(&record).unwrap();
                let length: usize = layout.fields().iter().map(|field| usize::from(field.length)).sum();
                assert_eq!(IpfixExporter::new(1).record_bytes(&record).len(), length, "{record:?}");
                templates.push((layout.template_id(), layout));
            }
            templates.sort_by_key(|(id, _)| *id);
            for pair in templates.windows(2) {
                assert!(pair[0].0 >= 256 && (pair[0].0 == pair[1].0) == (pair[0].1 == pair[1].1), "{pair:?}");
            }
        }
    }

    #[test]
    fn messages_fit_and_the_sequence_counts_records() {
        let mut exporter = IpfixExporter::new(7);
        let mut messages: Vec<Vec<u8>> = Vec::new();
        let mut send = |message: &[u8], _: u32| messages.push(message.to_vec());
        let end = |port| SocketAddress { address: [10, 0, 0, 1].into(), port };
        for number in 0..1000 {
            let session = LogSession::new(17, 0, [end(number), end(53)], [end(1), end(53)]);
            exporter.push(&LogRecord { at: LogTime(0), event: LogEvent::SessionBegin(session) }, 9, &mut send);
        }
        exporter.flush(9, &mut send);
        exporter.flush(9, &mut send);
        exporter.resend_templates(9, &mut send);
        let word = |message: &[u8], at: usize| u32::from_be_bytes(message[at..at + 4].try_into().unwrap());
        assert!(messages.iter().all(|message| message.len() <= MAX_IPFIX_MESSAGE));
        assert!(
            messages.iter().all(|message| message.len() == usize::from(u16::from_be_bytes([message[2], message[3]])))
        );
        assert_eq!((word(&messages[0], 4), word(&messages[0], 8), word(&messages[0], 12)), (9, 0, 7));
        let record = 8 + 8 + 1 + 1 + 4 + 4 * 6;
        let first = (messages[0].len() - 16 - 4 - (4 + 13 * 4) - 4) / record;
        assert_eq!(word(&messages[1], 8) as usize, first);
        assert_eq!(word(messages.last().unwrap(), 8), 1000, "templates are not counted");
    }
}
