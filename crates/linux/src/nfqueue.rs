//! A queue of netfilter's: packets that a rule (`-j NFQUEUE`, `queue`) hands to user space, one by one, and waits what becomes of them.
//!
//! Its life: bound to a number, which no other program may have; packets are received and each is given its verdict; when it is dropped, what still waits is dropped
//! too (or goes on, if the rule says `bypass`).
#![allow(unsafe_code, reason = "raw sockets, which std does not have")]

use crate::netlink::message::{NlBody, NlRequest, flag};
use crate::netlink::{NetlinkError, NetlinkSocket, NlAttrs, NlMessages};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// The subsystem of queues, in the upper octet of a message's kind.
const NFNL_SUBSYS_QUEUE: u16 = 3 << 8;
const NFQNL_MSG_PACKET: u16 = NFNL_SUBSYS_QUEUE;
const NFQNL_MSG_VERDICT: u16 = NFNL_SUBSYS_QUEUE | 1;
const NFQNL_MSG_CONFIG: u16 = NFNL_SUBSYS_QUEUE | 2;
/// Octets that the kernel keeps for us.
const RECV_BUFFER: usize = 8 << 20;
/// Packets that may wait in the kernel.
const QUEUE_MAXLEN: u32 = 16_384;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueVerdict {
    /// It goes no further.
    Drop,
    /// It goes on.
    Accept,
}

/// A queue.
#[derive(Debug)]
pub struct NfQueue {
    socket: NetlinkSocket,
    number: u16,
}

/// A packet that waits for its verdict.
#[derive(Clone, Copy, Debug)]
pub struct QueuedPacket<'a> {
    /// By which it is named in its verdict.
    pub id: u32,
    /// The index of the device it came in by; 0 of the machine's own.
    pub ifindex_in: u32,
    /// The datagram.
    pub packet: &'a [u8],
}

impl NfQueue {
    /// Binds the queue of this number, in the network namespace of this thread.
    ///
    /// # Errors
    /// It may not be done (CAP_NET_ADMIN), another program has it (`EBUSY`, or `EPERM` on older kernels), or the kernel has no such thing.
    pub fn bind(number: u16) -> Result<NfQueue, NetlinkError> {
        let mut socket = NetlinkSocket::open_netfilter()?;
        socket.set_recv_buffer_size(RECV_BUFFER)?;
        let mut queue = NfQueue { socket, number };
        // Bind; then whole packets of at most 65,535 octets; then how many may wait.
        queue.configure(1, &[1, 0, 0, 0])?;
        queue.configure(2, &[0, 0, 0xff, 0xff, 2])?;
        queue.configure(3, &QUEUE_MAXLEN.to_be_bytes())?;
        Ok(queue)
    }

    fn configure(&mut self, attribute: u16, value: &[u8]) -> Result<(), NetlinkError> {
        let mut request = self.queue_request(NFQNL_MSG_CONFIG, flag::ACK);
        request.push(attribute, value);
        self.socket.request(&mut request)
    }

    /// A message about this queue: netfilter's header carries its number.
    fn queue_request(&self, kind: u16, flags: u16) -> NlRequest {
        NlRequest::new(kind, flags, 0).res_id(self.number)
    }

    /// Hands over the packets that one read gives, if any wait. False if none did.
    ///
    /// # Errors
    /// The socket fails. Packets that found no room in it are gone; the kernel counts them.
    pub fn receive(&mut self, mut each: impl FnMut(QueuedPacket<'_>)) -> Result<bool, NetlinkError> {
        if !self.socket.wait_readable(Duration::ZERO)? {
            return Ok(false);
        }
        let piece = match self.socket.receive() {
            Ok(piece) => piece,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        for message in NlMessages::new(piece) {
            let message = message?;
            let NlBody::Data { attributes, .. } = message.body else { continue };
            if message.kind != NFQNL_MSG_PACKET {
                continue;
            }
            let mut waiting = QueuedPacket { id: 0, ifindex_in: 0, packet: &[] };
            for attribute in NlAttrs::new(attributes) {
                let attribute = attribute?;
                match attribute.kind {
                    1 => waiting.id = attribute.be32("a packet's number")?,
                    5 => waiting.ifindex_in = attribute.be32("a device")?,
                    10 => waiting.packet = attribute.payload,
                    _ => (),
                }
            }
            each(waiting);
        }
        Ok(true)
    }

    /// Says what becomes of a packet; with other octets, it goes on as those.
    ///
    /// # Errors
    /// The socket fails.
    pub fn send_verdict(&mut self, id: u32, verdict: QueueVerdict, instead: Option<&[u8]>) -> io::Result<()> {
        let mut request = self.queue_request(NFQNL_MSG_VERDICT, 0);
        let code = match verdict {
            QueueVerdict::Drop => 0_u32,
            QueueVerdict::Accept => 1,
        };
        let [a, b, c, d] = code.to_be_bytes();
        let [e, f, g, h] = id.to_be_bytes();
        request.push(2, &[a, b, c, d, e, f, g, h]);
        if let Some(octets) = instead {
            request.push(10, octets);
        }
        self.socket.send_no_reply(&mut request)
    }
}

impl AsFd for NfQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends whole datagrams by the machine's own routes, whoever they are from.
#[derive(Debug)]
pub struct RawIpSender {
    v4: OwnedFd,
    /// None where the machine has no IPv6.
    v6: Option<OwnedFd>,
}

impl RawIpSender {
    /// Opens it in the network namespace of this thread.
    ///
    /// # Errors
    /// It may not be done (CAP_NET_RAW).
    pub fn open() -> io::Result<RawIpSender> {
        Ok(RawIpSender { v4: open_raw_socket(libc::AF_INET)?, v6: open_raw_socket(libc::AF_INET6).ok() })
    }

    /// Sends a datagram. False if it was lost: no route, no room.
    pub fn send(&self, to: IpAddr, datagram: &[u8]) -> bool {
        match to {
            IpAddr::V4(to) => {
                // SAFETY: a structure of numbers.
                let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
                address.sin_family = libc::AF_INET as libc::sa_family_t;
                address.sin_addr.s_addr = u32::from_ne_bytes(to.octets());
                sendto(&self.v4, datagram, &address)
            }
            IpAddr::V6(to) => {
                // SAFETY: a structure of numbers.
                let mut address: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
                address.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                address.sin6_addr.s6_addr = to.octets();
                self.v6.as_ref().is_some_and(|socket| sendto(socket, datagram, &address))
            }
        }
    }
}

fn open_raw_socket(family: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: three numbers in, a descriptor or -1 out.
    let socket = unsafe { libc::socket(family, kind, libc::IPPROTO_RAW) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made just now and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

fn sendto<A>(socket: &OwnedFd, datagram: &[u8], to: &A) -> bool {
    let length = size_of::<A>() as libc::socklen_t;
    // SAFETY: buffer and address are each one value that outlives the call, with their lengths.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            datagram.as_ptr().cast(),
            datagram.len(),
            0,
            std::ptr::from_ref(to).cast(),
            length,
        )
    };
    sent >= 0
}
