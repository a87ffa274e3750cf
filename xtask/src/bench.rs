//! `cargo xtask bench`: builds the benchmarks in release mode and runs one.
use clap::Args;
use std::process::{Command, ExitCode};

/// Run a benchmark: engine, router or gateway, beside Linux in the same run where that is possible
#[derive(Args)]
pub struct Bench {
    /// The benchmark and its options: `help` lists them, `table --help` the options of one
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    arguments: Vec<String>,
}

impl Bench {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let status = Command::new(cargo)
            .args(["run", "--release", "--quiet", "--package", "keepstate-bench", "--"])
            .args(self.arguments)
            .status()?;
        Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
