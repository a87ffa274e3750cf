//! The netlink socket: to netfilter (ctnetlink, NFQUEUE), to rtnetlink, or to a running gateway.
//!
//! Its life: opened in the calling thread's network namespace, and bound to it; requests and dumps one after
//! another; or, once it has joined groups, events until it is dropped. A dump that is abandoned leaves answers in the socket, so its owner then drops it.
use super::malformed::MalformedNetlink;
use super::message::{NlBody, NlMessage, NlMessages, NlRequest, flag};
use super::stream_frame;
use crate::no_blocking;
use crate::poll::poll_readable;
use netlink_sys::constants::{NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_SOCK_DIAG, NETLINK_XFRM};
use netlink_sys::{Socket as Raw, SocketAddr};
use rustix::net::sockopt;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Bytes of one read: the kernel fills dumps up to the size of the read, at most 32 KiB.
const RECV_BUFFER_LEN: usize = 128 * 1024;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel returned this errno.
    #[error("netlink request failed: {}", io::Error::from_raw_os_error(*.0))]
    Errno(i32),
    /// The socket's error.
    #[error("netlink socket: {0}")]
    Io(#[from] io::Error),
    /// An answer that cannot be decoded.
    #[error(transparent)]
    Malformed(#[from] MalformedNetlink),
}

impl NetlinkError {
    /// The errno, if there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Errno(number) => Some(*number),
            NetlinkError::Io(error) => error.raw_os_error(),
            NetlinkError::Malformed(_) => None,
        }
    }
}

/// Message type that asks a gateway for the events of groups. (With the kernel, groups are joined by setsockopt(2).)
pub const JOIN_GROUPS: u16 = 0xff00;
/// The attribute of [`JOIN_GROUPS`], once per group: its number, in network byte order.
pub const JOIN_GROUPS_GROUP: u16 = 1;

/// The other end.
#[derive(Debug)]
enum Transport {
    Kernel(Raw),
    /// A running gateway, which answers as the kernel does, in [frames](stream_frame).
    Gateway(UnixStream),
}

impl Transport {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        no_blocking::check("sending by a netlink socket");
        match self {
            Transport::Kernel(raw) => raw.send(bytes, 0).map(drop),
            Transport::Gateway(stream) => stream_frame::write_frame(stream, bytes),
        }
    }

    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        no_blocking::check("reading a netlink socket");
        buffer.clear();
        match self {
            Transport::Kernel(raw) => raw.recv(buffer, 0).map(drop),
            Transport::Gateway(stream) => match stream_frame::read_frame(stream, buffer)? {
                true if is_overrun(buffer) => Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
                true => Ok(()),
                false => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "gateway closed the connection")),
            },
        }
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Transport::Kernel(raw) => raw.as_fd(),
            Transport::Gateway(stream) => stream.as_fd(),
        }
    }
}

/// Does a gateway report lost events? The kernel reports them as an error of recv(2).
fn is_overrun(chunk: &[u8]) -> bool {
    NlMessages::new(chunk)
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
    /// Opens a netfilter socket in this thread's network namespace.
    ///
    /// # Errors
    /// The system's error.
    pub fn open_netfilter() -> io::Result<NetlinkSocket> {
        NetlinkSocket::open_protocol(NETLINK_NETFILTER)
    }

    /// Opens an rtnetlink socket in this thread's network namespace.
    ///
    /// # Errors
    /// The system's error.
    pub fn open_rtnetlink() -> io::Result<NetlinkSocket> {
        NetlinkSocket::open_protocol(NETLINK_ROUTE)
    }

    /// Opens a generic netlink socket in this thread's network namespace.
    ///
    /// # Errors
    /// The system's error.
    pub fn open_generic() -> io::Result<NetlinkSocket> {
        NetlinkSocket::open_protocol(NETLINK_GENERIC)
    }

    /// Opens a sock_diag socket in this thread's network namespace.
    ///
    /// # Errors
    /// The system's error.
    pub fn open_sock_diag() -> io::Result<NetlinkSocket> {
        NetlinkSocket::open_protocol(NETLINK_SOCK_DIAG)
    }

    /// Opens a socket that tells of IPsec (xfrm) in this thread's network namespace.
    ///
    /// # Errors
    /// The system's error; the kernel has no IPsec.
    pub fn open_xfrm() -> io::Result<NetlinkSocket> {
        NetlinkSocket::open_protocol(NETLINK_XFRM)
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

    /// A connection to a running gateway, in [frames](stream_frame).
    pub fn over_stream(stream: UnixStream) -> NetlinkSocket {
        NetlinkSocket {
            transport: Transport::Gateway(stream),
            sequence: 0,
            buffer: Vec::with_capacity(RECV_BUFFER_LEN),
        }
    }

    /// Sends a request and waits for its acknowledgement.
    ///
    /// # Errors
    /// The request's or the socket's error.
    pub fn request(&mut self, request: &mut NlRequest) -> Result<(), NetlinkError> {
        self.dump(request, |_| ControlFlow::Continue(()))
    }

    /// Sends a request and passes every answer to `each`, until the dump ends or `each` breaks (after which the socket must not
    /// be used again).
    ///
    /// # Errors
    /// The request's or the socket's error.
    pub fn dump(
        &mut self,
        request: &mut NlRequest,
        mut each: impl FnMut(NlMessage<'_>) -> ControlFlow<()>,
    ) -> Result<(), NetlinkError> {
        self.dump_chunks(request, |chunk| {
            for message in NlMessages::new(chunk) {
                if each(message?).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// As [`dump`](Self::dump), but passes the undecoded bytes of each read: for decoding on another thread.
    ///
    /// # Errors
    /// The request's, the socket's or the callback's error.
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

    /// Sends many requests at once, each with [`flag::ACK`]; passes the index and the result (0 or an errno) of each to `each`, in order.
    ///
    /// # Errors
    /// The socket's error.
    pub fn request_batch(
        &mut self,
        requests: &mut [NlRequest],
        mut each: impl FnMut(usize, i32),
    ) -> Result<(), NetlinkError> {
        if requests.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        let first = self.sequence.wrapping_add(1);
        for request in requests.iter_mut() {
            self.sequence = self.sequence.wrapping_add(1);
            bytes.extend_from_slice(request.finish(self.sequence));
        }
        self.transport.send(&bytes)?;
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

    /// Sends a request without acknowledgement.
    ///
    /// # Errors
    /// The system's error.
    pub fn send_no_reply(&mut self, request: &mut NlRequest) -> io::Result<()> {
        self.send(request).map(drop)
    }

    /// Sends one request; returns its sequence number.
    fn send(&mut self, request: &mut NlRequest) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.transport.send(request.finish(self.sequence))?;
        Ok(self.sequence)
    }

    /// Waits for the next read: one or more messages. `ENOBUFS`: events were lost.
    ///
    /// # Errors
    /// The system's error.
    pub fn receive(&mut self) -> io::Result<&[u8]> {
        loop {
            match self.transport.receive(&mut self.buffer) {
                Ok(()) => return Ok(&self.buffer),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
    }

    /// Is there something to receive, now or within `timeout`? A signal ends the wait with false.
    ///
    /// # Errors
    /// The system's error.
    pub fn wait_readable(&self, timeout: Duration) -> io::Result<bool> {
        let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        Ok(poll_readable([self.as_fd()], milliseconds)? > 0)
    }

    /// Joins multicast groups, whose events are received from now on.
    ///
    /// # Errors
    /// The system's error: it needs CAP_NET_ADMIN.
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

    /// The size of the receive buffer, in bytes as the kernel counts them.
    ///
    /// # Errors
    /// The system's error.
    pub fn recv_buffer_size(&self) -> io::Result<usize> {
        Ok(sockopt::socket_recv_buffer_size(self)?)
    }

    /// Asks for a larger buffer: above net.core.rmem_max with CAP_NET_ADMIN, up to it without. Returns the size it then has, which is twice
    /// what was asked for, because the kernel counts its own overhead.
    ///
    /// # Errors
    /// The system's error.
    pub fn set_recv_buffer_size(&mut self, bytes: usize) -> io::Result<usize> {
        // The option is a C int.
        let bytes = bytes.min(i32::MAX as usize);
        sockopt::set_socket_recv_buffer_size_force(&self, bytes)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&self, bytes))?;
        self.recv_buffer_size()
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.as_fd()
    }
}

/// Is a dump complete?
enum DumpStatus {
    Done,
    More,
}

/// Looks for the end of the answer to request `sequence` in the bytes of one read.
fn dump_status(chunk: &[u8], sequence: u32) -> Result<DumpStatus, NetlinkError> {
    for message in NlMessages::new(chunk) {
        let message = message?;
        if message.sequence != sequence {
            continue;
        }
        match message.body {
            NlBody::Error(0) | NlBody::Done(0) => return Ok(DumpStatus::Done),
            NlBody::Error(number) | NlBody::Done(number) => return Err(NetlinkError::Errno(number)),
            // Every request here is a dump or has the ACK flag, so each answer ends with Error or Done.
            NlBody::Data { .. } | NlBody::Overrun | NlBody::Noop => (),
        }
        debug_assert!(message.flags & flag::MULTI == 0 || sequence != 0, "a dump answers a request");
    }
    Ok(DumpStatus::More)
}
