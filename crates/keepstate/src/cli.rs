//! The command line, as data: parser, help and completion come from here.
use crate::replay::Replay;
use crate::watch::Watch;
use clap::{Parser, Subcommand};

/// Connection tracking done right: what Linux's conntrack would have made of your traffic, and why.
#[derive(Parser, Debug)]
#[command(version, about, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One module a command; each says what it does where its options are.
#[derive(Subcommand, Debug)]
#[allow(missing_docs, reason = "a doc comment here would replace the command's own help")]
#[allow(clippy::large_enum_variant, reason = "there is one of it, made once")]
pub enum Command {
    Replay(Replay),
    Watch(Watch),
}
