//! Asking the processor for a cache line before it is needed. The one place of this crate that needs `unsafe`.
#![allow(unsafe_code, reason = "a prefetch takes a pointer; it reads nothing and cannot fault")]

/// Begins to fetch the cache line of `place`.
#[inline(always)]
pub(crate) fn line<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `place` is a live reference; the instruction is a hint without architectural effect, and every x86-64 has SSE.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(core::ptr::from_ref(place).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
