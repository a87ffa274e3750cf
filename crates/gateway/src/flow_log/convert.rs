//! The engine's events as records.
use super::config::LoggedSessions;
use keepstate_engine::{Accounting, Entry, Event, EventKind, ExhaustionKey, PortBlockEvent, Tuple, UnixTime};
use keepstate_flowlog::{
    LogEvent, LogRecord, LogSession, LogTime, LoggedPortBlock, SessionCounters, SessionEnd, SocketAddress,
};

/// The record of a connection event; `None` for one that this log does not have.
pub(super) fn record_of_event(event: &Event, sessions: LoggedSessions) -> Option<LogRecord> {
    if event.is_replicated {
        // The gateway that has decided it has it in its own log.
        return None;
    }
    let session = session_of(&event.entry);
    let is_logged = match sessions {
        LoggedSessions::Nat => session.is_translated,
        LoggedSessions::All => true,
        LoggedSessions::None => false,
    };
    if !is_logged {
        return None;
    }
    let logged = match event.kind {
        EventKind::New => LogEvent::SessionBegin(session),
        EventKind::Update => return None,
        EventKind::Destroy => LogEvent::SessionEnd(SessionEnd {
            session,
            start: event.entry.start.map(log_time),
            counters: event.entry.accounting.map(|both| both.map(counters)),
        }),
    };
    Some(LogRecord { at: log_time(event.at), event: logged })
}

/// The session of a connection: as its first packet came, and as it left.
fn session_of(entry: &Entry) -> LogSession {
    let left = entry.reply.invert().unwrap_or(entry.original);
    LogSession::new(entry.original.protocol, entry.zone.id, ends(&entry.original), ends(&left))
}

fn ends(tuple: &Tuple) -> [SocketAddress; 2] {
    [
        SocketAddress { address: tuple.source, port: tuple.source_key },
        SocketAddress { address: tuple.destination, port: tuple.destination_key },
    ]
}

fn counters(counted: Accounting) -> SessionCounters {
    SessionCounters { packets: counted.packets, bytes: counted.bytes }
}

pub(super) fn log_time(time: UnixTime) -> LogTime {
    LogTime(time.0)
}

/// The record of a port block; `at` is the event's time by the wall clock.
pub(super) fn record_of_port_block(event: &PortBlockEvent, at: UnixTime) -> LogRecord {
    let block = LoggedPortBlock {
        inside: Some(event.subscriber),
        outside: event.address,
        first_port: *event.ports.start(),
        last_port: *event.ports.end(),
    };
    let event = if event.allocated { LogEvent::PortBlockTaken(block) } else { LogEvent::PortBlockReturned(block) };
    LogRecord { at: log_time(at), event }
}

/// So many more connections found no port here.
pub(super) fn exhausted(key: &ExhaustionKey, refused: u64) -> LogEvent {
    let peer = SocketAddress { address: key.peer, port: key.peer_port };
    LogEvent::PortsExhausted { address: key.address, peer: Some(peer), protocol: key.protocol, refused }
}
