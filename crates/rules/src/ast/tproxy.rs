//! The tproxy statement.
use super::statement::{NatPorts, NatTarget};

/// Gives the packet to the socket of a transparent proxy. No socket is found here: the rule ends, as in Linux where no proxy listens.
#[derive(Clone, Debug)]
pub struct TproxySpec {
    /// Family as written (`tproxy ip6 to …`): is it IPv6?
    pub v6: Option<bool>,
    /// The proxy's address; unchanged is the packet's own.
    pub target: NatTarget,
    /// The proxy's port.
    pub port: Option<NatPorts>,
}
