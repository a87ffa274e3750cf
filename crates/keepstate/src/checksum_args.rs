//! `--checksums`: which checksums of a capture are believed.
use crate::shared_args::EngineArgs;
use anyhow::Result;
use clap::{Args, ValueEnum};
use keepstate_capture::Capture;
use keepstate_capture::checksums::{ChecksumPolicy, ChecksumTrust};
use keepstate_engine::Sysctl;
use std::io::{self, Cursor, Read};
use std::path::Path;

/// The option.
#[derive(Args, Clone, Copy, Debug)]
pub struct ChecksumArgs {
    /// Which checksums to believe. auto: verify them, but trust what the network card was to fill in, and senders of which most are
    /// wrong (captures made on the sender, changed addresses). --set nf_conntrack_checksum=1 or 0 is the same as verify or trust, and wins
    #[arg(long, value_enum, default_value_t = ChecksumModeArg::Auto, value_name = "MODE")]
    checksums: ChecksumModeArg,
}

/// [`ChecksumTrust`] as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ChecksumModeArg {
    /// Verify all, as a router does that receives the packets
    Verify,
    /// Verify none
    Trust,
    /// Decide by the capture
    Auto,
}

/// Frames and bytes of a capture that decide about its checksums.
const SAMPLE_FRAMES: u64 = 1_000_000;
const SAMPLE_BYTES: u64 = 64 << 20;

impl ChecksumArgs {
    /// The policy: the sysctl if it is set, else the option.
    ///
    /// # Errors
    /// As [`EngineArgs::sysctls`].
    pub fn policy(self, engine: &EngineArgs) -> Result<ChecksumPolicy> {
        let mode = match (engine.explicit(Sysctl::Checksum)?, self.checksums) {
            (Some(0), _) | (None, ChecksumModeArg::Trust) => ChecksumTrust::Trust,
            (Some(_), _) | (None, ChecksumModeArg::Verify) => ChecksumTrust::Verify,
            (None, ChecksumModeArg::Auto) => ChecksumTrust::Auto,
        };
        Ok(ChecksumPolicy::new(mode))
    }
}

/// Opens the capture at `path`. Its first part is read twice if `policy` wants a sample; standard input is kept in memory for that, unless
/// `live` says that nothing may wait.
///
/// # Errors
/// As [`Capture::open`].
pub fn open_sampled(path: &Path, policy: &mut ChecksumPolicy, live: bool) -> Result<Capture> {
    if !policy.wants_sample() {
        return Capture::open(path);
    }
    if path.as_os_str() != "-" {
        if path.metadata().is_ok_and(|file| file.is_file()) {
            sample(Capture::open(path)?, policy);
        }
        return Capture::open(path);
    }
    if live || io::IsTerminal::is_terminal(&io::stdin()) {
        return Capture::open(path);
    }
    let mut first = Vec::new();
    // An error of reading comes again where the capture is read.
    let _ = io::stdin().lock().take(SAMPLE_BYTES).read_to_end(&mut first);
    if let Ok(capture) = Capture::from_reader(Cursor::new(first.clone()), path) {
        sample(capture, policy);
    }
    Capture::from_reader(Cursor::new(first).chain(io::stdin()), path)
}

fn sample(mut capture: Capture, policy: &mut ChecksumPolicy) {
    let (mut frames, mut bytes) = (0, 0);
    // Where the capture breaks is told when it is read.
    let _ = capture.for_each_frame(|frame| {
        policy.sample_frame(&frame);
        frames += 1;
        bytes += frame.data.len() as u64;
        Ok(frames < SAMPLE_FRAMES && bytes < SAMPLE_BYTES)
    });
}
