//! The kernel log lines of nf_conntrack, rate-limited as the kernel does (`net_ratelimit`), queued for the driver.
use crate::Instant;
use alloc::collections::VecDeque;
use alloc::string::String;
use core::time::Duration;

/// The defaults of `net_ratelimit`: ten lines, then none until five seconds have passed since the first.
const RATELIMIT_BURST: u32 = 10;
const RATELIMIT_INTERVAL: Duration = Duration::from_secs(5);
/// The queue's capacity. Further lines are dropped, so a driver that never polls costs no more memory.
const MAX_PENDING_LINES: usize = 64;

/// A rate-limited, bounded queue of log lines.
#[derive(Clone, Default)]
pub(crate) struct KernelLog {
    lines: VecDeque<String>,
    window_start: Option<Instant>,
    in_burst: u32,
    suppressed: u64,
}

impl KernelLog {
    /// Queues the line that `text` returns, unless the rate limit is reached; suppressed lines are counted.
    pub(crate) fn push_ratelimited(&mut self, now: Instant, text: impl FnOnce() -> String) {
        if self.window_start.is_none_or(|begun| now.since(begun) >= RATELIMIT_INTERVAL) {
            self.window_start = Some(now);
            self.in_burst = 0;
            if self.suppressed > 0 {
                let suppressed = core::mem::take(&mut self.suppressed);
                self.push(alloc::format!("net_ratelimit: {suppressed} callbacks suppressed"));
            }
        }
        if self.in_burst < RATELIMIT_BURST {
            self.in_burst += 1;
            self.push(text());
        } else {
            self.suppressed += 1;
        }
    }

    fn push(&mut self, line: String) {
        if self.lines.len() < MAX_PENDING_LINES {
            self.lines.push_back(line);
        }
    }

    pub(crate) fn poll(&mut self) -> Option<String> {
        self.lines.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratelimit_logs_ten_lines_then_the_suppressed_count() {
        let mut log = KernelLog::default();
        for _ in 0..25 {
            log.push_ratelimited(Instant::from_secs(100), || String::from("full"));
        }
        log.push_ratelimited(Instant::from_secs(104), || String::from("full"));
        assert_eq!(core::iter::from_fn(|| log.poll()).count(), 10);
        log.push_ratelimited(Instant::from_secs(105), || String::from("again"));
        assert_eq!(log.poll().unwrap(), "net_ratelimit: 16 callbacks suppressed");
        assert_eq!(log.poll().unwrap(), "again");
        assert_eq!(log.poll(), None);
    }
}
