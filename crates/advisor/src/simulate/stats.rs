//! What the clients of a simulation experienced.
use serde::Serialize;

/// What clients met with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClientStats {
    /// Packets that went through the engine.
    pub packets: u64,
    /// Connections opened.
    pub opened: u64,
    /// SYNs dropped because there was no room.
    pub syns_dropped: u64,
    /// Attempts given up after the SYN was sent four times.
    pub refused: u64,
    /// Clients that were refused at least once.
    pub clients_refused: u64,
    /// Connections closed by both ends.
    pub closed: u64,
    /// Connections that ended without a word.
    pub fell_silent: u64,
    /// Connections reset by a server that restarted.
    pub reset: u64,
    /// Living connections whose entry had been forgotten, and that were entered anew with their next packet.
    pub picked_up: u64,
    /// The same, but their packet was invalid: where a rule drops those, they hang.
    pub invalid: u64,
    /// Connections that broke, half open or living, because their entry was gone and there was no room to enter them again.
    pub broken: u64,
    /// UDP questions dropped because there was no room.
    pub questions_dropped: u64,
    /// SYNs of handshakes that are never finished, dropped because there was no room.
    pub half_open_dropped: u64,
    /// Connections open now, by the clients.
    pub connected: u64,
    /// Clients that wait to try again now.
    pub waiting: u64,
}
