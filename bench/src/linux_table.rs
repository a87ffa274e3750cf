//! How large Linux's table is while a bench runs. The limit and the buckets are the whole machine's, and put back at the end.
use crate::undo::Undo;
use anyhow::{Context, Result};
use keepstate_linux::SysRoot;
use keepstate_linux::sysctl;

const LIMIT: &str = "net.netfilter.nf_conntrack_max";
const BUCKETS: &str = "net.netfilter.nf_conntrack_buckets";
/// Both, as Linux chooses them at boot on a machine with more than 4 GB.
const DEFAULT_SIZE: u32 = 262_144;

/// The size that Linux's table has while this lives.
pub(crate) struct LinuxTableSize {
    _undo: Undo,
}

impl LinuxTableSize {
    /// That of a machine that is set up for so many connections: limit and buckets are alike, as Linux chooses them itself, and no smaller than its own choice. What the machine had before does not count,
    /// so that Linux is as fast here as on any other.
    ///
    /// # Errors
    /// They cannot be read or set.
    pub(crate) fn for_connections(connections: u32) -> Result<LinuxTableSize> {
        let root = SysRoot::live();
        let before = [(BUCKETS, sysctl::read(&root, BUCKETS)?), (LIMIT, sysctl::read(&root, LIMIT)?)];
        let size = LinuxTableSize {
            _undo: Undo::new(move || {
                for (key, value) in &before {
                    if let Err(error) = sysctl::write(&SysRoot::live(), key, value.trim()) {
                        eprintln!("{error}: it was {value}");
                    }
                }
            }),
        };
        for key in [BUCKETS, LIMIT] {
            sysctl::write(&root, key, &connections.max(DEFAULT_SIZE).to_string())
                .context("this benchmark needs root, outside of containers")?;
        }
        Ok(size)
    }
}
