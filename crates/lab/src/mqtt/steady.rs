//! Sessions that ping by themselves, all of them once in an interval. A process that reports in lines on standard output.
use super::line_input::{print_line, stdin_lines};
use super::run::{SPARE_FILES, require_file_limit};
use super::{ClientPool, SessionLoad};
use anyhow::{Context, Result};
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

/// A line of standard input is seen so soon.
const SLICE: Duration = Duration::from_millis(50);

/// Opens sessions and prints `open=3 refused=0 lost=0`; then each pings once in `interval` until standard input ends. For each line `waiting 1500` there it prints `waiting=1`: how many wait for
/// an answer for 1500 ms or longer. For each line `take` it prints `open=3 lost=0 waits=0,12,3`: sessions open, sessions lost since the last one, and the longest wait of each open one
/// since then, in milliseconds; then as many as were lost are opened anew. True if no session failed or was lost.
///
/// # Errors
/// An address cannot be used, or the limit of open files is too low.
pub fn hold_steadily(load: &SessionLoad, interval: Duration) -> Result<bool> {
    require_file_limit(load.sessions as u64 + SPARE_FILES, "fewer --sessions")?;
    let lines = stdin_lines();
    let mut pool = ClientPool::new()?;
    let max_failed = load.max_failed.unwrap_or(usize::MAX);
    let open = |pool: &mut ClientPool, count: usize| {
        pool.open_sessions(count, &load.sources, &load.servers, load.timeout, max_failed)
            .context("cannot open sessions")
    };
    let totals = open(&mut pool, load.sessions)?;
    print_line(&format!("open={} refused={} lost={}", totals.open, totals.refused, totals.lost))?;
    let mut lost_before = totals.lost;
    loop {
        pool.ping_steadily(interval, Instant::now() + SLICE)?;
        match lines.try_recv() {
            Ok(line) => match line.split_once(' ') {
                None if line == "take" => {
                    let (totals, waits) = (pool.totals(), pool.take_silences());
                    let lost = totals.lost - lost_before;
                    let waits: Vec<String> = waits.iter().map(|wait| wait.as_millis().to_string()).collect();
                    print_line(&format!("open={} lost={lost} waits={}", totals.open, waits.join(",")))?;
                    if lost > 0 {
                        open(&mut pool, lost)?;
                    }
                    lost_before = pool.totals().lost;
                }
                Some(("waiting", millis)) => {
                    let time = Duration::from_millis(millis.parse()?);
                    let since = Instant::now().checked_sub(time);
                    let waiting = since.map_or(0, |since| pool.waiting_since(since));
                    print_line(&format!("waiting={waiting}"))?;
                }
                _ => (),
            },
            Err(TryRecvError::Empty) => (),
            Err(TryRecvError::Disconnected) => {
                let totals = pool.totals();
                return Ok(totals.refused == 0 && totals.lost == 0);
            }
        }
    }
}
