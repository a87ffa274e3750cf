//! An array that grows without moving: fixed chunks, each zeroed by the allocator and untouched until used.
use alloc::boxed::Box;
use alloc::vec::Vec;
use zerocopy::FromZeros;

/// An array of `T` in chunks of `N` elements, `N` a power of two. Element 0 of every chunk is at its beginning, so a chunk of
/// 2 MiB can be one huge page.
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

    /// The element at `at`, if its chunk was made.
    #[inline(always)]
    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.chunks.get(at >> Self::SHIFT)?.as_ref().map(|chunk| &chunk[at & (N - 1)])
    }

    /// As [`ChunkedArray::find`], to be changed.
    #[inline(always)]
    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.chunks.get_mut(at >> Self::SHIFT)?.as_mut().map(|chunk| &mut chunk[at & (N - 1)])
    }

    /// Makes the chunk of `at`, unless it is there. False if there is no memory for it.
    pub(crate) fn ensure_chunk(&mut self, at: usize) -> bool {
        let chunk = at >> Self::SHIFT;
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

    /// Bytes of all chunks made.
    pub(crate) fn memory_bytes(&self) -> usize {
        let made = self.chunks.iter().filter(|chunk| chunk.is_some()).count();
        made * size_of::<[T; N]>() + self.chunks.capacity() * size_of::<usize>()
    }
}
