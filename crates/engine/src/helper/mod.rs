//! Helpers: readers of control channels that announce connections to come.
//!
//! A helper is attached to a connection by rule, never by itself. It is a pure function of the octets it is shown and of what little it
//! keeps for its connection; what it hears becomes an expectation elsewhere.
#[allow(dead_code, reason = "the engine does not call it yet")]
pub(crate) mod ftp;
