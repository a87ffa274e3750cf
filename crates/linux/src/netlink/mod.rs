//! Netlink: messages of attributes, and the socket that carries them to the kernel and back.
//!
//! [`attribute`] and [`message`] are a codec without IO: bytes in, values out, and the other way round. [`socket`] does the IO and
//! does not look into messages. A running gateway speaks the same over a Unix socket, in [frames](stream_frame).

pub mod attribute;
mod malformed;
pub mod message;
mod question;
pub mod socket;
pub mod stream_frame;

pub use attribute::{NlAttr, NlAttrs};
pub use malformed::MalformedNetlink;
pub use message::{NlMessage, NlMessages, NlRequest};
pub(crate) use question::NlQuestionSocket;
pub use socket::{NetlinkError, NetlinkSocket};
