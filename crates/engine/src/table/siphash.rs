//! SipHash-1-3 of few words, unrolled; and of many keys at once, four in the lanes of a vector where the processor can.
//!
//! The lanes give the same values as the plain code; a test compares them.
use super::simd::{self, Avx2};

/// The initial state for a key.
#[inline(always)]
const fn initial_state((first, second): (u64, u64)) -> [u64; 4] {
    [
        first ^ 0x736f_6d65_7073_6575,
        second ^ 0x646f_7261_6e64_6f6d,
        first ^ 0x6c79_6765_6e65_7261,
        second ^ 0x7465_6462_7974_6573,
    ]
}

/// SipHash-1-3 of `N` whole words and the final block `last`: the length, and up to seven bytes (Aumasson and Bernstein, "SipHash: a fast
/// short-input PRF", 2012). Unrolled for the fixed lengths used here: [`siphasher`] buffers bytes and takes twice as long. A test
/// compares the two.
#[inline(always)]
pub(crate) fn sip13<const N: usize>(key: (u64, u64), words: [u64; N], last: u64) -> u64 {
    let mut v = initial_state(key);
    for word in words {
        v[3] ^= word;
        sip_round(&mut v);
        v[0] ^= word;
    }
    v[3] ^= last;
    sip_round(&mut v);
    v[0] ^= last;
    v[2] ^= 0xff;
    sip_round(&mut v);
    sip_round(&mut v);
    sip_round(&mut v);
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline(always)]
fn sip_round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

/// SipHash-1-3 of one word and seven bytes for each of `N` keys.
#[inline(always)]
pub(crate) fn sip13_group<const N: usize>(
    key: (u64, u64),
    words: &[u64; N],
    tails: &[u64; N],
    lanes: Option<Avx2>,
    hashes: &mut [u64; N],
) {
    const LENGTH: u64 = 15 << 56;
    if let Some(proof) = lanes {
        let fours = words.as_chunks().0.iter().zip(tails.as_chunks().0).zip(hashes.as_chunks_mut().0);
        // The lanes take whole groups of four.
        const { assert!(N.is_multiple_of(4)) };
        simd::sip13_lanes(proof, &initial_state(key), LENGTH, fours);
        return;
    }
    for ((word, tail), hash) in words.iter().zip(tails).zip(hashes) {
        *hash = sip13(key, [*word], LENGTH | tail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_give_the_values_of_the_plain_code() {
        let key = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        let mut state = 1u64;
        for _ in 0..1000 {
            let mut random = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state ^ state >> 29
            };
            let words: [u64; 8] = core::array::from_fn(|_| random());
            let tails: [u64; 8] = core::array::from_fn(|_| random() >> 8);
            let [mut plain, mut wide] = [[0; 8]; 2];
            sip13_group(key, &words, &tails, None, &mut plain);
            sip13_group(key, &words, &tails, Avx2::detect(), &mut wide);
            assert_eq!(plain, wide);
        }
    }
}
