//! Clients that come and go: so many connections a second, each opened, used once and closed. A process that reports in lines on standard output.
use super::line_input::{print_line, stdin_lines};
use super::run::require_file_limit;
use super::session::{MqttClient, MqttVersion};
use anyhow::Result;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

/// An answer that comes later than this is late: a person has noticed.
const LATE: Duration = Duration::from_secs(1);
/// After so long a client gives up.
pub const GIVE_UP: Duration = Duration::from_secs(20);
/// How long events are waited for.
const TICK: Duration = Duration::from_millis(2);
/// Open files besides those of the connections.
const SPARE_FILES: u64 = 64;

/// The connections that a process makes.
#[derive(Clone, Debug)]
pub struct ChurnLoad {
    /// Where they go.
    pub server: SocketAddr,
    /// Local addresses, in turns; empty: the system chooses.
    pub sources: Vec<IpAddr>,
    /// So many are begun a second.
    pub rate: u32,
}

/// What became of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChurnCounts {
    /// Answered within a second.
    pub prompt: u32,
    /// Answered later.
    pub late: u32,
    /// Reset, or given up.
    pub failed: u32,
}

/// Begins connections until standard input ends. For each line `take` there it prints `prompt=9 late=0 failed=1 pending=2`: what was decided since the last one, and how many wait for
/// an answer; a line `rate 50` sets the rate and is repeated as `rate=50`. True if no connection failed.
///
/// # Errors
/// An address cannot be used, or the limit of open files is too low.
pub fn churn(load: &ChurnLoad) -> Result<bool> {
    // While nobody answers, each waits as long as a client does.
    require_file_limit(u64::from(load.rate) * GIVE_UP.as_secs() + SPARE_FILES, "a lower --rate")?;
    let lines = stdin_lines();
    let mut clients = ChurnClients::new(load)?;
    let mut failed = 0_u64;
    loop {
        match lines.try_recv() {
            Ok(line) => match line.split_once(' ') {
                None if line == "take" => {
                    let counts = std::mem::take(&mut clients.counts);
                    failed += u64::from(counts.failed);
                    let ChurnCounts { prompt, late, failed } = counts;
                    let pending = clients.attempts.len();
                    print_line(&format!("prompt={prompt} late={late} failed={failed} pending={pending}"))?;
                }
                Some(("rate", rate)) => {
                    clients.rate = rate.parse()?;
                    print_line(&format!("rate={}", clients.rate))?;
                }
                _ => (),
            },
            Err(TryRecvError::Empty) => (),
            Err(TryRecvError::Disconnected) => return Ok(failed + u64::from(clients.counts.failed) == 0),
        }
        clients.turn()?;
    }
}

struct Attempt {
    stream: TcpStream,
    client: MqttClient,
    since: Instant,
    is_asked: bool,
}

struct ChurnClients {
    poll: Poll,
    events: Events,
    attempts: HashMap<usize, Attempt>,
    server: SocketAddr,
    sources: Vec<IpAddr>,
    rate: u32,
    next: usize,
    /// Connections that are due, and when that was last counted.
    owed: f64,
    counted: Instant,
    counts: ChurnCounts,
}

impl ChurnClients {
    fn new(load: &ChurnLoad) -> io::Result<ChurnClients> {
        Ok(ChurnClients {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            attempts: HashMap::new(),
            server: load.server,
            sources: load.sources.clone(),
            rate: load.rate,
            next: 0,
            owed: 0.0,
            counted: Instant::now(),
            counts: ChurnCounts::default(),
        })
    }

    /// Begins what is due, and handles what has happened. An error has nothing to do with the network.
    fn turn(&mut self) -> io::Result<()> {
        self.owed += f64::from(self.rate) * self.counted.elapsed().as_secs_f64();
        self.counted = Instant::now();
        while self.owed >= 1.0 {
            self.owed -= 1.0;
            self.begin_one()?;
        }
        match self.poll.poll(&mut self.events, Some(TICK)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &self.events {
            let Token(number) = event.token();
            let Some(attempt) = self.attempts.get_mut(&number) else { continue };
            if let Some(is_answered) = attempt.handle_ready() {
                self.counts.note(is_answered, attempt.since);
                self.attempts.remove(&number);
            }
        }
        let counts = &mut self.counts;
        self.attempts.retain(|_, attempt| {
            let is_over = attempt.since.elapsed() > GIVE_UP;
            if is_over {
                counts.note(false, attempt.since);
            }
            !is_over
        });
        Ok(())
    }

    fn begin_one(&mut self) -> io::Result<()> {
        let source = if self.sources.is_empty() { None } else { self.sources.get(self.next % self.sources.len()) };
        match begin(source.copied(), self.server) {
            Ok(mut stream) => {
                let token = Token(self.next);
                self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                let client = MqttClient::new(MqttVersion::V4);
                self.attempts.insert(self.next, Attempt { stream, client, since: Instant::now(), is_asked: false });
            }
            Err(error) if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => return Err(error),
            Err(_) => self.counts.failed += 1,
        }
        self.next = self.next.wrapping_add(1);
        Ok(())
    }
}

impl ChurnCounts {
    fn note(&mut self, is_answered: bool, since: Instant) {
        match (is_answered, since.elapsed() > LATE) {
            (true, false) => self.prompt += 1,
            (true, true) => self.late += 1,
            (false, _) => self.failed += 1,
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
