//! Arrays that grow without moving their elements: fixed-size chunks, zeroed by the allocator and not touched until used. [`DenseArray`] has all chunks up to its
//! last one, which saves a check at every access; [`ChunkedArray`] has those that were asked for.
use alloc::boxed::Box;
use alloc::vec::Vec;
use zerocopy::FromZeros;

/// An array of `T` in chunks of `N` elements; `N` is a power of two. A chunk has no header, so a chunk of 2 MiB can be one huge page.
/// Chunks are never freed or moved.
#[derive(Clone)]
pub(crate) struct ChunkedArray<T, const N: usize> {
    chunks: Vec<Option<Box<[T; N]>>>,
}

impl<T: FromZeros, const N: usize> ChunkedArray<T, N> {
    const SHIFT: u32 = {
        assert!(N.is_power_of_two());
        N.trailing_zeros()
    };

    pub(crate) const fn new() -> Self {
        ChunkedArray { chunks: Vec::new() }
    }

    /// The element at `at`, if its chunk is allocated.
    #[inline(always)]
    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.chunks.get(at >> Self::SHIFT)?.as_ref().map(|chunk| &chunk[at & (N - 1)])
    }

    /// As [`ChunkedArray::get`], mutable.
    #[inline(always)]
    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.chunks.get_mut(at >> Self::SHIFT)?.as_mut().map(|chunk| &mut chunk[at & (N - 1)])
    }

    /// Allocates the chunk of `at` unless it exists. False if out of memory.
    #[inline(always)]
    pub(crate) fn ensure_chunk(&mut self, at: usize) -> bool {
        self.get(at).is_some() || self.add_chunk(at >> Self::SHIFT)
    }

    #[cold]
    fn add_chunk(&mut self, chunk: usize) -> bool {
        if self.chunks.len() <= chunk {
            if self.chunks.try_reserve(chunk + 1 - self.chunks.len()).is_err() {
                return false;
            }
            self.chunks.resize_with(chunk + 1, || None);
        }
        if self.chunks[chunk].is_none() {
            self.chunks[chunk] = <[T; N]>::new_box_zeroed().ok();
        }
        self.chunks[chunk].is_some()
    }

    /// Bytes of all allocated chunks.
    pub(crate) fn memory_bytes(&self) -> usize {
        let made = self.chunks.iter().filter(|chunk| chunk.is_some()).count();
        made * size_of::<[T; N]>() + self.chunks.capacity() * size_of::<usize>()
    }
}

/// As [`ChunkedArray`], with no chunk missing before the last one.
#[derive(Clone)]
pub(crate) struct DenseArray<T, const N: usize> {
    chunks: Vec<Box<[T; N]>>,
}

impl<T: FromZeros, const N: usize> DenseArray<T, N> {
    const SHIFT: u32 = ChunkedArray::<T, N>::SHIFT;

    pub(crate) const fn new() -> Self {
        DenseArray { chunks: Vec::new() }
    }

    /// The element at `at`, if its chunk is allocated.
    #[inline(always)]
    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.chunks.get(at >> Self::SHIFT).map(|chunk| &chunk[at & (N - 1)])
    }

    /// As [`DenseArray::get`], mutable.
    #[inline(always)]
    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.chunks.get_mut(at >> Self::SHIFT).map(|chunk| &mut chunk[at & (N - 1)])
    }

    /// Allocates the chunks up to that of `at`, unless they exist. False if out of memory.
    pub(crate) fn ensure_chunk(&mut self, at: usize) -> bool {
        while self.chunks.len() <= at >> Self::SHIFT {
            if self.chunks.try_reserve(1).is_err() {
                return false;
            }
            let Ok(chunk) = <[T; N]>::new_box_zeroed() else { return false };
            self.chunks.push(chunk);
        }
        true
    }

    /// Bytes of all allocated chunks.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.chunks.len() * size_of::<[T; N]>() + self.chunks.capacity() * size_of::<usize>()
    }
}
