//! A backend's name in the router, and the backend chosen for a packet.
use super::config::Masquerade;
use std::net::IpAddr;

/// Identifies a backend of a service; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId {
    pub(super) service: u32,
    pub(super) backend: u32,
}

/// A new connection on its way to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BackendChoice {
    pub(super) backend: BackendId,
    pub(super) source: IpAddr,
    pub(super) masquerade: Masquerade,
}
