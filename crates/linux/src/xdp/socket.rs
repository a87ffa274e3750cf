//! One AF_XDP socket: a queue of an interface, its frames and its four rings.
//!
//! Its life: opened on a queue; added to an [`XdpRedirect`](super::XdpRedirect), from then on frames arrive; read and written by one thread; closed when dropped. A frame is always in
//! exactly one state: waiting to be filled, filled, being sent, or free. The kernel's addresses are never trusted: a frame outside the memory is skipped.
use super::ring::XskRing;
use crate::mapped_memory::MappedMemory;
use rustix::io::Errno;
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING,
    XDP_UMEM_PGOFF_FILL_RING, XdpOptionsFlags, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, bind, send, socket_with, sockopt};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Bytes of a frame.
const FRAME_SIZE: usize = 4096;
/// Frames of one direction.
const RING_SIZE: u32 = 4096;
/// The kernel's headroom in front of a received frame.
const XDP_HEADROOM: usize = 256;
/// The longest frame that can be received or sent, in bytes, with its Ethernet header.
const MAX_FRAME_LEN: usize = FRAME_SIZE - XDP_HEADROOM;

/// The memory of one queue's frames, both directions, in bytes: locked, whether there is traffic or not.
pub const QUEUE_MEMORY: usize = 2 * RING_SIZE as usize * FRAME_SIZE;

/// How frames get into our memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum XskMode {
    /// Zero-copy if the driver can do it, else copied by the kernel.
    #[default]
    Auto,
    /// Copied by the kernel.
    Copy,
    /// Written by the driver; an error if it cannot do it.
    ZeroCopy,
}

/// An entry of the receive and transmit rings: `struct xdp_desc`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
struct XdpDesc {
    addr: u64,
    len: u32,
    options: u32,
}

/// A socket on one queue of one interface.
#[derive(Debug)]
pub struct XskSocket {
    fill: XskRing<u64>,
    completion: XskRing<u64>,
    rx: XskRing<XdpDesc>,
    tx: XskRing<XdpDesc>,
    /// Frames for sending that are not in use.
    free_frames: Vec<u64>,
    zero_copy: bool,
    tx_pending: bool,
    // Last, so that they are dropped after the rings.
    umem: MappedMemory,
    socket: OwnedFd,
}

impl XskSocket {
    /// Opens a socket on queue `queue` of the interface with this index, in this thread's network namespace.
    ///
    /// # Errors
    /// The system's error: it needs CAP_NET_RAW and CAP_BPF, and the queue may be in use.
    pub fn open(ifindex: u32, queue: u32, mode: XskMode) -> io::Result<XskSocket> {
        let socket = socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        let umem = MappedMemory::anonymous(FRAME_SIZE * 2 * RING_SIZE as usize)?;
        let register = XdpUmemReg {
            addr: umem.address(),
            len: umem.len() as u64,
            chunk_size: FRAME_SIZE as u32,
            headroom: 0,
            flags: XdpUmemRegFlags::empty(),
            tx_metadata_len: 0,
        };
        sockopt::set_xdp_umem_reg(&socket, register)?;
        sockopt::set_xdp_umem_fill_ring_size(&socket, RING_SIZE)?;
        sockopt::set_xdp_umem_completion_ring_size(&socket, RING_SIZE)?;
        sockopt::set_xdp_rx_ring_size(&socket, RING_SIZE)?;
        sockopt::set_xdp_tx_ring_size(&socket, RING_SIZE)?;
        let offsets = sockopt::xdp_mmap_offsets(&socket)?;
        let fd = socket.as_fd();
        let mut opened = XskSocket {
            fill: XskRing::map(fd, RING_SIZE, &offsets.fr, XDP_UMEM_PGOFF_FILL_RING)?,
            completion: XskRing::map(fd, RING_SIZE, &offsets.cr, XDP_UMEM_PGOFF_COMPLETION_RING)?,
            rx: XskRing::map(fd, RING_SIZE, &offsets.rx, XDP_PGOFF_RX_RING)?,
            tx: XskRing::map(fd, RING_SIZE, &offsets.tx, XDP_PGOFF_TX_RING)?,
            free_frames: (RING_SIZE..2 * RING_SIZE).map(|number| u64::from(number) * FRAME_SIZE as u64).collect(),
            zero_copy: false,
            tx_pending: false,
            umem,
            socket,
        };
        for number in 0..RING_SIZE {
            opened.fill.write(u64::from(number) * FRAME_SIZE as u64);
        }
        opened.fill.submit();
        opened.bind(ifindex, queue, mode)?;
        Ok(opened)
    }

    fn bind(&mut self, ifindex: u32, queue: u32, mode: XskMode) -> io::Result<()> {
        let flags = SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP
            | match mode {
                XskMode::Auto => SocketAddrXdpFlags::empty(),
                XskMode::Copy => SocketAddrXdpFlags::XDP_COPY,
                XskMode::ZeroCopy => SocketAddrXdpFlags::XDP_ZEROCOPY,
            };
        bind(&self.socket, &SocketAddrXdp::new(flags, ifindex, queue))?;
        self.zero_copy = sockopt::xdp_options(&self.socket)?.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);
        Ok(())
    }

    /// Does the driver write into our frames?
    pub fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Passes at most `most` received frames to `each`; returns how many there were.
    pub fn receive(&mut self, most: u32, mut each: impl FnMut(&[u8])) -> u32 {
        let count = self.rx.readable().min(most);
        for _ in 0..count {
            let frame = self.rx.read();
            let offset = usize::try_from(frame.addr).unwrap_or(usize::MAX);
            if let Some(bytes) = self.umem.slice(offset, frame.len as usize) {
                each(bytes);
            }
            // The fill ring has a slot for every receive frame: the one just read has left its slot.
            self.fill.write(frame.addr & !(FRAME_SIZE as u64 - 1));
        }
        if count > 0 {
            self.rx.release();
            self.fill.submit();
        }
        count
    }

    /// Queues a frame for sending: a header and what follows it. False if the ring is full or the frame too long: then it is lost, as on any link.
    pub fn send(&mut self, header: &[u8], rest: &[u8]) -> bool {
        let length = header.len() + rest.len();
        if length > MAX_FRAME_LEN {
            return false;
        }
        if self.free_frames.is_empty() {
            self.reclaim_completed();
        }
        if self.tx.writable() == 0 {
            return false;
        }
        let Some(frame) = self.free_frames.pop() else { return false };
        let offset = usize::try_from(frame).unwrap_or(usize::MAX);
        let Some(bytes) = self.umem.slice_mut(offset, length) else { return false };
        let (front, back) = bytes.split_at_mut(header.len());
        front.copy_from_slice(header);
        back.copy_from_slice(rest);
        self.tx.write(XdpDesc { addr: frame, len: length as u32, options: 0 });
        self.tx_pending = true;
        true
    }

    /// Sends the queued frames.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        crate::no_blocking::check("sending by an AF_XDP socket");
        if !std::mem::take(&mut self.tx_pending) {
            return Ok(());
        }
        self.tx.submit();
        // In copy mode one call sends a few dozen frames.
        for _ in 0..RING_SIZE / 16 {
            // An empty send wakes the kernel.
            let again = match send(&self.socket, &[], SendFlags::DONTWAIT) {
                Ok(_) => false,
                Err(Errno::AGAIN | Errno::INTR) => true,
                // The interface is busy or down: the frames are sent later, or lost.
                Err(Errno::BUSY | Errno::NOBUFS | Errno::NETDOWN) => false,
                Err(error) => return Err(error.into()),
            };
            if !again || self.tx.writable() == RING_SIZE {
                break;
            }
        }
        self.reclaim_completed();
        Ok(())
    }

    /// Frees the frames that were sent.
    fn reclaim_completed(&mut self) {
        for _ in 0..self.completion.readable() {
            let frame = self.completion.read();
            self.free_frames.push(frame & !(FRAME_SIZE as u64 - 1));
        }
        self.completion.release();
    }
}

impl AsFd for XskSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
