//! Netlink: messages of attributes, and the socket that carries them to the kernel and back.
//!
//! [`attribute`] and [`message`] are a codec without IO: octets in, values out, and the other way round. [`socket`] does the IO and
//! knows nothing of what it carries. A gateway that speaks the same is at the other end of a Unix socket, where pieces have a [`frame`].

pub mod attribute;
pub mod message;
pub mod socket;
pub mod stream_frame;

pub use attribute::{NlAttr, NlAttrs};
pub use message::{NlMessage, NlMessages, NlRequest};
pub use socket::{NetlinkError, NetlinkSocket};

/// Octets that are no netlink message, or no message of the kind they say they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of the kernel cannot be read: {what} has {length} octets")]
pub struct MalformedNetlink {
    /// The part that is wrong, by the kernel's name for it.
    pub what: &'static str,
    /// Its length in octets.
    pub length: usize,
}
