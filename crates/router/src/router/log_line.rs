//! A line for the log.
use keepstate_engine::PortBlockEvent;

/// A line for the log, with its level by syslog's number: 4 is a warning, 6 an information.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogLine {
    /// Its level, 0 (emergency) to 7 (debug).
    pub level: u8,
    /// Its text, without an end of line.
    pub text: String,
    /// A rule's `log` has written it, in the kernel's form; else it is a note of the router.
    pub is_rule: bool,
    /// The port block that it is about.
    pub port_block: Option<PortBlockEvent>,
}

impl LogLine {
    /// A line that the kernel's tracking would log, at the level it has there.
    pub(super) fn of_engine(text: String) -> LogLine {
        LogLine { level: 4, text, is_rule: false, port_block: None }
    }

    pub(super) fn of_lost(count: u64) -> LogLine {
        LogLine {
            level: 4,
            text: format!("log lines of rules dropped: {count}; limit the rule's rate"),
            is_rule: false,
            port_block: None,
        }
    }

    pub(super) fn of_port_block(event: &PortBlockEvent) -> LogLine {
        let PortBlockEvent { allocated, subscriber, address, ports, .. } = event;
        let what = if *allocated { "allocated" } else { "released" };
        let (first, last) = (ports.start(), ports.end());
        let text = format!("port block {what}: subscriber={subscriber} address={address} ports={first}-{last}");
        LogLine { level: 6, text, is_rule: false, port_block: Some(event.clone()) }
    }
}

impl std::fmt::Display for LogLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}
