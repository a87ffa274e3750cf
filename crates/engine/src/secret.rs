//! The secret of an engine.

/// The secret that keys hashes and ids: sixteen random octets, fresh at every start.
#[derive(Clone, Copy)]
pub struct Secret(pub [u8; 16]);
