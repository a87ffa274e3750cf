//! The name of a connection while it lives.

/// Names a connection while it lives: by its place in the table and a fold of its original tuple. If it ends and the same tuple takes the
/// same place again, that is taken for the same connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ConnId {
    pub(crate) slot: u32,
    pub(crate) tuple_hash: u32,
}
