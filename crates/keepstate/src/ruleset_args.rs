//! The options by which a ruleset is read, of `gateway` and `check`.
use clap::Args;
use keepstate_gateway::gateway_file::{GatewaySettings, Given};
use keepstate_gateway::ruleset::RulesetOptions;
use std::path::PathBuf;

/// How a ruleset is read.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Ruleset")]
pub struct RulesetArgs {
    /// Define a variable before the first line, as `define NAME = VALUE` does
    #[arg(short = 'D', long = "define", value_name = "NAME=VALUE", value_parser = parse_definition)]
    definitions: Vec<(String, String)>,
    /// Also search this directory for included files
    #[arg(short = 'I', long = "includepath", value_name = "DIR")]
    include_dirs: Vec<PathBuf>,
    /// Leave out rules, sets, chains and tables that are not supported, and name each one. What they drop is not dropped
    #[arg(long)]
    skip_unsupported: bool,
}

impl RulesetArgs {
    /// As the gateway takes them.
    pub fn options(&self) -> RulesetOptions {
        RulesetOptions {
            definitions: self.definitions.clone(),
            include_dirs: self.include_dirs.clone(),
            skip_unsupported: self.skip_unsupported,
            is_clustered: false,
            shard_addresses: None,
        }
    }

    /// Those of a gateway's settings that stand here.
    pub fn gateway_settings(&self) -> GatewaySettings {
        let mut settings = GatewaySettings {
            includepath: (!self.include_dirs.is_empty())
                .then(|| Given::flag(self.include_dirs.clone(), "--includepath")),
            skip_unsupported: self.skip_unsupported.then(|| Given::flag(true, "--skip-unsupported")),
            ..GatewaySettings::default()
        };
        for (name, value) in &self.definitions {
            settings.define.set_by_flag(name.clone(), value.clone(), "--define");
        }
        settings
    }
}

fn parse_definition(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".into()),
    }
}
