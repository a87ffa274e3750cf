//! The secret key of an engine.
use core::fmt;

/// The key of all hashes and ids: sixteen random bytes, new at every start.
#[derive(Clone, Copy)]
pub struct Secret(pub [u8; 16]);

/// Prints `Secret(..)`, never the bytes.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
