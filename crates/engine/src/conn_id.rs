//! The identifier of a connection in the table.
#![allow(clippy::disallowed_types, reason = "no sender of packets chooses which ids its connections have")]
use rustc_hash::FxBuildHasher;

/// A map by connection: cheap to ask, since ids are not a sender's to choose.
pub type ConnIdMap<V> = hashbrown::HashMap<ConnId, V, FxBuildHasher>;

/// Identifies a connection: its slot, and how many connections had the slot before. Once the connection has ended the id names nothing, also if a later connection with the same
/// tuple gets the slot: no sender of packets can have an id that is still in use name its own connection (but by 2³² connections in one slot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ConnId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}
