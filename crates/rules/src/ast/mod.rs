//! The parsed ruleset: typed and checked, but with names still unresolved ([`compile`](crate::compile) resolves them).
//!
//! The modules build on one another in this order: plain actions and selectors, sets, expressions, statements, tables. A tree is built by the parser and
//! never changed afterwards.
mod action;
mod expression;
mod header_field;
mod object;
mod queue;
mod ruleset;
mod script;
mod selector;
mod set;
mod statement;
mod tunnel;

pub use crate::datatype::ObjectKind;
pub use action::*;
pub use expression::*;
pub use header_field::*;
pub use object::*;
pub use queue::*;
pub use ruleset::*;
pub use script::*;
pub use selector::*;
pub(crate) use set::DEFAULT_DYNSET_SIZE;
pub use set::*;
pub use statement::*;
pub use tunnel::*;
