//! `keepstate conntrack`, and the program itself if it is called `conntrack`: the kernel's connection table, with the command line, the
//! output and the exit codes of conntrack 1.4.7.
//!
//! A command line is parsed into a `ConntrackRequest`, checked as a whole, and executed once. Nothing is changed before all of it is
//! valid. The table is the kernel's or a gateway's (`target`). What differs from conntrack, and why, is in docs/differences.md.
mod completion;
mod error;
mod event_reader;
mod expect;
mod gateway_socket;
mod getopt;
mod grammar;
mod help;
mod list;
mod load_file;
mod modify;
mod monitor;
mod output;
mod parse;
mod parsed_opts;
mod request;
mod saved_entries;
mod selection;
mod stats;
mod target;
mod tcp_info;
mod value;

pub use completion::{CompletedOption, completed_options};
use error::{ConntrackError, print_message};
pub use gateway_socket::GatewaySocket;
use grammar::{Command, Table};
pub use help::HELP_TEXT as HELP;
use request::ConntrackRequest;
pub use saved_entries::{parse_saved_line, saved_line};
pub use selection::FlowSelection;
use std::process::ExitCode;
use target::Target;

/// Executes the command line `args` (without the program's name).
///
/// Exit codes are conntrack's: 0 done, 1 failed (or nothing to delete or update), 2 usage error.
pub fn run(args: &[String], gateway: &GatewaySocket) -> ExitCode {
    let done = Target::take(args, Target::from_env(), gateway).and_then(|(target, args)| match args.split_first() {
        Some((first, rest)) if first == "-R" || first.starts_with("--load") => load_file::run(&target, first, rest),
        _ => execute(&ConntrackRequest { target, ..parse::parse(&args)? }),
    });
    done.unwrap_or_else(|error| error.report())
}

/// Executes one command.
fn execute(request: &ConntrackRequest) -> Result<ExitCode, ConntrackError> {
    match (request.command, request.table) {
        (Command::Help, _) => help::print_help(request.protocol)?,
        (Command::Version, _) => output::print_line(error::VERSION_TEXT)?,
        (Command::List, Table::Expectations) => expect::list(request)?,
        (Command::List, _) => list::run(request)?,
        (Command::Get, Table::Expectations) => expect::get(request)?,
        (Command::Get, _) => return report_count(modify::get(request)?, "shown"),
        (Command::Create, Table::Expectations) => expect::create(request)?,
        (Command::Create, _) => modify::report_created(modify::create(&mut request.target.open_table()?, request)?),
        (Command::Add, _) => modify::report_added(modify::add(&mut request.target.open_table()?, request)?),
        (Command::Delete, Table::Expectations) => expect::delete(request)?,
        (Command::Delete, _) => return report_count(modify::delete(request)?, "deleted"),
        (Command::Update, _) => return report_count(modify::update(request)?, "updated"),
        (Command::Flush, Table::Expectations) => expect::flush(request)?,
        (Command::Flush, _) => modify::flush(request)?,
        (Command::Event, Table::Expectations) => expect::monitor(request)?,
        (Command::Event, _) => monitor::run(request)?,
        (Command::Count, _) => stats::print_count(request)?,
        (Command::Statistics, _) => stats::print_stats(request)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints how many entries were affected; none is a failure.
fn report_count(count: usize, done: &str) -> Result<ExitCode, ConntrackError> {
    print_message(format!("{count} flow entries have been {done}."));
    Ok(if count == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
