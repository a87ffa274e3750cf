//! Handshakes answered in a server's name (Linux's `synproxy`): a flood of SYNs that nobody stands behind costs neither a place in the table nor the server anything.
//!
//! ```text
//! client ── SYN ──▶ a promise (a cookie, a clock), and nothing kept
//!        ── ACK ──▶ is it ours? ── SYN in the client's name ──▶ server
//!                   window opened ◀── its numbers shifted to the promise ── SYN+ACK
//! ```
//! The cookie says by which of four sizes the client's segments go, and vouches for addresses, ports, the client's own first number and the time; what else a SYN may ask for (scale,
//! selective acknowledgements) waits in the low bits of the clock that the client echoes. It must never believe an acknowledgement that it has not promised itself.
mod cookies;
mod handshake;
mod segment;
#[cfg(test)]
mod tests;

pub(crate) use cookies::SynCookies;
pub use cookies::SynproxyStats;
pub(crate) use handshake::HandshakeAcks;
pub(crate) use segment::{OutgoingSegment, SynproxyOptions};
