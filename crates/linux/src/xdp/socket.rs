//! One AF_XDP socket: a queue of a device, its frames and its four rings.
//!
//! Its life: opened on a queue; entered into a [`Diversion`](super::Diversion), from when on frames arrive; read and written by one thread; gone when dropped. A frame is always in one place: waiting
//! to be filled, filled, being sent, or free. The kernel is believed nothing: a frame whose place or length does not lie in the memory is passed over.
#![allow(
    unsafe_code,
    reason = "AF_XDP's socket options are structures, and sendto(2) without a buffer is its doorbell"
)]

use super::ring::{Mapping, Ring};
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Octets of a frame.
const FRAME: usize = 4096;
/// Frames of one direction.
const EACH: u32 = 4096;
/// The kernel's own room in front of what it has received.
const HEADROOM: usize = 256;
/// The longest frame that can be received or sent, in octets, with its Ethernet header.
const LONGEST: usize = FRAME - HEADROOM;

/// Who copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
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
pub struct Socket {
    fill: Ring<u64>,
    completion: Ring<u64>,
    received: Ring<libc::xdp_desc>,
    sent: Ring<libc::xdp_desc>,
    /// Frames to send from that nobody uses.
    free: Vec<u64>,
    zero_copy: bool,
    doorbell: bool,
    // Last, so that they go last: what stands in them is the rings' memory.
    memory: Mapping,
    socket: OwnedFd,
}

impl Socket {
    /// Opens one on queue `queue` of the device with this index, in the network namespace of this thread.
    ///
    /// # Errors
    /// What the system says: without CAP_NET_RAW and CAP_BPF there are none, another program may have the queue.
    pub fn open(device: u32, queue: u32, mode: Mode) -> io::Result<Socket> {
        // SAFETY: three numbers in, a descriptor or -1 out.
        let raw = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was made just now and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        let memory = Mapping::fresh(FRAME * 2 * EACH as usize)?;
        // SAFETY: a structure of numbers.
        let mut register: libc::xdp_umem_reg = unsafe { zeroed() };
        register.addr = memory.start().as_ptr() as u64;
        register.len = (FRAME * 2 * EACH as usize) as u64;
        register.chunk_size = FRAME as u32;
        set(raw, libc::XDP_UMEM_REG, &register)?;
        for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING, libc::XDP_TX_RING] {
            set(raw, ring, &EACH)?;
        }
        // SAFETY: a structure of numbers.
        let places: libc::xdp_mmap_offsets = read(raw, libc::XDP_MMAP_OFFSETS, unsafe { zeroed() })?;
        let mut opened = Socket {
            fill: Ring::map(raw, EACH, &places.fr, libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t)?,
            completion: Ring::map(raw, EACH, &places.cr, libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t)?,
            received: Ring::map(raw, EACH, &places.rx, libc::XDP_PGOFF_RX_RING)?,
            sent: Ring::map(raw, EACH, &places.tx, libc::XDP_PGOFF_TX_RING)?,
            free: (EACH..2 * EACH).map(|number| u64::from(number) * FRAME as u64).collect(),
            zero_copy: false,
            doorbell: false,
            memory,
            socket,
        };
        for number in 0..EACH {
            opened.fill.write(u64::from(number) * FRAME as u64);
        }
        opened.fill.submit();
        opened.bind(device, queue, mode)?;
        Ok(opened)
    }

    fn bind(&mut self, device: u32, queue: u32, mode: Mode) -> io::Result<()> {
        // SAFETY: a structure of numbers.
        let mut address: libc::sockaddr_xdp = unsafe { zeroed() };
        address.sxdp_family = libc::AF_XDP as u16;
        address.sxdp_ifindex = device;
        address.sxdp_queue_id = queue;
        address.sxdp_flags = libc::XDP_USE_NEED_WAKEUP
            | match mode {
                Mode::Auto => 0,
                Mode::Copy => libc::XDP_COPY,
                Mode::ZeroCopy => libc::XDP_ZEROCOPY,
            };
        let length = size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
        // SAFETY: the address and its length are those of one structure, which outlives the call.
        if unsafe { libc::bind(self.socket.as_raw_fd(), (&raw const address).cast(), length) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a structure of numbers.
        let options: libc::xdp_options = read(self.socket.as_raw_fd(), libc::XDP_OPTIONS, unsafe { zeroed() })?;
        self.zero_copy = options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0;
        Ok(())
    }

    /// Does the driver write into our frames?
    pub fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Hands over at most `most` frames that have arrived; gives how many there were.
    pub fn receive(&mut self, most: u32, mut each: impl FnMut(&[u8])) -> u32 {
        let count = self.received.readable().min(most);
        for _ in 0..count {
            let frame = self.received.read();
            let place = usize::try_from(frame.addr).unwrap_or(usize::MAX);
            if let Some(octets) = self.memory.slice(place, frame.len as usize) {
                each(octets);
            }
            // As many frames wait to be filled as there are places for them: one that was filled has left its place.
            self.fill.write(frame.addr & !(FRAME as u64 - 1));
        }
        if count > 0 {
            self.received.give_back();
            self.fill.submit();
        }
        count
    }

    /// Writes a frame to be sent: a header and what follows it. False if there is no room for it now, or never: then it is lost, as on any link.
    pub fn send(&mut self, header: &[u8], rest: &[u8]) -> bool {
        let length = header.len() + rest.len();
        if length > LONGEST {
            return false;
        }
        if self.free.is_empty() {
            self.reclaim();
        }
        if self.sent.writable() == 0 {
            return false;
        }
        let Some(frame) = self.free.pop() else { return false };
        let place = usize::try_from(frame).unwrap_or(usize::MAX);
        let Some(octets) = self.memory.slice_mut(place, length) else { return false };
        let (front, back) = octets.split_at_mut(header.len());
        front.copy_from_slice(header);
        back.copy_from_slice(rest);
        self.sent.write(libc::xdp_desc { addr: frame, len: length as u32, options: 0 });
        self.doorbell = true;
        true
    }

    /// Sends what was written.
    ///
    /// # Errors
    /// The device is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.doorbell) {
            return Ok(());
        }
        self.sent.submit();
        // In copy mode one call sends a few dozen frames.
        for _ in 0..EACH / 16 {
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
            if !again || self.sent.writable() == EACH {
                break;
            }
        }
        self.reclaim();
        Ok(())
    }

    /// Frames that were sent are free again.
    fn reclaim(&mut self) {
        for _ in 0..self.completion.readable() {
            let frame = self.completion.read();
            self.free.push(frame & !(FRAME as u64 - 1));
        }
        self.completion.give_back();
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn set<T>(socket: i32, option: libc::c_int, value: &T) -> io::Result<()> {
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

fn read<T>(socket: i32, option: libc::c_int, mut value: T) -> io::Result<T> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most the length it is told into one value of numbers.
    let done = unsafe { libc::getsockopt(socket, libc::SOL_XDP, option, (&raw mut value).cast(), &raw mut length) };
    if done == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}
