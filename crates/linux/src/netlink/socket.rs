//! The socket to the kernel: to its netfilter, or to its routes.
//!
//! Its life: opened in the network namespace of the thread that opens it, and of that one for ever; requests and dumps one after
//! another; or, once it has joined groups, events until it is dropped. A dump that is left early leaves answers behind, so the socket is then thrown away by its owner.
#![allow(unsafe_code, reason = "setsockopt(SO_RCVBUFFORCE) and poll(2), which netlink-sys does not have")]

use super::message::{Body, Message, Messages, Request, flag};
use super::{Malformed, frame};
use netlink_sys::constants::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket as Raw, SocketAddr};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// What one read takes at most: the kernel packs dumps into pieces of what the reader asks for, up to 32 KiB.
const PIECE: usize = 128 * 1024;

/// Why something asked of the kernel did not come about.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The kernel said no; the number is that of errno(3).
    #[error("the kernel refused: {}", io::Error::from_raw_os_error(*.0))]
    Refused(i32),
    /// The socket failed.
    #[error("the netlink socket failed: {0}")]
    Io(#[from] io::Error),
    /// The kernel said what cannot be understood.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Failure {
    /// The number of errno(3), where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Failure::Refused(number) => Some(*number),
            Failure::Io(error) => error.raw_os_error(),
            Failure::Malformed(_) => None,
        }
    }
}

/// Asks a gateway for the events of a group: no message of the kernel's, where a group is joined by setsockopt(2).
pub const JOIN: u16 = 0xff00;
/// The attribute of [`JOIN`], as often as there are groups: a group's number, in network order.
pub const JOIN_GROUP: u16 = 1;

/// Who is at the other end.
#[derive(Debug)]
enum Peer {
    Kernel(Raw),
    /// One that answers as the kernel does, in pieces of [`frame`].
    Gateway(UnixStream),
}

impl Peer {
    fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        match self {
            Peer::Kernel(raw) => raw.send(octets, 0).map(drop),
            Peer::Gateway(stream) => frame::write(stream, octets),
        }
    }

    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        match self {
            Peer::Kernel(raw) => raw.recv(buffer, 0).map(drop),
            Peer::Gateway(stream) => match frame::read(stream, buffer)? {
                true if lost(buffer) => Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
                true => Ok(()),
                false => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the gateway has ended")),
            },
        }
    }

    fn descriptor(&self) -> RawFd {
        match self {
            Peer::Kernel(raw) => raw.as_raw_fd(),
            Peer::Gateway(stream) => stream.as_raw_fd(),
        }
    }
}

/// Does a gateway say that events were lost? The kernel says it by an error of recv(2).
fn lost(piece: &[u8]) -> bool {
    Messages::new(piece)
        .next()
        .is_some_and(|message| message.is_ok_and(|message| matches!(message.body, Body::Overrun)))
}

/// A netlink socket.
#[derive(Debug)]
pub struct Socket {
    peer: Peer,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens one in the network namespace of this thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn open() -> io::Result<Socket> {
        Socket::speaking(NETLINK_NETFILTER)
    }

    /// Opens one to the kernel's routes in the network namespace of this thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn open_routes() -> io::Result<Socket> {
        Socket::speaking(NETLINK_ROUTE)
    }

    fn speaking(protocol: isize) -> io::Result<Socket> {
        let mut raw = Raw::new(protocol)?;
        raw.bind_auto()?;
        raw.connect(&SocketAddr::new(0, 0))?;
        Ok(Socket { peer: Peer::Kernel(raw), sequence: 0, buffer: Vec::with_capacity(PIECE) })
    }

    /// One whose other end is no kernel, but answers as it does, in pieces of [`frame`].
    pub fn over(stream: UnixStream) -> Socket {
        Socket { peer: Peer::Gateway(stream), sequence: 0, buffer: Vec::with_capacity(PIECE) }
    }

    /// Sends a request and waits until the kernel says that it is done.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn request(&mut self, request: &mut Request) -> Result<(), Failure> {
        self.dump(request, |_| ControlFlow::Continue(()))
    }

    /// Sends a request and hands over every message that answers it, until the kernel says that it is done or the caller that it has enough (after
    /// which this socket is good for nothing else).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn dump(
        &mut self,
        request: &mut Request,
        mut each: impl FnMut(Message<'_>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        self.dump_pieces(request, |piece| {
            for message in Messages::new(piece) {
                if each(message?).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// As [`dump`](Self::dump), but hands over what each read gave, whole: for who reads messages elsewhere.
    ///
    /// # Errors
    /// What the kernel says; what `each` says.
    pub fn dump_pieces(
        &mut self,
        request: &mut Request,
        mut each: impl FnMut(&[u8]) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<(), Failure> {
        let sequence = self.send(request)?;
        loop {
            let end = end_of(self.receive()?, sequence);
            if each(&self.buffer)?.is_break() {
                return Ok(());
            }
            match end? {
                End::Done => return Ok(()),
                End::More => (),
            }
        }
    }

    /// Sends many requests at once, each of which must ask for an answer ([`flag::ACK`]); says of each, in their order, how it went (0, or errno(3)).
    ///
    /// # Errors
    /// If the socket fails.
    pub fn requests(&mut self, requests: &mut [Request], mut each: impl FnMut(usize, i32)) -> Result<(), Failure> {
        if requests.is_empty() {
            return Ok(());
        }
        let mut octets = Vec::new();
        let first = self.sequence.wrapping_add(1);
        for request in requests.iter_mut() {
            self.sequence = self.sequence.wrapping_add(1);
            octets.extend_from_slice(request.octets(self.sequence));
        }
        self.peer.send(&octets)?;
        let mut open = requests.len();
        while open > 0 {
            for message in Messages::new(self.receive()?) {
                let message = message?;
                if let Body::Error(number) = message.body {
                    let at = usize::try_from(message.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                    if at < requests.len() {
                        each(at, number);
                        open -= 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends a request that wants no answer.
    ///
    /// # Errors
    /// What the system says.
    pub fn tell(&mut self, request: &mut Request) -> io::Result<()> {
        self.send(request).map(drop)
    }

    /// Sends one request; gives its number.
    fn send(&mut self, request: &mut Request) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.peer.send(request.octets(self.sequence))?;
        Ok(self.sequence)
    }

    /// Waits for what comes next: one or more messages. An event socket whose buffer ran over says so by `ENOBUFS`.
    ///
    /// # Errors
    /// What the system says.
    pub fn receive(&mut self) -> io::Result<&[u8]> {
        loop {
            match self.peer.receive(&mut self.buffer) {
                Ok(()) => return Ok(&self.buffer),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
    }

    /// Is there something to receive, now or within `patience`? A signal ends the wait as if there were nothing.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait(&self, patience: Duration) -> io::Result<bool> {
        let mut wanted = libc::pollfd { fd: self.peer.descriptor(), events: libc::POLLIN, revents: 0 };
        let milliseconds = libc::c_int::try_from(patience.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: one pollfd, which lives until poll has returned.
        let ready = unsafe { libc::poll(&raw mut wanted, 1, milliseconds) };
        match ready {
            -1 => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
                error => Err(error),
            },
            ready => Ok(ready > 0),
        }
    }

    /// Joins multicast groups, whose events are received from now on.
    ///
    /// # Errors
    /// What the system says: without CAP_NET_ADMIN there are none.
    pub fn join(&mut self, groups: &[u32]) -> io::Result<()> {
        match &mut self.peer {
            Peer::Kernel(raw) => groups.iter().try_for_each(|&group| raw.add_membership(group)),
            Peer::Gateway(_) => {
                let mut request = Request::new(JOIN, flag::ACK, 0);
                for group in groups {
                    request.push(JOIN_GROUP, &group.to_be_bytes());
                }
                self.request(&mut request).map_err(|failure| match failure {
                    Failure::Refused(number) => io::Error::from_raw_os_error(number),
                    Failure::Io(error) => error,
                    Failure::Malformed(error) => io::Error::new(io::ErrorKind::InvalidData, error),
                })
            }
        }
    }

    /// The kernel's buffer for what was not received yet, in octets as it counts them.
    ///
    /// # Errors
    /// What the system says.
    pub fn buffer_size(&self) -> io::Result<usize> {
        let mut size: libc::c_int = 0;
        let mut length = libc::socklen_t::try_from(size_of_val(&size)).unwrap_or(0);
        // SAFETY: the kernel writes at most `length` octets into `size`, and both live through the call.
        let asked = unsafe {
            libc::getsockopt(
                self.peer.descriptor(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUF,
                (&raw mut size).cast(),
                &raw mut length,
            )
        };
        if asked == 0 { Ok(usize::try_from(size).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
    }

    /// Asks for a larger buffer: beyond the system's limit with CAP_NET_ADMIN, up to it without. Gives the size it has then, which is twice
    /// what was asked for, because the kernel counts its own overhead.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_buffer_size(&mut self, octets: usize) -> io::Result<usize> {
        let size = libc::c_int::try_from(octets).unwrap_or(libc::c_int::MAX);
        let length = libc::socklen_t::try_from(size_of_val(&size)).unwrap_or(0);
        let set = |option| {
            // SAFETY: the value is a c_int that lives through the call, and its length is told.
            let done = unsafe {
                libc::setsockopt(self.peer.descriptor(), libc::SOL_SOCKET, option, (&raw const size).cast(), length)
            };
            if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        };
        set(libc::SO_RCVBUFFORCE).or_else(|_| set(libc::SO_RCVBUF))?;
        self.buffer_size()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the socket lives, which the borrow holds.
        unsafe { BorrowedFd::borrow_raw(self.peer.descriptor()) }
    }
}

/// Does an answer end here?
enum End {
    Done,
    More,
}

/// Looks for the end of the answer to request `sequence` in what one read gave.
fn end_of(piece: &[u8], sequence: u32) -> Result<End, Failure> {
    for message in Messages::new(piece) {
        let message = message?;
        if message.sequence != sequence {
            continue;
        }
        match message.body {
            Body::Error(0) | Body::Done(0) => return Ok(End::Done),
            Body::Error(number) | Body::Done(number) => return Err(Failure::Refused(number)),
            // An answer in one part that wants no acknowledgement does not occur: every request of ours is a dump or asks for one.
            Body::Data { .. } | Body::Overrun | Body::Noop => (),
        }
        debug_assert!(message.flags & flag::MULTI == 0 || sequence != 0, "a dump answers a request");
    }
    Ok(End::More)
}
