//! Benches of the engine beside Linux's own table: `cargo xtask bench table`, `cargo xtask bench replay`; of the tools beside Debian's: `cargo xtask bench cli`;
//! of the gateway beside Linux's masquerade: `cargo xtask bench gateway`, and of its router alone: `cargo xtask bench router`;
//! of a table that is kept over a restart: `cargo xtask bench keep`.
//!
//! Run from the root of the repository. These machines are noisy: only ratios of one run, and medians, mean anything.
mod child;
mod cli;
mod gateway;
mod keep;
mod linux;
mod memory;
mod ours;
mod replay;
mod router;
mod segment;
mod table;

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask bench")]
enum Bench {
    Table(table::Table),
    Replay(replay::Replay),
    Cli(cli::Cli),
    Router(router::RouterAlone),
    Gateway(gateway::Gateway),
    Keep(keep::Kept),
}

fn main() -> anyhow::Result<()> {
    match Bench::parse() {
        Bench::Table(table) => table.run(),
        Bench::Replay(replay) => replay.run(),
        Bench::Cli(cli) => cli.run(),
        Bench::Router(router) => router.run(),
        Bench::Gateway(gateway) => gateway.run(),
        Bench::Keep(keep) => keep.run(),
    }
}
