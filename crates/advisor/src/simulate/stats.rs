//! What the clients of a simulation experienced.
use serde::Serialize;

/// Counters of the clients' connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClientStats {
    /// Packets that went through the engine.
    pub packets: u64,
    /// Connections opened.
    pub opened: u64,
    /// SYNs dropped because the table was full.
    pub syns_dropped: u64,
    /// Attempts given up after four SYNs.
    pub refused: u64,
    /// Clients that were refused at least once.
    pub clients_refused: u64,
    /// Connections closed by both ends.
    pub closed: u64,
    /// Connections that ended without FIN or RST.
    pub fell_silent: u64,
    /// Connections reset by a server that restarted.
    pub reset: u64,
    /// Open connections whose entry had expired and that were picked up again by their next packet.
    pub picked_up: u64,
    /// The same, but the packet was INVALID: if a rule drops those, the connection hangs.
    pub invalid: u64,
    /// Connections that broke because their entry was gone and the table was full.
    pub broken: u64,
    /// UDP queries dropped because the table was full.
    pub questions_dropped: u64,
    /// SYNs of unfinished handshakes dropped because the table was full.
    pub half_open_dropped: u64,
    /// SYNs of a scan dropped.
    pub scan_dropped: u64,
    /// Logins that an operator has tried.
    pub logins: u64,
    /// Those that were dropped.
    pub logins_dropped: u64,
    /// Clients connected now.
    pub connected: u64,
    /// Clients waiting to connect again now.
    pub waiting: u64,
}
