//! The client's half of `keepstate control capture`: whole blocks of the gateway's pcapng into a file, and at the end how many packets there were.
//!
//! Ctrl-C ends the capture, not the program in the middle of a block: the file is complete whenever this returns.
use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often it is looked for a signal.
const SIGNAL_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// A longer block is no gateway's.
const MAX_BLOCK_LEN: usize = 1 << 20;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
/// Where the value of the only option of a gateway's statistics begins.
const LOST_AT: usize = 24;

/// What a capture holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct CaptureSum {
    packets: u64,
    lost: u64,
}

/// Copies a capture to `file` (`-`: standard output) until it ends, or a signal comes.
///
/// # Errors
/// The file cannot be written, or the gateway sends no pcapng.
pub fn write_capture(answer: UnixStream, file: &Path) -> Result<()> {
    let mut out: Box<dyn Write> = match file.to_str() {
        Some("-") => Box::new(std::io::stdout().lock()),
        _ => Box::new(File::create(file).with_context(|| format!("cannot write {}", file.display()))?),
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(&stop)).context("cannot catch signals")?;
    }
    answer.set_read_timeout(Some(SIGNAL_CHECK_INTERVAL))?;
    tracing::info!("capturing to {}; Ctrl-C ends", file.display());
    let sum = copy_blocks(answer, &mut out, &stop).with_context(|| format!("capture to {}", file.display()))?;
    let CaptureSum { packets, lost } = sum;
    tracing::info!("{packets} packets captured");
    if lost > 0 {
        tracing::warn!(
            "{lost} packets lost: they came faster than they could be written; a filter or --snaplen 96 keeps more"
        );
    }
    Ok(())
}

fn copy_blocks(mut answer: impl Read, out: &mut impl Write, stop: &AtomicBool) -> Result<CaptureSum> {
    let (mut sum, mut waiting) = (CaptureSum::default(), Vec::new());
    let mut buffer = vec![0; 64 * 1024];
    while !stop.load(Ordering::Relaxed) {
        let length = match answer.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
            {
                continue;
            }
            Err(error) => return Err(error).context("the gateway ended in the middle of its answer"),
        };
        waiting.extend_from_slice(buffer.get(..length).unwrap_or_default());
        let whole = count_blocks(&waiting, &mut sum)?;
        let blocks = waiting.drain(..whole).collect::<Vec<u8>>();
        match out.write_all(&blocks).and_then(|()| out.flush()) {
            // Whoever reads it has enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            written => written.context("cannot write")?,
        }
    }
    Ok(sum)
}

/// The length of the whole blocks that these bytes begin with, which are counted.
fn count_blocks(bytes: &[u8], sum: &mut CaptureSum) -> Result<usize> {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let word = |from: usize| rest.get(from..)?.first_chunk().map(|word| u32::from_ne_bytes(*word));
        let (Some(kind), Some(length)) = (word(0), word(4)) else { return Ok(at) };
        let length = length as usize;
        if !(12..=MAX_BLOCK_LEN).contains(&length) {
            bail!("the answer is not a capture");
        }
        let Some(block) = rest.get(..length) else { return Ok(at) };
        match kind {
            ENHANCED_PACKET => sum.packets += 1,
            INTERFACE_STATISTICS => {
                let lost = block.get(LOST_AT..).and_then(|value| value.first_chunk());
                sum.lost = lost.map_or(sum.lost, |lost| u64::from_ne_bytes(*lost));
            }
            _ => (),
        }
        at += length;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32 + 12).to_ne_bytes();
        [&kind.to_ne_bytes(), &length[..], body, &length].concat()
    }

    #[test]
    fn only_whole_blocks_are_written_and_counted() {
        let mut statistics = vec![0; 12];
        statistics.extend(5_u16.to_ne_bytes());
        statistics.extend(8_u16.to_ne_bytes());
        statistics.extend(7_u64.to_ne_bytes());
        let mut capture = [block(1, &[0; 8]), block(6, &[0; 20]), block(5, &statistics), block(6, &[0; 4])].concat();
        let whole = capture.len();
        capture.extend(block(6, &[0; 8]).iter().take(15));
        let mut out = Vec::new();
        let sum = copy_blocks(&capture[..], &mut out, &AtomicBool::new(false)).unwrap();
        assert_eq!((out.len(), sum), (whole, CaptureSum { packets: 2, lost: 7 }));
        assert!(copy_blocks(&[0xff; 20][..], &mut out, &AtomicBool::new(false)).is_err());
    }
}
