//! What programs at tc's hooks can fail by.
use std::fmt;

/// Why programs cannot be attached or detached.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct TcError {
    what: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// The error of something that could not be done.
pub(super) fn tc_error<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    what: impl fmt::Display,
) -> impl FnOnce(E) -> TcError {
    move |error| TcError { what: what.to_string(), source: error.into() }
}
