//! `keepstate conntrack`, and the program itself where it is called `conntrack`: Linux's connection table at work, with the command
//! line, the output and the exit codes of conntrack 1.4.7.
//!
//! A command line is read into a `Request`, checked whole, and carried out once. Nothing is changed before all of it is understood.
//! The table is the kernel's, or a gateway's (`place`). What differs from conntrack, and why, is in docs/differences.md.
mod batch;
mod change;
mod ear;
mod expect;
mod fault;
mod gateway_socket;
mod grammar;
mod help;
mod list;
mod listen;
mod parse;
mod pick;
mod place;
mod request;
mod told;
mod totals;
mod value;
mod words;

use crate::format::{Output, Writer};
use fault::{Fault, say};
pub use gateway_socket::GatewaySocket;
use grammar::{Command, Table as Of};
pub use help::TEXT as HELP;
use place::Place;
use request::Request;
use std::fs::File;
use std::os::fd::AsFd;
use std::process::ExitCode;

/// Carries out the command line `words` (without the program's name).
///
/// Exit codes are conntrack's: 0 done, 1 failed (or nothing to delete or update), 2 wrongly asked.
pub fn run(words: &[String], gateway: &GatewaySocket) -> ExitCode {
    let done = Place::take(words, Place::variable(), gateway).and_then(|(place, words)| match words.split_first() {
        Some((first, rest)) if first == "-R" || first.starts_with("--load") => batch::run(&place, first, rest),
        _ => carry_out(&Request { place, ..parse::parse(&words)? }),
    });
    done.unwrap_or_else(|fault| fault.report())
}

/// Carries out one command.
fn carry_out(request: &Request) -> Result<ExitCode, Fault> {
    match (request.command, request.table) {
        (Command::Help, _) => help::print(request.protocol)?,
        (Command::Version, _) => println(fault::NAME)?,
        (Command::List, Of::Expectations) => expect::list(request)?,
        (Command::List, _) => list::run(request)?,
        (Command::Get, Of::Expectations) => expect::find(request)?,
        (Command::Get, _) => return noted(change::find(request)?, "shown"),
        (Command::Create, Of::Expectations) => expect::create(request)?,
        (Command::Create, _) => change::created(change::create(&mut request.place.table()?, request)?),
        (Command::Add, _) => change::added(change::add(&mut request.place.table()?, request)?),
        (Command::Delete, Of::Expectations) => expect::delete(request)?,
        (Command::Delete, _) => return noted(change::delete(request)?, "deleted"),
        (Command::Update, _) => return noted(change::update(request)?, "updated"),
        (Command::Flush, Of::Expectations) => expect::flush(request)?,
        (Command::Flush, _) => change::flush(request)?,
        (Command::Event, Of::Expectations) => expect::listen(request)?,
        (Command::Event, _) => listen::run(request)?,
        (Command::Count, _) => totals::count(request)?,
        (Command::Statistics, _) => totals::statistics(request)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// How many entries something was done to; none is a failure.
fn noted(count: usize, done: &str) -> Result<ExitCode, Fault> {
    say(format!("{count} flow entries have been {done}."));
    Ok(if count == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Standard output without a buffer of its own: what is written in pieces is written once.
fn output() -> Result<File, Fault> {
    Ok(File::from(std::io::stdout().as_fd().try_clone_to_owned()?))
}

/// A writer of connections to standard output.
fn writer(request: &Request) -> Result<Writer<File>, Fault> {
    Ok(Writer::new(output()?, request.output).with_labels(request.labels.clone()))
}

fn println(text: &str) -> Result<(), Fault> {
    use std::io::Write;
    Ok(writeln!(output()?, "{text}")?)
}

/// Is this output a document, which begins and ends?
fn is_document(output: Output) -> bool {
    matches!(output.kind, crate::format::Kind::Xml | crate::format::Kind::Json)
}
