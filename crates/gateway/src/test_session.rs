//! One whole control connection without a socket file and without interfaces: for tests and fuzzing.
use super::control_handler;
use super::control_server::{ControlHandle, PendingRequest, serve};
use super::jobs::JobRunner;
use super::turns::TurnTimes;
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

/// A gateway without interfaces.
struct TestGateway {
    router: Router,
    turns: TurnTimes,
    jobs: JobRunner,
    requests: Receiver<PendingRequest>,
    handle: ControlHandle,
}

const NOW: Instant = Instant::from_secs(1_700_000_000);

impl TestGateway {
    fn new() -> TestGateway {
        let engine = Engine::new(Sysctls::default(), Secret([7; 16]));
        let router = Router::new(engine, Program::default(), FibTable::default(), (1, 2));
        let (runner, jobs) = JobRunner::new();
        let (sender, requests) = channel();
        TestGateway {
            router,
            turns: TurnTimes::default(),
            jobs: runner,
            requests,
            handle: ControlHandle { requests: sender, jobs, cluster: None },
        }
    }

    /// One turn of the main loop; returns how many jobs it ran.
    fn tick(&mut self) -> usize {
        while let Ok(pending) = self.requests.try_recv() {
            let answer = control_handler::handle_request(&pending.request, &mut self.router);
            pending.reply(answer);
        }
        let finished = self.jobs.run_jobs(&mut self.router, &self.turns, NOW);
        let count = finished.count();
        finished.answer();
        count
    }

    /// A client's end of the socket, and the thread that serves it.
    fn connect(&self) -> Result<(UnixStream, JoinHandle<()>)> {
        let (client, server) = UnixStream::pair().context("creating a socket pair")?;
        let handle = self.handle.clone();
        let serving = thread::spawn(move || {
            // The client gets the errors.
            let _ = serve(&server, &handle);
            let _ = server.shutdown(Shutdown::Both);
        });
        Ok((client, serving))
    }
}

/// Sends `input` as a client and hangs up; returns the answer, and the router after it.
///
/// # Errors
/// A socket or thread cannot be created.
pub fn run_control_session(input: &[u8]) -> Result<(Vec<u8>, Router)> {
    run_session_with(TestGateway::new(), input)
}

fn run_session_with(mut gateway: TestGateway, input: &[u8]) -> Result<(Vec<u8>, Router)> {
    let (mut client, serving) = gateway.connect()?;
    let mut reader = client.try_clone()?;
    let reading = thread::spawn(move || {
        let mut answer = Vec::new();
        let _ = reader.read_to_end(&mut answer);
        answer
    });
    // The server may hang up before all is sent.
    let sent = client.write_all(input).and_then(|()| client.shutdown(Shutdown::Write));
    tracing::trace!("sent: {sent:?}");
    while !serving.is_finished() {
        gateway.tick();
        thread::sleep(Duration::from_micros(20));
    }
    let answer = reading.join().ok().context("the reading thread panicked")?;
    Ok((answer, gateway.router))
}

#[cfg(test)]
mod tests;
