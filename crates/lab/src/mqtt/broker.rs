//! A server that accepts every session and answers what is asked of it, thousands in one thread.
use super::session::MqttServer;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Bytes read at a time.
const READ_SIZE: usize = 4096;
/// How long it waits before it looks whether it is to end.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);
/// Addresses of clients that are remembered.
const MAX_CLIENT_ADDRS: usize = 64;
/// Events taken at a time.
const EVENTS: usize = 4096;

/// What came to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerStats {
    /// Sessions accepted.
    pub accepted: u64,
    /// The most at a time.
    pub peak: usize,
    /// Messages published.
    pub published: u64,
    /// Sessions that ended by what was said in them.
    pub failed: u64,
}

/// See the module's words.
pub struct StubBroker {
    poll: Poll,
    listeners: Vec<TcpListener>,
    sessions: HashMap<usize, (TcpStream, MqttServer)>,
    next: usize,
    stats: BrokerStats,
    /// The addresses that sessions came from.
    client_addrs: BTreeSet<IpAddr>,
}

impl StubBroker {
    /// Listens at these addresses, in the network namespace of this thread.
    ///
    /// # Errors
    /// One is taken, or not ours.
    pub fn listen(addresses: &[SocketAddr]) -> io::Result<StubBroker> {
        let poll = Poll::new()?;
        let mut listeners = Vec::new();
        for (number, address) in addresses.iter().enumerate() {
            let socket = socket2::Socket::new(socket2::Domain::for_address(*address), socket2::Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&(*address).into())?;
            // As many as the system lets wait: clients come in crowds.
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

    /// Serves until told to end; `meet` is told the first few addresses that sessions come from, each once.
    ///
    /// # Errors
    /// The system fails; a session that fails ends, no more.
    pub fn serve(mut self, ended: &AtomicBool, mut meet: impl FnMut(IpAddr)) -> io::Result<BrokerStats> {
        let mut events = Events::with_capacity(EVENTS);
        while !ended.load(Ordering::Relaxed) {
            match self.poll.poll(&mut events, Some(POLL_TIMEOUT)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                let Token(number) = event.token();
                if number < self.listeners.len() {
                    self.accept_pending(number, &mut meet)?;
                } else if !self.serve_session(number) {
                    self.sessions.remove(&number);
                }
            }
        }
        Ok(self.stats)
    }

    fn accept_pending(&mut self, number: usize, meet: &mut impl FnMut(IpAddr)) -> io::Result<()> {
        let Some(listener) = self.listeners.get(number) else { return Ok(()) };
        loop {
            match listener.accept() {
                Ok((mut stream, from)) => {
                    if self.client_addrs.len() < MAX_CLIENT_ADDRS && self.client_addrs.insert(from.ip()) {
                        meet(from.ip());
                    }
                    self.poll.registry().register(&mut stream, Token(self.next), Interest::READABLE)?;
                    self.sessions.insert(self.next, (stream, MqttServer::default()));
                    self.next += 1;
                    self.stats.accepted += 1;
                    self.stats.peak = self.stats.peak.max(self.sessions.len());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Who came has gone again, or there are no more descriptors: the next may get in.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => (),
                Err(error) => return Err(error),
            }
        }
    }

    /// False if the session has ended.
    fn serve_session(&mut self, number: usize) -> bool {
        let Some((stream, server)) = self.sessions.get_mut(&number) else { return true };
        let (mut piece, mut answer) = ([0; READ_SIZE], Vec::new());
        loop {
            match stream.read(&mut piece) {
                Ok(0) => return false,
                Ok(length) => {
                    let heard = server.receive(piece.get(..length).unwrap_or_default(), &mut answer);
                    self.stats.published += u64::from(*heard.as_ref().unwrap_or(&0));
                    self.stats.failed += u64::from(heard.is_err());
                    // Answers are a few bytes: who does not take them has stopped reading.
                    if !answer.is_empty() && stream.write_all(&answer).is_err() || heard.is_err() {
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
