//! The log on standard error: notes and warnings, with `-v` steps, with `-vv` details. Under systemd each line carries its priority for
//! journald.
use std::fmt;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Starts logging for the life of the process, at INFO, with `-v` DEBUG, with `-vv` TRACE.
pub fn init(verbose: u8) {
    let level = match verbose {
        0 => Level::INFO,
        1 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let lines = LogFormat { journal: std::env::var_os("JOURNAL_STREAM").is_some() };
    // An error means that logging was started before, and that goes on.
    let _ = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).event_format(lines).try_init();
}

/// One line per event: `keepstate: message field=value`, after `<priority>` if journald reads it.
struct LogFormat {
    journal: bool,
}

impl<S, N> FormatEvent<S, N> for LogFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if self.journal {
            write!(out, "<{}>", syslog_priority(event.metadata().level()))?;
        }
        out.write_str("keepstate: ")?;
        context.format_fields(out.by_ref(), event)?;
        writeln!(out)
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
