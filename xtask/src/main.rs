//! The project's own jobs, as `cargo xtask JOB`: one module a job.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

mod oracle;

/// The project's own jobs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    job: Job,
}

#[derive(Subcommand)]
enum Job {
    Oracle(oracle::Oracle),
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().job {
        Job::Oracle(job) => job.run(),
    }
}
