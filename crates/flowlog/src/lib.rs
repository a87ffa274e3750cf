//! NAT and flow logs: records in, bytes out. Nothing here reads a clock, a file or a socket.
//!
//! A [`LogRecord`] is one line of a log: a session that began or ended, a port block taken or returned, ports exhausted, a limit reached, records lost. It is written as a JSON
//! line ([`json_line`]), as a syslog message ([`SyslogFormat`]) or as IPFIX ([`IpfixExporter`]). JSON lines are read again by [`parse_json_line`], and [`WhoSearch`] finds in
//! them who had an outside address and port.
mod ipfix;
mod ipfix_layout;
mod json;
mod privacy;
mod protocol;
mod record;
mod syslog;
mod who;

pub use ipfix::{IpfixExporter, MAX_IPFIX_MESSAGE};
pub use json::{JsonLineError, MAX_JSON_LINE, json_line, parse_json_line};
pub use privacy::LogPrivacy;
pub use protocol::{protocol_name, protocol_number};
pub use record::{
    LogEvent, LogRecord, LogSession, LogTime, LoggedPortBlock, SessionCounters, SessionEnd, SocketAddress,
};
pub use syslog::SyslogFormat;
pub use who::{LogGap, PortHolder, WhoAnswer, WhoDoubt, WhoQuestion, WhoSearch};
