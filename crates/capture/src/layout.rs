//! The lengths of what comes next in a capture, checked before anything is parsed or waited for.
//!
//! A layout is made from a file's first octets and asked before each block or record. It remembers only the byte order of the section being read. It
//! believes no length: a block that claims too much, or whose two lengths differ, breaks the capture there and then, not after memory was filled.

/// The order of octets in the numbers of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

impl Order {
    /// The number of two octets that `octets` begins with.
    pub(super) fn two(self, octets: &[u8]) -> Option<u16> {
        let number = octets.first_chunk()?;
        Some(if self == Order::Little { u16::from_le_bytes(*number) } else { u16::from_be_bytes(*number) })
    }

    /// The number of four octets that `octets` begins with.
    pub(super) fn four(self, octets: &[u8]) -> Option<u32> {
        let number = octets.first_chunk()?;
        Some(if self == Order::Little { u32::from_le_bytes(*number) } else { u32::from_be_bytes(*number) })
    }

    /// The number of eight octets that `octets` begins with.
    pub(super) fn eight(self, octets: &[u8]) -> Option<u64> {
        let number = octets.first_chunk()?;
        Some(if self == Order::Little { u64::from_le_bytes(*number) } else { u64::from_be_bytes(*number) })
    }
}

/// Which kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// One header, then records.
    Pcap(Order),
    /// Blocks; the order is that of the section being read.
    Pcapng(Order),
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coming {
    /// Not all of it is here yet.
    Part,
    /// All of it is here: the parser may have it.
    Whole,
    /// A block of so many octets that holds nothing for us: names, statistics, secrets, what people add of their own.
    Foreign(usize),
    /// A Packet Block of so many octets, which older programs wrote before there was the enhanced one.
    Obsolete(usize),
}

/// No block or record is larger than this.
const LARGEST: u32 = 256 << 20;

const SECTION: u32 = 0x0a0d_0d0a;
const ORDER_MARK: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

impl Layout {
    /// What a file is, by its first octets; `None` if it is no capture.
    pub(super) fn of(head: &[u8]) -> Option<Layout> {
        match Order::Little.four(head)? {
            SECTION => Some(Layout::Pcapng(Order::Little)),
            0xa1b2_c3d4 | 0xa1b2_3c4d | 0xa1b2_cd34 => Some(Layout::Pcap(Order::Little)),
            0xd4c3_b2a1 | 0x4d3c_b2a1 => Some(Layout::Pcap(Order::Big)),
            _ => None,
        }
    }

    /// How many octets the header of a file has that begins with `head`, as far as `head` says.
    pub(super) fn header(head: &[u8]) -> usize {
        match Layout::of(head) {
            None => 4,
            Some(Layout::Pcap(_)) => 24,
            Some(Layout::Pcapng(_)) => {
                let length = section_order(head).and_then(|order| order.four(head.get(4..)?));
                length.map_or(12, |length| usize::try_from(length.min(LARGEST)).unwrap_or(12)).max(12)
            }
        }
    }

    /// The byte order of what is read now.
    pub(super) fn order(self) -> Order {
        match self {
            Layout::Pcap(order) | Layout::Pcapng(order) => order,
        }
    }

    /// Looks at the block or record that `octets` begin with.
    ///
    /// # Errors
    /// What is wrong with its lengths.
    pub(super) fn next(&mut self, octets: &[u8]) -> Result<Coming, String> {
        match self {
            Layout::Pcap(order) => record(*order, octets),
            Layout::Pcapng(order) => block(order, octets),
        }
    }
}

/// A record's header: seconds, parts of a second, octets kept, octets there were.
fn record(order: Order, octets: &[u8]) -> Result<Coming, String> {
    let Some(kept) = octets.get(8..).and_then(|octets| order.four(octets)) else { return Ok(Coming::Part) };
    if kept > LARGEST {
        return Err(format!("a packet record claims {kept} octets; none has more than {LARGEST}"));
    }
    Ok(if octets.len() as u64 >= u64::from(kept) + 16 { Coming::Whole } else { Coming::Part })
}

/// A block: its kind, its length, its body, and its length again.
fn block(order: &mut Order, octets: &[u8]) -> Result<Coming, String> {
    // A section's kind reads the same both ways; its byte order stands behind its length.
    if octets.starts_with(&SECTION.to_le_bytes()) {
        if octets.len() < 12 {
            return Ok(Coming::Part);
        }
        *order = section_order(octets).ok_or("a section begins in no known byte order")?;
    }
    let (Some(kind), Some(length)) = (order.four(octets), octets.get(4..).and_then(|rest| order.four(rest))) else {
        return Ok(Coming::Part);
    };
    let least = match kind {
        SECTION => 28,
        INTERFACE => 20,
        OBSOLETE_PACKET | ENHANCED_PACKET => 32,
        SIMPLE_PACKET => 16,
        _ => 12,
    };
    if length < least || length > LARGEST || length % 4 != 0 {
        return Err(format!(
            "a block of type {kind} claims {length} octets; it has {least} to {LARGEST}, and a multiple of 4"
        ));
    }
    let length = usize::try_from(length).map_err(|_| "a block is larger than memory")?;
    let Some(whole) = octets.get(..length) else { return Ok(Coming::Part) };
    let again = whole.last_chunk::<4>().and_then(|end| order.four(end)).unwrap_or(0);
    if usize::try_from(again) != Ok(length) {
        return Err(format!("a block of type {kind} says {length} octets at its beginning and {again} at its end"));
    }
    Ok(match kind {
        SECTION | INTERFACE | SIMPLE_PACKET | ENHANCED_PACKET => Coming::Whole,
        OBSOLETE_PACKET => Coming::Obsolete(length),
        _ => Coming::Foreign(length),
    })
}

/// The byte order that a section's header names.
fn section_order(octets: &[u8]) -> Option<Order> {
    let mark = octets.get(8..)?;
    [Order::Little, Order::Big].into_iter().find(|order| order.four(mark) == Some(ORDER_MARK))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked_at(octets: &[u8]) -> Result<Coming, String> {
        Layout::Pcapng(Order::Little).next(octets)
    }

    #[test]
    fn a_block_is_whole_only_when_both_lengths_agree() {
        let statistics = [5, 0, 0, 0, 16, 0, 0, 0, 1, 2, 3, 4, 16, 0, 0, 0];
        assert_eq!(looked_at(&statistics), Ok(Coming::Foreign(16)));
        for end in 0..16 {
            assert_eq!(looked_at(&statistics[..end]), Ok(Coming::Part), "{end}");
        }
        let mut other = statistics;
        other[12] = 20;
        assert!(looked_at(&other).unwrap_err().contains("16 octets at its beginning and 20 at its end"));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_at_once() {
        for length in [0u32, 4, 8, 13, 31, 0x7fff_fffc, u32::MAX] {
            let head = [&6u32.to_le_bytes()[..], &length.to_le_bytes()].concat();
            assert!(looked_at(&head).is_err(), "{length}");
        }
        let record = [&[0; 8][..], &u32::MAX.to_le_bytes(), &[0; 4]].concat();
        assert!(Layout::Pcap(Order::Little).next(&record).unwrap_err().contains("4294967295"));
    }

    #[test]
    fn a_file_says_what_it_is_and_how_long_its_header_is() {
        assert_eq!(Layout::of(b"text"), None);
        assert_eq!(Layout::of(b"abc"), None);
        assert_eq!(Layout::of(&[0xa1, 0xb2, 0x3c, 0x4d]), Some(Layout::Pcap(Order::Big)));
        let section = [&SECTION.to_be_bytes()[..], &[0, 0, 1, 0], &ORDER_MARK.to_be_bytes()].concat();
        assert_eq!((Layout::header(&section[..8]), Layout::header(&section)), (12, 256));
    }
}
