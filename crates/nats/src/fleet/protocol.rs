//! What nodes say of themselves, and what they are asked, in JSON.
use keepstate_cluster::NodeName;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A node that has died is listed for so long, and asked in vain; one that is stopped is taken out at once.
pub(super) const RECORD_TIME: Duration = Duration::from_secs(24 * 3600);
/// How often it says so.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// The longest answer: a message of NATS has at most 1 MiB.
pub(super) const MAX_ANSWER_LEN: usize = 1_000_000;

/// What tracks connections at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// A keepstate gateway.
    Gateway,
    /// Linux's own table, watched by `keepstate serve`.
    Serve,
    /// It should be there and has not registered.
    Missing,
}

impl NodeKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            NodeKind::Gateway => "gateway",
            NodeKind::Serve => "serve",
            NodeKind::Missing => "missing",
        }
    }
}

/// A node of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its name, unique in the fleet.
    pub name: String,
    /// What it is.
    pub kind: NodeKind,
    /// keepstate's version there.
    pub version: String,
    /// When it was started, in seconds since 1970.
    pub started: u64,
    /// When it last said that it lives, in seconds since 1970; who lists the nodes fills it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<u64>,
}

impl NodeRecord {
    /// One that should be there and has not registered.
    pub fn missing(name: String) -> NodeRecord {
        NodeRecord { name, kind: NodeKind::Missing, version: String::new(), started: 0, heard: None }
    }
}

/// A question to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FleetQuestion {
    /// How full its table is.
    Stats,
    /// What doctor finds there.
    Doctor,
    /// Connections.
    List {
        /// Which, in the words of `conntrack -L`.
        filter: String,
        /// At most so many.
        limit: usize,
    },
}

/// The payload of a question for connections.
#[derive(Serialize, Deserialize)]
struct ListRequest {
    filter: String,
    limit: usize,
}

impl FleetQuestion {
    /// The last part of its subject.
    pub(super) fn word(&self) -> &'static str {
        match self {
            FleetQuestion::Stats => "stats",
            FleetQuestion::Doctor => "doctor",
            FleetQuestion::List { .. } => "list",
        }
    }

    pub(super) fn payload(&self) -> Vec<u8> {
        match self {
            FleetQuestion::Stats | FleetQuestion::Doctor => Vec::new(),
            FleetQuestion::List { filter, limit } => {
                // Text and a number are always JSON.
                serde_json::to_vec(&ListRequest { filter: filter.clone(), limit: *limit }).unwrap_or_default()
            }
        }
    }

    /// The question with this word; `None` if it is none.
    pub(super) fn parse(word: &str, payload: &[u8]) -> Option<FleetQuestion> {
        Some(match word {
            "stats" => FleetQuestion::Stats,
            "doctor" => FleetQuestion::Doctor,
            "list" => {
                let ListRequest { filter, limit } = serde_json::from_slice(payload).ok()?;
                FleetQuestion::List { filter, limit }
            }
            _ => return None,
        })
    }
}

/// What comes back: a text, or why there is none.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Answer {
    Ok(String),
    Error(String),
}

impl Answer {
    /// As a message, which is never too long for a server that takes this many bytes.
    pub(super) fn to_bytes(&self, max_payload: usize) -> Vec<u8> {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        let longest = max_payload.min(MAX_ANSWER_LEN);
        if bytes.len() <= longest {
            return bytes;
        }
        let error = Answer::Error(format!(
            "the answer is too long ({} bytes, NATS takes {longest}): ask for less, or raise max_payload there",
            bytes.len()
        ));
        serde_json::to_vec(&error).unwrap_or_default()
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<String, String> {
        match serde_json::from_slice(bytes) {
            Ok(Answer::Ok(text)) => Ok(text),
            Ok(Answer::Error(text)) => Err(text),
            Err(error) => Err(format!("the answer cannot be read ({error}): is it another version of keepstate?")),
        }
    }
}

pub(super) fn bucket_name(fleet: &NodeName) -> String {
    format!("keepstate_fleet_{fleet}")
}

pub(super) fn subject(fleet: &NodeName, node: &str, word: &str) -> String {
    format!("keepstate.{fleet}.{node}.{word}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    #[test]
    fn questions_are_read_as_they_were_asked_and_nothing_else_is() {
        let list = FleetQuestion::List { filter: "-p tcp".into(), limit: 7 };
        for question in [FleetQuestion::Stats, FleetQuestion::Doctor, list] {
            assert_eq!(FleetQuestion::parse(question.word(), &question.payload()), Some(question));
        }
        for (word, payload) in
            [("flush", ""), ("list", ""), ("list", "{\"filter\":1}"), ("list", "{\"filter\":\"\",\"limit\":-1}")]
        {
            assert_eq!(FleetQuestion::parse(word, payload.as_bytes()), None, "{word} {payload}");
        }
    }

    #[test]
    fn an_answer_that_is_too_long_says_so() {
        assert_eq!(Answer::parse(&Answer::Ok("x".into()).to_bytes(usize::MAX)), Ok("x".into()));
        assert!(
            Answer::parse(&Answer::Ok("x".repeat(MAX_ANSWER_LEN)).to_bytes(usize::MAX))
                .unwrap_err()
                .contains("too long")
        );
        assert!(Answer::parse(b"[]").is_err());
    }
}
