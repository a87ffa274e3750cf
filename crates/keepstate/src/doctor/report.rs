//! An examination with what it was made of, and its document for machines.
use super::changes;
use keepstate_advisor::doctor::{Examination, Namespace, Observations};
use serde_json::{Value, json};

/// The document's kind and version: what is added leaves the number, what changes raises it.
pub const SCHEMA: &str = "keepstate.doctor/1";

/// One examination.
#[derive(Debug)]
pub struct Report {
    /// What was said.
    pub examination: Examination,
    /// What was seen.
    pub seen: Observations,
    /// Whose files, if not this machine.
    pub from: Option<String>,
}

impl Report {
    /// As a document; what changed since the one before is marked in it.
    pub fn json(&self, last: Option<&Report>) -> Value {
        let before = last.map(|last| last.examination.findings.as_slice());
        let findings: Vec<Value> = self
            .examination
            .findings
            .iter()
            .map(|finding| {
                let mut value = json!(finding);
                if let Some(before) = before {
                    value["change"] = json!(changes::change(finding, before).to_string());
                }
                value
            })
            .collect();
        let mut document = json!({
            "schema": SCHEMA,
            "version": env!("CARGO_PKG_VERSION"),
            "at": jiff::Timestamp::now().to_string(),
            "from": self.from,
            "verdict": self.examination.verdict,
            "exit_code": self.examination.verdict.exit_code(),
            "machine": self.seen.machine,
            "findings": findings,
            "namespaces": self.seen.namespaces.iter().map(namespace).collect::<Vec<_>>(),
            "unseen": self.seen.unseen,
        });
        if let Some(before) = before {
            let gone = changes::gone(&self.examination.findings, before);
            document["gone"] = json!(
                gone.map(|finding| json!({"name": finding.name, "namespace": finding.namespace})).collect::<Vec<_>>()
            );
        }
        document
    }
}

/// A namespace in numbers; the sample stays where it was taken.
fn namespace(space: &Namespace) -> Value {
    json!({
        "name": space.name,
        "inode": space.inode,
        "initial": space.is_initial,
        "entries": space.count.as_ref().map(|count| count.value),
        "entries_limit": space.max(),
        "buckets": space.knob("nf_conntrack_buckets"),
        "counters": space.counters.as_ref().map(|counters| counters.value),
        "growth": space.growth,
        "sockets": space.sockets.as_ref().map(|sockets| sockets.value),
        "sampled": space.sample.as_ref().map(|sample| sample.value.flows.len()),
    })
}
