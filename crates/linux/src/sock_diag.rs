//! The sockets of a network namespace, as sock_diag(7) tells them: their local ends, and the cgroup that opened them. No process is looked into.
use crate::netlink::message::{NlBody, NlRequest, flag};
use crate::netlink::{NetlinkError, NetlinkSocket, NlAttrs, NlMessage};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::ControlFlow;

/// `SOCK_DIAG_BY_FAMILY`.
pub(crate) const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `INET_DIAG_CGROUP_ID`: since Linux 5.8.
const INET_DIAG_CGROUP_ID: u16 = 21;
/// `INET_DIAG_SOCKOPT`: since Linux 5.10.
pub(crate) const INET_DIAG_SOCKOPT: u16 = 22;
/// The state of what listens.
const LISTEN: u32 = 10;
/// In `struct inet_diag_sockid`: the interface, behind ports and addresses.
const INTERFACE_AT: usize = 36;
/// Bytes of `struct inet_diag_sockid`.
pub(crate) const SOCKID_LEN: usize = 48;
/// Bytes of `struct inet_diag_msg` behind family, state, timer and retransmits.
pub(crate) const MESSAGE_LEN: usize = SOCKID_LEN + 20;
/// All states but TIME_WAIT (6) and NEW_SYN_RECV (12), which have no socket of anybody's yet or any more.
const STATES: u32 = !(1 << 6 | 1 << 12);
/// More sockets than this are not listed.
const MAX_SOCKETS: usize = 2_000_000;

/// The local end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalSocket {
    /// Transport protocol by number.
    pub protocol: u8,
    /// Its address; unspecified (`0.0.0.0`, `::`) if it takes any.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The cgroup that it belongs to, by its id, which is the inode of its folder; `None` before Linux 5.8.
    pub cgroup: Option<u64>,
}

/// The sockets of this thread's network namespace: TCP, UDP and SCTP.
///
/// # Errors
/// The kernel does not tell TCP's.
pub fn local_sockets() -> Result<Vec<LocalSocket>, NetlinkError> {
    let mut found = Vec::new();
    for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_SCTP] {
        for family in [libc::AF_INET, libc::AF_INET6] {
            let (Ok(protocol), Ok(family)) = (u8::try_from(protocol), u8::try_from(family)) else { continue };
            let mut socket = NetlinkSocket::open_sock_diag()?;
            let mut request = NlRequest::new(SOCK_DIAG_BY_FAMILY, flag::DUMP, family).version(protocol);
            request.append(&STATES.to_ne_bytes()).append(&[0; SOCKID_LEN]);
            let dumped = socket.dump(&mut request, |message| {
                found.extend(decode(&message, protocol));
                if found.len() < MAX_SOCKETS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            match dumped {
                Err(error) if i32::from(protocol) == libc::IPPROTO_TCP && i32::from(family) == libc::AF_INET => {
                    return Err(error);
                }
                // IPv6, UDP's or SCTP's part is not in this kernel.
                Err(_) | Ok(()) => (),
            }
        }
    }
    Ok(found)
}

/// A socket of TCP that waits for connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TcpListenerInfo {
    /// Its address; unspecified (`0.0.0.0`, `::`) if it takes any.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The index of the interface that it is bound to; 0 is none.
    pub ifindex: u32,
    /// The first two bytes of `struct inet_diag_sockopt`: IP_TRANSPARENT is among them.
    pub options: [u8; 2],
}

/// What listens for TCP in this thread's network namespace.
///
/// # Errors
/// The kernel does not tell.
pub fn tcp_listeners() -> Result<BTreeSet<TcpListenerInfo>, NetlinkError> {
    let mut found = BTreeSet::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let (Ok(protocol), Ok(family)) = (u8::try_from(libc::IPPROTO_TCP), u8::try_from(family)) else { continue };
        let mut socket = NetlinkSocket::open_sock_diag()?;
        let mut request = NlRequest::new(SOCK_DIAG_BY_FAMILY, flag::DUMP, family).version(protocol);
        request.append(&(1_u32 << LISTEN).to_ne_bytes()).append(&[0; SOCKID_LEN]);
        socket.dump(&mut request, |message| {
            found.extend(decode_listener(&message));
            if found.len() < MAX_SOCKETS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
    }
    Ok(found)
}

fn decode_listener(message: &NlMessage<'_>) -> Option<TcpListenerInfo> {
    let LocalSocket { address, port, .. } = decode(message, 6)?;
    let NlBody::Data { attributes: bytes, .. } = message.body else { return None };
    let (fixed, attributes) = bytes.split_at_checked(MESSAGE_LEN)?;
    let ifindex = u32::from_ne_bytes(*fixed.get(INTERFACE_AT..)?.first_chunk()?);
    let of_options = NlAttrs::new(attributes).flatten().find(|attribute| attribute.kind == INET_DIAG_SOCKOPT);
    let options = of_options.and_then(|attribute| attribute.bytes::<2>("socket options").ok()).unwrap_or_default();
    Some(TcpListenerInfo { address, port, ifindex, options })
}

fn decode(message: &NlMessage<'_>, protocol: u8) -> Option<LocalSocket> {
    let NlBody::Data { family, attributes: bytes, .. } = message.body else { return None };
    if message.kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let (fixed, attributes) = bytes.split_at_checked(MESSAGE_LEN)?;
    let (port, rest) = fixed.split_first_chunk::<2>()?;
    let source = rest.get(2..18)?;
    let address = if i32::from(family) == libc::AF_INET {
        IpAddr::V4(Ipv4Addr::from(*source.first_chunk::<4>()?))
    } else {
        IpAddr::V6(Ipv6Addr::from(*source.first_chunk::<16>()?)).to_canonical()
    };
    let mut cgroup = None;
    for attribute in NlAttrs::new(attributes) {
        let attribute = attribute.ok()?;
        if attribute.kind == INET_DIAG_CGROUP_ID {
            cgroup = attribute.bytes::<8>("cgroup id").ok().map(u64::from_ne_bytes);
        }
    }
    Some(LocalSocket { protocol, address, port: u16::from_be_bytes(*port), cgroup })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;
    use crate::netns::AnonNetns;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn sockets_of_a_namespace_are_listed_with_their_ends() {
        let Ok(netns) = AnonNetns::create() else {
            return keepstate_test_support::report_skipped("sockets of a namespace: it needs root");
        };
        let (listed, ends) = netns
            .enter(|| {
                let open = [TcpListener::bind("0.0.0.0:0").unwrap(), TcpListener::bind("[::]:0").unwrap()];
                let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
                let mut ends: Vec<_> = open.iter().map(|socket| (6, socket.local_addr().unwrap())).collect();
                ends.push((17, udp.local_addr().unwrap()));
                (local_sockets(), ends)
            })
            .unwrap();
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) => return keepstate_test_support::report_skipped(&format!("no sock_diag: {error}")),
        };
        assert_eq!(listed.len(), 3, "{listed:?}");
        for (protocol, end) in ends {
            let socket = listed.iter().find(|socket| (socket.protocol, socket.port) == (protocol, end.port())).unwrap();
            assert_eq!(socket.address, end.ip());
        }
    }

    #[test]
    fn what_listens_is_listed_with_its_options() {
        let Ok(netns) = AnonNetns::create() else {
            return keepstate_test_support::report_skipped("what listens: it needs root");
        };
        let listed = || {
            let before = tcp_listeners();
            let listener = TcpListener::bind("0.0.0.0:0").unwrap();
            let opaque = tcp_listeners();
            rustix::net::sockopt::set_ip_freebind(&listener, true).unwrap();
            (before, opaque, tcp_listeners(), listener.local_addr().unwrap())
        };
        let (before, opaque, changed, at) = netns.enter(listed).unwrap();
        let Ok(before) = before else { return keepstate_test_support::report_skipped("what listens: no sock_diag") };
        assert!(before.is_empty(), "{before:?}");
        let (opaque, changed) = (opaque.unwrap(), changed.unwrap());
        assert_eq!(
            opaque.iter().map(|one| (one.address, one.port, one.ifindex)).collect::<Vec<_>>(),
            [(at.ip(), at.port(), 0)]
        );
        assert_ne!(opaque, changed);
    }

    #[test]
    fn short_messages_are_no_sockets() {
        for length in 0..MESSAGE_LEN {
            let bytes = vec![1; length];
            let body = NlBody::Data { family: 2, version: 1, resource: 0, attributes: &bytes };
            let message = NlMessage { kind: SOCK_DIAG_BY_FAMILY, flags: 0, sequence: 0, port: 0, body };
            assert_eq!(decode(&message, 6), None, "{length}");
        }
    }
}
