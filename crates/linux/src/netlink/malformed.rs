//! The error of every netlink decoder.

/// Bytes that are not a netlink message, or not one of the type they claim to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed netlink message: {what}: bad length {length}")]
pub struct MalformedNetlink {
    /// The part that is malformed, by the kernel's name for it.
    pub what: &'static str,
    /// Its length in bytes.
    pub length: usize,
}
