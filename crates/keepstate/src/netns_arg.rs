//! `--netns NAME`: the network namespace that a user names, and one error if there is none.
use keepstate_linux::netns::{self, Netns};
use std::fmt;

/// The namespace with this name, or of this process.
///
/// # Errors
/// There is none, or it may not be seen.
pub fn find_netns(name: &str) -> Result<Netns, UnknownNetns> {
    netns::find(name).map_err(|error| UnknownNetns { name: name.to_owned(), reason: error.to_string() })
}

/// A network namespace that is not there. Every command that was to look into it ends with [`EXIT_CODE`](UnknownNetns::EXIT_CODE).
#[derive(Debug)]
pub struct UnknownNetns {
    name: String,
    reason: String,
}

impl UnknownNetns {
    /// Nothing was looked at: "unknown", as doctor and disable call it.
    pub const EXIT_CODE: u8 = 3;
}

impl fmt::Display for UnknownNetns {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnknownNetns { name, reason } = self;
        write!(out, "no network namespace {name:?}: give a name from `ip netns`, or a process id ({reason})")
    }
}

impl std::error::Error for UnknownNetns {}
