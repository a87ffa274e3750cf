//! A server that accepts every session and answers its requests, thousands in one thread.
use super::session::MqttServer;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Size of the read buffer.
const READ_SIZE: usize = 4096;
/// Between two checks whether to stop.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);
/// Client addresses that are kept.
const MAX_CLIENT_ADDRS: usize = 64;
/// Events per poll.
const EVENTS: usize = 4096;

/// Its counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerStats {
    /// Sessions accepted.
    pub accepted: u64,
    /// Most sessions at the same time.
    pub peak: usize,
    /// Messages published.
    pub published: u64,
    /// Sessions that ended with a protocol error or DISCONNECT.
    pub failed: u64,
}

/// A server that accepts every session and delivers no message.
pub struct StubBroker {
    poll: Poll,
    listeners: Vec<TcpListener>,
    sessions: HashMap<usize, (TcpStream, MqttServer)>,
    next: usize,
    stats: BrokerStats,
    /// The first client addresses.
    client_addrs: BTreeSet<IpAddr>,
}

impl StubBroker {
    /// Listens on these addresses, in the network namespace of this thread.
    ///
    /// # Errors
    /// An address is in use, or is not local.
    pub fn listen(addresses: &[SocketAddr]) -> io::Result<StubBroker> {
        let poll = Poll::new()?;
        let mut listeners = Vec::new();
        for (number, address) in addresses.iter().enumerate() {
            let socket = socket2::Socket::new(socket2::Domain::for_address(*address), socket2::Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&(*address).into())?;
            // A long backlog: thousands of clients connect at once.
            socket.listen(4096)?;
            let mut listener = TcpListener::from_std(socket.into());
            poll.registry().register(&mut listener, Token(number), Interest::READABLE)?;
            listeners.push(listener);
        }
        let next = listeners.len();
        Ok(StubBroker {
            poll,
            listeners,
            sessions: HashMap::new(),
            next,
            stats: BrokerStats::default(),
            client_addrs: BTreeSet::new(),
        })
    }

    /// Serves until `interrupted` is set. Calls `on_client` once for each of the first client addresses.
    ///
    /// # Errors
    /// A system call fails; an error in a session ends that session only.
    pub fn serve(mut self, interrupted: &AtomicBool, mut on_client: impl FnMut(IpAddr)) -> io::Result<BrokerStats> {
        let mut events = Events::with_capacity(EVENTS);
        while !interrupted.load(Ordering::Relaxed) {
            match self.poll.poll(&mut events, Some(POLL_TIMEOUT)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                let Token(number) = event.token();
                if number < self.listeners.len() {
                    self.accept_pending(number, &mut on_client)?;
                } else if !self.serve_session(number) {
                    self.sessions.remove(&number);
                }
            }
        }
        Ok(self.stats)
    }

    fn accept_pending(&mut self, number: usize, on_client: &mut impl FnMut(IpAddr)) -> io::Result<()> {
        let Some(listener) = self.listeners.get(number) else { return Ok(()) };
        loop {
            match listener.accept() {
                Ok((mut stream, from)) => {
                    if self.client_addrs.len() < MAX_CLIENT_ADDRS && self.client_addrs.insert(from.ip()) {
                        on_client(from.ip());
                    }
                    self.poll.registry().register(&mut stream, Token(self.next), Interest::READABLE)?;
                    self.sessions.insert(self.next, (stream, MqttServer::default()));
                    self.next += 1;
                    self.stats.accepted += 1;
                    self.stats.peak = self.stats.peak.max(self.sessions.len());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The client has gone already.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => (),
                Err(error) => return Err(error),
            }
        }
    }

    /// False if the session has ended.
    fn serve_session(&mut self, number: usize) -> bool {
        let Some((stream, server)) = self.sessions.get_mut(&number) else { return true };
        let (mut buffer, mut answer) = ([0; READ_SIZE], Vec::new());
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => {
                    let received = server.receive(buffer.get(..length).unwrap_or_default(), &mut answer);
                    self.stats.published += u64::from(*received.as_ref().unwrap_or(&0));
                    self.stats.failed += u64::from(received.is_err());
                    // Replies are a few bytes: if they cannot be written, the client has stopped reading.
                    if !answer.is_empty() && stream.write_all(&answer).is_err() || received.is_err() {
                        return false;
                    }
                    answer.clear();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(_) => return false,
            }
        }
    }
}
