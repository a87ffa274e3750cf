//! Bob Jenkins' lookup3 (public domain, 2006) with nftables' seed and scaling, so that `jhash` selects the same server as Linux.
use crate::datatype::DataType;
use smallvec::SmallVec;

/// The bytes that are hashed. The five parts of a `symhash` fit without an allocation.
pub(super) type HashInput = SmallVec<[u8; 96]>;

/// Hash of these bytes, below `modulus`.
pub(super) fn jhash(bytes: &[u8], seed: u32, modulus: u32) -> u32 {
    let hash = lookup3(bytes, seed);
    // The upper half of a product of two 32-bit numbers has 32 bits.
    ((u64::from(hash) * u64::from(modulus)) >> 32) as u32
}

/// Appends the bytes of a value as in an nftables register: packet fields in network order, marks in host order, padded to whole words.
pub(super) fn push_register_bytes(value: u128, kind: DataType, into: &mut HashInput) {
    let length = usize::from(kind.bit_width()).div_ceil(8);
    let sent = value.to_be_bytes();
    let own = value.to_ne_bytes();
    match kind {
        DataType::Mark | DataType::InterfaceIndex | DataType::CtState | DataType::CtStatus => {
            into.extend_from_slice(own.get(..length).unwrap_or_default())
        }
        _ => into.extend_from_slice(sent.get(16 - length..).unwrap_or_default()),
    }
    into.resize(into.len().next_multiple_of(4), 0);
}

fn lookup3(bytes: &[u8], seed: u32) -> u32 {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let start = 0xdead_beef_u32.wrapping_add(length).wrapping_add(seed);
    let (mut a, mut b, mut c) = (start, start, start);
    let word = |bytes: &[u8], at: usize| {
        let byte = |more: usize| u32::from(bytes.get(at + more).copied().unwrap_or(0));
        byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24
    };
    let mut rest = bytes;
    while rest.len() > 12 {
        a = a.wrapping_add(word(rest, 0));
        b = b.wrapping_add(word(rest, 4));
        c = c.wrapping_add(word(rest, 8));
        a = a.wrapping_sub(c) ^ c.rotate_left(4);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(6);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(8);
        b = b.wrapping_add(a);
        a = a.wrapping_sub(c) ^ c.rotate_left(16);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(19);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(4);
        b = b.wrapping_add(a);
        rest = rest.get(12..).unwrap_or_default();
    }
    if rest.is_empty() {
        return c;
    }
    a = a.wrapping_add(word(rest, 0));
    b = b.wrapping_add(word(rest, 4));
    c = c.wrapping_add(word(rest, 8));
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vectors of the algorithm's author.
    #[test]
    fn matches_published_lookup3_values() {
        assert_eq!(lookup3(b"", 0), 0xdead_beef);
        assert_eq!(lookup3(b"Four score and seven years ago", 0), 0x1777_0551);
        assert_eq!(lookup3(b"Four score and seven years ago", 1), 0xcd62_8161);
    }
}
