//! An examination with what it was made of, and its document for machines.
use super::changes;
use keepstate_advisor::doctor::{Observations, ObservedNamespace, Report};
use serde_json::{Value, json};

/// The document's kind and version: what is added leaves the number, what changes raises it.
pub const SCHEMA: &str = "keepstate.doctor/1";

/// One examination.
#[derive(Debug)]
pub struct DoctorReport {
    /// What was said.
    pub report: Report,
    /// What was seen.
    pub observations: Observations,
    /// Whose files, if not this machine.
    pub from: Option<String>,
}

impl DoctorReport {
    /// As a document; what changed since the one before is marked in it.
    pub fn json(&self, last: Option<&DoctorReport>) -> Value {
        let before = last.map(|last| last.report.findings.as_slice());
        let findings: Vec<Value> = self
            .report
            .findings
            .iter()
            .map(|finding| {
                let mut value = json!(finding);
                if let Some(before) = before {
                    value["change"] = json!(changes::compare_finding(finding, before).to_string());
                }
                value
            })
            .collect();
        let mut document = json!({
            "schema": SCHEMA,
            "version": env!("CARGO_PKG_VERSION"),
            "at": jiff::Timestamp::now().to_string(),
            "from": self.from,
            "verdict": self.report.status,
            "exit_code": self.report.status.exit_code(),
            "machine": self.observations.machine,
            "findings": findings,
            "namespaces": self.observations.namespaces.iter().map(namespace_json).collect::<Vec<_>>(),
            "unseen": self.observations.missing_inputs,
        });
        if let Some(before) = before {
            let gone = changes::gone_findings(&self.report.findings, before);
            document["gone"] = json!(
                gone.map(|finding| json!({"name": finding.name, "namespace": finding.namespace})).collect::<Vec<_>>()
            );
        }
        document
    }
}

/// A namespace in numbers; the sample stays where it was taken.
fn namespace_json(space: &ObservedNamespace) -> Value {
    json!({
        "name": space.name,
        "inode": space.inode,
        "initial": space.is_initial,
        "entries": space.count.as_ref().map(|count| count.value),
        "entries_limit": space.max(),
        "buckets": space.sysctl("nf_conntrack_buckets"),
        "counters": space.counters.as_ref().map(|counters| counters.value),
        "growth": space.growth,
        "sockets": space.sockets.as_ref().map(|sockets| sockets.value),
        "sampled": space.sample.as_ref().map(|sample| sample.value.flows.len()),
    })
}
