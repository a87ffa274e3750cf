//! `keepstate conntrack`, and the program itself where it is called `conntrack`: Linux's connection table at work, with the command
//! line, the output and the exit codes of conntrack 1.4.7.
//!
//! A command line is read into a `Request`, checked whole, and carried out once. Nothing is changed before all of it is understood.
//! The table is the kernel's, or a gateway's (`place`). What differs from conntrack, and why, is in docs/differences.md.
mod error;
mod event_reader;
mod expect;
mod flow_filter;
mod gateway_socket;
mod getopt;
mod grammar;
mod help;
mod list;
mod load_file;
mod modify;
mod monitor;
mod parse;
mod parsed_opts;
mod request;
mod stats;
mod target;
mod value;

use crate::format::{FlowWriter, OutputOptions};
use error::{ConntrackError, print_message};
pub use gateway_socket::GatewaySocket;
use grammar::{Command, Table as Of};
pub use help::HELP_TEXT as HELP;
use request::ConntrackRequest;
use std::fs::File;
use std::os::fd::AsFd;
use std::process::ExitCode;
use target::Target;

/// Carries out the command line `words` (without the program's name).
///
/// Exit codes are conntrack's: 0 done, 1 failed (or nothing to delete or update), 2 wrongly asked.
pub fn run(words: &[String], gateway: &GatewaySocket) -> ExitCode {
    let done = Target::take(words, Target::from_env(), gateway).and_then(|(place, words)| match words.split_first() {
        Some((first, rest)) if first == "-R" || first.starts_with("--load") => load_file::run(&place, first, rest),
        _ => execute(&ConntrackRequest { target: place, ..parse::parse(&words)? }),
    });
    done.unwrap_or_else(|fault| fault.report())
}

/// Carries out one command.
fn execute(request: &ConntrackRequest) -> Result<ExitCode, ConntrackError> {
    match (request.command, request.table) {
        (Command::Help, _) => help::print_help(request.protocol)?,
        (Command::Version, _) => println(error::VERSION_TEXT)?,
        (Command::List, Of::Expectations) => expect::list(request)?,
        (Command::List, _) => list::run(request)?,
        (Command::Get, Of::Expectations) => expect::get(request)?,
        (Command::Get, _) => return report_count(modify::get(request)?, "shown"),
        (Command::Create, Of::Expectations) => expect::create(request)?,
        (Command::Create, _) => modify::report_created(modify::create(&mut request.target.open_table()?, request)?),
        (Command::Add, _) => modify::report_added(modify::add(&mut request.target.open_table()?, request)?),
        (Command::Delete, Of::Expectations) => expect::delete(request)?,
        (Command::Delete, _) => return report_count(modify::delete(request)?, "deleted"),
        (Command::Update, _) => return report_count(modify::update(request)?, "updated"),
        (Command::Flush, Of::Expectations) => expect::flush(request)?,
        (Command::Flush, _) => modify::flush(request)?,
        (Command::Event, Of::Expectations) => expect::monitor(request)?,
        (Command::Event, _) => monitor::run(request)?,
        (Command::Count, _) => stats::print_count(request)?,
        (Command::Statistics, _) => stats::print_stats(request)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// How many entries something was done to; none is a failure.
fn report_count(count: usize, done: &str) -> Result<ExitCode, ConntrackError> {
    print_message(format!("{count} flow entries have been {done}."));
    Ok(if count == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Standard output without a buffer of its own: what is written in pieces is written once.
fn stdout_file() -> Result<File, ConntrackError> {
    Ok(File::from(std::io::stdout().as_fd().try_clone_to_owned()?))
}

/// A writer of connections to standard output.
fn flow_writer(request: &ConntrackRequest) -> Result<FlowWriter<File>, ConntrackError> {
    Ok(FlowWriter::new(stdout_file()?, request.output).with_labels(request.label_names.clone()))
}

fn println(text: &str) -> Result<(), ConntrackError> {
    use std::io::Write;
    Ok(writeln!(stdout_file()?, "{text}")?)
}

/// Is this output a document, which begins and ends?
fn is_document(output: OutputOptions) -> bool {
    matches!(output.format, crate::format::OutputFormat::Xml | crate::format::OutputFormat::Json)
}
