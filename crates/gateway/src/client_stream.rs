//! A control client's connection, as the threads that answer use it.
use super::control_protocol::write_reply_line;
use anyhow::Result;
use std::io::{BufWriter, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How often a client that gets nothing is checked for having hung up.
pub(super) const HANGUP_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Bytes written at once.
pub(super) const WRITE_BUFFER: usize = 64 * 1024;

/// Says that the request is carried out; the answer's text follows.
pub(super) fn start_reply(mut stream: &UnixStream) -> Result<BufWriter<&UnixStream>> {
    write_reply_line(&mut stream, None)?;
    Ok(BufWriter::with_capacity(WRITE_BUFFER, stream))
}

/// Has the client hung up? It sends nothing more, so anything there is to read is the end.
pub(super) fn peer_closed(mut stream: &UnixStream) -> Result<bool> {
    stream.set_read_timeout(Some(Duration::from_millis(1)))?;
    match stream.read(&mut [0]) {
        Ok(0) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) => Ok(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)),
    }
}
