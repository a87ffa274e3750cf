//! The project's own jobs, as `cargo xtask JOB`: one module a job.

use clap::{Parser, Subcommand};

mod lint;

/// The project's own jobs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    job: Job,
}

#[derive(Subcommand)]
enum Job {
    Lint(lint::Lint),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().job {
        Job::Lint(job) => job.run(),
    }
}
