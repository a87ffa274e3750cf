//! What goes wrong with NATS, in sentences: what, where, why, and what to do.
use async_nats::{ConnectError, ConnectErrorKind};
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

/// What to do where the server denies a subject.
pub(crate) const PERMISSIONS_REMEDY: &str =
    "Give this user the subjects that the book's chapters Two gateways and Several machines in one view list";

/// Why NATS cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NatsError {
    /// An option that cannot be.
    #[error("{0}")]
    Option(String),
    /// A file that is needed for the connection.
    #[error("{what} {}: {reason}", path.display())]
    File {
        /// What it is.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it is not used.
        reason: String,
    },
    /// No server lets us in.
    #[error("NATS at {servers}: {reason}. {remedy}")]
    Connect {
        /// Which were tried.
        servers: String,
        /// Why.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A server lets us in and then does not do what is asked.
    #[error("NATS: {what}: {reason}. {remedy}")]
    Request {
        /// What was asked.
        what: String,
        /// Why it is not done.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Messages of which some may not have arrived.
    #[error("NATS: {0}")]
    Messages(String),
    /// This machine has no thread, file descriptor or the like for it.
    #[error("cannot start the thread for NATS: {0}")]
    Thread(#[from] io::Error),
}

impl NatsError {
    pub(crate) fn file(what: &'static str, path: &Path, reason: impl ToString) -> NatsError {
        NatsError::File { what, path: path.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn connect(servers: &[String], error: &ConnectError) -> NatsError {
        let remedy = match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                "It refuses our credentials: check the credentials file, or user and password; the server's log names the user"
            }
            // What answers to a TLS greeting in another language.
            _ if chain(error).contains("InvalidContentType") => {
                "That server speaks without TLS: write nats://HOST:PORT, or give it a tls block"
            }
            _ if is_about_tls(error) => {
                "Check the CA file and the client certificate; the server's certificate must have the name or address that is used here"
            }
            ConnectErrorKind::ServerParse => "Write nats://HOST:PORT or tls://HOST:PORT",
            ConnectErrorKind::Dns => "Check the name, or use the address",
            _ => "Is nats-server running there, and does a firewall let TCP to its port (4222) through?",
        };
        NatsError::Connect { servers: servers.join(", "), reason: chain(error), remedy }
    }

    /// A request for `what` failed; `refused` is what the server has said last, if it said something.
    pub(crate) fn request(what: impl Into<String>, error: &(dyn Error + 'static), refused: Option<&str>) -> NatsError {
        let mut reason = chain(error);
        let is_refused = refused.is_some_and(|refused| refused.to_lowercase().contains("permissions violation"));
        if let Some(refused) = refused.filter(|_| is_refused) {
            reason = format!("{reason} ({refused})");
        }
        let remedy = if is_refused { PERMISSIONS_REMEDY } else { jetstream_remedy(error) };
        NatsError::Request { what: what.into(), reason, remedy }
    }
}

/// A handshake that fails comes as an error of reading or writing.
fn is_about_tls(error: &ConnectError) -> bool {
    let text = chain(error).to_lowercase();
    error.kind() == ConnectErrorKind::Tls || text.contains("certificate") || text.contains("tls")
}

fn jetstream_remedy(error: &(dyn Error + 'static)) -> &'static str {
    let text = chain(error);
    match error_code(&text) {
        Some(10_076) => "JetStream is off: put `jetstream {}` into the server's configuration, or start it with -js",
        Some(10_039) => {
            "JetStream is off for this account: put `jetstream: enabled` into it, in the server's configuration"
        }
        Some(10_002 | 10_023 | 10_028 | 10_047) => {
            "Raise max_memory_store (512MB a shard) and max_file_store in the server's jetstream block, or the account's limits"
        }
        Some(10_026 | 10_027) => {
            "Raise the account's limits of streams and consumers: a cluster has a stream a shard, two buckets, and a consumer a shard and gateway"
        }
        Some(10_074) => {
            "With three servers or more in `servers` everything is kept on three: make them one cluster of NATS (a cluster block with routes), or name one server alone"
        }
        Some(10_005 | 10_009) => "More than half of the NATS servers must run and see each other",
        Some(_) => "The server's log may say more",
        None if text.contains("no responders") || text.contains("resource does not exist") => {
            "JetStream does not answer: put `jetstream {}` into the server's configuration; in a cluster of NATS servers more than half must run"
        }
        None => "Does JetStream run there, and do more than half of the NATS servers run and see each other?",
    }
}

/// JetStream's own number of an error. The client library's errors do not always have it as a cause, but always say it.
fn error_code(text: &str) -> Option<u64> {
    let (_, rest) = text.rsplit_once("error code ")?;
    rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// An error with its causes, each said once.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error) {
        let said = cause.to_string();
        if text.is_empty() {
            text = said;
        } else if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
    }
    text
}
