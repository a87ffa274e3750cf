//! Memory shared with the kernel by mmap(2): that of a BPF map.
//!
//! Its life: mapped, read and written through checked offsets, unmapped when dropped. The unsafe code of known flows is in this file.
#![allow(unsafe_code, reason = "memory that the kernel also writes is read and written in place")]

#[cfg(test)]
use rustix::mm::mmap_anonymous;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU32, AtomicU64};
#[cfg(test)]
use zerocopy::FromBytes;
use zerocopy::{Immutable, IntoBytes};

/// A mapping, aligned to a page.
#[derive(Debug)]
pub(crate) struct MappedMemory {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone (the kernel aside) and is not bound to a thread.
unsafe impl Send for MappedMemory {}

const READ_WRITE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

impl MappedMemory {
    /// New zeroed memory.
    #[cfg(test)]
    pub(crate) fn anonymous(length: usize) -> io::Result<MappedMemory> {
        let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use.
        MappedMemory::new(unsafe { mmap_anonymous(null_mut(), length, READ_WRITE, flags) }?.cast(), length)
    }

    /// The memory of a BPF map, from its start.
    pub(crate) fn bpf_map(map: BorrowedFd<'_>, length: usize) -> io::Result<MappedMemory> {
        MappedMemory::shared(map, length, 0, MapFlags::SHARED)
    }

    fn shared(file: BorrowedFd<'_>, length: usize, offset: u64, flags: MapFlags) -> io::Result<MappedMemory> {
        // SAFETY: as above.
        MappedMemory::new(unsafe { mmap(null_mut(), length, READ_WRITE, flags, file, offset) }?.cast(), length)
    }

    fn new(start: *mut u8, length: usize) -> io::Result<MappedMemory> {
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(MappedMemory { start, length })
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The bytes `at..at + length`; `None` outside the mapping.
    pub(crate) fn slice(&self, at: usize, length: usize) -> Option<&[u8]> {
        at.checked_add(length).filter(|end| *end <= self.length)?;
        // SAFETY: inside the mapping, which the borrow keeps alive; programs write to what is read so only as counters and states, which are read as such.
        Some(unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(at), length) })
    }

    /// The same, to be written.
    pub(crate) fn slice_mut(&mut self, at: usize, length: usize) -> Option<&mut [u8]> {
        at.checked_add(length).filter(|end| *end <= self.length)?;
        // SAFETY: as above, and the borrow is exclusive.
        Some(unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(at), length) })
    }

    /// The value at `at`; `None` outside the mapping.
    #[cfg(test)]
    pub(crate) fn read<T: FromBytes>(&self, at: usize) -> Option<T> {
        T::read_from_bytes(self.slice(at, size_of::<T>())?).ok()
    }

    /// Writes a value at `at`; nothing outside the mapping.
    pub(crate) fn write<T: IntoBytes + Immutable>(&mut self, at: usize, value: &T) {
        if let Some(to) = self.slice_mut(at, size_of::<T>()) {
            to.copy_from_slice(value.as_bytes());
        }
    }

    /// The 32-bit counter at `at`, which the kernel changes too.
    ///
    /// # Panics
    /// If it is not aligned or not inside the mapping: whoever maps memory checks this once with [`has_counter`](Self::has_counter).
    pub(crate) fn atomic_u32(&self, at: usize) -> &AtomicU32 {
        assert!(self.has_counter(at, 4), "no counter at {at} of {}", self.length);
        // SAFETY: aligned (the mapping starts at a page) and inside the mapping, which the borrow keeps alive; both sides use it as an atomic.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(at).cast()) }
    }

    /// The 64-bit counter at `at`.
    ///
    /// # Panics
    /// As [`atomic_u32`](Self::atomic_u32).
    pub(crate) fn atomic_u64(&self, at: usize) -> &AtomicU64 {
        assert!(self.has_counter(at, 8), "no counter at {at} of {}", self.length);
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(at).cast()) }
    }

    /// Is there room for an aligned counter of `size` bytes at `at`?
    pub(crate) fn has_counter(&self, at: usize, size: usize) -> bool {
        at.is_multiple_of(size) && at.checked_add(size).is_some_and(|end| end <= self.length)
    }
}

impl Drop for MappedMemory {
    fn drop(&mut self) {
        // SAFETY: mapped with this start and length, and nothing borrows from it any more. It cannot fail for such a mapping.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn accesses_outside_the_mapping_are_refused() {
        let mut memory = MappedMemory::anonymous(4096).unwrap();
        memory.write(4088, &7_u64);
        memory.write(4089, &8_u64);
        assert_eq!((memory.read::<u64>(4088), memory.read::<u64>(4089)), (Some(7), None));
        assert_eq!(memory.atomic_u64(4088).load(Ordering::Relaxed), 7);
        assert!(memory.slice(usize::MAX, 2).is_none() && memory.slice_mut(4096, 1).is_none());
        assert!(!memory.has_counter(2, 4) && !memory.has_counter(4096, 4) && memory.has_counter(4092, 4));
        assert_eq!(memory.len(), 4096);
    }
}
