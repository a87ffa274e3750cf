//! The control socket of a running gateway: its path, and how to open a ctnetlink session there.
//!
//! This crate does not know the gateway: the program passes the function that connects.
use std::fmt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Opens a ctnetlink session at a control socket.
type Connect = fn(&Path) -> anyhow::Result<UnixStream>;

/// A gateway's control socket.
#[derive(Clone)]
pub struct GatewaySocket {
    path: PathBuf,
    connect: Connect,
}

impl GatewaySocket {
    /// The socket at `path`, opened by `connect`.
    pub fn new(path: PathBuf, connect: Connect) -> GatewaySocket {
        GatewaySocket { path, connect }
    }

    /// A socket at another path, opened in the same way.
    pub(super) fn at(&self, path: PathBuf) -> GatewaySocket {
        GatewaySocket { path, connect: self.connect }
    }

    /// A ctnetlink session.
    ///
    /// # Errors
    /// No gateway listens there, or access is denied.
    pub(super) fn connect(&self) -> anyhow::Result<UnixStream> {
        (self.connect)(&self.path)
    }
}

impl PartialEq for GatewaySocket {
    fn eq(&self, other: &GatewaySocket) -> bool {
        self.path == other.path
    }
}

impl Eq for GatewaySocket {}

impl fmt::Debug for GatewaySocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GatewaySocket").field(&self.path).finish()
    }
}
