//! Thousands of clients in one thread: they connect, hold their sessions, and ping on request.
use super::session::{MqttClient, MqttVersion};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Size of the read buffer.
const READ_SIZE: usize = 4096;
/// Most sessions that are being opened at the same time.
const MAX_CONNECTING: usize = 512;
/// Between two checks for timeouts.
const TIMEOUT_CHECK_INTERVAL: Duration = Duration::from_millis(100);
const EVENTS: usize = 4096;
/// Keep-alive in seconds: long, because pings are sent on request only.
const KEEP_ALIVE: u16 = 3600;

/// Counts of sessions by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionTotals {
    /// Sessions open.
    pub open: usize,
    /// Sessions that were refused or timed out.
    pub refused: usize,
    /// Sessions that were open and have ended.
    pub lost: usize,
}

enum SessionState {
    /// TCP is connecting.
    Connecting(Instant),
    /// CONNECT was sent.
    ConnectSent(Instant),
    Open,
    Closed,
}

struct PooledSession {
    stream: TcpStream,
    client: MqttClient,
    state: SessionState,
    /// When the ping was sent that has no answer yet.
    pinged: Option<Instant>,
    /// The longest wait for an answer since the last [`ClientPool::take_silences`].
    silence: Duration,
}

/// Thousands of clients in one thread.
pub struct ClientPool {
    poll: Poll,
    sessions: Vec<PooledSession>,
    totals: SessionTotals,
    /// Of [`ClientPool::ping_steadily`]: whose turn it is, and how many are due.
    next_ping: usize,
    pings_due: f64,
}

impl ClientPool {
    /// An empty pool, in the network namespace of this thread.
    ///
    /// # Errors
    /// epoll_create(2) fails.
    pub fn new() -> io::Result<ClientPool> {
        let (poll, totals) = (Poll::new()?, SessionTotals::default());
        Ok(ClientPool { poll, sessions: Vec::new(), totals, next_ping: 0, pings_due: 0.0 })
    }

    /// The counts so far.
    pub fn totals(&self) -> SessionTotals {
        self.totals
    }

    /// Opens `wanted` more sessions, from the addresses `from` in turns to the servers `to` in turns, every second one with MQTT 5. Returns when each
    /// is open, refused or timed out; or as soon as `max_failed` of them have failed.
    ///
    /// # Errors
    /// A system call fails: no more file descriptors, no such address.
    pub fn open_sessions(
        &mut self,
        wanted: usize,
        from: &[IpAddr],
        to: &[SocketAddr],
        timeout: Duration,
        max_failed: usize,
    ) -> io::Result<SessionTotals> {
        let (before, first) = (self.totals, self.sessions.len());
        let (mut started, mut checked) = (0, Instant::now());
        loop {
            let settled = (self.totals.open + self.totals.refused + self.totals.lost)
                .saturating_sub(before.open + before.refused + before.lost);
            if settled >= wanted || self.totals.refused - before.refused >= max_failed {
                return Ok(self.totals);
            }
            while started < wanted && started - settled < MAX_CONNECTING {
                self.connect_one(started, from, to)?;
                started += 1;
                if started % 64 == 0 {
                    break;
                }
            }
            self.poll_events(Duration::from_millis(if started < wanted { 0 } else { 20 }))?;
            if checked.elapsed() > TIMEOUT_CHECK_INTERVAL {
                checked = Instant::now();
                self.expire_pending(first, timeout);
            }
        }
    }

    fn connect_one(&mut self, number: usize, from: &[IpAddr], to: &[SocketAddr]) -> io::Result<()> {
        let of = |length: usize| if length == 0 { None } else { Some(number % length) };
        let missing = || io::Error::new(ErrorKind::InvalidInput, "no server address");
        let target = *of(to.len()).and_then(|at| to.get(at)).ok_or_else(missing)?;
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = of(from.len()).and_then(|at| from.get(at)) {
            socket.bind(&SocketAddr::new(*source, 0).into())?;
        }
        match socket.connect(&target.into()) {
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
                    || error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                self.totals.refused += 1;
                return Ok(());
            }
            other => other?,
        }
        let mut stream = TcpStream::from_std(socket.into());
        let token = Token(self.sessions.len());
        self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let version = if number.is_multiple_of(2) { MqttVersion::V4 } else { MqttVersion::V5 };
        let state = SessionState::Connecting(Instant::now());
        let client = MqttClient::new(version);
        self.sessions.push(PooledSession { stream, client, state, pinged: None, silence: Duration::ZERO });
        Ok(())
    }

    /// Handles the events of at most `timeout`.
    fn poll_events(&mut self, timeout: Duration) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &events {
            let Token(number) = event.token();
            let Some(session) = self.sessions.get_mut(number) else { continue };
            let was = matches!(session.state, SessionState::Open);
            let good = session.handle_ready(number);
            let is = matches!(session.state, SessionState::Open);
            if !good && !matches!(session.state, SessionState::Closed) {
                session.state = SessionState::Closed;
                if was {
                    self.totals.open -= 1;
                    self.totals.lost += 1;
                } else {
                    self.totals.refused += 1;
                }
            } else if good && is && !was {
                self.totals.open += 1;
            }
        }
        Ok(())
    }

    /// Closes sessions that have not opened within `timeout`.
    fn expire_pending(&mut self, first: usize, timeout: Duration) {
        for session in self.sessions.iter_mut().skip(first) {
            let (SessionState::Connecting(since) | SessionState::ConnectSent(since)) = session.state else { continue };
            if since.elapsed() > timeout {
                session.state = SessionState::Closed;
                self.totals.refused += 1;
                // Else it would go on connecting, and open after it was counted as failed.
                let _ = session.stream.shutdown(std::net::Shutdown::Both);
                // Its events no longer matter.
                let _ = self.poll.registry().deregister(&mut session.stream);
            }
        }
    }

    /// Pings every open session. Returns how many answer within `timeout`.
    ///
    /// # Errors
    /// A system call fails.
    pub fn ping_all(&mut self, timeout: Duration) -> io::Result<usize> {
        let until = Instant::now() + timeout;
        let mut waiting = 0;
        for at in 0..self.sessions.len() {
            let Some(session) = self.sessions.get_mut(at) else { break };
            if matches!(session.state, SessionState::Open) {
                let ping = session.client.ping();
                session.pinged = session.stream.write_all(&ping).is_ok().then(Instant::now);
                waiting += usize::from(session.pinged.is_some());
            }
            if at % 1024 == 0 {
                self.poll_events(Duration::ZERO)?;
            }
        }
        let unanswered = |pool: &ClientPool| {
            let waits =
                |session: &&PooledSession| session.pinged.is_some() && matches!(session.state, SessionState::Open);
            pool.sessions.iter().filter(waits).count()
        };
        while Instant::now() < until && unanswered(self) > 0 {
            self.poll_events(Duration::from_millis(20))?;
        }
        let left = self.sessions.iter().filter(|session| session.pinged.is_some()).count();
        Ok(waiting.saturating_sub(left))
    }

    /// Handles events until `until`, and meanwhile pings every open session once each `interval`; one that still waits for its answer is left to wait.
    ///
    /// # Errors
    /// A system call fails.
    pub fn ping_steadily(&mut self, interval: Duration, until: Instant) -> io::Result<()> {
        let mut last = Instant::now();
        while Instant::now() < until {
            // One after the other, all of them in an interval: as a crowd of its own accord would be.
            self.pings_due += self.sessions.len() as f64 * last.elapsed().as_secs_f64() / interval.as_secs_f64();
            last = Instant::now();
            let due = (self.pings_due as usize).min(self.sessions.len());
            self.pings_due = if due < self.sessions.len() { self.pings_due - due as f64 } else { 0.0 };
            for _ in 0..due {
                self.next_ping = if self.next_ping < self.sessions.len() { self.next_ping } else { 0 };
                self.sessions.get_mut(self.next_ping).into_iter().for_each(PooledSession::ping_if_idle);
                self.next_ping += 1;
            }
            self.poll_events(Duration::from_millis(2))?;
        }
        Ok(())
    }

    /// Sessions that wait for the answer to a ping sent before `when`.
    pub fn waiting_since(&self, when: Instant) -> usize {
        let waits = |session: &&PooledSession| {
            matches!(session.state, SessionState::Open) && session.pinged.is_some_and(|since| since < when)
        };
        self.sessions.iter().filter(waits).count()
    }

    /// The longest wait of each open session for an answer, since this was last called; a wait that goes on counts as far as it has come.
    pub fn take_silences(&mut self) -> Vec<Duration> {
        let open = self.sessions.iter_mut().filter(|session| matches!(session.state, SessionState::Open));
        open.map(|session| {
            let waiting = session.pinged.map_or(Duration::ZERO, |since| since.elapsed());
            std::mem::take(&mut session.silence).max(waiting)
        })
        .collect()
    }
}

impl PooledSession {
    fn ping_if_idle(&mut self) {
        if matches!(self.state, SessionState::Open) && self.pinged.is_none() {
            let ping = self.client.ping();
            // A session that has ended is found by its event.
            self.pinged = self.stream.write_all(&ping).is_ok().then(Instant::now);
        }
    }

    /// Handles readiness of its socket. False if the session has ended.
    fn handle_ready(&mut self, number: usize) -> bool {
        if let SessionState::Connecting(since) = self.state {
            if self.stream.take_error().is_ok_and(|error| error.is_some()) {
                return false;
            }
            if self.stream.peer_addr().is_err() {
                return true;
            }
            let packet = self.client.connect(&format!("keepstate-{number}"), KEEP_ALIVE).unwrap_or_default();
            if self.stream.write_all(&packet).is_err() {
                return false;
            }
            self.state = SessionState::ConnectSent(since);
        }
        let mut buffer = [0; READ_SIZE];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => match self.client.receive(buffer.get(..length).unwrap_or_default()) {
                    Ok(received) => {
                        if received.accepted {
                            self.state = SessionState::Open;
                        }
                        if received.pongs > 0
                            && let Some(since) = self.pinged.take()
                        {
                            self.silence = self.silence.max(since.elapsed());
                        }
                    }
                    Err(_) => return false,
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(_) => return false,
            }
        }
    }
}
