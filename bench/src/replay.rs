//! `bench replay`: packets per second of `keepstate replay` over a large capture, end to end, with the whole process timed from outside.
use crate::tcp_segment::{FlowSpec, SegmentBuf, SegmentSpec};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant as Clock;

/// Measure packets per second of `keepstate replay`, end to end
#[derive(Args)]
pub struct ReplayBench {
    /// Connections in the capture; each has 12 packets: handshake, data both ways, close
    #[arg(long, default_value_t = 250_000)]
    connections: u32,
    /// Runs, for the median
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

/// Number of concurrent connections in the capture.
const CONCURRENT: u32 = 50_000;

impl ReplayBench {
    /// Writes the capture, replays it, and prints the result.
    pub fn run(&self) -> Result<()> {
        let built = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
            .args(["build", "--release", "--quiet", "--package", "keepstate"])
            .status()?;
        ensure!(built.success(), "cannot build keepstate");
        let program = std::env::current_exe()?.with_file_name("keepstate");
        let capture = std::env::temp_dir().join(format!("keepstate-bench-{}.pcap", std::process::id()));
        let measured = self.write_capture(&capture).and_then(|packets| self.measure(&program, &capture, packets));
        std::fs::remove_file(&capture).ok();
        measured
    }

    fn measure(&self, program: &Path, capture: &Path, packets: u64) -> Result<()> {
        let mut rates = Vec::new();
        for _ in 0..self.runs {
            let begun = Clock::now();
            let mut command = Command::new(program);
            let status = command.arg("replay").arg(capture).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
            ensure!(status.success(), "keepstate replay failed: {status}");
            rates.push(packets as f64 / begun.elapsed().as_secs_f64());
        }
        rates.sort_by(f64::total_cmp);
        let size = std::fs::metadata(capture)?.len();
        println!("{packets} packets, {} connections, {:.0} MB", self.connections, size as f64 / 1e6);
        println!(
            "{:.2} million packets a second (median of {} runs; {:.2} to {:.2})",
            rates[rates.len() / 2] / 1e6,
            rates.len(),
            rates[0] / 1e6,
            rates[rates.len() - 1] / 1e6
        );
        Ok(())
    }

    /// Writes groups of concurrent connections: one step of all of them before the next step.
    fn write_capture(&self, path: &Path) -> Result<u64> {
        let file = std::fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
        let mut header = Vec::new();
        header.extend(0xa1b2_c3d4_u32.to_le_bytes());
        header.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        header.extend(65535_u32.to_le_bytes());
        header.extend(101_u32.to_le_bytes());
        out.write_all(&header)?;
        let (mut packets, mut segment) = (0, SegmentBuf::EMPTY);
        for first in (0..self.connections).step_by(CONCURRENT as usize) {
            for say in tcp_conversation() {
                for connection in first..(first + CONCURRENT).min(self.connections) {
                    segment.write(FlowSpec { connection, ..FlowSpec::default() }, say);
                    let micros = 1_700_000_000_000_000 + packets;
                    let length = (segment.bytes().len() as u32).to_le_bytes();
                    out.write_all(&((micros / 1_000_000) as u32).to_le_bytes())?;
                    out.write_all(&((micros % 1_000_000) as u32).to_le_bytes())?;
                    out.write_all(&length)?;
                    out.write_all(&length)?;
                    out.write_all(segment.bytes())?;
                    packets += 1;
                }
            }
        }
        out.flush()?;
        Ok(packets)
    }
}

fn tcp_conversation() -> [SegmentSpec; 12] {
    let say = |reply, flags, seq, ack, data| SegmentSpec { reply, flags, seq, ack, data };
    [
        say(false, 0x02, 99, 0, false),
        say(true, 0x12, 499, 100, false),
        say(false, 0x10, 100, 500, false),
        say(false, 0x18, 100, 500, true),
        say(true, 0x10, 500, 101, false),
        say(true, 0x18, 500, 101, true),
        say(false, 0x10, 101, 501, false),
        say(false, 0x18, 101, 501, true),
        say(true, 0x18, 501, 102, true),
        say(false, 0x11, 102, 502, false),
        say(true, 0x11, 502, 103, false),
        say(false, 0x10, 103, 503, false),
    ]
}
