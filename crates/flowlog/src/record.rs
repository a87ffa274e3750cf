//! The records of a log, as plain values.
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A time by the wall clock: nanoseconds since 1970, UTC. As text it is RFC 3339 with microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogTime(pub u64);

impl LogTime {
    /// Whole milliseconds since 1970.
    pub fn millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Whole seconds since 1970, as IPFIX counts them: until 2106.
    pub fn secs(self) -> u32 {
        u32::try_from(self.0 / 1_000_000_000).unwrap_or(u32::MAX)
    }

    /// Without what its text does not hold.
    #[must_use]
    pub fn whole_micros(self) -> LogTime {
        LogTime(self.0 / 1000 * 1000)
    }
}

impl fmt::Display for LogTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(time) => write!(f, "{time:.6}"),
            // Not reached: 2^64 nanoseconds end in 2554.
            Err(_) => f.write_str("9999-12-31T23:59:59.000000Z"),
        }
    }
}

impl FromStr for LogTime {
    type Err = String;

    fn from_str(text: &str) -> Result<LogTime, String> {
        let time: jiff::Timestamp =
            text.parse().map_err(|_| format!("{text:?} is no time; write 2026-11-29T16:45:00Z"))?;
        u64::try_from(time.as_nanosecond())
            .map(LogTime)
            .map_err(|_| format!("{text}: a time from 1970 to 2554 is needed"))
    }
}

/// An address and a port. For ICMP the port is the query's id, or type and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketAddress {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// When it happened.
    pub at: LogTime,
    /// What happened.
    pub event: LogEvent,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// The log begins: the gateway was started.
    LogStart {
        /// Different after each start.
        instance: u64,
        /// Connections that were there already, from a state file.
        connections: u64,
    },
    /// The log ends: the gateway was stopped.
    LogEnd,
    /// A session began.
    SessionBegin(LogSession),
    /// A session ended.
    SessionEnd(SessionEnd),
    /// A block of ports was given to an inside address.
    PortBlockTaken(LoggedPortBlock),
    /// It was returned.
    PortBlockReturned(LoggedPortBlock),
    /// New connections found no free port.
    PortsExhausted {
        /// The outside address.
        address: IpAddr,
        /// The peer towards whom there was none; `None` if it is not logged.
        peer: Option<SocketAddress>,
        /// The protocol's number.
        protocol: u8,
        /// How many connections, since the last such record.
        refused: u64,
    },
    /// The table was full.
    LimitReached {
        /// The number of connections that it holds.
        limit: u64,
        /// How many new connections were refused, since the last such record.
        refused: u64,
    },
    /// Records that are not in this log: they came faster than they could be written.
    RecordsLost {
        /// How many, since the last such record.
        lost: u64,
        /// How many since the log began.
        total: u64,
    },
}

/// Who talked to whom. What the log's privacy hides is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogSession {
    /// The protocol's number.
    pub protocol: u8,
    /// The connection tracking zone.
    pub zone: u16,
    /// Source of the first packet, as it came.
    pub source: Option<SocketAddress>,
    /// Destination of the first packet, as it came.
    pub destination: Option<SocketAddress>,
    /// Is anything of it translated? Otherwise the next two are `None`.
    pub is_translated: bool,
    /// Source of the first packet, as it left.
    pub translated_source: Option<SocketAddress>,
    /// Destination of the first packet, as it left.
    pub translated_destination: Option<SocketAddress>,
}

/// A session that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionEnd {
    /// The session.
    pub session: LogSession,
    /// When it began, if that is known.
    pub start: Option<LogTime>,
    /// What it carried, there and back, if that was counted.
    pub counters: Option<[SessionCounters; 2]>,
}

/// Packets and bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Packets.
    pub packets: u64,
    /// Bytes, from the IP header on.
    pub bytes: u64,
}

/// A block of ports of one inside address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedPortBlock {
    /// Who has it; `None` if the log hides it.
    pub inside: Option<IpAddr>,
    /// The outside address.
    pub outside: IpAddr,
    /// The first port.
    pub first_port: u16,
    /// The last port.
    pub last_port: u16,
}

/// Which end of a session is whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionKind {
    /// Its source is translated, or nothing: the source is inside, the destination the peer.
    FromInside,
    /// Only its destination is translated: the destination is inside, the source the peer.
    ToInside,
}

impl LogSession {
    /// The session of a packet from `source` to `destination` that left as from and to `translated`.
    pub fn new(protocol: u8, zone: u16, packet: [SocketAddress; 2], translated: [SocketAddress; 2]) -> LogSession {
        let [source, destination] = packet.map(Some);
        let is_translated = packet != translated;
        let [translated_source, translated_destination] = translated.map(|end| is_translated.then_some(end));
        LogSession { protocol, zone, source, destination, is_translated, translated_source, translated_destination }
    }

    pub(crate) fn kind(&self) -> SessionKind {
        let kept = self.source == self.translated_source && self.destination != self.translated_destination;
        if self.is_translated && kept { SessionKind::ToInside } else { SessionKind::FromInside }
    }

    /// Who of it is inside: the end whose address is translated.
    pub fn inside(&self) -> Option<SocketAddress> {
        match self.kind() {
            SessionKind::FromInside => self.source,
            SessionKind::ToInside => self.translated_destination,
        }
    }

    /// The outside address and port that stand for it; the same if nothing is translated.
    pub fn outside(&self) -> Option<SocketAddress> {
        match self.kind() {
            SessionKind::FromInside if self.is_translated => self.translated_source,
            SessionKind::FromInside => self.source,
            SessionKind::ToInside => self.destination,
        }
    }

    /// The other end, as the inside one's packets are addressed when they leave.
    pub fn peer(&self) -> Option<SocketAddress> {
        match self.kind() {
            SessionKind::FromInside if self.is_translated => self.translated_destination,
            SessionKind::FromInside => self.destination,
            SessionKind::ToInside => self.source,
        }
    }
}
