//! The program: parses the command line, runs one command, and returns an exit code: 0 done, 1 failed, 2 usage error.
use clap::CommandFactory;
use keepstate::cli::{Cli, Command};
use keepstate::netns_arg::UnknownNetns;
use keepstate::{conntrack, logging};
use keepstate_hugealloc::HugePages;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: HugePages = HugePages;

fn main() -> ExitCode {
    if let Some(args) = conntrack_args(std::env::args_os()) {
        return conntrack::run(&args);
    }
    let cli = Cli::parse_and_check();
    // A gateway must not wait for whoever reads its log.
    let log = match &cli.command {
        Command::Gateway(gateway) => logging::init_queued(gateway.verbosity(cli.verbose)),
        _ => {
            logging::init(cli.verbose);
            None
        }
    };
    let done = match cli.command {
        Command::Replay(replay) => replay.run().map(|()| ExitCode::SUCCESS),
        Command::Watch(watch) => watch.run().map(|()| ExitCode::SUCCESS),
        Command::Disable(disable) => disable.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Collect(collect) => collect.run(),
        Command::Conntrack(command) => Ok(conntrack::run(&command.args)),
        Command::Completions(completions) => completions.run(&mut Cli::command()).map(|()| ExitCode::SUCCESS),
        Command::Man(man) => man.run(Cli::command()).map(|()| ExitCode::SUCCESS),
        Command::Size(size) => size.run(),
        Command::Tune(tune) => tune.run(),
        Command::Simulate(simulate) => simulate.run(),
        Command::Top(top) => top.run().map(|()| ExitCode::SUCCESS),
        Command::Serve(serve) => serve.run(),
        Command::Sync(sync) => sync.run(),
        Command::Check(check) => check.run(),
        Command::Gateway(gateway) => gateway.run(),
        Command::Control(control) => control.run(),
        Command::Who(who) => who.run(),
        Command::Lab(lab) => lab.run(),
        Command::Mqtt(mqtt) => mqtt.run(),
    };
    let code = match done {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", message(&error));
            if error.is::<UnknownNetns>() { ExitCode::from(UnknownNetns::EXIT_CODE) } else { ExitCode::FAILURE }
        }
    };
    log.inspect(|log| log.flush_within(LOG_FLUSH_TIMEOUT));
    code
}

/// How long the end of a gateway waits for its last log lines to be read.
const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// An error and its causes, each once: some name their cause themselves.
fn message(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.is_empty() {
        true => cause,
        false if said.ends_with(&cause) => said,
        false => format!("{said}: {cause}"),
    })
}

/// The reader of our output has closed the pipe: that is success.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let broken = |error: &std::io::Error| error.kind() == ErrorKind::BrokenPipe;
    error.chain().filter_map(|cause| cause.downcast_ref()).any(broken)
}

/// conntrack's arguments: those after `keepstate conntrack`, or all of them if the program is called `conntrack`.
fn conntrack_args(words: impl Iterator<Item = OsString>) -> Option<Vec<String>> {
    let mut words = words.map(|word| word.to_string_lossy().into_owned());
    let program = words.next().unwrap_or_default();
    let name = Path::new(&program).file_name().unwrap_or_default();
    if name == "conntrack" {
        return Some(words.collect());
    }
    (words.next()? == "conntrack").then(|| words.collect())
}
