//! One whole visit at the control socket, without a socket's file and without devices: for tests and fuzzing.
use super::control;
use super::desk::Service;
use super::door::{House, Visitor, attend};
use anyhow::{Context, Result};
use keepstate_engine::{Engine, Instant, Knobs, Secret};
use keepstate_router::{Map, Router};
use keepstate_rules::Program;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A gateway without devices.
struct Rehearsal {
    router: Router,
    service: Service,
    visitors: Receiver<Visitor>,
    house: House,
}

const NOW: Instant = Instant::from_secs(1_700_000_000);

impl Rehearsal {
    fn new() -> Rehearsal {
        let engine = Engine::new(Knobs::default(), Secret([7; 16]), NOW);
        let router = Router::new(engine, Program::default(), Map::default(), (1, 2));
        let (service, access) = Service::new();
        let (words, visitors) = channel();
        Rehearsal { router, service, visitors, house: House { words, access } }
    }

    /// One turn of the router; gives how many errands it did.
    fn turn(&mut self) -> usize {
        while let Ok(visitor) = self.visitors.try_recv() {
            let load = || anyhow::bail!("there is no ruleset");
            let answer = control::answer(&visitor.words, &mut self.router, load, NOW);
            visitor.answer(answer);
        }
        self.service.turn(&mut self.router, NOW)
    }

    /// A visitor's thread, and his end of the socket.
    fn enter(&self) -> Result<(UnixStream, JoinHandle<()>)> {
        let (outside, inside) = UnixStream::pair().context("a pair of sockets")?;
        let house = self.house.clone();
        let attending = thread::spawn(move || {
            // What is wrong with what he says is his to hear.
            let _ = attend(&inside, &house);
            let _ = inside.shutdown(Shutdown::Both);
        });
        Ok((outside, attending))
    }
}

/// Lets somebody say `said` and hang up; gives what he was answered, and the router as he left it.
///
/// # Errors
/// There are no sockets or threads to be had.
pub fn visit(said: &[u8]) -> Result<(Vec<u8>, Router)> {
    let mut rehearsal = Rehearsal::new();
    let (mut outside, attending) = rehearsal.enter()?;
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
        rehearsal.turn();
        thread::sleep(Duration::from_micros(20));
    }
    let heard = hearing.join().ok().context("the hearing thread")?;
    Ok((heard, rehearsal.router))
}

#[cfg(test)]
mod tests;
