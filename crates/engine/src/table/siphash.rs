//! SipHash-1-3 of few words, unrolled; and of many keys at once, four in the lanes of a vector where the processor can.
//!
//! The lanes give the same values as the plain code; a test compares them.
use super::simd::{self, Avx2, FourKeys};

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

/// SipHash-1-3 of `W` words and seven bytes for each of the first `count` of `N` keys: `words` has all first words, then all second ones. Some more may be hashed.
#[inline(always)]
pub(crate) fn sip13_group<const W: usize, const N: usize>(
    key: (u64, u64),
    words: [&[u64; N]; W],
    tails: &[u64; N],
    count: usize,
    lanes: Option<Avx2>,
    hashes: &mut [u64; N],
) {
    // The lanes take whole groups of four.
    const { assert!(N.is_multiple_of(4)) };
    let length = (W as u64 * 8 + 7) << 56;
    let (fours, tail_fours) = (words.map(|words| words.as_chunks::<4>().0), tails.as_chunks::<4>().0);
    if let Some(proof) = lanes {
        let keys = hashes.as_chunks_mut::<4>().0.iter_mut().zip(0..count.div_ceil(4).min(N / 4));
        let keys =
            keys.map(|(hashes, at)| FourKeys { words: fours.map(|four| &four[at]), tails: &tail_fours[at], hashes });
        simd::sip13_lanes(proof, &initial_state(key), length, keys);
        return;
    }
    for (at, hash) in hashes.iter_mut().enumerate().take(count) {
        *hash = sip13(key, words.map(|words| words[at]), length | tails[at]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_give_the_values_of_the_plain_code() {
        let key = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        let mut state = 1u64;
        for round in 0..1000 {
            let mut random = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state ^ state >> 29
            };
            let mut eight = || core::array::from_fn::<u64, 8, _>(|_| random());
            let (words, tails) = ([eight(), eight(), eight(), eight()], eight().map(|word| word >> 8));
            let count = (round % 8 + 1) as usize;
            let [mut plain, mut wide] = [[0; 8]; 2];
            sip13_group(key, [&words[0]], &tails, count, None, &mut plain);
            sip13_group(key, [&words[0]], &tails, count, Avx2::detect(), &mut wide);
            assert_eq!(plain[..count], wide[..count]);
            let [first, second, third, fourth] = &words;
            sip13_group(key, [first, second, third, fourth], &tails, count, None, &mut plain);
            sip13_group(key, [first, second, third, fourth], &tails, count, Avx2::detect(), &mut wide);
            assert_eq!(plain[..count], wide[..count]);
            assert_eq!(plain[0], sip13(key, words.map(|words| words[0]), 39 << 56 | tails[0]));
        }
    }
}
