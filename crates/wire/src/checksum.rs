//! The Internet checksum (RFC 1071), CRC32c for SCTP (RFC 9260, appendix A), and incremental updates (RFC 1624).
//!
//! The Internet checksum is a ones' complement sum of 16-bit words. The sum is independent of byte order, so it is computed in
//! the machine's byte order and swapped once at the end.

/// A running sum for the Internet checksum. Only the last slice added may have an odd length.
///
/// ```
/// use keepstate_wire::checksum::Sum;
/// let sum = Sum::new().add_bytes(&[0x00, 0x01, 0xf2, 0x03]).add_u32(0xf4f5_f6f7);
/// assert_eq!(sum.finish(), 0x220d); // RFC 1071, section 3
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// An empty sum.
    #[inline]
    pub const fn new() -> Self {
        Sum(0)
    }

    /// The sum of eight bytes in memory order.
    #[inline(always)]
    pub(crate) const fn from_word(word: u64) -> Self {
        Sum(word)
    }

    /// Adds a header of twenty bytes.
    #[inline(always)]
    #[must_use]
    pub(crate) fn add_20_bytes(self, bytes: &[u8; 20]) -> Self {
        let (words, _) = bytes.as_chunks::<4>();
        self.add_word(words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum())
    }

    /// Adds bytes; an odd length is padded with a zero byte.
    #[inline(always)]
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let (long, rest) = bytes.as_chunks::<8>();
        let mut sum = if long.len() < 16 { self } else { self.add_long(long) };
        if long.len() < 16 {
            // Short data such as headers: end-around carry takes the fewest instructions.
            for bytes in long {
                sum = sum.add_word(u64::from_ne_bytes(*bytes));
            }
        }
        let (word, rest) = rest.split_at(rest.len() & 4);
        if let Some(word) = word.first_chunk() {
            sum = sum.add_word(u64::from(u32::from_ne_bytes(*word)));
        }
        match rest {
            [a] => sum.add_word(u64::from(u16::from_ne_bytes([*a, 0]))),
            [a, b] => sum.add_word(u64::from(u16::from_ne_bytes([*a, *b]))),
            [a, b, c] => sum.add_word(u64::from(u32::from_ne_bytes([*a, *b, *c, 0]))),
            _ => sum,
        }
    }

    /// Adds `bytes` from `from` on. `from` is even and at least 8: a last incomplete word is read together with bytes before it, which takes no branch for each length.
    #[inline(always)]
    #[must_use]
    pub(crate) fn add_end_of(self, bytes: &[u8], from: usize) -> Self {
        let (long, rest) = bytes.get(from..).unwrap_or(&[]).as_chunks::<8>();
        let mut sum = self;
        if long.len() < 16 {
            for bytes in long {
                sum = sum.add_word(u64::from_ne_bytes(*bytes));
            }
        } else {
            sum = self.add_long(long);
        }
        match bytes.last_chunk() {
            Some(last) if !rest.is_empty() => {
                let (word, missing) = (u64::from_ne_bytes(*last), 64 - 8 * rest.len());
                sum.add_word(if cfg!(target_endian = "little") { word >> missing } else { word << missing })
            }
            _ => sum,
        }
    }

    /// Long data: independent sums, which the compiler vectorizes. Each addend is below 2³³, so the sum cannot overflow for any packet
    /// length.
    #[inline(never)]
    fn add_long(self, long: &[[u8; 8]]) -> Self {
        let mut sum = 0;
        for bytes in long {
            let bytes = u64::from_ne_bytes(*bytes);
            sum += (bytes & 0xffff_ffff) + (bytes >> 32);
        }
        self.add_word(sum)
    }

    /// Adds eight bytes in memory order.
    #[inline(always)]
    #[must_use]
    pub(crate) fn add_word(self, word: u64) -> Self {
        let (added, carry) = self.0.overflowing_add(word);
        Sum(added + u64::from(carry))
    }

    /// Adds a 16-bit number, as if in network order.
    #[inline]
    #[must_use]
    pub fn add_u16(self, value: u16) -> Self {
        self.add_word(u64::from(value.to_be()))
    }

    /// Adds a 32-bit number, as if in network order.
    #[inline]
    #[must_use]
    pub fn add_u32(self, value: u32) -> Self {
        self.add_word(u64::from(value.to_be()))
    }

    /// The checksum: the complement of the sum. Write it in network order.
    #[inline]
    pub fn finish(self) -> u16 {
        !u16::from_be(fold(self.0))
    }

    /// Whether the summed bytes include their own correct checksum.
    #[inline]
    pub fn is_valid(self) -> bool {
        fold(self.0) == 0xffff
    }
}

/// The Internet checksum of `bytes`. Write it in network order.
pub fn internet(bytes: &[u8]) -> u16 {
    Sum::new().add_bytes(bytes).finish()
}

/// Whether an IPv4 header of twenty bytes has a correct checksum.
#[inline(always)]
pub(crate) fn ipv4_header_checksum_ok(header: &[u8; 20]) -> bool {
    let &[a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t] = header;
    let first = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
    let second = u64::from_ne_bytes([i, j, k, l, m, n, o, p]);
    let third = u64::from(u32::from_ne_bytes([q, r, s, t]));
    let (sum, carry) = first.overflowing_add(second);
    let (sum, more) = sum.overflowing_add(third + u64::from(carry));
    // After a second carry the sum is below 2³³, so adding that carry cannot overflow again.
    let sum = sum.wrapping_add(u64::from(more));
    fold(sum) == 0xffff
}

/// The checksum `check` after one 16-bit word it covers went from `old` to `new` (RFC 1624, equation 3).
#[inline]
pub fn update_u16(check: u16, old: u16, new: u16) -> u16 {
    let sum = u64::from(!check) + u64::from(!old) + u64::from(new);
    !fold(sum)
}

/// The checksum `check` after one 32-bit word it covers went from `old` to `new`.
#[inline]
pub fn update_u32(check: u16, old: u32, new: u32) -> u16 {
    let sum = u64::from(!check) + u64::from(!old) + u64::from(new);
    !fold(sum)
}

/// The checksum `check` after covered bytes at an even offset changed from `old` to `new`, which must have equal lengths.
#[inline]
pub fn update(check: u16, old: &[u8], new: &[u8]) -> u16 {
    debug_assert_eq!(old.len(), new.len());
    // Fold both to one word; subtracting is adding the complement.
    let old = !Sum::new().add_bytes(old).finish();
    let new = !Sum::new().add_bytes(new).finish();
    update_u16(check, old, new)
}

/// CRC32c (Castagnoli) of `bytes`. SCTP writes it in little-endian order.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !crc32c_update(!0, bytes)
}

/// The CRC32c of an SCTP packet with its checksum field (bytes 8 to 11) taken as zero; `None` under twelve bytes.
pub fn sctp_crc32c(packet: &[u8]) -> Option<u32> {
    let before = packet.get(..8)?;
    let after = packet.get(12..)?;
    Some(!crc32c_update(crc32c_update(crc32c_update(!0, before), &[0; 4]), after))
}

#[inline(always)]
fn fold(sum: u64) -> u16 {
    // Add the halves with end-around carry: first of 32 bits, then of 16.
    let low = (sum & 0xffff_ffff) as u32;
    let (sum, carry) = low.overflowing_add((sum >> 32) as u32);
    let sum = sum.wrapping_add(u32::from(carry));
    let (sum, carry) = ((sum & 0xffff) as u16).overflowing_add((sum >> 16) as u16);
    sum.wrapping_add(u16::from(carry))
}

fn crc32c_update(mut crc: u32, bytes: &[u8]) -> u32 {
    let (blocks, rest) = bytes.as_chunks::<8>();
    for block in blocks {
        let [a, b, c, d, e, f, g, h] = *block;
        let [p, q, r, s] = (crc ^ u32::from_le_bytes([a, b, c, d])).to_le_bytes();
        crc = crc32c_table_entry(7, p)
            ^ crc32c_table_entry(6, q)
            ^ crc32c_table_entry(5, r)
            ^ crc32c_table_entry(4, s)
            ^ crc32c_table_entry(3, e)
            ^ crc32c_table_entry(2, f)
            ^ crc32c_table_entry(1, g)
            ^ crc32c_table_entry(0, h);
    }
    for byte in rest {
        let [low, ..] = crc.to_le_bytes();
        crc = (crc >> 8) ^ crc32c_table_entry(0, low ^ byte);
    }
    crc
}

#[inline]
fn crc32c_table_entry(slice: usize, byte: u8) -> u32 {
    // Both indices are in range by their types.
    CRC32C_TABLES[slice & 7][usize::from(byte)]
}

/// Slicing by eight: table n is the effect of a byte n bytes later.
static CRC32C_TABLES: [[u32; 256]; 8] = build_crc32c_tables();

const fn build_crc32c_tables() -> [[u32; 256]; 8] {
    // The Castagnoli polynomial, bits reversed.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut tables = [[0u32; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][i] = crc;
        i += 1;
    }
    let mut slice = 1;
    while slice < 8 {
        let mut i = 0;
        while i < 256 {
            let before = tables[slice - 1][i];
            tables[slice][i] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            i += 1;
        }
        slice += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_checksums() {
        // RFC 1071, section 3, and the check value of CRC-32C.
        assert_eq!(internet(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0x220d);
        assert_eq!(internet(&[]), 0xffff);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn rfc_1624_example() {
        // Section 4: a field goes from 0x5555 to 0x3285 under the checksum 0xdd2f, and equation 3 gives zero.
        assert_eq!(update_u16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn ipv4_header_checksum_ok_equals_generic_sum() {
        let mut header = [0xffu8; 20];
        let mut state = 1u32;
        for round in 0..10_000 {
            for byte in &mut header {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Many 0xff bytes, for carries at every position.
                *byte = if state >> 30 == 0 { (state >> 16 & 0xff) as u8 } else { 0xff };
            }
            if round % 2 == 0 {
                header[10..12].copy_from_slice(&[0, 0]);
                let check = internet(&header);
                header[10..12].copy_from_slice(&check.to_be_bytes());
            }
            let holds = Sum::new().add_bytes(&header).is_valid();
            assert_eq!(ipv4_header_checksum_ok(&header), holds, "{header:?}");
            assert!(holds || round % 2 == 1, "{header:?}");
        }
    }
}
