//! The machine-wide `nf_conntrack_max`: opened before this process enters a new namespace, where it is read-only.
//!
//! It is lowered for a moment, and restored when the guard is dropped, when a panic unwinds, and when a signal ends the process.
use super::syscalls;
use anyhow::{Context, Result, ensure};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};

/// The sysctl, if it can be written.
pub struct ConntrackMax {
    file: File,
}

/// The limit is lowered while this guard lives.
pub struct LoweredMax<'a> {
    limit: &'a ConntrackMax,
    before: String,
    lowered_value: String,
}

impl ConntrackMax {
    /// Must be called in the initial network namespace.
    pub fn open() -> Result<ConntrackMax> {
        let path = "/proc/sys/net/netfilter/nf_conntrack_max";
        Ok(ConntrackMax {
            file: OpenOptions::new().read(true).write(true).open(path).with_context(|| path.to_string())?,
        })
    }

    fn read(&self) -> Result<String> {
        let mut text = String::new();
        let mut file = &self.file;
        file.rewind()?;
        file.read_to_string(&mut text)?;
        Ok(text.trim().to_string())
    }

    fn write(&self, text: &str) -> Result<()> {
        let mut file = &self.file;
        file.rewind()?;
        file.write_all(text.as_bytes())?;
        Ok(())
    }

    /// Lowers it until the guard is dropped.
    pub fn lower(&self, max: u64) -> Result<LoweredMax<'_>> {
        let before = self.read()?;
        ensure!(before.parse::<u64>()? > max, "nf_conntrack_max is {before} already");
        syscalls::restore_on_signal(&self.file, &before)?;
        let lowered = LoweredMax { limit: self, before, lowered_value: max.to_string() };
        self.write(&lowered.lowered_value)?;
        Ok(lowered)
    }
}

impl Drop for LoweredMax<'_> {
    fn drop(&mut self) {
        // If another process changed it meanwhile, that value stays.
        if self.limit.read().is_ok_and(|now| now == self.lowered_value) && self.limit.write(&self.before).is_err() {
            eprintln!(
                "cannot restore nf_conntrack_max; set it by hand: sysctl net.netfilter.nf_conntrack_max={}",
                self.before
            );
        }
        syscalls::reset_signal_handlers();
    }
}
