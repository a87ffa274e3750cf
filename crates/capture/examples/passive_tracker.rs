//! A passive tracker: the connection events of a capture, then the table at its end.
//!
//! ```text
//! cargo run -p keepstate-capture --example passive_tracker -- trace.pcapng
//! ```
use anyhow::{Context, Result};
use keepstate_capture::Capture;
use keepstate_capture::capture_tracker::CaptureTracker;
use keepstate_engine::{Entry, EventMask, Sysctls, Tuple};
use std::io::{BufWriter, Write, stdout};
use std::path::Path;

/// Events that may wait between two frames.
const EVENT_QUEUE: usize = 1 << 16;

fn main() -> Result<()> {
    let file = std::env::args_os().nth(1).context("usage: passive_tracker FILE (a pcap or pcapng file, or -)")?;
    let mut capture = Capture::open(Path::new(&file))?;
    // A fixed secret makes the output reproducible. Use random bytes where the traffic is not your own.
    let mut tracker = CaptureTracker::new(Sysctls::default(), [0; 16]);
    tracker.engine_mut().subscribe(EventMask::ALL, EVENT_QUEUE);
    let mut out = BufWriter::new(stdout().lock());

    let read = capture.for_each_frame(|frame| {
        tracker.track_frame(&frame);
        print_events(&mut tracker, &mut out)?;
        Ok(true)
    });

    writeln!(out, "{} connections after {} frames:", tracker.engine().count(), tracker.frame_count)?;
    for entry in tracker.engine().entries(tracker.now()) {
        writeln!(out, "{}", describe(&entry))?;
    }
    out.flush()?;
    // A broken capture is an error, after everything before the break was printed.
    read
}

fn print_events(tracker: &mut CaptureTracker, out: &mut impl Write) -> Result<()> {
    while let Some(event) = tracker.engine_mut().poll_event() {
        let seconds = event.at.0 as f64 / 1e9;
        writeln!(out, "{seconds:.6} {:?} {}", event.kind, describe(&event.entry))?;
    }
    Ok(())
}

fn describe(entry: &Entry) -> String {
    let timeout = entry.timeout;
    format!("protocol {} {} timeout {timeout}", entry.original.protocol, endpoints(&entry.original))
}

fn endpoints(tuple: &Tuple) -> String {
    format!("{} {} -> {} {}", tuple.source, tuple.source_key, tuple.destination, tuple.destination_key)
}
