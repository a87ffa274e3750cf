//! What `-v` shows: the steps a command takes, on standard error. Under systemd each line carries its priority, so that journald
//! files it under the right one.
use std::fmt;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Listens from now on, for the life of the process: to notes and warnings, with `-v` to what is done, with `-vv` to every step.
pub fn init(verbose: u8) {
    let level = match verbose {
        0 => Level::INFO,
        1 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let lines = LogFormat { journal: std::env::var_os("JOURNAL_STREAM").is_some() };
    // Somebody listens already only where this is called twice, and then that one goes on.
    let _ = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).event_format(lines).try_init();
}

/// One line an event: `keepstate: message field=value`, behind `<priority>` where journald reads it.
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
