//! A finding: one thing that is wrong, what shows it, what it means and what to do.
use serde::Serialize;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name, which never changes.
    pub name: &'static str,
    /// Its number in the catalogue of failures.
    pub number: u8,
    /// What is wrong, in a line.
    pub title: &'static str,
    /// The namespace it is about; none for the machine.
    pub namespace: Option<String>,
    /// How bad.
    pub severity: Severity,
    /// How sure.
    pub certainty: Certainty,
    /// What was seen.
    pub evidence: Vec<Evidence>,
    /// What that means here.
    pub meaning: String,
    /// What helps at once, until the next boot or the next time.
    pub now: Vec<RemedyStep>,
    /// What mends it for good.
    pub for_good: Vec<RemedyStep>,
    /// Findings that follow from this one and are not told for themselves.
    pub explains: Vec<&'static str>,
}

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Nothing is lost yet, or little, or no longer.
    Warning,
    /// Packets or connections are being lost, or the machine is in danger.
    Critical,
}

/// How sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// What was seen has other explanations too.
    Possible,
    /// Hardly anything else would explain it.
    Likely,
    /// It was seen itself.
    Certain,
}

/// Something that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// What it is.
    pub what: String,
    /// What it was.
    pub value: String,
    /// Where.
    pub source: String,
}

/// One step of a remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RemedyStep {
    /// What to type, or a line of configuration; none where there is nothing to type.
    pub command: Option<String>,
    /// Where.
    pub at: StepLocation,
    /// Why, or what to do.
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
    /// Inside the namespace with this name.
    Inside(String),
    /// In somebody else's configuration, or program.
    Elsewhere(String),
}

impl Finding {
    /// It is about the namespace with this name.
    pub fn in_namespace(mut self, namespace: &str) -> Finding {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Adds what was seen, and where.
    pub fn evidence(mut self, what: &str, value: impl ToString, source: &str) -> Finding {
        self.evidence.push(Evidence { what: what.to_owned(), value: value.to_string(), source: source.to_owned() });
        self
    }

    /// What it means.
    pub fn meaning(mut self, meaning: impl Into<String>) -> Finding {
        self.meaning = meaning.into();
        self
    }

    /// A step that helps at once.
    pub fn now(mut self, step: RemedyStep) -> Finding {
        self.now.push(step);
        self
    }

    /// A step that mends it.
    pub fn for_good(mut self, step: RemedyStep) -> Finding {
        self.for_good.push(step);
        self
    }
}

impl RemedyStep {
    /// Something to type.
    pub fn command(at: StepLocation, command: impl Into<String>, why: impl Into<String>) -> RemedyStep {
        RemedyStep { command: Some(command.into()), at, why: why.into() }
    }

    /// Something to do that is no command.
    pub fn manual(at: StepLocation, why: impl Into<String>) -> RemedyStep {
        RemedyStep { command: None, at, why: why.into() }
    }
}
