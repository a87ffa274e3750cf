//! The identifier of a connection in the table.

/// Identifies a connection while it is in the table, by its slot and a hash of its original tuple. If the connection ends and a new one
/// with the same tuple gets the same slot, the id is valid for the new one too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ConnId {
    pub(crate) slot: u32,
    pub(crate) tuple_hash: u32,
}
