//! `keepstate conntrack`, and the program itself where it is called `conntrack`.
use keepstate_conntrack::command::{self, GatewaySocket};
use keepstate_gateway::{control_client, control_server};
use std::process::ExitCode;

/// The command as `keepstate --help` knows it; its own words are read by [`run`], never by clap.
#[derive(clap::Args, Debug)]
#[command(
    about = "Linux's connection table: list, count, watch, add, change, delete, with conntrack's own command line",
    disable_help_flag = true,
    after_help = "It also is `conntrack` where the program is called so: ln -s $(command -v keepstate) /usr/local/bin/conntrack"
)]
pub struct Conntrack {
    /// As to conntrack: -L, -D -s 10.0.0.1, -E -p tcp, ...; -h tells all of them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    pub args: Vec<String>,
}

/// Carries out the command line `words` (without the program's name).
pub fn run(words: &[String]) -> ExitCode {
    command::run(words, &GatewaySocket::new(control_server::DEFAULT_SOCKET.into(), control_client::open_ctnetlink))
}
