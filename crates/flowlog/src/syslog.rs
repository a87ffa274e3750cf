//! Syslog messages (RFC 5424) with the record's keys as structured data; over TCP each with its length in front (RFC 6587, 3.4.1).
use crate::json::JsonObject;
use crate::record::{LogEvent, LogRecord};
use serde_json::Value;
use std::fmt::Write;

/// How messages begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogFormat {
    host: String,
    process: u32,
}

/// Facility daemon (3) with severity info (6) …
const INFO: u8 = 3 * 8 + 6;
/// … or warning (4).
const WARNING: u8 = 3 * 8 + 4;
/// The name of the structured data. 32473 is the enterprise number for examples (RFC 5612): keepstate has none of its own.
const SD_ID: &str = "keepstate@32473";
/// The longest host name (RFC 5424, 6).
const MAX_HOST: usize = 255;

impl SyslogFormat {
    /// Messages of this host and process.
    pub fn new(host: &str, process: u32) -> SyslogFormat {
        let host: String = host.chars().filter(char::is_ascii_graphic).take(MAX_HOST).collect();
        SyslogFormat { host: if host.is_empty() { "-".to_owned() } else { host }, process }
    }

    /// One message.
    pub fn message(&self, seq: u64, record: &LogRecord) -> String {
        let priority = match record.event {
            LogEvent::RecordsLost { .. } | LogEvent::PortsExhausted { .. } | LogEvent::LimitReached { .. } => WARNING,
            _ => INFO,
        };
        let object = JsonObject::of(seq, record);
        let mut text = format!(
            "<{priority}>1 {} {} keepstate {} {} [{SD_ID}",
            record.at,
            self.host,
            self.process,
            object.event_name()
        );
        if let Ok(Value::Object(values)) = serde_json::to_value(&object) {
            for (key, value) in values.iter().filter(|(key, _)| !["at", "event"].contains(&key.as_str())) {
                let _ = write!(text, " {key}=\"{}\"", escaped(value));
            }
        }
        text.push(']');
        text
    }

    /// One message for a stream: its length in bytes, a space, the message.
    pub fn framed(&self, seq: u64, record: &LogRecord) -> String {
        let message = self.message(seq, record);
        format!("{} {message}", message.len())
    }
}

fn escaped(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.replace('\\', "\\\\").replace('"', "\\\"").replace(']', "\\]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{LogSession, LogTime, SocketAddress};

    #[test]
    fn a_message_is_structured_data_and_its_length_stands_before_it() {
        let end = |text: &str, port| SocketAddress { address: text.parse().unwrap(), port };
        let (from, to, outside) = (end("10.0.0.5", 4000), end("198.51.100.7", 443), end("192.0.2.1", 1024));
        let record = LogRecord {
            at: LogTime(1_700_000_000_123_456_789),
            event: LogEvent::SessionBegin(LogSession::new(6, 0, [from, to], [outside, to])),
        };
        let format = SyslogFormat::new("gate way\n", 7);
        let message = "<30>1 2023-11-14T22:13:20.123456Z gateway keepstate 7 session-begin [keepstate@32473 dst=\"198.51.100.7\" dst_port=\"443\" nat=\"true\" nat_dst=\"198.51.100.7\" nat_dst_port=\"443\" nat_src=\"192.0.2.1\" nat_src_port=\"1024\" protocol=\"tcp\" seq=\"9\" src=\"10.0.0.5\" src_port=\"4000\"]";
        assert_eq!(format.message(9, &record), message);
        assert_eq!(format.framed(9, &record), format!("{} {message}", message.len()));
        assert!(SyslogFormat::new("", 7).message(1, &record).contains("Z - keepstate"));
        assert_eq!(escaped(&Value::from("a\"b]c\\d")), "a\\\"b\\]c\\\\d");
        let lost = LogRecord { at: LogTime(0), event: LogEvent::RecordsLost { lost: 3, total: 3 } };
        assert!(format.message(1, &lost).starts_with("<28>1 1970-01-01T00:00:00.000000Z"));
    }
}
