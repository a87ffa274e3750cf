//! Input bytes interpreted as choices, and choices generated from a seed.

/// Reads bytes as choices; the scenario ends with the bytes.
pub struct FuzzInput<'a> {
    rest: &'a [u8],
}

impl<'a> FuzzInput<'a> {
    /// The scenario in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        FuzzInput { rest: bytes }
    }

    /// The next byte; `None` at the end.
    pub fn next_byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    /// The next two bytes as a number; missing bytes are zero.
    pub fn next_u16(&mut self) -> u16 {
        u16::from_be_bytes([self.next_byte().unwrap_or(0), self.next_byte().unwrap_or(0)])
    }

    /// The next four bytes as a number; missing bytes are zero.
    pub fn next_u32(&mut self) -> u32 {
        u32::from(self.next_u16()) << 16 | u32::from(self.next_u16())
    }

    /// Selects one of `choices`, which must not be empty.
    pub fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.next_byte().unwrap_or(0)) % choices.len()]
    }

    /// Up to `most` bytes.
    pub fn take_bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(most.min(self.rest.len()));
        self.rest = rest;
        taken
    }
}

/// Pseudo-random numbers from a seed (xorshift64*).
pub struct Rng(u64);

impl Rng {
    /// The generator with this seed.
    pub fn new(seed: u64) -> Self {
        // Zero is the one state that never changes.
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number under `end`, which must not be zero.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next_u64() >> 33) as usize % end
    }

    /// `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next_u64() >> 56) as u8).collect()
    }
}
