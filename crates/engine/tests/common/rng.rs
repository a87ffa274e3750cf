//! Random numbers for tests: seeded, so that a failure can be repeated.

/// xorshift64*: small and seeded, which is enough for a test.
pub struct Rng(pub u64);

impl Rng {
    /// A number below `sides`.
    pub fn below(&mut self, sides: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % u64::from(sides)) as u32
    }
}
