//! Waiting for readable descriptors and for the terminal (poll(2)).
use crate::no_blocking;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Waits until one of the descriptors is readable, at most `milliseconds` (negative: without limit). Returns how many are; a signal ends the wait with 0.
///
/// # Errors
/// The system's error.
pub fn poll_readable<'a>(
    descriptors: impl IntoIterator<Item = BorrowedFd<'a>>,
    milliseconds: i32,
) -> io::Result<usize> {
    no_blocking::check("waiting for a descriptor");
    let mut descriptors: Vec<PollFd<'_>> =
        descriptors.into_iter().map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN)).collect();
    let limit = u64::try_from(milliseconds).ok().map(Duration::from_millis);
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    match rustix::event::poll(&mut descriptors, limit.as_ref()) {
        Ok(ready) => Ok(ready),
        Err(Errno::INTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Waits until a terminal has input, at most `limit`. Returns whether it has; a signal ends the wait with false.
///
/// # Errors
/// The terminal was closed (its window, its SSH connection): who goes on reading it would read nothing, for ever.
pub fn wait_for_terminal(terminal: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    no_blocking::check("waiting for the terminal");
    let mut input = [PollFd::from_borrowed_fd(terminal, PollFlags::IN)];
    match rustix::event::poll(&mut input, Timespec::try_from(limit).ok().as_ref()) {
        Ok(_) if input[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) => {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the terminal was closed"))
        }
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn closed_terminal_is_an_error() {
        let (input, mut peer) = UnixStream::pair().unwrap();
        assert!(!wait_for_terminal(input.as_fd(), Duration::ZERO).unwrap());
        peer.write_all(b"q").unwrap();
        assert!(wait_for_terminal(input.as_fd(), Duration::from_secs(60)).unwrap());
        drop(peer);
        let error = wait_for_terminal(input.as_fd(), Duration::from_secs(60)).unwrap_err();
        assert_eq!(error.to_string(), "the terminal was closed");
    }

    #[test]
    fn counts_readable_descriptors() {
        let ((first, mut peer), (second, _quiet)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let both = || [first.as_fd(), second.as_fd()];
        assert_eq!(poll_readable(both(), 0).unwrap(), 0);
        peer.write_all(b"x").unwrap();
        assert_eq!(poll_readable(both(), -1).unwrap(), 1);
    }
}
