//! Notes, warnings and errors of a command, and with `-v` its steps, on standard error. Under systemd each line begins with its syslog priority,
//! by which journald files it.
//!
//! The priority is that of the event's level, or its field `priority` (a ruleset's `log level`). In the journal a line of a rule (field `is_rule`) is the kernel's, without our
//! name before it: the journal has the name already, and programs that read such lines expect the rule's prefix first.
use crate::stderr_queue::StderrQueue;
use std::fmt::{self, Write};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// As [`init`], through a queue: for a program that must not wait for whoever reads its standard error. Call [`StderrQueue::flush_within`] at the end.
pub fn init_queued(verbose: u8) -> Option<StderrQueue> {
    let format = LogFormat::for_stderr(verbose);
    let note = move |count| {
        let mut line = String::new();
        // Writing to a String does not fail.
        let _ = format.write_text(
            &mut line,
            4,
            false,
            &format!("log lines dropped: {count}; standard error is read too slowly"),
        );
        line
    };
    let Ok(queue) = StderrQueue::start(std::io::stderr(), note) else {
        init(verbose);
        return None;
    };
    let writer = queue.clone();
    let logger = tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_max_level(max_level(verbose))
        .with_writer(move || writer.clone());
    // This fails only if it is called twice, and then the first call counts.
    let _ = logger.event_format(LogFormat::for_stderr(verbose)).try_init();
    Some(queue)
}

/// Starts logging, for the life of the process: notes, warnings and errors; with `-v` steps, with `-vv` every detail.
pub fn init(verbose: u8) {
    let logger = tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_max_level(max_level(verbose))
        .with_writer(std::io::stderr);
    // This fails only if it is called twice, and then the first call counts.
    // A note that cannot be written is no failure: `2>&1 | head` may have closed the pipe.
    let _ = logger.event_format(LogFormat::for_stderr(verbose)).try_init();
}

fn max_level(verbose: u8) -> Level {
    match verbose {
        0 => Level::INFO,
        1 => Level::DEBUG,
        _ => Level::TRACE,
    }
}

/// One line an event: `keepstate: message field=value`; under journald each line of it begins with `<priority>`.
struct LogFormat {
    journald: bool,
    /// Lines of libraries too: what matters to a user of them, we say ourselves.
    has_libraries: bool,
}

impl<S, N> FormatEvent<S, N> for LogFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if !self.has_libraries && !event.metadata().target().starts_with("keepstate") {
            return Ok(());
        }
        let mut text = EventText::default();
        event.record(&mut text);
        let priority = text.priority.unwrap_or_else(|| u64::from(syslog_priority(event.metadata().level())));
        self.write_text(&mut out, priority, text.is_rule, &format!("{}{}", text.message, text.fields))
    }
}

impl LogFormat {
    fn for_stderr(verbose: u8) -> LogFormat {
        LogFormat { journald: std::env::var_os("JOURNAL_STREAM").is_some(), has_libraries: verbose > 0 }
    }

    /// `keepstate: ` before the first line only; the priority before every line, as journald reads each on its own.
    fn write_text(&self, out: &mut impl Write, priority: u64, is_rule: bool, text: &str) -> fmt::Result {
        let mut name = if is_rule && self.journald { "" } else { "keepstate: " };
        for line in text.trim_end_matches('\n').split('\n') {
            if self.journald {
                write!(out, "<{priority}>")?;
            }
            writeln!(out, "{name}{line}")?;
            name = "";
        }
        Ok(())
    }
}

/// An event's message and fields.
#[derive(Default)]
struct EventText {
    message: String,
    /// Each as ` name=value`.
    fields: String,
    priority: Option<u64>,
    is_rule: bool,
}

impl Visit for EventText {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        match field.name() {
            "is_rule" => self.is_rule = value,
            _ => self.record_debug(field, &value),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            // 0 to 7 are syslog's.
            "priority" if value < 8 => self.priority = Some(value),
            _ => self.record_debug(field, &value),
        }
    }
}

/// The priority of syslog(3).
fn syslog_priority(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::fmt::MakeWriter;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Lines;

        fn make_writer(&self) -> Lines {
            self.clone()
        }
    }

    /// What `log` prints, under journald or not.
    fn printed(journald: bool, log: impl FnOnce()) -> String {
        printed_by(LogFormat { journald, has_libraries: false }, log)
    }

    fn printed_by(format: LogFormat, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let format = tracing_subscriber::fmt().with_writer(lines.clone()).event_format(format);
        tracing::subscriber::with_default(format.finish(), log);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn log_examples() {
        tracing::warn!("table full");
        tracing::info!(priority = 5_u8, is_rule = true, "IN=eth0 OUT= ");
        tracing::error!(queue = 3, "first\nsecond");
    }

    #[test]
    fn terminal_lines_carry_no_priority() {
        let expected = "keepstate: table full\nkeepstate: IN=eth0 OUT= \nkeepstate: first\nsecond queue=3\n";
        assert_eq!(printed(false, log_examples), expected);
    }

    #[test]
    fn a_library_is_heard_only_with_verbose() {
        let log = || {
            tracing::info!(target: "async_nats", "event: connected");
            tracing::info!("ours");
        };
        assert_eq!(printed(false, log), "keepstate: ours\n");
        let both = printed_by(LogFormat { journald: false, has_libraries: true }, log);
        assert_eq!(both, "keepstate: event: connected\nkeepstate: ours\n");
    }

    #[test]
    fn journald_lines_begin_with_their_priority() {
        let expected = "<4>keepstate: table full\n<5>IN=eth0 OUT= \n<3>keepstate: first\n<3>second queue=3\n";
        assert_eq!(printed(true, log_examples), expected);
    }
}
