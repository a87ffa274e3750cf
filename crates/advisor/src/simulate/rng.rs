//! Reproducible random numbers: a small generator, seeded once (splitmix64). It is not for anything an attacker could exploit; the
//! hash secret is the engine's.

/// A random number generator.
#[derive(Clone, Debug)]
pub struct SimRng(u64);

impl SimRng {
    /// A generator with this seed.
    pub fn new(seed: u64) -> SimRng {
        SimRng(seed)
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// From 0 up to, not including, 1.
    pub fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 up to, not including, `end`; 0 for 0.
    pub fn next_below(&mut self, end: u64) -> u64 {
        // The bias is `end` / 2⁶⁴: nothing, for what is drawn here.
        u64::try_from((u128::from(self.next_u64()) * u128::from(end)) >> 64).unwrap_or(0)
    }

    /// An exponentially distributed time with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -(1.0 - self.next_f64()).ln() * mean
    }
}

/// A number from 0 to 1 that is a hash of three numbers.
pub fn unit_hash(seed: u64, first: u64, second: u64) -> f64 {
    let word = mix(mix(seed ^ first.wrapping_mul(GOLDEN)).wrapping_add(second.wrapping_mul(GOLDEN)));
    (word >> 11) as f64 / (1_u64 << 53) as f64
}

fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// 2⁶⁴ / φ, odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_uniform_and_repeatable() {
        let (mut one, mut other) = (SimRng::new(7), SimRng::new(7));
        let numbers: Vec<u64> = (0..1000).map(|_| one.next_below(10)).collect();
        assert_eq!(numbers, (0..1000).map(|_| other.next_below(10)).collect::<Vec<_>>());
        assert!((0..10).all(|digit| (60..140).contains(&numbers.iter().filter(|number| **number == digit).count())));
        let mean = (0..10_000).map(|_| one.exponential(5.0)).sum::<f64>() / 10_000.0;
        assert!((4.8..5.2).contains(&mean), "{mean}");
        assert_eq!((one.next_below(0), unit_hash(1, 2, 3)), (0, unit_hash(1, 2, 3)));
        assert_ne!(unit_hash(1, 2, 3), unit_hash(1, 3, 2));
    }
}
