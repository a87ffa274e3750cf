//! Sets and maps, and what packets change of them.
use super::{Expression, NftVerdict, Statement};
use crate::datatype::DataType;
use crate::source::Span;

/// A change of a named set by a packet.
#[derive(Clone, Debug)]
pub struct Dynset {
    /// What is done.
    pub op: DynsetOp,
    /// The set.
    pub set: String,
    /// Where it is named.
    pub span: Span,
    /// The set is this statement's own, and has so many elements at most.
    pub meter_size: Option<u32>,
    /// The element.
    pub key: Vec<Expression>,
    /// How long it stays, in seconds.
    pub timeout: Option<u64>,
    /// What each element has of its own: a limit, a counter, a number of connections.
    pub stateful: Vec<Statement>,
    /// What it maps to, if it is a map.
    pub data: Vec<Expression>,
}

/// See [`Dynamic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum DynsetOp {
    Add,
    Update,
    Delete,
}

/// A set or a map.
#[derive(Clone, Debug, Default)]
pub struct Set {
    /// Its name; empty in place.
    pub name: String,
    /// What its keys are made of.
    pub key: Vec<DataType>,
    /// What its values are made of; `None` for a set, empty for verdicts.
    pub data: Option<Vec<DataType>>,
    /// May packets change it?
    pub dynamic: bool,
    /// How long elements stay, in seconds.
    pub timeout: Option<u64>,
    /// At most so many elements.
    pub size: Option<u32>,
    /// Are overlapping ranges put together?
    pub auto_merge: bool,
    /// Its elements.
    pub elements: Vec<SetElement>,
}

/// An element.
#[derive(Clone, Debug)]
pub struct SetElement {
    /// Where.
    pub span: Span,
    /// A range for each part; `None` for what no other element has.
    pub key: Option<Vec<(u128, u128)>>,
    /// What it maps to.
    pub data: Option<ElementData>,
    /// How long it stays from now on, in seconds.
    pub timeout: Option<u64>,
    /// What it has of its own: a limit, a quota, a counter, a number of connections.
    pub stateful: Vec<Statement>,
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
