//! A diagnosis with its observations, and its JSON document.
use super::changes;
use keepstate_advisor::doctor::{Observations, ObservedNamespace, Report};
use serde_json::{Value, json};

/// Schema name and version: additions keep the number, changes raise it.
pub const SCHEMA: &str = "keepstate.doctor/1";

/// One diagnosis.
#[derive(Debug)]
pub struct DoctorReport {
    /// The diagnosis.
    pub report: Report,
    /// Its observations.
    pub observations: Observations,
    /// The path of the files, if not this machine.
    pub from: Option<String>,
}

impl DoctorReport {
    /// The JSON document; changes since `last` are marked.
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
            "shards": self.observations.shards,
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

/// A namespace in numbers; the sample is not included.
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
