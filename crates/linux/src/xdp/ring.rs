//! One ring that is shared with the kernel: one side writes entries and moves `producer` on, the other reads them and moves `consumer` on.
//!
//! The two counters run freely and wrap; an entry's place is its counter's low bits. Only one thread uses our side of a ring.
#![allow(unsafe_code, reason = "a ring is memory shared with the kernel")]

use std::io;
use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Memory that was mapped, until it is dropped.
#[derive(Debug)]
pub(super) struct MappedMemory {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory belongs to this value alone (the kernel aside, which follows the rings' counters); no thread is remembered in it.
unsafe impl Send for MappedMemory {}

impl MappedMemory {
    /// Fresh memory of zeros.
    pub(super) fn anonymous(length: usize) -> io::Result<MappedMemory> {
        MappedMemory::map(-1, length, 0, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE)
    }

    /// The memory of a map, from its beginning.
    pub(super) fn shared(map: RawFd, length: usize) -> io::Result<MappedMemory> {
        MappedMemory::map(map, length, 0, libc::MAP_SHARED)
    }

    /// A ring of a socket.
    fn socket_ring(socket: RawFd, length: usize, place: libc::off_t) -> io::Result<MappedMemory> {
        MappedMemory::map(socket, length, place, libc::MAP_SHARED | libc::MAP_POPULATE)
    }

    fn map(file: RawFd, length: usize, place: libc::off_t, flags: libc::c_int) -> io::Result<MappedMemory> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, file, place) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(MappedMemory { start, length })
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Some of it, to be read; `None` if it does not lie in it.
    pub(super) fn slice(&self, at: usize, length: usize) -> Option<&[u8]> {
        at.checked_add(length).filter(|end| *end <= self.length)?;
        // SAFETY: it lies within the mapping, which the borrow keeps; the kernel does not write to a frame that is ours by the rings' counters.
        Some(unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(at), length) })
    }

    /// Some of it, to be written; `None` if it does not lie in it.
    pub(super) fn slice_mut(&mut self, at: usize, length: usize) -> Option<&mut [u8]> {
        at.checked_add(length).filter(|end| *end <= self.length)?;
        // SAFETY: as above, and the borrow is the only one.
        Some(unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(at), length) })
    }
}

impl Drop for MappedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this start and length, and nothing borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// A ring of `T`.
#[derive(Debug)]
pub(super) struct XskRing<T> {
    mapping: MappedMemory,
    producer: usize,
    consumer: usize,
    entries: usize,
    size: u32,
    /// How far our side is; the kernel sees it when we say so.
    cursor: u32,
    kind: PhantomData<T>,
}

impl<T: Copy> XskRing<T> {
    /// Maps a ring of `size` entries (a power of two) of a socket.
    pub(super) fn map(
        socket: RawFd,
        size: u32,
        at: &libc::xdp_ring_offset,
        place: libc::off_t,
    ) -> io::Result<XskRing<T>> {
        let place_in = |offset: u64| usize::try_from(offset).map_err(io::Error::other);
        let entries = place_in(at.desc)?;
        let length = entries + size as usize * size_of::<T>();
        let mapping = MappedMemory::socket_ring(socket, length, place)?;
        Ok(XskRing {
            mapping,
            producer: place_in(at.producer)?,
            consumer: place_in(at.consumer)?,
            entries,
            size,
            cursor: 0,
            kind: PhantomData,
        })
    }

    fn counter(&self, at: usize) -> &AtomicU32 {
        // SAFETY: the kernel has said that a counter of four octets stands there, aligned and in the mapping; both sides use it as an atomic.
        unsafe { AtomicU32::from_ptr(self.mapping.start().as_ptr().add(at).cast()) }
    }

    fn entry(&self, number: u32) -> *mut T {
        let at = self.entries + (number & (self.size - 1)) as usize * size_of::<T>();
        // SAFETY: the number is cut to the ring's size, and the mapping holds as many entries.
        unsafe { self.mapping.start().as_ptr().add(at).cast() }
    }

    /// Entries that the kernel has written and we have not read.
    pub(super) fn readable(&self) -> u32 {
        self.counter(self.producer).load(Ordering::Acquire).wrapping_sub(self.cursor)
    }

    /// The next of them; only if there are any.
    pub(super) fn read(&mut self) -> T {
        // SAFETY: the entry lies in the ring; T is a plain number or a structure of numbers, for which any octets are a value.
        let entry = unsafe { self.entry(self.cursor).read() };
        self.cursor = self.cursor.wrapping_add(1);
        entry
    }

    /// Tells the kernel what was read.
    pub(super) fn release(&self) {
        self.counter(self.consumer).store(self.cursor, Ordering::Release);
    }

    /// Entries that may be written.
    pub(super) fn writable(&self) -> u32 {
        self.size - self.cursor.wrapping_sub(self.counter(self.consumer).load(Ordering::Acquire))
    }

    /// Writes the next; only if there is room.
    pub(super) fn write(&mut self, entry: T) {
        // SAFETY: the entry lies in the ring, and is ours until the counter says otherwise.
        unsafe { self.entry(self.cursor).write(entry) };
        self.cursor = self.cursor.wrapping_add(1);
    }

    /// Tells the kernel what was written.
    pub(super) fn submit(&self) {
        self.counter(self.producer).store(self.cursor, Ordering::Release);
    }
}
