//! Development tasks, as `cargo xtask TASK`: one module each.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

mod bench;
mod compare;
mod dist;
mod lint;
mod oracle;
mod soak;

/// Development tasks of this workspace
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    job: Job,
}

#[derive(Subcommand)]
enum Job {
    Bench(bench::Bench),
    Compare(compare::Compare),
    Dist(dist::Dist),
    Lint(lint::Lint),
    Oracle(oracle::Oracle),
    Soak(soak::Soak),
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().job {
        Job::Bench(job) => job.run(),
        Job::Compare(job) => job.run(),
        Job::Dist(job) => job.run(),
        Job::Lint(job) => job.run().map(|()| ExitCode::SUCCESS),
        Job::Oracle(job) => job.run(),
        Job::Soak(job) => job.run().map(|()| ExitCode::SUCCESS),
    }
}
