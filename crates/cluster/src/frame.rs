//! One message of a shard, byte by byte.
//!
//! ```text
//! magic 4 │ version 1 │ kind 1 │ shard: length 1, name │ node: length 1, name │ epoch 8 │ sequence 8 │ length 4 │ payload │ checksum 4
//! ```
//! All numbers are little-endian; the checksum is a CRC-32 of all before it. It finds damage, not forgery: who may send frames is the transport's affair.
//! Nothing in a frame is trusted; a frame is taken completely or not at all.
use crate::names::{NodeName, ShardName};
use std::fmt;
use std::str::FromStr;

const MAGIC: [u8; 4] = *b"ksfr";
const VERSION: u8 = 1;
const CHECKSUM_LEN: usize = 4;

/// The longest payload that is decoded: NATS' own limit for a message is 1 MiB, with headers.
pub const MAX_PAYLOAD_LEN: usize = 1_000_000;

/// Counts who has decided about a shard: each new active gateway has a higher one than any before it. 0: nobody yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Epoch {
    /// The one after it.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch(self.0.saturating_add(1))
    }
}

/// Numbers the stored frames of an epoch, from 1 on without a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Sequence {
    /// The one after it.
    #[must_use]
    pub fn next(self) -> Sequence {
        Sequence(self.0.saturating_add(1))
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// What the sender runs: a [`Greeting`](crate::Greeting). The first frame of an epoch, and before each snapshot.
    Greeting = 1,
    /// From here on every connection is sent once more. No payload.
    SnapshotStart = 2,
    /// Some of these connections: [`records`](crate::records).
    SnapshotPart = 3,
    /// All were sent: what was neither sent nor changed since the start is gone. No payload.
    SnapshotEnd = 4,
    /// Connections created, changed or gone: [`records`](crate::records).
    Changes = 5,
    /// The sender lives and has sent all up to this sequence. Payload: its [`NodeInstance`](crate::NodeInstance), 8 bytes. Not numbered, not stored.
    Heartbeat = 6,
    /// A standby has missed something: the active one is asked for a new snapshot. No payload, not numbered, not stored.
    SnapshotRequest = 7,
    /// A node that decides fewer shards asks for this one: a [`HandoverRequest`](crate::HandoverRequest). Not numbered, not stored.
    HandoverRequest = 8,
}

impl FrameKind {
    /// Has it a number of its own, and does the transport keep it for those who come later? What is not stored is sent at most once.
    pub fn is_stored(self) -> bool {
        !matches!(self, FrameKind::Heartbeat | FrameKind::SnapshotRequest | FrameKind::HandoverRequest)
    }

    fn from_number(number: u8) -> Option<FrameKind> {
        Some(match number {
            1 => FrameKind::Greeting,
            2 => FrameKind::SnapshotStart,
            3 => FrameKind::SnapshotPart,
            4 => FrameKind::SnapshotEnd,
            5 => FrameKind::Changes,
            6 => FrameKind::Heartbeat,
            7 => FrameKind::SnapshotRequest,
            8 => FrameKind::HandoverRequest,
            _ => return None,
        })
    }
}

/// One message about a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFrame {
    /// Which shard it is about.
    pub shard: ShardName,
    /// Who sent it.
    pub node: NodeName,
    /// The sender's epoch.
    pub epoch: Epoch,
    /// Its number; of a frame that is not stored: that of the sender's last stored one.
    pub sequence: Sequence,
    /// What it is.
    pub kind: FrameKind,
    /// Its content.
    pub payload: Vec<u8>,
}

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameDecodeError {
    /// Something else.
    #[error("not a frame of keepstate")]
    NotFrame,
    /// Of another version.
    #[error("frame format {0}; this program reads {VERSION}: the sender is another version of keepstate")]
    Version(u8),
    /// The bytes end too early, or too late.
    #[error("its length is wrong")]
    Length,
    /// Not as it was sent.
    #[error("damaged: its checksum is wrong")]
    Checksum,
    /// A kind that this version does not know.
    #[error("unknown kind {0}")]
    Kind(u8),
    /// A name that cannot be.
    #[error("the name of its shard or node is invalid")]
    Name,
}

impl StateFrame {
    /// Appends its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, self.kind as u8]);
        for name in [self.shard.as_str(), self.node.as_str()] {
            // Names are at most 63 bytes long.
            out.push(u8::try_from(name.len()).unwrap_or(0));
            out.extend_from_slice(name.as_bytes());
        }
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.sequence.0.to_le_bytes());
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&self.payload);
        let checksum = crc32fast::hash(out.get(start..).unwrap_or_default());
        out.extend_from_slice(&checksum.to_le_bytes());
    }

    /// Its bytes.
    ///
    /// ```
    /// use keepstate_cluster::{Epoch, StateFrame, FrameKind, Sequence};
    /// let frame = StateFrame {
    ///     shard: "north".parse().unwrap(),
    ///     node: "gw1".parse().unwrap(),
    ///     epoch: Epoch(7),
    ///     sequence: Sequence(1),
    ///     kind: FrameKind::SnapshotStart,
    ///     payload: Vec::new(),
    /// };
    /// assert_eq!(StateFrame::decode(&frame.to_bytes()), Ok(frame));
    /// ```
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.payload.len() + 160);
        self.encode(&mut bytes);
        bytes
    }

    /// Reads one frame, which is all of `bytes`.
    ///
    /// # Errors
    /// Why it is not used.
    pub fn decode(bytes: &[u8]) -> Result<StateFrame, FrameDecodeError> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(FrameDecodeError::NotFrame)?;
        let (version, _) = rest.split_first().ok_or(FrameDecodeError::Length)?;
        if *version != VERSION {
            return Err(FrameDecodeError::Version(*version));
        }
        let body_len = bytes.len().checked_sub(CHECKSUM_LEN).ok_or(FrameDecodeError::Length)?;
        let (body, checksum) = bytes.split_at_checked(body_len).ok_or(FrameDecodeError::Length)?;
        if crc32fast::hash(body).to_le_bytes() != checksum {
            return Err(FrameDecodeError::Checksum);
        }
        let mut reader = Reader(body.get(MAGIC.len() + 1..).ok_or(FrameDecodeError::Length)?);
        let [kind] = reader.array()?;
        let kind = FrameKind::from_number(kind).ok_or(FrameDecodeError::Kind(kind))?;
        let (shard, node) = (reader.name()?, reader.name()?);
        let (epoch, sequence) = (u64::from_le_bytes(reader.array()?), u64::from_le_bytes(reader.array()?));
        let length = usize::try_from(u32::from_le_bytes(reader.array()?)).map_err(|_| FrameDecodeError::Length)?;
        if length != reader.0.len() || length > MAX_PAYLOAD_LEN {
            return Err(FrameDecodeError::Length);
        }
        let (epoch, sequence) = (Epoch(epoch), Sequence(sequence));
        Ok(StateFrame { shard, node, epoch, sequence, kind, payload: reader.0.to_vec() })
    }
}

/// What of a frame is not read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameDecodeError> {
        let (value, rest) = self.0.split_first_chunk().ok_or(FrameDecodeError::Length)?;
        self.0 = rest;
        Ok(*value)
    }

    fn name<T: FromStr>(&mut self) -> Result<T, FrameDecodeError> {
        let [length] = self.array()?;
        let (name, rest) = self.0.split_at_checked(usize::from(length)).ok_or(FrameDecodeError::Length)?;
        self.0 = rest;
        std::str::from_utf8(name).ok().and_then(|name| name.parse().ok()).ok_or(FrameDecodeError::Name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: FrameKind, payload: &[u8]) -> StateFrame {
        StateFrame {
            shard: "north".parse().unwrap(),
            node: "gw-1".parse().unwrap(),
            epoch: Epoch(0x0102_0304_0506_0708),
            sequence: Sequence(9),
            kind,
            payload: payload.to_vec(),
        }
    }

    #[test]
    fn every_kind_is_read_as_it_was_written() {
        for number in 0..=u8::MAX {
            let Some(kind) = FrameKind::from_number(number) else { continue };
            assert_eq!(kind as u8, number);
            let frame = frame(kind, b"some bytes");
            assert_eq!(StateFrame::decode(&frame.to_bytes()), Ok(frame));
        }
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_an_error() {
        let bytes = frame(FrameKind::Changes, &[7; 40]).to_bytes();
        for at in 0..bytes.len() {
            assert!(StateFrame::decode(&bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert!(StateFrame::decode(&damaged).is_err(), "bit {bit} of byte {at}");
            }
        }
        assert_eq!(StateFrame::decode(&[bytes.clone(), vec![0]].concat()), Err(FrameDecodeError::Checksum));
        let mut newer = bytes;
        newer[4] = 2;
        assert_eq!(StateFrame::decode(&newer), Err(FrameDecodeError::Version(2)));
    }

    /// With a right checksum, too: whoever sends frames may lie about their lengths.
    #[test]
    fn a_length_that_lies_is_an_error() {
        let honest = frame(FrameKind::Changes, &[7; 40]).to_bytes();
        let body = &honest[..honest.len() - CHECKSUM_LEN];
        for at in 5..body.len() - 40 {
            for value in [0, 1, 39, 41, 0x7f, 0xff] {
                let mut forged = body.to_vec();
                forged[at] = value;
                let checksum = crc32fast::hash(&forged);
                forged.extend_from_slice(&checksum.to_le_bytes());
                if let Ok(frame) = StateFrame::decode(&forged) {
                    assert_eq!(frame.to_bytes(), forged, "byte {at} = {value}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_an_error(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = [&MAGIC[..], &[VERSION], &tail].concat();
            let checksum = crc32fast::hash(&bytes);
            bytes.extend_from_slice(&checksum.to_le_bytes());
            if let Ok(frame) = StateFrame::decode(&bytes) {
                prop_assert_eq!(frame.to_bytes(), bytes);
            }
        }
    }
}
