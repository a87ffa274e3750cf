//! Records as messages of NATS, each to the subject of its event. Who carries them is the program's to give: the gateway knows no NATS.
use crate::cluster::ClusterServers;
use anyhow::Result;
use std::fmt;
use std::io;
use std::sync::Arc;

/// Messages: each with its subject.
pub type SubjectMessages = Vec<(String, Vec<u8>)>;

/// Carries messages to subjects.
pub trait SubjectCarrier: Send {
    /// Sends all of them, and returns when a server has them.
    ///
    /// # Errors
    /// Some of them may not have arrived.
    fn publish(&mut self, messages: SubjectMessages) -> io::Result<()>;
}

/// Connects to these servers, within some seconds.
#[derive(Clone)]
pub struct CarrierStarter(pub Arc<StartCarrier>);

/// What a [`CarrierStarter`] calls.
pub type StartCarrier = dyn Fn(&ClusterServers) -> Result<Box<dyn SubjectCarrier>> + Send + Sync;

impl fmt::Debug for CarrierStarter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CarrierStarter")
    }
}

/// A record as it waits to be sent: its event, a space, its JSON line.
pub(super) fn waiting_line(event: &str, line: &str) -> String {
    format!("{event} {line}\n")
}

/// The messages of many such lines.
pub(super) fn messages(subject: &str, lines: &[u8]) -> SubjectMessages {
    let lines = lines.split(|byte| *byte == b'\n').filter_map(|line| {
        let space = line.iter().position(|byte| *byte == b' ')?;
        let (event, json) = line.split_at(space);
        Some((format!("{subject}.{}", String::from_utf8_lossy(event)), json.get(1..)?.to_vec()))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_is_a_message_of_its_event() {
        let lines = waiting_line("log-start", "{\"seq\":1}") + &waiting_line("session-begin", "{\"a\": 2}");
        let expected = [("flows.log-start", "{\"seq\":1}"), ("flows.session-begin", "{\"a\": 2}")];
        let expected: SubjectMessages =
            expected.iter().map(|(subject, text)| ((*subject).to_owned(), text.as_bytes().to_vec())).collect();
        assert_eq!(messages("flows", lines.as_bytes()), expected);
    }
}
