//! Monitors the kernel's links, addresses, routes and neighbours.
//!
//! Its life: opened in a namespace; dumped once; from then on asked for changes, one by one. It joins the groups before the dump, so that no change is missed
//! between the two; when the receive buffer was full, everything must be dumped again.
use super::fields::rtm;
use super::message::{self, DUMP_KINDS, RouteSelectors, RtLink, RtMessage};
use super::neighbour_message;
use crate::netlink::{NetlinkError, NetlinkSocket, NlMessages};
use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::Duration;

/// Groups: links, neighbours, addresses and routes of IPv4 and IPv6, their rules, settings of interfaces, nexthop objects.
const RTNLGRP_GROUPS: [u32; 11] = [1, 3, 5, 7, 8, 9, 11, 19, 24, 25, 32];
/// The kernel's buffer for news, in bytes.
const RECV_BUFFER: usize = 16 << 20;
/// Reads of news at a time, so that who asks is not held up.
const MAX_READS_PER_POLL: usize = 1024;

/// What has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RtChanges {
    /// Changes were lost, because more came than the socket's buffer holds: [dump](RtMonitor::dump_all) again.
    pub needs_resync: bool,
    /// One by one, in their order.
    pub messages: Vec<RtMessage>,
}

/// A pair of sockets: one that asks, one that listens.
#[derive(Debug)]
pub struct RtMonitor {
    request_socket: NetlinkSocket,
    event_socket: NetlinkSocket,
}

impl RtMonitor {
    /// Opens both in the network namespace of this thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn open() -> io::Result<RtMonitor> {
        let mut listens = NetlinkSocket::open_rtnetlink()?;
        listens.set_recv_buffer_size(RECV_BUFFER)?;
        listens.join_groups(&RTNLGRP_GROUPS)?;
        Ok(RtMonitor { request_socket: NetlinkSocket::open_rtnetlink()?, event_socket: listens })
    }

    /// Every link, address, route and neighbour, as the kernel has them now.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn dump_all(&mut self) -> Result<Vec<RtMessage>, NetlinkError> {
        let mut all = Vec::new();
        for of in DUMP_KINDS {
            dump_kind(&mut self.request_socket, of, &mut all)?;
        }
        Ok(all)
    }

    /// What has changed since this was last asked; waits for the first change, but not longer than `timeout`.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait_changes(&mut self, timeout: Duration) -> Result<RtChanges, NetlinkError> {
        let mut news = RtChanges::default();
        for read in 0..MAX_READS_PER_POLL {
            if !self.event_socket.wait_readable(if read == 0 { timeout } else { Duration::ZERO })? {
                break;
            }
            let piece = match self.event_socket.receive() {
                Ok(piece) => piece,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    news.needs_resync = true;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            for message in NlMessages::new(piece) {
                match message::decode(&message?)? {
                    RtMessage::Other => (),
                    change => news.messages.push(change),
                }
            }
        }
        Ok(news)
    }
}

/// The neighbours of this thread's network namespace, as the kernel has them now.
///
/// # Errors
/// What the kernel says.
pub fn dump_neighbours() -> Result<Vec<RtMessage>, NetlinkError> {
    let mut socket = NetlinkSocket::open_rtnetlink()?;
    let mut all = Vec::new();
    for of in DUMP_KINDS.into_iter().filter(|(kind, ..)| *kind == rtm::GET_NEIGHBOUR) {
        dump_kind(&mut socket, of, &mut all)?;
    }
    Ok(all)
}

/// The interfaces of this thread's network namespace.
///
/// # Errors
/// What the kernel says.
pub fn dump_links() -> Result<Vec<RtLink>, NetlinkError> {
    let mut socket = NetlinkSocket::open_rtnetlink()?;
    let mut all = Vec::new();
    for of in DUMP_KINDS.into_iter().filter(|(kind, ..)| *kind == rtm::GET_LINK) {
        dump_kind(&mut socket, of, &mut all)?;
    }
    let link = |told| if let RtMessage::Link(link) = told { Some(link) } else { None };
    Ok(all.into_iter().filter_map(link).collect())
}

/// Adds the answer to one dump.
fn dump_kind(
    socket: &mut NetlinkSocket,
    (kind, family, rest): (u16, u8, usize),
    all: &mut Vec<RtMessage>,
) -> Result<(), NetlinkError> {
    let mut malformed = None;
    socket.dump(&mut message::dump_request(kind, family, rest), |message| {
        match message::decode(&message) {
            Ok(RtMessage::Other) => ControlFlow::Continue(()),
            Ok(RtMessage::RoutingChanged(by)) if by == RouteSelectors::default() => ControlFlow::Continue(()),
            Ok(decoded) => {
                all.push(decoded);
                ControlFlow::Continue(())
            }
            // The rest of the dump is read nevertheless, so that the socket stays good.
            Err(error) => {
                malformed = Some(error);
                ControlFlow::Continue(())
            }
        }
    })?;
    if let Some(error) = malformed {
        return Err(error.into());
    }
    Ok(())
}

/// A socket to ask the kernel for neighbours.
#[derive(Debug)]
pub struct NeighbourResolver {
    socket: NetlinkSocket,
}

impl NeighbourResolver {
    /// Opens it in the network namespace of this thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn open() -> io::Result<NeighbourResolver> {
        Ok(NeighbourResolver { socket: NetlinkSocket::open_rtnetlink()? })
    }

    /// Asks the kernel to find a neighbour, or to see whether it is still there; the answer comes as news. It may wait for whoever changes an interface.
    ///
    /// # Errors
    /// What the kernel says: the device is gone, or has no neighbours.
    pub fn resolve(&mut self, device: u32, address: IpAddr) -> Result<(), NetlinkError> {
        self.socket.request(&mut neighbour_message::resolve_request(device, address))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;
    use std::net::Ipv4Addr;

    /// Every namespace has a loopback device; nobody needs to be root to read of it.
    #[test]
    fn dump_contains_loopback_and_its_address() {
        let mut watcher = RtMonitor::open().unwrap();
        let all = watcher.dump_all().unwrap();
        let lo = all.iter().find_map(|decoded| match decoded {
            RtMessage::Link(link) if link.name == "lo" => Some(link.clone()),
            _ => None,
        });
        let lo = lo.unwrap();
        assert!(lo.index >= 1 && lo.mtu >= 1280, "{lo:?}");
        let is_ours = |decoded: &RtMessage| match decoded {
            RtMessage::Address(address) => address.ifindex == lo.index && address.address == Ipv4Addr::LOCALHOST,
            _ => false,
        };
        assert!(!lo.is_up || all.iter().any(is_ours), "{all:?}");
    }

    /// What is cut short is said to be, and nothing panics.
    #[test]
    fn truncated_messages_are_rejected() {
        use crate::netlink::{NlRequest, message::flag};
        for (kind, rest) in [(16, 12), (20, 4), (24, 8), (28, 8)] {
            for length in 0..rest {
                let mut request = NlRequest::new(kind, flag::DUMP, if kind == 16 { 0 } else { 2 });
                request.append(&vec![0; length]);
                let bytes = request.finish(1).to_vec();
                let message = NlMessages::new(&bytes).next().unwrap().unwrap();
                assert!(message::decode(&message).is_err(), "{kind} with {length}");
            }
        }
    }
}
