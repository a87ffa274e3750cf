//! Asks the kernel which way it would send a packet: policy rules, tables, several ways, VRFs and nexthop objects included (RTM_GETROUTE).
//!
//! The kernel answers within the call that asks, and takes no lock for it that a change of interfaces holds: nobody waits.
use super::route_message::{RtRouteAnswer, RtRouteQuery, decode_route_answer, route_request};
use crate::netlink::NlQuestionSocket;
use netlink_sys::constants::NETLINK_ROUTE;
use std::io;

/// A socket that asks.
#[derive(Debug)]
pub struct RtRouteSocket(NlQuestionSocket);

impl RtRouteSocket {
    /// Opens it in the network namespace of this thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn open() -> io::Result<RtRouteSocket> {
        NlQuestionSocket::open(NETLINK_ROUTE).map(RtRouteSocket)
    }

    /// The kernel's answer; `None` if it has none.
    ///
    /// # Errors
    /// What the system says.
    pub fn ask(&mut self, query: &RtRouteQuery) -> io::Result<Option<RtRouteAnswer>> {
        self.0.ask(route_request(query), |answer| decode_route_answer(answer).map_err(io::Error::other))
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
