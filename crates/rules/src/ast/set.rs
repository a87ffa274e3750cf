//! Sets and maps, with their elements.
use super::action::{NftVerdict, StatefulSpec};
use crate::datatype::DataType;
use crate::source::Span;
use keepstate_engine::Instant;

/// A set: by name, or anonymous (written in the rule).
#[derive(Clone, Debug)]
pub enum SetRef {
    /// Named.
    Named(String, Span),
    /// Anonymous.
    Anonymous(Box<Set>),
}

/// Flags of a set, as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetFlags {
    /// Nothing may change it after it is bound to a rule.
    pub constant: bool,
    /// Elements may have timeouts; also without the flag if the set has a default timeout.
    pub timeout: bool,
    /// Packets may change it; also without the flag if a rule does.
    pub dynamic: bool,
    /// A map's values may be ranges (`type … : interval …`).
    pub data_interval: bool,
}

/// A set or a map.
#[derive(Clone, Debug, Default)]
pub struct Set {
    /// Place of its name in the text.
    pub span: Span,
    /// Flags.
    pub flags: SetFlags,
    /// Name; empty for an anonymous set.
    pub name: String,
    /// Types of the key's parts.
    pub key: Vec<DataType>,
    /// Types of the value's parts; `None` for a set, empty for a verdict map.
    pub data: Option<Vec<DataType>>,
    /// Packets may change it.
    pub dynamic: bool,
    /// Default timeout of elements, in seconds.
    pub timeout: Option<u64>,
    /// Maximum number of elements.
    pub size: Option<u32>,
    /// A rule adds, updates or deletes its elements, or once did: see [`Set::most_elements`].
    pub updated_by_rules: bool,
    /// Such a rule stood in the text that has declared it: nft then lists the flag `dynamic`.
    pub updated_from_start: bool,
    /// Overlapping ranges are merged.
    pub auto_merge: bool,
    /// Elements may be ranges (`flags interval`).
    pub interval: bool,
    /// Its properties as written, one a line, without the elements.
    pub properties: Vec<String>,
    /// Number by which commands name it.
    pub handle: u64,
    /// Limits, quotas, counters and connection limits that each element has of its own.
    pub stateful: Vec<StatefulSpec>,
    /// Elements.
    pub elements: Vec<SetElement>,
}

/// Most elements of a set without `size` that rules change, as in the kernel (`nft_dynset_init`).
pub(crate) const DEFAULT_DYNSET_SIZE: u32 = 65_535;

impl Set {
    /// How many elements it may have at most: its `size`; without one 65,535 since a rule has begun to change it, also when that rule is gone.
    pub fn most_elements(&self) -> Option<u32> {
        self.size.filter(|size| *size > 0).or(self.updated_by_rules.then_some(DEFAULT_DYNSET_SIZE))
    }

    /// Are its elements changed in the running program, one by one? Those of other sets (ranges, verdicts, objects) are changed in the tree, and compiled again.
    pub fn is_runtime(&self) -> bool {
        let kept_in_tree = match self.data.as_deref() {
            Some([]) => true,
            Some([kind]) => matches!(kind, DataType::Object(_)),
            _ => false,
        };
        !self.interval && !kept_in_tree
    }
}

/// An element.
#[derive(Clone, Debug)]
pub struct SetElement {
    /// Place in the text.
    pub span: Span,
    /// A range for each part of the key; `None` for the catch-all element `*`.
    pub key: Option<Vec<(u128, u128)>>,
    /// Value of a map's element.
    pub data: Option<ElementData>,
    /// Timeout in seconds, from loading on.
    pub timeout: Option<u64>,
    /// What is left of it, in seconds, if the text tells that (`expires 5m`).
    pub time_left: Option<u64>,
    /// Comment.
    pub comment: Option<Box<str>>,
    /// When it ends: known once the element is in use.
    pub deadline: Option<Instant>,
    /// Limits, quotas, counters and connection limits of this element.
    pub stateful: Vec<StatefulSpec>,
}

/// What an element maps to.
#[derive(Clone, Debug)]
pub enum ElementData {
    /// A range for each part.
    Values(Vec<(u128, u128)>),
    /// A verdict.
    Verdict(NftVerdict),
    /// A named object.
    Object(String, Span),
}

impl SetElement {
    /// Does it map to the same as another element?
    pub(crate) fn has_same_data(&self, other: &SetElement) -> bool {
        match (&self.data, &other.data) {
            (None, None) => true,
            (Some(ElementData::Values(one)), Some(ElementData::Values(other))) => one == other,
            (Some(ElementData::Object(one, _)), Some(ElementData::Object(other, _))) => one == other,
            (Some(ElementData::Verdict(one)), Some(ElementData::Verdict(other))) => match (one, other) {
                (NftVerdict::Jump(one, _), NftVerdict::Jump(other, _))
                | (NftVerdict::Goto(one, _), NftVerdict::Goto(other, _)) => one == other,
                (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
            },
            _ => false,
        }
    }

    /// In how many seconds it ends, if `usual` is the timeout of its set.
    pub(crate) fn ends_in(&self, usual: Option<u64>) -> Option<u64> {
        self.time_left.or(self.timeout).or(usual).filter(|seconds| *seconds > 0)
    }

    /// Is its value more than one?
    pub(crate) fn maps_to_range(&self) -> bool {
        matches!(&self.data, Some(ElementData::Values(values)) if values.iter().any(|(first, last)| first != last))
    }
}
