//! The machine's sockets: what `tproxy` and `socket` ask of them.
use std::net::SocketAddr;

/// The ends of a packet, as its socket would have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketEnds {
    /// The number of its protocol: TCP (6) or UDP (17).
    pub protocol: u8,
    /// Its source.
    pub peer: SocketAddr,
    /// Its destination, or where a socket is looked for instead. Of the same family.
    pub local: SocketAddr,
    /// The index of the interface that it came in by; 0 finds no socket that is bound to an interface.
    pub iif: u32,
}

/// What a socket is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// It waits for connections; of UDP it is not connected.
    Listening,
    /// It has one peer.
    Connected,
    /// A connection that the peer has asked for and that has no socket of its own yet.
    Handshake,
    /// What is left of a connection: a number by which it can be ended.
    TimeWait(u64),
}

/// A socket, as far as rules ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketInfo {
    /// What it is there for.
    pub state: SocketState,
    /// Has it IP_TRANSPARENT? `None` if the kernel does not say, as of handshakes and remains.
    pub is_transparent: Option<bool>,
    /// Is it bound to any address?
    pub is_wildcard: bool,
    /// Its mark (SO_MARK), if it may be known.
    pub mark: Option<u32>,
}

/// Finds sockets of the machine. It is asked while a packet is evaluated, so it must not wait.
pub trait SocketLookup: Send {
    /// The socket that the kernel would give a packet with these ends to: of its connection, or one that listens.
    fn find(&self, ends: &SocketEnds) -> Option<SocketInfo>;

    /// Ends what is left of a connection: another one with the same ends begins. `number` is that of its [`SocketState::TimeWait`].
    fn end_time_wait(&self, ends: &SocketEnds, number: u64);
}

/// The socket of a transparent proxy that a packet is given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxySocket {
    /// TCP (6) or UDP (17).
    pub protocol: u8,
    /// Where it listens; `None` if the packet's own connection has one, which the machine finds by itself.
    pub listens_at: Option<SocketAddr>,
    /// What is known of it.
    pub info: SocketInfo,
}
