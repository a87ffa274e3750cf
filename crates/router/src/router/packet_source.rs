//! What a driver tells of the packets that it is about to give: their Ethernet header, their mark, the user whose socket sends them, and where the machine's sockets are found.
use super::Router;
use keepstate_rules::SocketLookup;

impl Router {
    /// Packets come with their Ethernet headers ([`Router::set_link_header`]).
    #[must_use]
    pub fn with_link_headers(mut self) -> Router {
        self.has_link_headers = true;
        self
    }

    /// Do packets come with their Ethernet headers?
    pub fn has_link_headers(&self) -> bool {
        self.has_link_headers
    }

    /// The Ethernet header of the packets handled from now on, for the rules that match it; without one, none of them matches.
    pub fn set_link_header(&mut self, header: Option<[u8; 14]>) {
        self.link_header = header;
    }

    /// Asks `sockets` for the sockets of packets that come in: for `socket`, and for `tproxy`, which without it never matches. A data path of
    /// [`Router::with_flow_offload`] follows what listens while the ruleset asks for sockets, and calls [`Router::revoke_flows`] when that has changed.
    #[must_use]
    pub fn with_socket_lookup(mut self, sockets: Box<dyn SocketLookup>) -> Router {
        self.sockets = Some(sockets);
        self
    }

    /// Can the machine's sockets be asked for?
    pub fn has_socket_lookup(&self) -> bool {
        self.sockets.is_some()
    }

    /// The mark of the packets handled from now on.
    pub fn set_packet_mark(&mut self, mark: u32) {
        self.packet_mark = mark;
    }

    /// The user whose socket sends the packets given to [`Router::handle_output`] from now on, if that is known: for `meta skuid`.
    pub fn set_socket_uid(&mut self, uid: Option<u32>) {
        self.socket_uid = uid;
    }
}
