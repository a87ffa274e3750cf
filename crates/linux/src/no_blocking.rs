//! Proof, in debug builds, that no packet is read, written or waited for while a thread holds a lock that packets wait for.
//!
//! Who takes such a lock calls [`forbid`] and keeps what it returns as long as the lock; whatever makes a system call on a socket, an interface or a queue
//! calls [`check`]. In a release build both do nothing.
use std::cell::Cell;

thread_local! {
    static FORBIDDEN: Cell<u32> = const { Cell::new(0) };
}

/// While it lives, its thread makes no system call of this crate.
#[derive(Debug)]
#[must_use]
pub struct NoBlocking {
    /// It counts for the thread that made it.
    _not_send: std::marker::PhantomData<*const ()>,
}

/// From now on this thread makes no system call that may wait.
pub fn forbid() -> NoBlocking {
    if cfg!(debug_assertions) {
        FORBIDDEN.with(|depth| depth.set(depth.get().saturating_add(1)));
    }
    NoBlocking { _not_send: std::marker::PhantomData }
}

impl Drop for NoBlocking {
    fn drop(&mut self) {
        if cfg!(debug_assertions) {
            FORBIDDEN.with(|depth| depth.set(depth.get().saturating_sub(1)));
        }
    }
}

/// A system call is about to be made: in a debug build it is a panic where that is forbidden.
pub fn check(what: &str) {
    debug_assert!(FORBIDDEN.with(Cell::get) == 0, "{what} while packets of all threads wait for a lock");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_refused_as_long_as_it_is_forbidden_and_only_for_that_thread() {
        check("read");
        let (outer, inner) = (forbid(), forbid());
        drop(inner);
        assert!(std::panic::catch_unwind(|| check("read")).is_err());
        std::thread::spawn(|| check("read")).join().unwrap();
        drop(outer);
        check("read");
    }
}
