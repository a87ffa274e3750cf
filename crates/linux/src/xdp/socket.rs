//! One AF_XDP socket: a queue of a device, its frames and its four rings.
//!
//! Its life: opened on a queue; entered into a [`Diversion`](super::Diversion), from when on frames arrive; read and written by one thread; gone when dropped. A frame is always in one place: waiting
//! to be filled, filled, being sent, or free. The kernel is believed nothing: a frame whose place or length does not lie in the memory is passed over.
#![allow(
    unsafe_code,
    reason = "AF_XDP's socket options are structures, and sendto(2) without a buffer is its doorbell"
)]

use super::ring::{MappedMemory, XskRing};
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Octets of a frame.
const FRAME_SIZE: usize = 4096;
/// Frames of one direction.
const RING_SIZE: u32 = 4096;
/// The kernel's own room in front of what it has received.
const XDP_HEADROOM: usize = 256;
/// The longest frame that can be received or sent, in octets, with its Ethernet header.
const MAX_FRAME_LEN: usize = FRAME_SIZE - XDP_HEADROOM;

/// Who copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum XskMode {
    /// The device's driver writes into our frames if it can, else the kernel copies.
    #[default]
    Auto,
    /// The kernel copies.
    Copy,
    /// The driver writes into our frames; refused if it cannot.
    ZeroCopy,
}

/// A socket on one queue of one device.
#[derive(Debug)]
pub struct XskSocket {
    fill: XskRing<u64>,
    completion: XskRing<u64>,
    rx: XskRing<libc::xdp_desc>,
    tx: XskRing<libc::xdp_desc>,
    /// Frames to send from that nobody uses.
    free_frames: Vec<u64>,
    zero_copy: bool,
    tx_pending: bool,
    // Last, so that they go last: what stands in them is the rings' memory.
    umem: MappedMemory,
    socket: OwnedFd,
}

impl XskSocket {
    /// Opens one on queue `queue` of the device with this index, in the network namespace of this thread.
    ///
    /// # Errors
    /// What the system says: without CAP_NET_RAW and CAP_BPF there are none, another program may have the queue.
    pub fn open(device: u32, queue: u32, mode: XskMode) -> io::Result<XskSocket> {
        // SAFETY: three numbers in, a descriptor or -1 out.
        let raw = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was made just now and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        let memory = MappedMemory::anonymous(FRAME_SIZE * 2 * RING_SIZE as usize)?;
        // SAFETY: a structure of numbers.
        let mut register: libc::xdp_umem_reg = unsafe { zeroed() };
        register.addr = memory.start().as_ptr() as u64;
        register.len = (FRAME_SIZE * 2 * RING_SIZE as usize) as u64;
        register.chunk_size = FRAME_SIZE as u32;
        set_option(raw, libc::XDP_UMEM_REG, &register)?;
        for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING, libc::XDP_TX_RING] {
            set_option(raw, ring, &RING_SIZE)?;
        }
        // SAFETY: a structure of numbers.
        let places: libc::xdp_mmap_offsets = read_option(raw, libc::XDP_MMAP_OFFSETS, unsafe { zeroed() })?;
        let mut opened = XskSocket {
            fill: XskRing::map(raw, RING_SIZE, &places.fr, libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t)?,
            completion: XskRing::map(raw, RING_SIZE, &places.cr, libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t)?,
            rx: XskRing::map(raw, RING_SIZE, &places.rx, libc::XDP_PGOFF_RX_RING)?,
            tx: XskRing::map(raw, RING_SIZE, &places.tx, libc::XDP_PGOFF_TX_RING)?,
            free_frames: (RING_SIZE..2 * RING_SIZE).map(|number| u64::from(number) * FRAME_SIZE as u64).collect(),
            zero_copy: false,
            tx_pending: false,
            umem: memory,
            socket,
        };
        for number in 0..RING_SIZE {
            opened.fill.write(u64::from(number) * FRAME_SIZE as u64);
        }
        opened.fill.submit();
        opened.bind(device, queue, mode)?;
        Ok(opened)
    }

    fn bind(&mut self, device: u32, queue: u32, mode: XskMode) -> io::Result<()> {
        // SAFETY: a structure of numbers.
        let mut address: libc::sockaddr_xdp = unsafe { zeroed() };
        address.sxdp_family = libc::AF_XDP as u16;
        address.sxdp_ifindex = device;
        address.sxdp_queue_id = queue;
        address.sxdp_flags = libc::XDP_USE_NEED_WAKEUP
            | match mode {
                XskMode::Auto => 0,
                XskMode::Copy => libc::XDP_COPY,
                XskMode::ZeroCopy => libc::XDP_ZEROCOPY,
            };
        let length = size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
        // SAFETY: the address and its length are those of one structure, which outlives the call.
        if unsafe { libc::bind(self.socket.as_raw_fd(), (&raw const address).cast(), length) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a structure of numbers.
        let options: libc::xdp_options = read_option(self.socket.as_raw_fd(), libc::XDP_OPTIONS, unsafe { zeroed() })?;
        self.zero_copy = options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0;
        Ok(())
    }

    /// Does the driver write into our frames?
    pub fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Hands over at most `most` frames that have arrived; gives how many there were.
    pub fn receive(&mut self, most: u32, mut each: impl FnMut(&[u8])) -> u32 {
        let count = self.rx.readable().min(most);
        for _ in 0..count {
            let frame = self.rx.read();
            let place = usize::try_from(frame.addr).unwrap_or(usize::MAX);
            if let Some(octets) = self.umem.slice(place, frame.len as usize) {
                each(octets);
            }
            // As many frames wait to be filled as there are places for them: one that was filled has left its place.
            self.fill.write(frame.addr & !(FRAME_SIZE as u64 - 1));
        }
        if count > 0 {
            self.rx.release();
            self.fill.submit();
        }
        count
    }

    /// Writes a frame to be sent: a header and what follows it. False if there is no room for it now, or never: then it is lost, as on any link.
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
        let place = usize::try_from(frame).unwrap_or(usize::MAX);
        let Some(octets) = self.umem.slice_mut(place, length) else { return false };
        let (front, back) = octets.split_at_mut(header.len());
        front.copy_from_slice(header);
        back.copy_from_slice(rest);
        self.tx.write(libc::xdp_desc { addr: frame, len: length as u32, options: 0 });
        self.tx_pending = true;
        true
    }

    /// Sends what was written.
    ///
    /// # Errors
    /// The device is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.tx_pending) {
            return Ok(());
        }
        self.tx.submit();
        // In copy mode one call sends a few dozen frames.
        for _ in 0..RING_SIZE / 16 {
            // SAFETY: no buffer and no address: the call only rings.
            let rung = unsafe {
                libc::sendto(self.socket.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
            };
            let again = rung < 0 && {
                let error = io::Error::last_os_error();
                match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::EINTR) => true,
                    // The device is busy, or down: what was written goes later, or is lost.
                    Some(libc::EBUSY | libc::ENOBUFS | libc::ENETDOWN) => false,
                    _ => return Err(error),
                }
            };
            if !again || self.tx.writable() == RING_SIZE {
                break;
            }
        }
        self.reclaim_completed();
        Ok(())
    }

    /// Frames that were sent are free again.
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

fn set_option<T>(socket: i32, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of one value, which outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_XDP,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn read_option<T>(socket: i32, option: libc::c_int, mut value: T) -> io::Result<T> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most the length it is told into one value of numbers.
    let done = unsafe { libc::getsockopt(socket, libc::SOL_XDP, option, (&raw mut value).cast(), &raw mut length) };
    if done == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}
