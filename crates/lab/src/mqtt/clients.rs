//! Clients by the thousands in one thread: they connect, hold their sessions, and ping when they are told to.
use super::session::{MqttClient, MqttVersion};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Bytes read at a time.
const READ_SIZE: usize = 4096;
/// Sessions that are being opened at a time: a crowd, but not all at once.
const MAX_CONNECTING: usize = 512;
/// Patience is looked after this often.
const TIMEOUT_CHECK_INTERVAL: Duration = Duration::from_millis(100);
const EVENTS: usize = 4096;
/// Seconds until a silent session is one no more; pings come by order.
const KEEP_ALIVE: u16 = 3600;

/// How a fleet stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionTotals {
    /// Sessions open.
    pub open: usize,
    /// Sessions that were refused, or never answered.
    pub refused: usize,
    /// Sessions that were open and are no more.
    pub lost: usize,
}

enum SessionState {
    /// The stream comes up.
    Connecting(Instant),
    /// CONNECT was said.
    ConnectSent(Instant),
    Open,
    Closed,
}

struct PooledSession {
    stream: TcpStream,
    client: MqttClient,
    state: SessionState,
    pinged: bool,
}

/// See the module's words.
pub struct ClientPool {
    poll: Poll,
    sessions: Vec<PooledSession>,
    totals: SessionTotals,
}

impl ClientPool {
    /// A fleet of none, in the network namespace of this thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<ClientPool> {
        Ok(ClientPool { poll: Poll::new()?, sessions: Vec::new(), totals: SessionTotals::default() })
    }

    /// How it stands.
    pub fn totals(&self) -> SessionTotals {
        self.totals
    }

    /// Opens `wanted` more sessions, from these addresses in turns to those in turns, every second one of version 5. Returns when each is open, refused or out of patience; or, if `refused` of
    /// them were, at once.
    ///
    /// # Errors
    /// The system fails: no more descriptors, no such address.
    pub fn open_sessions(
        &mut self,
        wanted: usize,
        from: &[IpAddr],
        to: &[SocketAddr],
        patience: Duration,
        refused: usize,
    ) -> io::Result<SessionTotals> {
        let (before, first) = (self.totals, self.sessions.len());
        let (mut begun, mut looked) = (0, Instant::now());
        loop {
            let settled = (self.totals.open + self.totals.refused + self.totals.lost)
                .saturating_sub(before.open + before.refused + before.lost);
            if settled >= wanted || self.totals.refused - before.refused >= refused {
                return Ok(self.totals);
            }
            while begun < wanted && begun - settled < MAX_CONNECTING {
                self.connect_one(begun, from, to)?;
                begun += 1;
                if begun % 64 == 0 {
                    break;
                }
            }
            self.poll_events(Duration::from_millis(if begun < wanted { 0 } else { 20 }))?;
            if looked.elapsed() > TIMEOUT_CHECK_INTERVAL {
                looked = Instant::now();
                self.expire_pending(first, patience);
            }
        }
    }

    fn connect_one(&mut self, number: usize, from: &[IpAddr], to: &[SocketAddr]) -> io::Result<()> {
        let of = |length: usize| if length == 0 { None } else { Some(number % length) };
        let missing = || io::Error::new(ErrorKind::InvalidInput, "no address to call");
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
        self.sessions.push(PooledSession { stream, client: MqttClient::new(version), state, pinged: false });
        Ok(())
    }

    /// What is said to anybody of the fleet within that time.
    fn poll_events(&mut self, patience: Duration) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        match self.poll.poll(&mut events, Some(patience)) {
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

    /// Who has waited too long does not wait any more.
    fn expire_pending(&mut self, first: usize, patience: Duration) {
        for session in self.sessions.iter_mut().skip(first) {
            let (SessionState::Connecting(since) | SessionState::ConnectSent(since)) = session.state else { continue };
            if since.elapsed() > patience {
                session.state = SessionState::Closed;
                self.totals.refused += 1;
                // It would go on calling, and get in when nobody counts it any more.
                let _ = session.stream.shutdown(std::net::Shutdown::Both);
                // What it would still say is of no interest.
                let _ = self.poll.registry().deregister(&mut session.stream);
            }
        }
    }

    /// Pings every open session; gives how many answer within that time.
    ///
    /// # Errors
    /// The system fails.
    pub fn ping_all(&mut self, patience: Duration) -> io::Result<usize> {
        let until = Instant::now() + patience;
        let mut waiting = 0;
        for at in 0..self.sessions.len() {
            let Some(session) = self.sessions.get_mut(at) else { break };
            if matches!(session.state, SessionState::Open) {
                let ping = session.client.ping();
                session.pinged = session.stream.write_all(&ping).is_ok();
                waiting += usize::from(session.pinged);
            }
            if at % 1024 == 0 {
                self.poll_events(Duration::ZERO)?;
            }
        }
        let unanswered = |fleet: &ClientPool| {
            let waits = |session: &&PooledSession| session.pinged && matches!(session.state, SessionState::Open);
            fleet.sessions.iter().filter(waits).count()
        };
        while Instant::now() < until && unanswered(self) > 0 {
            self.poll_events(Duration::from_millis(20))?;
        }
        let left = self.sessions.iter().filter(|session| session.pinged).count();
        Ok(waiting.saturating_sub(left))
    }
}

impl PooledSession {
    /// What has come for it. False if it has ended.
    fn handle_ready(&mut self, number: usize) -> bool {
        if let SessionState::Connecting(since) = self.state {
            if self.stream.take_error().is_ok_and(|error| error.is_some()) {
                return false;
            }
            if self.stream.peer_addr().is_err() {
                return true;
            }
            let greeting = self.client.connect(&format!("keepstate-{number}"), KEEP_ALIVE).unwrap_or_default();
            if self.stream.write_all(&greeting).is_err() {
                return false;
            }
            self.state = SessionState::ConnectSent(since);
        }
        let mut piece = [0; READ_SIZE];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return false,
                Ok(length) => match self.client.receive(piece.get(..length).unwrap_or_default()) {
                    Ok(heard) => {
                        if heard.accepted {
                            self.state = SessionState::Open;
                        }
                        self.pinged &= heard.pongs == 0;
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
