//! Asks the kernel which way it would send a packet: policy rules, tables, several ways, VRFs and nexthop objects included (RTM_GETROUTE).
//!
//! The kernel answers within the call that asks, and takes no lock for it that a change of interfaces holds: nobody waits.
use super::route_message::{RtRouteAnswer, RtRouteQuery, decode_route_answer, route_request};
use crate::netlink::NlMessages;
use netlink_sys::constants::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use std::io;

/// A socket that asks.
#[derive(Debug)]
pub struct RtRouteSocket {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Answers are shorter.
const BUFFER_LEN: usize = 4096;
/// Answers to earlier questions that are skipped.
const MAX_STALE: usize = 16;

impl RtRouteSocket {
    /// Opens it in the network namespace of this thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn open() -> io::Result<RtRouteSocket> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(RtRouteSocket { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER_LEN) })
    }

    /// The kernel's answer; `None` if it has none.
    ///
    /// # Errors
    /// What the system says.
    pub fn ask(&mut self, query: &RtRouteQuery) -> io::Result<Option<RtRouteAnswer>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = route_request(query);
        self.socket.send(request.finish(self.sequence), libc::MSG_DONTWAIT)?;
        for _ in 0..MAX_STALE {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, libc::MSG_DONTWAIT)?;
            for message in NlMessages::new(&self.buffer) {
                let message = message.map_err(io::Error::other)?;
                if message.sequence == self.sequence {
                    return decode_route_answer(&message).map_err(io::Error::other);
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    /// Every namespace that has its loopback interface up has this route.
    #[test]
    fn route_to_loopback_is_local() {
        let query = RtRouteQuery::to(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let answer = RtRouteSocket::open().unwrap().ask(&query).unwrap().unwrap();
        assert!(matches!(answer, RtRouteAnswer::Local | RtRouteAnswer::Refused(libc::ENETUNREACH)), "{answer:?}");
    }
}
