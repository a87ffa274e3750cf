//! The kernel's sockets, asked for each packet that rules with `tproxy` or `socket` look at: they come and go, so no answer is kept.
use keepstate_linux::socket_query::{FoundSocket, SocketQuery, SocketQuerySocket};
use keepstate_rules::{SocketEnds, SocketInfo, SocketLookup, SocketState};
use std::cell::RefCell;
use std::io;

/// Asks.
pub(super) struct KernelSockets(RefCell<SocketQuerySocket>);

impl KernelSockets {
    /// Opens the socket that asks, in this thread's network namespace.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open() -> io::Result<KernelSockets> {
        SocketQuerySocket::open().map(|socket| KernelSockets(RefCell::new(socket)))
    }
}

impl SocketLookup for KernelSockets {
    fn find(&self, ends: &SocketEnds) -> Option<SocketInfo> {
        let found = self.0.borrow_mut().find(&as_query(ends)).ok().flatten()?;
        Some(info_of(ends.protocol, &found))
    }

    fn end_time_wait(&self, ends: &SocketEnds, number: u64) {
        // Where it cannot be ended, the peer's SYN is answered by what remains, and sent again a second later.
        let _ = self.0.borrow_mut().end(&as_query(ends), number);
    }
}

fn as_query(ends: &SocketEnds) -> SocketQuery {
    let SocketEnds { protocol, peer, local, iif } = *ends;
    SocketQuery { protocol, peer, local, iif }
}

fn info_of(protocol: u8, found: &FoundSocket) -> SocketInfo {
    const TCP: u8 = 6;
    const ESTABLISHED: u8 = 1;
    const SYN_RECV: u8 = 3;
    const LISTEN: u8 = 10;
    let state = match (protocol, found.state) {
        (TCP, LISTEN) => SocketState::Listening,
        (TCP, SYN_RECV) if found.is_transparent.is_none() => SocketState::Handshake,
        (TCP, _) if found.is_transparent.is_none() => SocketState::TimeWait(found.cookie),
        (TCP, _) | (_, ESTABLISHED) => SocketState::Connected,
        _ => SocketState::Listening,
    };
    let FoundSocket { is_transparent, is_wildcard, mark, .. } = *found;
    SocketInfo { state, is_transparent, is_wildcard, mark }
}
