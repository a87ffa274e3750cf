//! One whole visit at the control socket, without a socket's file and without devices: for tests and fuzzing.
use super::control_command;
use super::control_server::{ControlHandle, PendingCommand, serve};
use super::jobs::JobRunner;
use anyhow::{Context, Result};
use keepstate_engine::{Engine, Instant, Secret, Sysctls};
use keepstate_router::{FibTable, Router};
use keepstate_rules::Program;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A gateway without devices.
struct TestGateway {
    router: Router,
    jobs: JobRunner,
    commands: Receiver<PendingCommand>,
    handle: ControlHandle,
}

const NOW: Instant = Instant::from_secs(1_700_000_000);

impl TestGateway {
    fn new() -> TestGateway {
        let engine = Engine::new(Sysctls::default(), Secret([7; 16]), NOW);
        let router = Router::new(engine, Program::default(), FibTable::default(), (1, 2));
        let (jobs, access) = JobRunner::new();
        let (words, commands) = channel();
        TestGateway { router, jobs, commands, handle: ControlHandle { commands: words, jobs: access } }
    }

    /// One turn of the router; gives how many errands it did.
    fn tick(&mut self) -> usize {
        while let Ok(visitor) = self.commands.try_recv() {
            let load = || anyhow::bail!("there is no ruleset");
            let answer = control_command::run_command(&visitor.args, &mut self.router, load, NOW);
            visitor.reply(answer);
        }
        self.jobs.run_jobs(&mut self.router, NOW)
    }

    /// A visitor's thread, and his end of the socket.
    fn connect(&self) -> Result<(UnixStream, JoinHandle<()>)> {
        let (outside, inside) = UnixStream::pair().context("a pair of sockets")?;
        let house = self.handle.clone();
        let attending = thread::spawn(move || {
            // What is wrong with what he says is his to hear.
            let _ = serve(&inside, &house);
            let _ = inside.shutdown(Shutdown::Both);
        });
        Ok((outside, attending))
    }
}

/// Lets somebody say `said` and hang up; gives what he was answered, and the router as he left it.
///
/// # Errors
/// There are no sockets or threads to be had.
pub fn run_control_session(said: &[u8]) -> Result<(Vec<u8>, Router)> {
    let mut rehearsal = TestGateway::new();
    let (mut outside, attending) = rehearsal.connect()?;
    let mut hearing = outside.try_clone()?;
    let hearing = thread::spawn(move || {
        let mut heard = Vec::new();
        let _ = hearing.read_to_end(&mut heard);
        heard
    });
    // He may be hung up on before he has said all.
    let said = outside.write_all(said).and_then(|()| outside.shutdown(Shutdown::Write));
    tracing::trace!("said: {said:?}");
    while !attending.is_finished() {
        rehearsal.tick();
        thread::sleep(Duration::from_micros(20));
    }
    let heard = hearing.join().ok().context("the hearing thread")?;
    Ok((heard, rehearsal.router))
}

#[cfg(test)]
mod tests;
