//! Standard error behind a bounded queue with a writer thread of its own: whoever logs never waits for whoever reads.
//!
//! Lines that find the queue full are dropped and counted; the writer says how many as soon as it can write again, at most once a second.
use keepstate_linux::privileges;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Events that wait, at most.
const MAX_QUEUED: usize = 8192;
/// The time between two notes about dropped lines.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// A writer that never blocks. Each write is one event.
#[derive(Clone)]
pub struct StderrQueue {
    events: SyncSender<QueuedEvent>,
    dropped: Arc<AtomicU64>,
}

enum QueuedEvent {
    Text(Vec<u8>),
    /// All before it is written: tell so.
    Flush(SyncSender<()>),
}

impl StderrQueue {
    /// Starts the thread that writes to `sink`; `note` makes the line about dropped ones.
    ///
    /// # Errors
    /// There is no thread.
    pub fn start(
        sink: impl Write + Send + 'static,
        note: impl Fn(u64) -> String + Send + 'static,
    ) -> io::Result<StderrQueue> {
        let (events, queued) = sync_channel(MAX_QUEUED);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        let write = move || {
            // It begins before the program has dropped what it does not need. Without that it works too.
            let _ = privileges::drop_thread_privileges();
            write_events(&queued, sink, &counter, &note);
        };
        std::thread::Builder::new().name("log".into()).spawn(write)?;
        Ok(StderrQueue { events, dropped })
    }

    /// Waits until what was logged so far is written, but not longer than this.
    pub fn flush_within(&self, longest: Duration) {
        let (done, written) = sync_channel(1);
        if self.events.try_send(QueuedEvent::Flush(done)).is_ok() {
            // Nobody may read: then the lines are lost, and the program ends all the same.
            let _ = written.recv_timeout(longest);
        }
    }
}

impl Write for StderrQueue {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.events.try_send(QueuedEvent::Text(bytes.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_events(
    queued: &Receiver<QueuedEvent>,
    mut sink: impl Write,
    dropped: &AtomicU64,
    note: &impl Fn(u64) -> String,
) {
    let mut noted: Option<Instant> = None;
    // Nobody can be told that standard error is gone.
    let tell_dropped = |sink: &mut dyn Write| match dropped.swap(0, Ordering::Relaxed) {
        0 => (),
        count => drop(sink.write_all(note(count).as_bytes())),
    };
    loop {
        // Dropped lines are told in time even if nothing more is logged.
        let event = match noted.filter(|_| dropped.load(Ordering::Relaxed) > 0) {
            Some(last) => queued.recv_timeout(NOTE_INTERVAL.saturating_sub(last.elapsed())),
            None => queued.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match event {
            Ok(QueuedEvent::Text(bytes)) => drop(sink.write_all(&bytes)),
            Ok(QueuedEvent::Flush(done)) => {
                tell_dropped(&mut sink);
                let _ = done.try_send(());
            }
            Err(RecvTimeoutError::Timeout) => (),
            Err(RecvTimeoutError::Disconnected) => return tell_dropped(&mut sink),
        }
        if dropped.load(Ordering::Relaxed) > 0 && noted.is_none_or(|last| last.elapsed() >= NOTE_INTERVAL) {
            noted = Some(Instant::now());
            tell_dropped(&mut sink);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_sink_that_nobody_reads_delays_nobody_and_dropped_lines_are_counted() {
        let (sink, mut reader) = UnixStream::pair().unwrap();
        let mut queue = StderrQueue::start(sink, |count| format!("{count} dropped\n")).unwrap();
        // Far more than the socket and the queue hold; this would never return if a write waited.
        let line = [b'x'; 1023];
        let total = MAX_QUEUED * 4;
        for _ in 0..total {
            queue.write_all(&[&line[..], b"\n"].concat()).unwrap();
        }
        assert!(queue.dropped.load(Ordering::Relaxed) > 0);
        // Now somebody reads, until all is there.
        let read = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        queue.flush_within(Duration::from_secs(60));
        drop(queue);
        let text = read.join().unwrap();
        let written = text.lines().filter(|line| line.starts_with('x')).count();
        let told: u64 = text.lines().filter_map(|line| line.strip_suffix(" dropped")?.parse::<u64>().ok()).sum();
        assert!(told > 0);
        assert_eq!(written as u64 + told, total as u64, "{written} written, {told} told as dropped");
    }
}
