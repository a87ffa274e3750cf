//! CPU instructions that the table needs beyond plain Rust: prefetch of a cache line, and comparison of eight fingerprints in one
//! instruction. This is the only module of the crate that uses `unsafe`; without x86-64 it falls back to plain code.
#![allow(unsafe_code, reason = "a prefetch takes a pointer, and vector instructions are unsafe to name")]

/// Prefetches the cache line of `place`.
#[inline(always)]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `place` is a live reference; the instruction is a hint without architectural effect, and every x86-64 has SSE.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(core::ptr::from_ref(place).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// One bit for each of the eight `marks` that equals `wanted`, the first mark in the lowest bit.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn match_fingerprints(marks: &[u16; 8], wanted: u16) -> u32 {
    use core::arch::x86_64::{_mm_cmpeq_epi16, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16, _mm_setzero_si128};
    let marks = zerocopy::transmute!(*marks);
    // SAFETY: the instructions need SSE2, which every x86-64 has; they work on values only.
    let bits = unsafe {
        let equal = _mm_cmpeq_epi16(marks, _mm_set1_epi16(wanted.cast_signed()));
        _mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128()))
    };
    bits.cast_unsigned()
}

/// One bit for each of the eight `marks` that equals `wanted`, the first mark in the lowest bit.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn match_fingerprints(marks: &[u16; 8], wanted: u16) -> u32 {
    marks.iter().enumerate().fold(0, |fits, (place, mark)| fits | u32::from(*mark == wanted) << place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn match_fingerprints_sets_one_bit_per_equal_slot() {
        let marks = [7, 0, 65535, 7, 1, 2, 3, 7];
        assert_eq!(match_fingerprints(&marks, 7), 0b1000_1001);
        assert_eq!(match_fingerprints(&marks, 0), 0b0000_0010);
        assert_eq!(match_fingerprints(&marks, 65535), 0b0000_0100);
        assert_eq!(match_fingerprints(&marks, 9), 0);
    }
}
