//! `keepstate control nft`: nft's command line for the ruleset of a running gateway.
use anyhow::{Context, Result};
use clap::Args;
use keepstate_gateway::control_client;
use keepstate_gateway::control_protocol::{ControlRequest, NftRequest, NftScript};
use keepstate_gateway::ruleset::RulesetOptions;
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// A script of this many bytes is sent within the request's line.
const MAX_INLINE_SCRIPT: usize = 32 * 1024;

/// nft's options.
#[derive(Args, Clone, Debug)]
pub struct NftArgs {
    /// Read commands from a file; - is standard input. Files that it includes are read here, with your rights
    #[arg(short, long, value_name = "FILE", conflicts_with = "commands")]
    file: Option<PathBuf>,
    /// Show handles: the numbers by which rules are deleted
    #[arg(short = 'a', long)]
    handle: bool,
    /// Print what was added
    #[arg(short, long)]
    echo: bool,
    /// Check the commands; change nothing
    #[arg(short, long)]
    check: bool,
    /// List sets without their elements
    #[arg(short, long)]
    terse: bool,
    /// List rules without counters
    #[arg(short, long)]
    stateless: bool,
    /// JSON, as of nft: listings, and a script that begins with a brace
    #[arg(short, long)]
    json: bool,
    /// Search included files here too
    #[arg(short = 'I', long = "includepath", value_name = "DIRECTORY")]
    include_dirs: Vec<PathBuf>,
    /// Commands, as for nft: list ruleset
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required_unless_present = "file"
    )]
    commands: Vec<String>,
}

impl NftArgs {
    /// The request without its script.
    pub fn options(&self) -> NftRequest {
        let NftArgs { handle, echo, check, terse, stateless, json, .. } = *self;
        NftRequest { handles: handle, echo, check, terse, stateless, json, ..NftRequest::default() }
    }

    /// Sends the commands.
    ///
    /// # Errors
    /// A file cannot be read, no gateway listens, or the commands are refused.
    pub fn send(&self, socket: &Path) -> Result<UnixStream> {
        let (name, text) = match &self.file {
            None => ("command".to_owned(), self.commands.join(" ")),
            Some(path) if path == Path::new("-") => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("standard input is not UTF-8 text")?;
                ("-".to_owned(), text)
            }
            Some(path) => {
                let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
                (path.to_string_lossy().into_owned(), text)
            }
        };
        let options = RulesetOptions { include_dirs: self.include_dirs.clone(), ..RulesetOptions::default() };
        let includes = options.read_includes(&name, &text)?;
        let script = NftScript { name, text, includes };
        let bytes = serde_json::to_vec(&script)?;
        let request = self.options();
        if bytes.len() <= MAX_INLINE_SCRIPT {
            return control_client::send_request(
                socket,
                ControlRequest::Nft(NftRequest { script: Some(script), ..request }),
            );
        }
        let request = ControlRequest::Nft(NftRequest { length: Some(bytes.len()), ..request });
        control_client::send_request_with(socket, request, &bytes)
    }
}
