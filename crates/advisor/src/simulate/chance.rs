//! Chance that comes out the same each time: a small generator of its own, seeded once (splitmix64). It decides nothing that an attacker
//! could gain by; the table's own secret is the engine's.

/// A stream of numbers.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// Any 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mixed(self.0)
    }

    /// From 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 up to, not including, `end`; 0 for 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The bias is `end` / 2⁶⁴: nothing, for what is drawn here.
        u64::try_from((u128::from(self.word()) * u128::from(end)) >> 64).unwrap_or(0)
    }

    /// How long until something that happens once in `mean` on average, however long it has not happened.
    pub fn wait(&mut self, mean: f64) -> f64 {
        -(1.0 - self.unit()).ln() * mean
    }
}

/// A share of 1 that belongs to these three numbers: the same whenever it is asked for.
pub fn of(seed: u64, first: u64, second: u64) -> f64 {
    let word = mixed(mixed(seed ^ first.wrapping_mul(GOLDEN)).wrapping_add(second.wrapping_mul(GOLDEN)));
    (word >> 11) as f64 / (1_u64 << 53) as f64
}

fn mixed(word: u64) -> u64 {
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
    fn it_is_fair_and_repeatable() {
        let (mut one, mut other) = (Chance::new(7), Chance::new(7));
        let numbers: Vec<u64> = (0..1000).map(|_| one.below(10)).collect();
        assert_eq!(numbers, (0..1000).map(|_| other.below(10)).collect::<Vec<_>>());
        assert!((0..10).all(|digit| (60..140).contains(&numbers.iter().filter(|number| **number == digit).count())));
        let mean = (0..10_000).map(|_| one.wait(5.0)).sum::<f64>() / 10_000.0;
        assert!((4.8..5.2).contains(&mean), "{mean}");
        assert_eq!((one.below(0), of(1, 2, 3)), (0, of(1, 2, 3)));
        assert_ne!(of(1, 2, 3), of(1, 3, 2));
    }
}
