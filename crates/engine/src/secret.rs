//! The secret of an engine.
use core::fmt;

/// The secret that keys hashes and ids: sixteen random bytes, fresh at every start.
#[derive(Clone, Copy)]
pub struct Secret(pub [u8; 16]);

/// Does not show the secret.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
