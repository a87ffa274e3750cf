//! `keepstate conntrack`, and the program itself if it is called `conntrack`.
use crate::fleet::list;
use keepstate_conntrack::command::{self, GatewaySocket};
use keepstate_gateway::{control_client, control_protocol};
use std::process::ExitCode;

/// The command in `keepstate --help`; its arguments are parsed by [`run`], never by clap.
#[derive(clap::Args, Debug)]
#[command(
    about = "Linux's connection table: list, count, watch, add, change, delete, with conntrack's own command line",
    disable_help_flag = true,
    after_help = "The program is `conntrack` itself if it is called so: ln -s $(command -v keepstate) /usr/local/bin/conntrack"
)]
pub struct Conntrack {
    /// conntrack's options: -L, -D -s 10.0.0.1, -E -p tcp, ...; -h lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    pub args: Vec<String>,
}

/// Executes the command line `args` (without the program's name).
pub fn run(args: &[String]) -> ExitCode {
    if let Some((file, args)) = list::take_fleet(args) {
        return list::run(&file, &args);
    }
    command::run(args, &GatewaySocket::new(control_protocol::DEFAULT_SOCKET.into(), control_client::open_ctnetlink))
}
