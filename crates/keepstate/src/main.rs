//! The program: reads the command line, runs one command, and turns its end into an exit code: 0 done, 1 failed, 2 wrongly asked.
use keepstate::cli::{Cli, Command};
use keepstate::{notes, verbosity};
use keepstate_hugealloc::HugePages;
use std::io::ErrorKind;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: HugePages = HugePages;

fn main() -> ExitCode {
    let cli = Cli::read();
    verbosity::listen(cli.verbose);
    let done = match cli.command {
        Command::Replay(replay) => replay.run().map(|()| ExitCode::SUCCESS),
        Command::Watch(watch) => watch.run().map(|()| ExitCode::SUCCESS),
        Command::Size(size) => size.run(),
        Command::Simulate(simulate) => simulate.run(),
    };
    match done {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            notes::note(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Whoever reads our output had enough: that is success.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let broken = |error: &std::io::Error| error.kind() == ErrorKind::BrokenPipe;
    error.chain().filter_map(|cause| cause.downcast_ref()).any(broken)
}
