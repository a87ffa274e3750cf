//! CPU instructions that the table needs beyond plain Rust: prefetch of a cache line, comparison of eight fingerprints in one
//! instruction, and SipHash of four keys in the lanes of a vector (AVX2, where the processor has it). This is the only module of the crate that uses `unsafe`; without x86-64 it falls back to plain code.
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

/// One bit for each of the ten `marks` that equals `wanted`, the first mark in the lowest bit.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn match_fingerprints(marks: &[u16; 10], wanted: u16) -> u32 {
    use core::arch::x86_64::{_mm_cmpeq_epi16, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16};
    // Two vectors of eight that overlap by six.
    let &[a, b, c, d, e, f, g, h, i, j] = marks;
    let first = zerocopy::transmute!([a, b, c, d, e, f, g, h]);
    let last = zerocopy::transmute!([c, d, e, f, g, h, i, j]);
    // SAFETY: the instructions need SSE2, which every x86-64 has; they work on values only.
    let bits = unsafe {
        let wanted = _mm_set1_epi16(wanted.cast_signed());
        _mm_movemask_epi8(_mm_packs_epi16(_mm_cmpeq_epi16(first, wanted), _mm_cmpeq_epi16(last, wanted)))
    };
    let bits = bits.cast_unsigned();
    bits & 0xff | bits >> 8 << 2
}

/// One bit for each of the ten `marks` that equals `wanted`, the first mark in the lowest bit.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn match_fingerprints(marks: &[u16; 10], wanted: u16) -> u32 {
    marks.iter().enumerate().fold(0, |fits, (place, mark)| fits | u32::from(*mark == wanted) << place)
}

/// The proof that this processor has AVX2: only [`Avx2::detect`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// Asks the processor.
    pub(crate) fn detect() -> Option<Avx2> {
        has_avx2().then_some(Avx2(()))
    }
}

/// Has this processor AVX2, and does the operating system keep its registers?
fn has_avx2() -> bool {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use core::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
        const OSXSAVE_AND_AVX: u32 = 1 << 27 | 1 << 28;
        const SSE_AND_AVX_STATE: u64 = 0b110;
        const AVX2: u32 = 1 << 5;
        if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE_AND_AVX != OSXSAVE_AND_AVX {
            return false;
        }
        // SAFETY: the processor says that it has XGETBV and that the operating system has enabled it (OSXSAVE).
        let enabled = unsafe { _xgetbv(0) };
        enabled & SSE_AND_AVX_STATE == SSE_AND_AVX_STATE && __cpuid_count(7, 0).ebx & AVX2 != 0
    }
    // Miri has no CPUID; it runs the lanes if it is told that the target has them.
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    {
        cfg!(target_feature = "avx2")
    }
}

/// Of four keys: the `W` words of each (all first words, then all second ones), their tails, and where their hashes go.
pub(crate) struct FourKeys<'a, const W: usize> {
    pub(crate) words: [&'a [u64; 4]; W],
    pub(crate) tails: &'a [u64; 4],
    pub(crate) hashes: &'a mut [u64; 4],
}

/// SipHash-1-3 of the words and one tail (with `length` in it) of each key, from the initial state `v`.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn sip13_lanes<'a, const W: usize>(
    _proof: Avx2,
    v: &[u64; 4],
    length: u64,
    keys: impl Iterator<Item = FourKeys<'a, W>>,
) {
    use core::arch::x86_64::{
        __m256i, _mm256_add_epi64, _mm256_or_si256, _mm256_set_epi64x, _mm256_set1_epi64x, _mm256_shuffle_epi8,
        _mm256_shuffle_epi32, _mm256_slli_epi64, _mm256_srli_epi64, _mm256_xor_si256,
    };

    #[inline]
    #[target_feature(enable = "avx2")]
    fn round(v: &mut [__m256i; 4]) {
        /// Moves each byte of a word up by two: a rotation by 16 bits.
        const UP_TWO_BYTES: [u64; 4] =
            [0x0504_0302_0100_0706, 0x0d0c_0b0a_0908_0f0e, 0x0504_0302_0100_0706, 0x0d0c_0b0a_0908_0f0e];
        let rotate_16 = |x| _mm256_shuffle_epi8(x, zerocopy::transmute!(UP_TWO_BYTES));
        let rotate_32 = |x| _mm256_shuffle_epi32::<0b10_11_00_01>(x);
        v[0] = _mm256_add_epi64(v[0], v[1]);
        v[2] = _mm256_add_epi64(v[2], v[3]);
        let turned = _mm256_or_si256(_mm256_slli_epi64::<13>(v[1]), _mm256_srli_epi64::<51>(v[1]));
        v[1] = _mm256_xor_si256(turned, v[0]);
        v[3] = _mm256_xor_si256(rotate_16(v[3]), v[2]);
        v[0] = rotate_32(v[0]);
        v[2] = _mm256_add_epi64(v[2], v[1]);
        v[0] = _mm256_add_epi64(v[0], v[3]);
        let turned = _mm256_or_si256(_mm256_slli_epi64::<17>(v[1]), _mm256_srli_epi64::<47>(v[1]));
        v[1] = _mm256_xor_si256(turned, v[2]);
        let turned = _mm256_or_si256(_mm256_slli_epi64::<21>(v[3]), _mm256_srli_epi64::<43>(v[3]));
        v[3] = _mm256_xor_si256(turned, v[0]);
        v[2] = rotate_32(v[2]);
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn absorb(v: &mut [__m256i; 4], block: __m256i) {
        v[3] = _mm256_xor_si256(v[3], block);
        round(v);
        v[0] = _mm256_xor_si256(v[0], block);
    }

    #[target_feature(enable = "avx2")]
    fn hash<'a, const W: usize>(initial: &[u64; 4], length: u64, keys: impl Iterator<Item = FourKeys<'a, W>>) {
        let initial = initial.map(|word| _mm256_set1_epi64x(word.cast_signed()));
        let length = _mm256_set1_epi64x(length.cast_signed());
        let four = |[a, b, c, d]: [u64; 4]| {
            _mm256_set_epi64x(d.cast_signed(), c.cast_signed(), b.cast_signed(), a.cast_signed())
        };
        for FourKeys { words, tails, hashes } in keys {
            let mut v = initial;
            for word in words {
                absorb(&mut v, four(*word));
            }
            absorb(&mut v, _mm256_or_si256(four(*tails), length));
            v[2] = _mm256_xor_si256(v[2], _mm256_set1_epi64x(0xff));
            for _ in 0..3 {
                round(&mut v);
            }
            let [a, b, c, d] = v;
            *hashes = zerocopy::transmute!(_mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d)));
        }
    }

    // SAFETY: the processor has AVX2, or there were no `Avx2`.
    unsafe { hash(v, length, keys) }
}

/// Never called: without x86-64 there are no lanes.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn sip13_lanes<'a, const W: usize>(_: Avx2, _: &[u64; 4], _: u64, _: impl Iterator<Item = FourKeys<'a, W>>) {
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn match_fingerprints_sets_one_bit_per_equal_slot() {
        let marks = [7, 0, 65535, 7, 1, 2, 3, 7, 4, 7];
        assert_eq!(match_fingerprints(&marks, 7), 0b10_1000_1001);
        assert_eq!(match_fingerprints(&marks, 0), 0b00_0000_0010);
        assert_eq!(match_fingerprints(&marks, 65535), 0b00_0000_0100);
        assert_eq!(match_fingerprints(&marks, 4), 0b01_0000_0000);
        assert_eq!(match_fingerprints(&marks, 9), 0);
    }
}
