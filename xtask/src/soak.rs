//! Random stories through the engine, for as many packets as wanted: the fuzz target `engine` without a fuzzer.
//!
//! Each story is told to fresh engines, with the books kept after every step: inserted = living + removed, both directions or neither,
//! never above max, batches as one by one. A story that breaks any of it panics, and its seed has been printed.

use keepstate_fuzz_bodies::{Rng, run_engine};
use std::collections::BTreeSet;
use std::panic;
use std::time::Instant;

/// Sends random traffic through the engine and checks that nothing panics and no connection is lost or counted twice.
#[derive(clap::Args)]
pub struct Soak {
    /// How many packets to track at least.
    #[arg(long, default_value_t = 1_000_000)]
    packets: u64,
    /// The seed of the first story; each further story takes the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Soak {
    /// Tells stories until enough packets were tracked.
    pub fn run(self) -> anyhow::Result<()> {
        let begin = Instant::now();
        let (mut packets, mut seed, mut most, mut seen) = (0, self.seed, 0, BTreeSet::new());
        let mut next_note = self.packets / 10;
        while packets < self.packets {
            let Ok(told) = panic::catch_unwind(|| run_engine(&random_input(seed))) else {
                anyhow::bail!("the story of seed {seed} broke: cargo xtask soak --packets 1 --seed {seed}");
            };
            packets += told.packets;
            most = most.max(told.max_connections);
            seen.extend(told.seen);
            seed = seed.wrapping_add(1);
            if packets >= next_note {
                eprintln!("{packets} packets, {} s", begin.elapsed().as_secs());
                next_note += self.packets / 10;
            }
        }
        let stories = seed.wrapping_sub(self.seed);
        println!(
            "soak: {packets} packets in {stories} stories (seeds {} to {}), {most} connections at most, {} kinds of outcome seen, {} s: \
             nothing panicked, nothing was lost",
            self.seed,
            seed.wrapping_sub(1),
            seen.len(),
            begin.elapsed().as_secs()
        );
        Ok(())
    }
}

/// Mostly short stories, that begin anew with other knobs; sometimes a long one, whose table grows.
fn random_input(seed: u64) -> Vec<u8> {
    let mut dice = Rng::new(seed);
    let len = if dice.below(16) == 0 { 262_144 } else { 4096 };
    dice.bytes(len)
}
