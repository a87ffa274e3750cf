//! Benches of the engine beside Linux's own table: `cargo xtask bench table`, `cargo xtask bench replay`; of the tools beside Debian's: `cargo xtask bench cli`;
//! of the gateway beside Linux's masquerade: `cargo xtask bench gateway`, and of its router alone: `cargo xtask bench router`;
//! of a table that is kept over a restart: `cargo xtask bench keep`.
//!
//! Run from the root of the repository. These machines are noisy: only ratios of one run, and medians, mean anything.
mod conntrack_cli;
mod counting_alloc;
mod engine_bench;
mod gateway;
mod kernel_table;
mod process;
mod replay;
mod router;
mod state_store;
mod table;
mod tcp_segment;

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask bench")]
enum BenchCommand {
    Table(table::TableBench),
    Replay(replay::ReplayBench),
    Cli(conntrack_cli::CliBench),
    Router(router::RouterBench),
    Gateway(gateway::GatewayBench),
    Keep(state_store::StateStoreBench),
}

fn main() -> anyhow::Result<()> {
    match BenchCommand::parse() {
        BenchCommand::Table(table) => table.run(),
        BenchCommand::Replay(replay) => replay.run(),
        BenchCommand::Cli(cli) => cli.run(),
        BenchCommand::Router(router) => router.run(),
        BenchCommand::Gateway(gateway) => gateway.run(),
        BenchCommand::Keep(keep) => keep.run(),
    }
}
