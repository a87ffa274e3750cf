//! The socket to the kernel: to its netfilter, or to its routes.
//!
//! Its life: opened in the network namespace of the thread that opens it, and of that one for ever; requests and dumps one after
//! another; or, once it has joined groups, events until it is dropped. A dump that is left early leaves answers behind, so the socket is then thrown away by its owner.
#![allow(unsafe_code, reason = "setsockopt(SO_RCVBUFFORCE) and poll(2), which netlink-sys does not have")]

use super::message::{NlBody, NlMessage, NlMessages, NlRequest, flag};
use super::{MalformedNetlink, stream_frame};
use netlink_sys::constants::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket as Raw, SocketAddr};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// What one read takes at most: the kernel packs dumps into pieces of what the reader asks for, up to 32 KiB.
const RECV_BUFFER_LEN: usize = 128 * 1024;

/// Why something asked of the kernel did not come about.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel said no; the number is that of errno(3).
    #[error("the kernel refused: {}", io::Error::from_raw_os_error(*.0))]
    Errno(i32),
    /// The socket failed.
    #[error("the netlink socket failed: {0}")]
    Io(#[from] io::Error),
    /// The kernel said what cannot be understood.
    #[error(transparent)]
    Malformed(#[from] MalformedNetlink),
}

impl NetlinkError {
    /// The number of errno(3), where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Errno(number) => Some(*number),
            NetlinkError::Io(error) => error.raw_os_error(),
            NetlinkError::Malformed(_) => None,
        }
    }
}

/// Asks a gateway for the events of a group: no message of the kernel's, where a group is joined by setsockopt(2).
pub const JOIN_GROUPS: u16 = 0xff00;
/// The attribute of [`JOIN`], as often as there are groups: a group's number, in network order.
pub const JOIN_GROUPS_GROUP: u16 = 1;

/// Who is at the other end.
#[derive(Debug)]
enum Transport {
    Kernel(Raw),
    /// One that answers as the kernel does, in pieces of [`frame`].
    Gateway(UnixStream),
}

impl Transport {
    fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        match self {
            Transport::Kernel(raw) => raw.send(octets, 0).map(drop),
            Transport::Gateway(stream) => stream_frame::write_frame(stream, octets),
        }
    }

    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        match self {
            Transport::Kernel(raw) => raw.recv(buffer, 0).map(drop),
            Transport::Gateway(stream) => match stream_frame::read_frame(stream, buffer)? {
                true if is_overrun(buffer) => Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
                true => Ok(()),
                false => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the gateway has ended")),
            },
        }
    }

    fn raw_fd(&self) -> RawFd {
        match self {
            Transport::Kernel(raw) => raw.as_raw_fd(),
            Transport::Gateway(stream) => stream.as_raw_fd(),
        }
    }
}

/// Does a gateway say that events were lost? The kernel says it by an error of recv(2).
fn is_overrun(piece: &[u8]) -> bool {
    NlMessages::new(piece)
        .next()
        .is_some_and(|message| message.is_ok_and(|message| matches!(message.body, NlBody::Overrun)))
}

/// A netlink socket.
#[derive(Debug)]
pub struct NetlinkSocket {
    transport: Transport,
    sequence: u32,
    buffer: Vec<u8>,
}

impl NetlinkSocket {
    /// Opens one in the network namespace of this thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn open_netfilter() -> io::Result<NetlinkSocket> {
        NetlinkSocket::open_protocol(NETLINK_NETFILTER)
    }

    /// Opens one to the kernel's routes in the network namespace of this thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn open_rtnetlink() -> io::Result<NetlinkSocket> {
        NetlinkSocket::open_protocol(NETLINK_ROUTE)
    }

    fn open_protocol(protocol: isize) -> io::Result<NetlinkSocket> {
        let mut raw = Raw::new(protocol)?;
        raw.bind_auto()?;
        raw.connect(&SocketAddr::new(0, 0))?;
        Ok(NetlinkSocket {
            transport: Transport::Kernel(raw),
            sequence: 0,
            buffer: Vec::with_capacity(RECV_BUFFER_LEN),
        })
    }

    /// One whose other end is no kernel, but answers as it does, in pieces of [`frame`].
    pub fn over_stream(stream: UnixStream) -> NetlinkSocket {
        NetlinkSocket {
            transport: Transport::Gateway(stream),
            sequence: 0,
            buffer: Vec::with_capacity(RECV_BUFFER_LEN),
        }
    }

    /// Sends a request and waits until the kernel says that it is done.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn request(&mut self, request: &mut NlRequest) -> Result<(), NetlinkError> {
        self.dump(request, |_| ControlFlow::Continue(()))
    }

    /// Sends a request and hands over every message that answers it, until the kernel says that it is done or the caller that it has enough (after
    /// which this socket is good for nothing else).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn dump(
        &mut self,
        request: &mut NlRequest,
        mut each: impl FnMut(NlMessage<'_>) -> ControlFlow<()>,
    ) -> Result<(), NetlinkError> {
        self.dump_chunks(request, |piece| {
            for message in NlMessages::new(piece) {
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
    pub fn dump_chunks(
        &mut self,
        request: &mut NlRequest,
        mut each: impl FnMut(&[u8]) -> Result<ControlFlow<()>, NetlinkError>,
    ) -> Result<(), NetlinkError> {
        let sequence = self.send(request)?;
        loop {
            let end = dump_status(self.receive()?, sequence);
            if each(&self.buffer)?.is_break() {
                return Ok(());
            }
            match end? {
                DumpStatus::Done => return Ok(()),
                DumpStatus::More => (),
            }
        }
    }

    /// Sends many requests at once, each of which must ask for an answer ([`flag::ACK`]); says of each, in their order, how it went (0, or errno(3)).
    ///
    /// # Errors
    /// If the socket fails.
    pub fn request_batch(
        &mut self,
        requests: &mut [NlRequest],
        mut each: impl FnMut(usize, i32),
    ) -> Result<(), NetlinkError> {
        if requests.is_empty() {
            return Ok(());
        }
        let mut octets = Vec::new();
        let first = self.sequence.wrapping_add(1);
        for request in requests.iter_mut() {
            self.sequence = self.sequence.wrapping_add(1);
            octets.extend_from_slice(request.finish(self.sequence));
        }
        self.transport.send(&octets)?;
        let mut open = requests.len();
        while open > 0 {
            for message in NlMessages::new(self.receive()?) {
                let message = message?;
                if let NlBody::Error(number) = message.body {
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
    pub fn send_no_reply(&mut self, request: &mut NlRequest) -> io::Result<()> {
        self.send(request).map(drop)
    }

    /// Sends one request; gives its number.
    fn send(&mut self, request: &mut NlRequest) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.transport.send(request.finish(self.sequence))?;
        Ok(self.sequence)
    }

    /// Waits for what comes next: one or more messages. An event socket whose buffer ran over says so by `ENOBUFS`.
    ///
    /// # Errors
    /// What the system says.
    pub fn receive(&mut self) -> io::Result<&[u8]> {
        loop {
            match self.transport.receive(&mut self.buffer) {
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
    pub fn wait_readable(&self, patience: Duration) -> io::Result<bool> {
        let mut wanted = libc::pollfd { fd: self.transport.raw_fd(), events: libc::POLLIN, revents: 0 };
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
    pub fn join_groups(&mut self, groups: &[u32]) -> io::Result<()> {
        match &mut self.transport {
            Transport::Kernel(raw) => groups.iter().try_for_each(|&group| raw.add_membership(group)),
            Transport::Gateway(_) => {
                let mut request = NlRequest::new(JOIN_GROUPS, flag::ACK, 0);
                for group in groups {
                    request.push(JOIN_GROUPS_GROUP, &group.to_be_bytes());
                }
                self.request(&mut request).map_err(|failure| match failure {
                    NetlinkError::Errno(number) => io::Error::from_raw_os_error(number),
                    NetlinkError::Io(error) => error,
                    NetlinkError::Malformed(error) => io::Error::new(io::ErrorKind::InvalidData, error),
                })
            }
        }
    }

    /// The kernel's buffer for what was not received yet, in octets as it counts them.
    ///
    /// # Errors
    /// What the system says.
    pub fn recv_buffer_size(&self) -> io::Result<usize> {
        let mut size: libc::c_int = 0;
        let mut length = libc::socklen_t::try_from(size_of_val(&size)).unwrap_or(0);
        // SAFETY: the kernel writes at most `length` octets into `size`, and both live through the call.
        let asked = unsafe {
            libc::getsockopt(
                self.transport.raw_fd(),
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
    pub fn set_recv_buffer_size(&mut self, octets: usize) -> io::Result<usize> {
        let size = libc::c_int::try_from(octets).unwrap_or(libc::c_int::MAX);
        let length = libc::socklen_t::try_from(size_of_val(&size)).unwrap_or(0);
        let set = |option| {
            // SAFETY: the value is a c_int that lives through the call, and its length is told.
            let done = unsafe {
                libc::setsockopt(self.transport.raw_fd(), libc::SOL_SOCKET, option, (&raw const size).cast(), length)
            };
            if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        };
        set(libc::SO_RCVBUFFORCE).or_else(|_| set(libc::SO_RCVBUF))?;
        self.recv_buffer_size()
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the socket lives, which the borrow holds.
        unsafe { BorrowedFd::borrow_raw(self.transport.raw_fd()) }
    }
}

/// Does an answer end here?
enum DumpStatus {
    Done,
    More,
}

/// Looks for the end of the answer to request `sequence` in what one read gave.
fn dump_status(piece: &[u8], sequence: u32) -> Result<DumpStatus, NetlinkError> {
    for message in NlMessages::new(piece) {
        let message = message?;
        if message.sequence != sequence {
            continue;
        }
        match message.body {
            NlBody::Error(0) | NlBody::Done(0) => return Ok(DumpStatus::Done),
            NlBody::Error(number) | NlBody::Done(number) => return Err(NetlinkError::Errno(number)),
            // An answer in one part that wants no acknowledgement does not occur: every request of ours is a dump or asks for one.
            NlBody::Data { .. } | NlBody::Overrun | NlBody::Noop => (),
        }
        debug_assert!(message.flags & flag::MULTI == 0 || sequence != 0, "a dump answers a request");
    }
    Ok(DumpStatus::More)
}
