//! A connection to be entered into the table.
use super::key::TupleKey;
use super::record::HotRecord;
use crate::Zone;

/// Packets and bytes: original packets, original bytes, reply packets, reply bytes.
pub(crate) type AcctCounts = [u64; 4];

/// A connection to be entered.
pub(crate) struct NewRecord<'a> {
    pub(crate) original: &'a TupleKey,
    pub(crate) reply: &'a TupleKey,
    pub(crate) zone: Zone,
    pub(crate) mark: u32,
    /// All but the keys and the kind.
    pub(crate) hot: HotRecord,
    /// Flags of [`record::RecordKind`] beyond those that the rest implies.
    pub(crate) kind: u8,
    pub(crate) counts: Option<AcctCounts>,
    /// Nanoseconds; 0 if not kept.
    pub(crate) start: u64,
    /// The hashes of both keys, each 0 if not known.
    pub(crate) hashes: [u64; 2],
}
