//! One ring shared with the kernel: one side writes entries and advances `producer`, the other reads them and advances `consumer`.
//!
//! Both counters run freely and wrap; an entry's slot is its counter's low bits. Only one thread uses our side of a ring.
use crate::mapped_memory::MappedMemory;
use rustix::net::xdp::XdpRingOffset;
use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// A ring of `T`.
#[derive(Debug)]
pub(super) struct XskRing<T> {
    mapping: MappedMemory,
    producer: usize,
    consumer: usize,
    entries: usize,
    size: u32,
    /// Our own counter; the kernel sees it after `release` or `submit`.
    cursor: u32,
    kind: PhantomData<T>,
}

impl<T: Copy + FromBytes + IntoBytes + Immutable> XskRing<T> {
    /// Maps a ring of `size` entries (a power of two) of a socket.
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        size: u32,
        offsets: &XdpRingOffset,
        page_offset: u64,
    ) -> io::Result<XskRing<T>> {
        let in_bytes = |offset: u64| usize::try_from(offset).map_err(io::Error::other);
        let (producer, consumer, entries) =
            (in_bytes(offsets.producer)?, in_bytes(offsets.consumer)?, in_bytes(offsets.desc)?);
        let length = entries + size as usize * size_of::<T>();
        let mapping = MappedMemory::socket_ring(socket, length, page_offset)?;
        if !mapping.has_counter(producer, 4) || !mapping.has_counter(consumer, 4) {
            return Err(io::Error::other("AF_XDP: the kernel's ring offsets lie outside the ring"));
        }
        Ok(XskRing { mapping, producer, consumer, entries, size, cursor: 0, kind: PhantomData })
    }

    /// The offset of an entry.
    fn offset_of(&self, number: u32) -> usize {
        self.entries + (number & (self.size - 1)) as usize * size_of::<T>()
    }

    /// Entries that the kernel has written and we have not read.
    pub(super) fn readable(&self) -> u32 {
        self.mapping.atomic_u32(self.producer).load(Ordering::Acquire).wrapping_sub(self.cursor)
    }

    /// The next of them; only if there are any.
    pub(super) fn read(&mut self) -> T {
        let entry = self.mapping.read(self.offset_of(self.cursor));
        self.cursor = self.cursor.wrapping_add(1);
        entry.unwrap_or_else(FromZeros::new_zeroed)
    }

    /// Gives the slots of the entries read back to the kernel.
    pub(super) fn release(&self) {
        self.mapping.atomic_u32(self.consumer).store(self.cursor, Ordering::Release);
    }

    /// Entries that may be written.
    pub(super) fn writable(&self) -> u32 {
        self.size - self.cursor.wrapping_sub(self.mapping.atomic_u32(self.consumer).load(Ordering::Acquire))
    }

    /// Writes the next; only if there is room.
    pub(super) fn write(&mut self, entry: T) {
        self.mapping.write(self.offset_of(self.cursor), &entry);
        self.cursor = self.cursor.wrapping_add(1);
    }

    /// Hands the entries written to the kernel.
    pub(super) fn submit(&self) {
        self.mapping.atomic_u32(self.producer).store(self.cursor, Ordering::Release);
    }
}
