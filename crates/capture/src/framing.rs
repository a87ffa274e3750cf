//! The lengths of what comes next in a capture, checked before anything is parsed or waited for.
//!
//! A layout is made from a file's first octets and asked before each block or record. It remembers only the byte order of the section being read. It
//! believes no length: a block that claims too much, or whose two lengths differ, breaks the capture there and then, not after memory was filled.

/// The order of octets in the numbers of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    /// The number of two octets that `octets` begins with.
    pub(super) fn read_u16(self, octets: &[u8]) -> Option<u16> {
        let number = octets.first_chunk()?;
        Some(if self == ByteOrder::Little { u16::from_le_bytes(*number) } else { u16::from_be_bytes(*number) })
    }

    /// The number of four octets that `octets` begins with.
    pub(super) fn read_u32(self, octets: &[u8]) -> Option<u32> {
        let number = octets.first_chunk()?;
        Some(if self == ByteOrder::Little { u32::from_le_bytes(*number) } else { u32::from_be_bytes(*number) })
    }

    /// The number of eight octets that `octets` begins with.
    pub(super) fn read_u64(self, octets: &[u8]) -> Option<u64> {
        let number = octets.first_chunk()?;
        Some(if self == ByteOrder::Little { u64::from_le_bytes(*number) } else { u64::from_be_bytes(*number) })
    }
}

/// Which kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileFormat {
    /// One header, then records.
    Pcap(ByteOrder),
    /// Blocks; the order is that of the section being read.
    Pcapng(ByteOrder),
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextBlock {
    /// Not all of it is here yet.
    Incomplete,
    /// All of it is here: the parser may have it.
    Complete,
    /// A block of so many octets that holds nothing for us: names, statistics, secrets, what people add of their own.
    Skipped(usize),
    /// A Packet Block of so many octets, which older programs wrote before there was the enhanced one.
    ObsoletePacket(usize),
}

/// No block or record is larger than this.
const MAX_BLOCK: u32 = 256 << 20;

const SECTION: u32 = 0x0a0d_0d0a;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

impl FileFormat {
    /// What a file is, by its first octets; `None` if it is no capture.
    pub(super) fn detect(head: &[u8]) -> Option<FileFormat> {
        match ByteOrder::Little.read_u32(head)? {
            SECTION => Some(FileFormat::Pcapng(ByteOrder::Little)),
            0xa1b2_c3d4 | 0xa1b2_3c4d | 0xa1b2_cd34 => Some(FileFormat::Pcap(ByteOrder::Little)),
            0xd4c3_b2a1 | 0x4d3c_b2a1 => Some(FileFormat::Pcap(ByteOrder::Big)),
            _ => None,
        }
    }

    /// How many octets the header of a file has that begins with `head`, as far as `head` says.
    pub(super) fn header_len(head: &[u8]) -> usize {
        match FileFormat::detect(head) {
            None => 4,
            Some(FileFormat::Pcap(_)) => 24,
            Some(FileFormat::Pcapng(_)) => {
                let length = section_byte_order(head).and_then(|order| order.read_u32(head.get(4..)?));
                length.map_or(12, |length| usize::try_from(length.min(MAX_BLOCK)).unwrap_or(12)).max(12)
            }
        }
    }

    /// The byte order of what is read now.
    pub(super) fn byte_order(self) -> ByteOrder {
        match self {
            FileFormat::Pcap(order) | FileFormat::Pcapng(order) => order,
        }
    }

    /// Looks at the block or record that `octets` begin with.
    ///
    /// # Errors
    /// What is wrong with its lengths.
    pub(super) fn check_next(&mut self, octets: &[u8]) -> Result<NextBlock, String> {
        match self {
            FileFormat::Pcap(order) => check_pcap_record(*order, octets),
            FileFormat::Pcapng(order) => check_pcapng_block(order, octets),
        }
    }
}

/// A record's header: seconds, parts of a second, octets kept, octets there were.
fn check_pcap_record(order: ByteOrder, octets: &[u8]) -> Result<NextBlock, String> {
    let Some(kept) = octets.get(8..).and_then(|octets| order.read_u32(octets)) else {
        return Ok(NextBlock::Incomplete);
    };
    if kept > MAX_BLOCK {
        return Err(format!("a packet record claims {kept} octets; none has more than {MAX_BLOCK}"));
    }
    Ok(if octets.len() as u64 >= u64::from(kept) + 16 { NextBlock::Complete } else { NextBlock::Incomplete })
}

/// A block: its kind, its length, its body, and its length again.
fn check_pcapng_block(order: &mut ByteOrder, octets: &[u8]) -> Result<NextBlock, String> {
    // A section's kind reads the same both ways; its byte order stands behind its length.
    if octets.starts_with(&SECTION.to_le_bytes()) {
        if octets.len() < 12 {
            return Ok(NextBlock::Incomplete);
        }
        *order = section_byte_order(octets).ok_or("a section begins in no known byte order")?;
    }
    let (Some(kind), Some(length)) = (order.read_u32(octets), octets.get(4..).and_then(|rest| order.read_u32(rest)))
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
            "a block of type {kind} claims {length} octets; it has {least} to {MAX_BLOCK}, and a multiple of 4"
        ));
    }
    let length = usize::try_from(length).map_err(|_| "a block is larger than memory")?;
    let Some(whole) = octets.get(..length) else { return Ok(NextBlock::Incomplete) };
    let again = whole.last_chunk::<4>().and_then(|end| order.read_u32(end)).unwrap_or(0);
    if usize::try_from(again) != Ok(length) {
        return Err(format!("a block of type {kind} says {length} octets at its beginning and {again} at its end"));
    }
    Ok(match kind {
        SECTION | INTERFACE | SIMPLE_PACKET | ENHANCED_PACKET => NextBlock::Complete,
        OBSOLETE_PACKET => NextBlock::ObsoletePacket(length),
        _ => NextBlock::Skipped(length),
    })
}

/// The byte order that a section's header names.
fn section_byte_order(octets: &[u8]) -> Option<ByteOrder> {
    let mark = octets.get(8..)?;
    [ByteOrder::Little, ByteOrder::Big].into_iter().find(|order| order.read_u32(mark) == Some(BYTE_ORDER_MAGIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_bytes(octets: &[u8]) -> Result<NextBlock, String> {
        FileFormat::Pcapng(ByteOrder::Little).check_next(octets)
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
        assert!(check_bytes(&other).unwrap_err().contains("16 octets at its beginning and 20 at its end"));
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
