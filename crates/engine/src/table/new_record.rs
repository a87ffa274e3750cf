//! The input of [`Table::insert`](super::Table::insert).
use super::key::TupleKey;
use super::record::HotRecord;
use crate::Zone;

/// Packets and bytes: original packets, original bytes, reply packets, reply bytes.
pub(crate) type AcctCounts = [u64; 4];

/// A connection to insert.
pub(crate) struct NewRecord<'a> {
    pub(crate) original: &'a TupleKey,
    pub(crate) reply: &'a TupleKey,
    pub(crate) zone: Zone,
    pub(crate) mark: u32,
    /// The hot record, without addresses, keys and kind: those are filled in on insert.
    pub(crate) hot: HotRecord,
    /// Flags of [`RecordKind`](super::record::RecordKind), without those that follow from the other fields.
    pub(crate) kind: u8,
    pub(crate) counts: Option<AcctCounts>,
    /// When it was confirmed, in nanoseconds; 0 if not recorded.
    pub(crate) start: u64,
    /// The hashes of both keys; 0 if unknown.
    pub(crate) hashes: [u64; 2],
}
