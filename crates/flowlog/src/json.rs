//! JSON lines: one object a line. The names are stable: a key may be added, none is renamed or changes its meaning (docs/flow-log.md).
use crate::protocol::{protocol_name, protocol_number};
use crate::record::{
    LogEvent, LogRecord, LogSession, LogTime, LoggedPortBlock, SessionCounters, SessionEnd, SocketAddress,
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The version of the format, told when a log begins.
pub(crate) const FORMAT_VERSION: u64 = 1;

/// A line longer than this is none of ours.
pub const MAX_JSON_LINE: usize = 4096;

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonLineError {
    /// It is no JSON object of a record.
    #[error("not a record of a flow log: {0}")]
    NotARecord(String),
    /// A key that the event needs is missing.
    #[error("{event} without {key}")]
    Missing {
        /// The event.
        event: &'static str,
        /// The key.
        key: &'static str,
    },
    /// A value that is not possible.
    #[error("{key}: {value} is not possible")]
    Impossible {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// A newer keepstate has written it.
    #[error("version {0} of the format; this keepstate reads version 1: use the keepstate that wrote the log")]
    Version(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum EventName {
    LogStart,
    LogEnd,
    SessionBegin,
    SessionEnd,
    PortBlockTaken,
    PortBlockReturned,
    PortsExhausted,
    LimitReached,
    RecordsLost,
}

impl EventName {
    fn text(self) -> &'static str {
        match self {
            EventName::LogStart => "log-start",
            EventName::LogEnd => "log-end",
            EventName::SessionBegin => "session-begin",
            EventName::SessionEnd => "session-end",
            EventName::PortBlockTaken => "port-block-taken",
            EventName::PortBlockReturned => "port-block-returned",
            EventName::PortsExhausted => "ports-exhausted",
            EventName::LimitReached => "limit-reached",
            EventName::RecordsLost => "records-lost",
        }
    }
}

/// Every key there is. A record has those of its event.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct JsonObject {
    pub(crate) seq: u64,
    at: String,
    event: EventName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nat: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    src: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    src_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dst: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dst_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nat_src: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nat_src_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nat_dst: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nat_dst_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    packets: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply_packets: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connections: Option<u64>,
}

impl LogEvent {
    /// Its name in logs: `session-begin`.
    pub fn name(&self) -> &'static str {
        let name = match self {
            LogEvent::LogStart { .. } => EventName::LogStart,
            LogEvent::LogEnd => EventName::LogEnd,
            LogEvent::SessionBegin(_) => EventName::SessionBegin,
            LogEvent::SessionEnd(_) => EventName::SessionEnd,
            LogEvent::PortBlockTaken(_) => EventName::PortBlockTaken,
            LogEvent::PortBlockReturned(_) => EventName::PortBlockReturned,
            LogEvent::PortsExhausted { .. } => EventName::PortsExhausted,
            LogEvent::LimitReached { .. } => EventName::LimitReached,
            LogEvent::RecordsLost { .. } => EventName::RecordsLost,
        };
        name.text()
    }
}

/// The record as a JSON line, without the newline. `seq` counts the records of a log since its start: 1, 2, 3.
pub fn json_line(seq: u64, record: &LogRecord) -> String {
    // Every value is a number, a text or a boolean: it is always possible.
    serde_json::to_string(&JsonObject::of(seq, record)).unwrap_or_default()
}

/// Reads a line: its sequence number and its record. Keys that are not known are ignored.
///
/// # Errors
/// It is not a record.
pub fn parse_json_line(line: &[u8]) -> Result<(u64, LogRecord), JsonLineError> {
    if line.len() > MAX_JSON_LINE {
        return Err(JsonLineError::NotARecord(format!("longer than {MAX_JSON_LINE} bytes")));
    }
    let object: JsonObject =
        serde_json::from_slice(line).map_err(|error| JsonLineError::NotARecord(error.to_string()))?;
    Ok((object.seq, object.record()?))
}

impl JsonObject {
    pub(crate) fn of(seq: u64, record: &LogRecord) -> JsonObject {
        let empty = JsonObject::empty(seq, record.at);
        match &record.event {
            LogEvent::LogStart { instance, connections } => JsonObject {
                event: EventName::LogStart,
                version: Some(FORMAT_VERSION),
                instance: Some(format!("{instance:016x}")),
                connections: Some(*connections),
                ..empty
            },
            LogEvent::LogEnd => JsonObject { event: EventName::LogEnd, ..empty },
            LogEvent::SessionBegin(session) => empty.with_session(EventName::SessionBegin, session),
            LogEvent::SessionEnd(SessionEnd { session, start, counters }) => {
                let mut object = empty.with_session(EventName::SessionEnd, session);
                object.start = start.map(|start| start.to_string());
                object.duration_ms = start.map(|start| record.at.0.saturating_sub(start.0) / 1_000_000);
                if let Some([there, back]) = counters {
                    (object.packets, object.bytes) = (Some(there.packets), Some(there.bytes));
                    (object.reply_packets, object.reply_bytes) = (Some(back.packets), Some(back.bytes));
                }
                object
            }
            LogEvent::PortBlockTaken(block) => empty.with_block(EventName::PortBlockTaken, block),
            LogEvent::PortBlockReturned(block) => empty.with_block(EventName::PortBlockReturned, block),
            LogEvent::PortsExhausted { address, peer, protocol, refused } => JsonObject {
                event: EventName::PortsExhausted,
                protocol: Some(protocol_text(*protocol)),
                nat_src: Some(*address),
                dst: peer.map(|peer| peer.address),
                dst_port: peer.map(|peer| peer.port),
                refused: Some(*refused),
                ..empty
            },
            LogEvent::LimitReached { limit, refused } => {
                JsonObject { event: EventName::LimitReached, limit: Some(*limit), refused: Some(*refused), ..empty }
            }
            LogEvent::RecordsLost { lost, total } => {
                JsonObject { event: EventName::RecordsLost, lost: Some(*lost), total: Some(*total), ..empty }
            }
        }
    }

    /// The event's name.
    pub(crate) fn event_name(&self) -> &'static str {
        self.event.text()
    }

    fn empty(seq: u64, at: LogTime) -> JsonObject {
        JsonObject {
            seq,
            at: at.to_string(),
            event: EventName::LogEnd,
            protocol: None,
            zone: None,
            nat: None,
            src: None,
            src_port: None,
            dst: None,
            dst_port: None,
            nat_src: None,
            nat_src_port: None,
            nat_dst: None,
            nat_dst_port: None,
            start: None,
            duration_ms: None,
            packets: None,
            bytes: None,
            reply_packets: None,
            reply_bytes: None,
            first_port: None,
            last_port: None,
            limit: None,
            refused: None,
            lost: None,
            total: None,
            version: None,
            instance: None,
            connections: None,
        }
    }

    fn with_session(self, event: EventName, session: &LogSession) -> JsonObject {
        let address = |end: Option<SocketAddress>| end.map(|end| end.address);
        let port = |end: Option<SocketAddress>| end.map(|end| end.port);
        JsonObject {
            event,
            protocol: Some(protocol_text(session.protocol)),
            zone: Some(session.zone).filter(|zone| *zone != 0),
            nat: Some(session.is_translated),
            src: address(session.source),
            src_port: port(session.source),
            dst: address(session.destination),
            dst_port: port(session.destination),
            nat_src: address(session.translated_source),
            nat_src_port: port(session.translated_source),
            nat_dst: address(session.translated_destination),
            nat_dst_port: port(session.translated_destination),
            ..self
        }
    }

    fn with_block(self, event: EventName, block: &LoggedPortBlock) -> JsonObject {
        JsonObject {
            event,
            src: block.inside,
            nat_src: Some(block.outside),
            first_port: Some(block.first_port),
            last_port: Some(block.last_port),
            ..self
        }
    }

    fn record(&self) -> Result<LogRecord, JsonLineError> {
        let at = time("at", &self.at)?;
        let event = match self.event {
            EventName::LogStart => {
                let version = self.need("version", self.version)?;
                if version != FORMAT_VERSION {
                    return Err(JsonLineError::Version(version));
                }
                let instance = self.need("instance", self.instance.as_deref())?;
                let number = u64::from_str_radix(instance, 16).map_err(|_| impossible("instance", instance))?;
                LogEvent::LogStart { instance: number, connections: self.need("connections", self.connections)? }
            }
            EventName::LogEnd => LogEvent::LogEnd,
            EventName::SessionBegin => LogEvent::SessionBegin(self.session()?),
            EventName::SessionEnd => {
                let start = self.start.as_deref().map(|start| time("start", start)).transpose()?;
                let counters = [(self.packets, self.bytes), (self.reply_packets, self.reply_bytes)];
                let counters = match counters {
                    [(Some(packets), Some(bytes)), (Some(reply_packets), Some(reply_bytes))] => Some([
                        SessionCounters { packets, bytes },
                        SessionCounters { packets: reply_packets, bytes: reply_bytes },
                    ]),
                    _ => None,
                };
                LogEvent::SessionEnd(SessionEnd { session: self.session()?, start, counters })
            }
            EventName::PortBlockTaken => LogEvent::PortBlockTaken(self.block()?),
            EventName::PortBlockReturned => LogEvent::PortBlockReturned(self.block()?),
            EventName::PortsExhausted => LogEvent::PortsExhausted {
                address: self.need("nat_src", self.nat_src)?,
                peer: end(self.dst, self.dst_port),
                protocol: self.protocol()?,
                refused: self.need("refused", self.refused)?,
            },
            EventName::LimitReached => LogEvent::LimitReached {
                limit: self.need("limit", self.limit)?,
                refused: self.need("refused", self.refused)?,
            },
            EventName::RecordsLost => {
                LogEvent::RecordsLost { lost: self.need("lost", self.lost)?, total: self.need("total", self.total)? }
            }
        };
        Ok(LogRecord { at, event })
    }

    fn need<T>(&self, key: &'static str, value: Option<T>) -> Result<T, JsonLineError> {
        value.ok_or(JsonLineError::Missing { event: self.event.text(), key })
    }

    fn protocol(&self) -> Result<u8, JsonLineError> {
        let text = self.need("protocol", self.protocol.as_deref())?;
        protocol_number(text).ok_or_else(|| impossible("protocol", text))
    }

    fn session(&self) -> Result<LogSession, JsonLineError> {
        Ok(LogSession {
            protocol: self.protocol()?,
            zone: self.zone.unwrap_or(0),
            source: end(self.src, self.src_port),
            destination: end(self.dst, self.dst_port),
            is_translated: self.need("nat", self.nat)?,
            translated_source: end(self.nat_src, self.nat_src_port),
            translated_destination: end(self.nat_dst, self.nat_dst_port),
        })
    }

    fn block(&self) -> Result<LoggedPortBlock, JsonLineError> {
        let (first_port, last_port) =
            (self.need("first_port", self.first_port)?, self.need("last_port", self.last_port)?);
        if first_port > last_port {
            return Err(impossible("last_port", &format!("{last_port}, before first_port {first_port},")));
        }
        Ok(LoggedPortBlock { inside: self.src, outside: self.need("nat_src", self.nat_src)?, first_port, last_port })
    }
}

fn protocol_text(number: u8) -> String {
    protocol_name(number).map_or_else(|| number.to_string(), str::to_owned)
}

fn end(address: Option<IpAddr>, port: Option<u16>) -> Option<SocketAddress> {
    Some(SocketAddress { address: address?, port: port? })
}

fn time(key: &'static str, text: &str) -> Result<LogTime, JsonLineError> {
    text.parse().map_err(|_| impossible(key, text))
}

fn impossible(key: &'static str, value: &str) -> JsonLineError {
    JsonLineError::Impossible { key, value: value.to_owned() }
}
