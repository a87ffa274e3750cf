//! The program: reads the command line, runs one command, and turns its end into an exit code: 0 done, 1 failed, 2 wrongly asked.
use keepstate::cli::{Cli, Command};
use keepstate::notes;
use keepstate_hugealloc::HugePages;
use std::io::ErrorKind;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: HugePages = HugePages;

fn main() -> ExitCode {
    let done = match Cli::read().command {
        Command::Replay(replay) => replay.run(),
        Command::Watch(watch) => watch.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
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
