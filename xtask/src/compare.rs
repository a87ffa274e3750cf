//! `cargo xtask compare`: the comparisons with Debian's conntrack, nft and the kernel in their full form. `./test` runs a part of each.
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use std::process::{Command, ExitCode};

/// Runs the comparisons with conntrack, nft and the kernel in full, as root
#[derive(Args)]
pub struct Compare {
    /// Which of them; all if none is named
    #[arg(value_enum)]
    comparisons: Vec<Comparison>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Comparison {
    /// Our conntrack and Debian's by the same command lines, on the kernel's table and on a gateway's (10 minutes)
    Conntrack,
    /// What `keepstate check` and `nft -c` say of the same rulesets (10 minutes)
    Check,
    /// Rulesets made from a grammar of the language: taken or refused, and listed, by us and by nft (5 minutes)
    Grammar,
    /// 70,000 MQTT sessions through the gateway, and on a broker that it protects, beyond what a table of Linux's default size holds (10 minutes)
    Sessions,
}

impl Compare {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let chosen = if self.comparisons.is_empty() { Comparison::value_variants().to_vec() } else { self.comparisons };
        for comparison in chosen {
            let (test, variable, value) = match comparison {
                Comparison::Conntrack => (["keepstate", "conntrack"], "KEEPSTATE_CONNTRACK_SAMPLE", "1"),
                Comparison::Check => (["keepstate-rules", "check_beside_nft"], "KEEPSTATE_CHECK_SAMPLE", "0"),
                Comparison::Grammar => (["keepstate-rules", "grammar_beside_nft"], "KEEPSTATE_GRAMMAR_SAMPLE", "20000"),
                Comparison::Sessions => (["keepstate", "mqtt_sessions"], "KEEPSTATE_SESSIONS", "70000"),
            };
            let status = Command::new("cargo")
                .args(["test", "--locked", "--package", test[0], "--test", test[1]])
                .env(variable, value)
                .status()
                .context("cargo does not run")?;
            if !status.success() {
                return Ok(ExitCode::FAILURE);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
