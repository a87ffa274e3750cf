//! Clients that come and go: so many connections a second, each opened, used once and closed.
use crate::mqtt::session::{MqttClient, MqttVersion};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// An answer that comes later than this is late: a person has noticed.
const LATE: Duration = Duration::from_secs(1);
/// After so long a client gives up.
pub(super) const GIVE_UP: Duration = Duration::from_secs(20);
/// How long events are waited for.
const TICK: Duration = Duration::from_millis(2);

/// What became of the connections that were begun in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NewConnectionCounts {
    /// Answered within a second.
    pub(super) prompt: u32,
    /// Answered later.
    pub(super) late: u32,
    /// Reset, or given up.
    pub(super) failed: u32,
}

/// Shared with the thread that makes the connections.
#[derive(Debug, Default)]
pub(super) struct NewConnections {
    /// So many are begun a second.
    pub(super) rate: AtomicU32,
    counts: Mutex<NewConnectionCounts>,
    /// Begun and not decided.
    pending: AtomicU32,
}

struct Attempt {
    stream: TcpStream,
    client: MqttClient,
    since: Instant,
    is_asked: bool,
}

impl NewConnections {
    /// What was decided since this was last called.
    pub(super) fn take(&self) -> NewConnectionCounts {
        self.counts.lock().map(|mut counts| std::mem::take(&mut *counts)).unwrap_or_default()
    }

    /// Connections that still wait for an answer.
    pub(super) fn pending(&self) -> u32 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Makes connections until `stop`. In the clients' network namespace.
    ///
    /// # Errors
    /// A system call fails that has nothing to do with the network.
    pub(super) fn run(&self, from: &[IpAddr], to: SocketAddr, stop: &AtomicBool) -> io::Result<()> {
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(1024);
        let mut attempts: HashMap<usize, Attempt> = HashMap::new();
        let (mut next, mut owed, mut last) = (0_usize, 0.0_f64, Instant::now());
        while !stop.load(Ordering::Relaxed) {
            owed += f64::from(self.rate.load(Ordering::Relaxed)) * last.elapsed().as_secs_f64();
            last = Instant::now();
            while owed >= 1.0 {
                owed -= 1.0;
                let source = if from.is_empty() { None } else { from.get(next % from.len()) };
                match begin(source.copied(), to) {
                    Ok(mut stream) => {
                        poll.registry().register(&mut stream, Token(next), Interest::READABLE | Interest::WRITABLE)?;
                        let client = MqttClient::new(MqttVersion::V4);
                        attempts.insert(next, Attempt { stream, client, since: Instant::now(), is_asked: false });
                    }
                    Err(error) if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => return Err(error),
                    Err(_) => self.count(|counts| counts.failed += 1),
                }
                next = next.wrapping_add(1);
            }
            match poll.poll(&mut events, Some(TICK)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                let Token(number) = event.token();
                let Some(attempt) = attempts.get_mut(&number) else { continue };
                let decided = attempt.handle_ready();
                if let Some(is_answered) = decided {
                    self.decide(is_answered, attempt.since);
                    attempts.remove(&number);
                }
            }
            attempts.retain(|_, attempt| {
                let is_over = attempt.since.elapsed() > GIVE_UP;
                if is_over {
                    self.decide(false, attempt.since);
                }
                !is_over
            });
            self.pending.store(u32::try_from(attempts.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
        Ok(())
    }

    fn decide(&self, is_answered: bool, since: Instant) {
        let is_late = since.elapsed() > LATE;
        self.count(|counts| match (is_answered, is_late) {
            (true, false) => counts.prompt += 1,
            (true, true) => counts.late += 1,
            (false, _) => counts.failed += 1,
        });
    }

    fn count(&self, change: impl FnOnce(&mut NewConnectionCounts)) {
        if let Ok(mut counts) = self.counts.lock() {
            change(&mut counts);
        }
    }
}

fn begin(source: Option<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Thousands come and go: none of them stays behind in TIME_WAIT and holds a port.
    socket.set_linger(Some(Duration::ZERO))?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        other => other?,
    }
    Ok(TcpStream::from_std(socket.into()))
}

impl Attempt {
    /// Whether it was answered, once that is known.
    fn handle_ready(&mut self) -> Option<bool> {
        if self.stream.take_error().is_ok_and(|error| error.is_some()) {
            return Some(false);
        }
        if !self.is_asked {
            if self.stream.peer_addr().is_err() {
                return None;
            }
            let packet = self.client.connect("keepstate-new", 60).unwrap_or_default();
            if self.stream.write_all(&packet).is_err() {
                return Some(false);
            }
            self.is_asked = true;
        }
        let mut buffer = [0; 256];
        match self.stream.read(&mut buffer) {
            Ok(0) => Some(false),
            Ok(length) => match self.client.receive(buffer.get(..length).unwrap_or_default()) {
                Ok(events) => events.accepted.then_some(true),
                Err(_) => Some(false),
            },
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => None,
            Err(_) => Some(false),
        }
    }
}
