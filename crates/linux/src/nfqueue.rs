//! NFQUEUE: packets that a netfilter rule (`-j NFQUEUE`, `queue`) hands to user space for a verdict.
//!
//! Its life: bound to a queue number, which only one program may have; packets are received and each gets its verdict; when it is dropped, waiting packets are dropped
//! too (or accepted, if the rule has `bypass`).

use crate::netlink::message::{NlBody, NlRequest, flag};
use crate::netlink::{NetlinkError, NetlinkSocket, NlAttrs, NlMessages};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// The subsystem of queues, in the upper byte of a message's type.
const NFNL_SUBSYS_QUEUE: u16 = 3 << 8;
const NFQNL_MSG_PACKET: u16 = NFNL_SUBSYS_QUEUE;
const NFQNL_MSG_VERDICT: u16 = NFNL_SUBSYS_QUEUE | 1;
const NFQNL_MSG_CONFIG: u16 = NFNL_SUBSYS_QUEUE | 2;
/// Receive buffer, in bytes.
const RECV_BUFFER: usize = 8 << 20;
/// Most packets waiting in the kernel.
const QUEUE_MAXLEN: u32 = 16_384;

/// The verdict on a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueVerdict {
    /// Drop it.
    Drop,
    /// Let it continue.
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
    /// Its id, which its verdict carries.
    pub id: u32,
    /// The index of its input interface; 0 for local output.
    pub ifindex_in: u32,
    /// The IP packet.
    pub packet: &'a [u8],
}

impl NfQueue {
    /// Binds the queue of this number, in this thread's network namespace.
    ///
    /// # Errors
    /// Permission denied (CAP_NET_ADMIN), another program has the queue (`EBUSY`, or `EPERM` on older kernels), or the kernel has no NFQUEUE.
    pub fn bind(number: u16) -> Result<NfQueue, NetlinkError> {
        let mut socket = NetlinkSocket::open_netfilter()?;
        socket.set_recv_buffer_size(RECV_BUFFER)?;
        let mut queue = NfQueue { socket, number };
        // Bind; whole packets of at most 65,535 bytes; the length of the queue.
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

    /// A message about this queue: nfnetlink's header carries its number.
    fn queue_request(&self, kind: u16, flags: u16) -> NlRequest {
        NlRequest::new(kind, flags, 0).res_id(self.number)
    }

    /// Passes the packets of one read to `each`. False if none waited.
    ///
    /// # Errors
    /// The socket's error. Packets lost because the receive buffer was full are no error: the kernel counts them.
    pub fn receive(&mut self, mut each: impl FnMut(QueuedPacket<'_>)) -> Result<bool, NetlinkError> {
        if !self.socket.wait_readable(Duration::ZERO)? {
            return Ok(false);
        }
        let chunk = match self.socket.receive() {
            Ok(chunk) => chunk,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        for message in NlMessages::new(chunk) {
            let message = message?;
            let NlBody::Data { attributes, .. } = message.body else { continue };
            if message.kind != NFQNL_MSG_PACKET {
                continue;
            }
            let mut packet = QueuedPacket { id: 0, ifindex_in: 0, packet: &[] };
            for attribute in NlAttrs::new(attributes) {
                let attribute = attribute?;
                match attribute.kind {
                    1 => packet.id = attribute.be32("NFQA_PACKET_HDR")?,
                    5 => packet.ifindex_in = attribute.be32("NFQA_IFINDEX_INDEV")?,
                    10 => packet.packet = attribute.payload,
                    _ => (),
                }
            }
            each(packet);
        }
        Ok(true)
    }

    /// Sends the verdict on a packet; `replacement` replaces its contents.
    ///
    /// # Errors
    /// The socket's error.
    pub fn send_verdict(&mut self, id: u32, verdict: QueueVerdict, replacement: Option<&[u8]>) -> io::Result<()> {
        let mut request = self.queue_request(NFQNL_MSG_VERDICT, 0);
        let code = match verdict {
            QueueVerdict::Drop => 0_u32,
            QueueVerdict::Accept => 1,
        };
        let [a, b, c, d] = code.to_be_bytes();
        let [e, f, g, h] = id.to_be_bytes();
        request.push(2, &[a, b, c, d, e, f, g, h]);
        if let Some(bytes) = replacement {
            request.push(10, bytes);
        }
        self.socket.send_no_reply(&mut request)
    }
}

impl AsFd for NfQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
