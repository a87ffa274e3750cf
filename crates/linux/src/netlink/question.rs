//! Questions that the kernel answers with one message, within the call that asks: nobody waits.
use super::{NlMessage, NlMessages, NlRequest};
use netlink_sys::{Socket, SocketAddr};
use std::io;

/// A socket that asks.
#[derive(Debug)]
pub(crate) struct NlQuestionSocket {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Answers are shorter.
const BUFFER_LEN: usize = 4096;
/// Answers to earlier questions that are skipped.
const MAX_STALE: usize = 16;

impl NlQuestionSocket {
    /// Opens it for a netlink family (`NETLINK_ROUTE`, …), in the network namespace of this thread.
    pub(crate) fn open(family: isize) -> io::Result<NlQuestionSocket> {
        let mut socket = Socket::new(family)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(NlQuestionSocket { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER_LEN) })
    }

    /// What `decode` makes of the answer; `None` if there is none.
    pub(crate) fn ask<T>(
        &mut self,
        mut request: NlRequest,
        decode: impl FnOnce(&NlMessage<'_>) -> io::Result<Option<T>>,
    ) -> io::Result<Option<T>> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(request.finish(self.sequence), libc::MSG_DONTWAIT)?;
        for _ in 0..MAX_STALE {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, libc::MSG_DONTWAIT)?;
            for message in NlMessages::new(&self.buffer) {
                let message = message.map_err(io::Error::other)?;
                if message.sequence == self.sequence {
                    return decode(&message);
                }
            }
        }
        Ok(None)
    }
}
