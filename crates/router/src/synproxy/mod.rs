//! Synproxy: TCP handshakes answered in a server's name, as Linux's `synproxy` does. A SYN flood costs no table entry and never reaches the server.
//!
//! ```text
//! client ── SYN ──▶ SYN+ACK with a cookie and a timestamp; no state
//!        ── ACK ──▶ cookie valid? ── SYN in the client's name ──▶ server
//!                   window opened ◀── sequence numbers adjusted to the cookie ── SYN+ACK
//! ```
//! The cookie encodes one of four MSS values, and authenticates addresses, ports, the client's initial sequence number and the time. The other options of the SYN (window scale,
//! SACK) are in the low bits of the timestamp that the client echoes. It must never accept an acknowledgement of a cookie it has not sent.
mod cookies;
mod handshake;
mod segment;
#[cfg(test)]
mod tests;

pub(crate) use cookies::SynCookies;
pub use cookies::SynproxyStats;
pub(crate) use handshake::HandshakeAcks;
pub(crate) use segment::{OutgoingSegment, SynproxyOptions};
