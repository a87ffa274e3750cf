//! `cargo xtask soak`: random scenarios through the engine: the fuzz target `engine` without a fuzzer.
//!
//! Each scenario starts with fresh engines, and invariants are checked after every step: inserted = present + removed, both directions or neither,
//! never above the maximum, batches equal to single packets. A scenario that breaks one panics, and its seed is printed.

use keepstate_fuzz_bodies::{Rng, run_engine};
use std::collections::BTreeSet;
use std::panic;
use std::time::Instant;

/// Send random traffic through the engine and check its invariants: no panic, no connection lost or counted twice
#[derive(clap::Args)]
pub struct Soak {
    /// Minimum number of packets
    #[arg(long, default_value_t = 1_000_000)]
    packets: u64,
    /// Seed of the first scenario; each further scenario uses the next number
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Soak {
    /// Runs scenarios until enough packets were tracked.
    pub fn run(self) -> anyhow::Result<()> {
        let begin = Instant::now();
        let (mut packets, mut seed, mut most, mut seen) = (0, self.seed, 0, BTreeSet::new());
        let mut next_note = self.packets / 10;
        while packets < self.packets {
            let Ok(outcome) = panic::catch_unwind(|| run_engine(&random_input(seed))) else {
                anyhow::bail!(
                    "the scenario of seed {seed} failed; repeat it with: cargo xtask soak --packets 1 --seed {seed}"
                );
            };
            packets += outcome.packets;
            most = most.max(outcome.max_connections);
            seen.extend(outcome.seen);
            seed = seed.wrapping_add(1);
            if packets >= next_note {
                eprintln!("{packets} packets, {} s", begin.elapsed().as_secs());
                next_note += self.packets / 10;
            }
        }
        let scenarios = seed.wrapping_sub(self.seed);
        println!(
            "soak: {packets} packets in {scenarios} scenarios (seeds {} to {}), at most {most} connections, {} kinds of outcome, {} s: \
             no panic, no invariant broken",
            self.seed,
            seed.wrapping_sub(1),
            seen.len(),
            begin.elapsed().as_secs()
        );
        Ok(())
    }
}

/// Mostly short scenarios, each with other sysctls; sometimes a long one, in which the table grows.
fn random_input(seed: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let len = if rng.below(16) == 0 { 262_144 } else { 4096 };
    rng.bytes(len)
}
