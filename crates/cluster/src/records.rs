//! Records of connections: what a frame of the state file and a frame of a cluster both hold.
//!
//! ```text
//! 1 put:     slot 4 │ length 2 │ an encoded connection
//! 2 delete:  slot 4
//! 3 snapshot end (state file only)
//! ```
//! All numbers are little-endian. A slot is a number that the writer gives a connection for as long as it exists; the last record of a slot counts.
use std::ops::Range;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const SNAPSHOT_END: u8 = 3;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The connection in a slot is the one in this range of the bytes.
    Put(u32, Range<usize>),
    /// The slot has none.
    Delete(u32),
    /// All that existed has been put.
    SnapshotEnd,
}

/// The first record in the range `within` of `bytes`, and its length; `None` if it is none.
pub fn parse_record(bytes: &[u8], within: Range<usize>) -> Option<(Record, usize)> {
    let start = within.start;
    let (kind, rest) = bytes.get(within)?.split_first()?;
    if *kind == SNAPSHOT_END {
        return Some((Record::SnapshotEnd, 1));
    }
    let (slot, rest) = rest.split_first_chunk::<4>()?;
    let slot = u32::from_le_bytes(*slot);
    match *kind {
        DELETE => Some((Record::Delete(slot), 5)),
        PUT => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            let length = usize::from(u16::from_le_bytes(*length));
            rest.get(..length)?;
            Some((Record::Put(slot, start + 7..start + 7 + length), 7 + length))
        }
        _ => None,
    }
}

/// All records of `bytes`; `None` if one of them is none.
pub fn parse_records(bytes: &[u8]) -> Option<Vec<Record>> {
    let (mut records, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let (record, length) = parse_record(bytes, at..bytes.len())?;
        records.push(record);
        at += length;
    }
    Some(records)
}

/// Appends a record for the connection in `slot`, which `encode` writes.
pub fn write_put(out: &mut Vec<u8>, slot: u32, encode: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.push(PUT);
    out.extend_from_slice(&slot.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    let begin = out.len();
    encode(out);
    match u16::try_from(out.len() - begin) {
        Ok(length) => out[begin - 2..begin].copy_from_slice(&length.to_le_bytes()),
        // No connection is that long; one that were could not be stored.
        Err(_) => out.truncate(at),
    }
}

/// Appends a record for a slot that has no connection any more.
pub fn write_delete(out: &mut Vec<u8>, slot: u32) {
    out.push(DELETE);
    out.extend_from_slice(&slot.to_le_bytes());
}

/// Appends the end of a snapshot.
pub fn write_snapshot_end(out: &mut Vec<u8>) {
    out.push(SNAPSHOT_END);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written_and_nothing_else_is() {
        let mut bytes = Vec::new();
        write_delete(&mut bytes, 7);
        write_put(&mut bytes, 0x0102_0304, |out| out.extend_from_slice(b"abc"));
        write_put(&mut bytes, 9, |out| out.resize(out.len() + 70_000, 0));
        write_snapshot_end(&mut bytes);
        assert_eq!(
            parse_records(&bytes),
            Some(vec![Record::Delete(7), Record::Put(0x0102_0304, 12..15), Record::SnapshotEnd]),
            "one that is too long is left out"
        );
        for at in [1, 4, 6, 9, 12, 14] {
            assert_eq!(parse_records(&bytes[..at]), None, "cut at {at}");
        }
        assert_eq!(parse_records(&[4]), None);
    }
}
