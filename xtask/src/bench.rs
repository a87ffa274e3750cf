//! `cargo xtask bench`: builds the benches with optimisation and runs them.
use clap::Args;
use std::process::{Command, ExitCode};

/// Measure the engine beside Linux's own table, in the same run.
#[derive(Args)]
pub struct Bench {
    /// What the bench takes: `table`, `replay`, `keep`, and their options (`table --help`).
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
