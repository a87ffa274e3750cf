//! What a script asks of a running ruleset besides changing its tree.
use super::ruleset::TableFamily;
use super::set::SetElement;
use crate::source::Span;

/// A change of the elements of a set in use.
#[derive(Clone, Debug)]
pub struct SetChange {
    /// Family of its table.
    pub family: TableFamily,
    /// Name of its table.
    pub table: String,
    /// Its name.
    pub set: String,
    /// Place of the name in the script.
    pub span: Span,
    /// What changes.
    pub kind: SetChangeKind,
}

/// See [`SetChange`].
#[derive(Clone, Debug)]
pub enum SetChangeKind {
    /// Elements are added; with `create`, none of them may exist.
    Add {
        /// These.
        elements: Vec<SetElement>,
        /// None of them may exist.
        create: bool,
    },
    /// Elements are deleted; with `must_exist`, all of them must exist.
    Delete {
        /// These.
        elements: Vec<SetElement>,
        /// All of them must exist.
        must_exist: bool,
    },
    /// All elements are deleted.
    Flush,
}

/// Something to list, after all changes of the script were made. The default is the whole ruleset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The kind of thing.
    pub kind: QueryKind,
    /// Only in tables of this family.
    pub family: Option<TableFamily>,
    /// Only in this table.
    pub table: Option<String>,
    /// Only this one.
    pub name: Option<String>,
    /// Of rules: only the one with this handle.
    pub rule: Option<u64>,
    /// The elements that are asked for, of the kind [`QueryKind::Elements`].
    pub elements: Vec<ElementName>,
    /// What counters and quotas had counted when they were read is taken from them.
    pub reset: bool,
}

/// An element by its key: a value or range for each part; `None` is the catch-all element `*`.
pub type ElementName = Option<Vec<(u128, u128)>>;

/// See [`Query`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum QueryKind {
    #[default]
    Ruleset,
    Tables,
    Chains,
    Sets,
    Maps,
    Meters,
    Counters,
    Quotas,
    Limits,
    CtHelpers,
    CtTimeouts,
    CtExpectations,
    Synproxies,
    SecMarks,
    /// Always empty: there are none here.
    Flowtables,
    /// The rules, without anything else (`reset rules`, `reset rule`).
    Rules,
    /// Elements of a set or map (`get element`, `reset element`).
    Elements,
}

/// Something that a script has added, for `--echo`: its table, and its handle there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedItem {
    /// Handle of the table.
    pub table: u64,
    /// Its own handle; `None` for the table itself.
    pub handle: Option<u64>,
    /// Inserted before other rules, not added behind them.
    pub inserted: bool,
}
