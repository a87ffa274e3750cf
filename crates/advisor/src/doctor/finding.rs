//! A finding: a problem, its evidence, what it means, and what to do.
use serde::Serialize;

/// A problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name, which is stable.
    pub name: &'static str,
    /// Its number in the catalogue of failures.
    pub number: u8,
    /// What is wrong, in one line.
    pub title: &'static str,
    /// The network namespace it is about; `None` for the whole machine.
    pub namespace: Option<String>,
    /// How severe.
    pub severity: Severity,
    /// How certain.
    pub certainty: Certainty,
    /// What shows it.
    pub evidence: Vec<Evidence>,
    /// What it means.
    pub meaning: String,
    /// Steps that help at once, until the next boot.
    pub now: Vec<RemedyStep>,
    /// Steps that fix it permanently.
    pub for_good: Vec<RemedyStep>,
    /// Findings that are consequences of this one and hidden.
    pub explains: Vec<&'static str>,
}

/// How severe a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Little or nothing is lost now.
    Warning,
    /// Packets or connections are being lost, or the machine is at risk.
    Critical,
}

/// How certain a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// The evidence has other explanations too.
    Possible,
    /// There is hardly another explanation.
    Likely,
    /// It was observed directly.
    Certain,
}

/// An observation that shows a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Its name.
    pub what: String,
    /// Its value.
    pub value: String,
    /// The file or command it comes from.
    pub source: String,
}

/// One step of a remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RemedyStep {
    /// A command or configuration line; `None` if the step is not a command.
    pub command: Option<String>,
    /// Where to take it.
    pub at: StepLocation,
    /// Why; or what to do, if there is no command.
    pub why: String,
}

/// Where a step is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepLocation {
    /// Where the doctor ran.
    Here,
    /// On the host, in its initial network namespace.
    Host,
    /// In the network namespace with this name.
    Inside(String),
    /// In the configuration of another program or machine.
    Elsewhere(String),
}

impl Finding {
    /// Sets the namespace it is about.
    pub fn in_namespace(mut self, namespace: &str) -> Finding {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Adds evidence and its source.
    pub fn evidence(mut self, what: &str, value: impl ToString, source: &str) -> Finding {
        self.evidence.push(Evidence { what: what.to_owned(), value: value.to_string(), source: source.to_owned() });
        self
    }

    /// Sets what it means.
    pub fn meaning(mut self, meaning: impl Into<String>) -> Finding {
        self.meaning = meaning.into();
        self
    }

    /// Adds a step that helps at once.
    pub fn now(mut self, step: RemedyStep) -> Finding {
        self.now.push(step);
        self
    }

    /// Adds a step that fixes it permanently.
    pub fn for_good(mut self, step: RemedyStep) -> Finding {
        self.for_good.push(step);
        self
    }
}

impl RemedyStep {
    /// A step that is a command.
    pub fn command(at: StepLocation, command: impl Into<String>, why: impl Into<String>) -> RemedyStep {
        RemedyStep { command: Some(command.into()), at, why: why.into() }
    }

    /// A step that is not a command.
    pub fn manual(at: StepLocation, why: impl Into<String>) -> RemedyStep {
        RemedyStep { command: None, at, why: why.into() }
    }
}
