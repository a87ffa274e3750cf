//! A backend as the rest of the router names it.
use super::config::Masquerade;
use std::net::IpAddr;

/// Names a backend of a service at work; never given again.
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
