//! Work in another network namespace, on a thread of its own.
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::io;
use std::os::fd::BorrowedFd;

/// Moves this thread into the network namespace of an open `ns/net` file. Anything but a network namespace is an error.
pub(super) fn setns(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?)
}

/// Runs `work` on a thread of its own; a panic there is a panic here.
pub(super) fn run_on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    match std::thread::scope(|scope| scope.spawn(work).join()) {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
