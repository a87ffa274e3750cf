//! Benchmarks, as `cargo xtask bench NAME`: `table`, the engine beside Linux's conntrack table; `replay`, `keepstate replay`; `cli`, `keepstate conntrack` beside Debian's
//! conntrack; `live`, what `top` and `serve` cost over a large table; `router`, the router alone; `rules`, long chains beside Linux; `gateway`, the gateway beside Linux's masquerade; `keep`, the state store;
//! `cluster`, a table shared over NATS.
//!
//! Run them from the root of the repository. Machines are noisy: compare only medians within one run.
mod attack;
mod cluster;
mod conntrack_cli;
mod counting_alloc;
mod engine_bench;
mod flow_order;
mod gateway;
mod instructions;
mod kernel_table;
mod linux_table;
mod live;
mod median;
mod process;
mod replay;
mod router;
mod rules;
mod shards;
mod state_store;
mod table;
mod table_case;
mod tcp_segment;
mod undo;

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask bench")]
enum BenchCommand {
    Table(table::TableBench),
    Replay(replay::ReplayBench),
    Cli(conntrack_cli::CliBench),
    Live(live::LiveBench),
    Router(router::RouterBench),
    Rules(rules::RulesBench),
    Gateway(gateway::GatewayBench),
    Keep(state_store::StateStoreBench),
    Cluster(cluster::ClusterBench),
}

fn main() -> anyhow::Result<()> {
    undo::undo_on_signals()?;
    match BenchCommand::parse() {
        BenchCommand::Table(table) => table.run(),
        BenchCommand::Replay(replay) => replay.run(),
        BenchCommand::Cli(cli) => cli.run(),
        BenchCommand::Live(live) => live.run(),
        BenchCommand::Router(router) => router.run(),
        BenchCommand::Rules(rules) => rules.run(),
        BenchCommand::Gateway(gateway) => gateway.run(),
        BenchCommand::Keep(keep) => keep.run(),
        BenchCommand::Cluster(cluster) => cluster.run(),
    }
}
