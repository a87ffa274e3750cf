//! The framing of a capture: the length of the next block or record, checked before it is parsed or waited for.
//!
//! A [`FileFormat`] is detected from a file's first bytes and asked before each block or record. It remembers only the byte order of the
//! current section. It trusts no length: a block that claims too much, or whose two lengths differ, is an error at once, not after memory
//! was filled.

/// The byte order of a capture's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    /// The first bytes of an ordinary pcap file.
    pub(super) fn pcap_magic(self) -> [u8; 4] {
        const MAGIC: u32 = 0xa1b2_c3d4;
        if self == ByteOrder::Little { MAGIC.to_le_bytes() } else { MAGIC.to_be_bytes() }
    }

    /// The 16-bit number at the start of `bytes`.
    pub(super) fn read_u16(self, bytes: &[u8]) -> Option<u16> {
        let number = bytes.first_chunk()?;
        Some(if self == ByteOrder::Little { u16::from_le_bytes(*number) } else { u16::from_be_bytes(*number) })
    }

    /// The 32-bit number at the start of `bytes`.
    pub(super) fn read_u32(self, bytes: &[u8]) -> Option<u32> {
        let number = bytes.first_chunk()?;
        Some(if self == ByteOrder::Little { u32::from_le_bytes(*number) } else { u32::from_be_bytes(*number) })
    }

    /// The 64-bit number at the start of `bytes`.
    pub(super) fn read_u64(self, bytes: &[u8]) -> Option<u64> {
        let number = bytes.first_chunk()?;
        Some(if self == ByteOrder::Little { u64::from_le_bytes(*number) } else { u64::from_be_bytes(*number) })
    }
}

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileFormat {
    /// One header, then records.
    Pcap(ByteOrder),
    /// The same with longer records: "modified" pcap.
    ModifiedPcap(ByteOrder),
    /// Blocks; the byte order is the current section's.
    Pcapng(ByteOrder),
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextBlock {
    /// Not all of it is here yet.
    Incomplete,
    /// All of it is here: it can be parsed.
    Complete,
    /// A block of this length to skip: names, statistics, secrets, custom blocks.
    Skipped(usize),
    /// An obsolete Packet Block of this length.
    ObsoletePacket(usize),
    /// A record of a "modified" pcap file, of this length.
    ModifiedRecord(usize),
}

/// Length of a record's header.
const RECORD_HEADER: usize = 16;
/// The same in a "modified" pcap file.
pub(super) const MODIFIED_RECORD_HEADER: usize = 24;

/// No block or record is larger than this.
const MAX_BLOCK: u32 = 256 << 20;

const SECTION: u32 = 0x0a0d_0d0a;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

impl FileFormat {
    /// The format of a file by its first bytes; `None` if it is no capture.
    pub(super) fn detect(head: &[u8]) -> Option<FileFormat> {
        match ByteOrder::Little.read_u32(head)? {
            SECTION => Some(FileFormat::Pcapng(ByteOrder::Little)),
            0xa1b2_c3d4 | 0xa1b2_3c4d => Some(FileFormat::Pcap(ByteOrder::Little)),
            0xa1b2_cd34 => Some(FileFormat::ModifiedPcap(ByteOrder::Little)),
            0x34cd_b2a1 => Some(FileFormat::ModifiedPcap(ByteOrder::Big)),
            0xd4c3_b2a1 | 0x4d3c_b2a1 => Some(FileFormat::Pcap(ByteOrder::Big)),
            _ => None,
        }
    }

    /// The length of the header of a file that begins with `head`, as far as it is known.
    pub(super) fn header_len(head: &[u8]) -> usize {
        match FileFormat::detect(head) {
            None => 4,
            Some(FileFormat::Pcap(_) | FileFormat::ModifiedPcap(_)) => 24,
            Some(FileFormat::Pcapng(_)) => {
                let length = section_byte_order(head).and_then(|order| order.read_u32(head.get(4..)?));
                length.map_or(12, |length| usize::try_from(length.min(MAX_BLOCK)).unwrap_or(12)).max(12)
            }
        }
    }

    /// The current byte order.
    pub(super) fn byte_order(self) -> ByteOrder {
        match self {
            FileFormat::Pcap(order) | FileFormat::ModifiedPcap(order) | FileFormat::Pcapng(order) => order,
        }
    }

    /// Checks the block or record at the start of `bytes`.
    ///
    /// # Errors
    /// What is wrong with its lengths.
    pub(super) fn check_next(&mut self, bytes: &[u8]) -> Result<NextBlock, String> {
        match self {
            FileFormat::Pcap(order) => Ok(match check_pcap_record(*order, bytes, RECORD_HEADER)? {
                Some(_) => NextBlock::Complete,
                None => NextBlock::Incomplete,
            }),
            FileFormat::ModifiedPcap(order) => Ok(check_pcap_record(*order, bytes, MODIFIED_RECORD_HEADER)?
                .map_or(NextBlock::Incomplete, NextBlock::ModifiedRecord)),
            FileFormat::Pcapng(order) => check_pcapng_block(order, bytes),
        }
    }
}

/// The length of a record, once all of it is here. Its header: seconds, fraction, captured length, length on the wire.
fn check_pcap_record(order: ByteOrder, bytes: &[u8], header_len: usize) -> Result<Option<usize>, String> {
    let Some(captured) = bytes.get(8..).and_then(|bytes| order.read_u32(bytes)) else {
        return Ok(None);
    };
    if captured > MAX_BLOCK {
        return Err(format!("a packet record claims {captured} bytes; the maximum is {MAX_BLOCK}"));
    }
    let length = usize::try_from(captured).map_err(|_| "a packet record is larger than memory")? + header_len;
    Ok((bytes.len() >= length).then_some(length))
}

/// A block: its type, its length, its body, and its length again.
fn check_pcapng_block(order: &mut ByteOrder, bytes: &[u8]) -> Result<NextBlock, String> {
    // A section's type is a palindrome; its byte order follows its length.
    if bytes.starts_with(&SECTION.to_le_bytes()) {
        if bytes.len() < 12 {
            return Ok(NextBlock::Incomplete);
        }
        *order = section_byte_order(bytes).ok_or("a section has an unknown byte order")?;
    }
    let (Some(kind), Some(length)) = (order.read_u32(bytes), bytes.get(4..).and_then(|rest| order.read_u32(rest)))
    else {
        return Ok(NextBlock::Incomplete);
    };
    let least = match kind {
        SECTION => 28,
        INTERFACE => 20,
        OBSOLETE_PACKET | ENHANCED_PACKET => 32,
        SIMPLE_PACKET => 16,
        _ => 12,
    };
    if length < least || length > MAX_BLOCK || length % 4 != 0 {
        return Err(format!(
            "a block of type {kind} claims {length} bytes; valid is a multiple of 4 from {least} to {MAX_BLOCK}"
        ));
    }
    let length = usize::try_from(length).map_err(|_| "a block is larger than memory")?;
    let Some(whole) = bytes.get(..length) else { return Ok(NextBlock::Incomplete) };
    let again = whole.last_chunk::<4>().and_then(|end| order.read_u32(end)).unwrap_or(0);
    if usize::try_from(again) != Ok(length) {
        return Err(format!("a block of type {kind} says {length} bytes at its beginning and {again} at its end"));
    }
    Ok(match kind {
        SECTION | INTERFACE | SIMPLE_PACKET | ENHANCED_PACKET => NextBlock::Complete,
        OBSOLETE_PACKET => NextBlock::ObsoletePacket(length),
        _ => NextBlock::Skipped(length),
    })
}

/// The byte order that a section's header names.
fn section_byte_order(bytes: &[u8]) -> Option<ByteOrder> {
    let mark = bytes.get(8..)?;
    [ByteOrder::Little, ByteOrder::Big].into_iter().find(|order| order.read_u32(mark) == Some(BYTE_ORDER_MAGIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_bytes(bytes: &[u8]) -> Result<NextBlock, String> {
        FileFormat::Pcapng(ByteOrder::Little).check_next(bytes)
    }

    #[test]
    fn block_lengths_must_agree() {
        let statistics = [5, 0, 0, 0, 16, 0, 0, 0, 1, 2, 3, 4, 16, 0, 0, 0];
        assert_eq!(check_bytes(&statistics), Ok(NextBlock::Skipped(16)));
        for end in 0..16 {
            assert_eq!(check_bytes(&statistics[..end]), Ok(NextBlock::Incomplete), "{end}");
        }
        let mut other = statistics;
        other[12] = 20;
        assert!(check_bytes(&other).unwrap_err().contains("16 bytes at its beginning and 20 at its end"));
    }

    #[test]
    fn impossible_lengths_are_rejected_early() {
        for length in [0u32, 4, 8, 13, 31, 0x7fff_fffc, u32::MAX] {
            let head = [&6u32.to_le_bytes()[..], &length.to_le_bytes()].concat();
            assert!(check_bytes(&head).is_err(), "{length}");
        }
        let record = [&[0; 8][..], &u32::MAX.to_le_bytes(), &[0; 4]].concat();
        assert!(FileFormat::Pcap(ByteOrder::Little).check_next(&record).unwrap_err().contains("4294967295"));
    }

    #[test]
    fn detects_format_and_header_length() {
        assert_eq!(FileFormat::detect(b"text"), None);
        assert_eq!(FileFormat::detect(b"abc"), None);
        assert_eq!(FileFormat::detect(&[0xa1, 0xb2, 0x3c, 0x4d]), Some(FileFormat::Pcap(ByteOrder::Big)));
        let section = [&SECTION.to_be_bytes()[..], &[0, 0, 1, 0], &BYTE_ORDER_MAGIC.to_be_bytes()].concat();
        assert_eq!((FileFormat::header_len(&section[..8]), FileFormat::header_len(&section)), (12, 256));
    }
}
