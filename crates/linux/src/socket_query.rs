//! Asks the kernel which socket it would give a packet to, as sock_diag(7) answers it for one socket.
//!
//! The kernel answers within the call that asks. Before Linux 6.9 it holds a lock for it that whoever lists sockets holds for a moment.
use crate::address_field::address_field;
use crate::netlink::message::{NlBody, NlRequest, flag};
use crate::netlink::{NlAttrs, NlMessage, NlQuestionSocket};
use crate::sock_diag::{INET_DIAG_SOCKOPT, MESSAGE_LEN, SOCK_DIAG_BY_FAMILY, SOCKID_LEN};
use netlink_sys::constants::NETLINK_SOCK_DIAG;
use std::io;
use std::net::SocketAddr;

/// A socket that asks.
#[derive(Debug)]
pub struct SocketQuerySocket(NlQuestionSocket);

/// The ends of a packet that has come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketQuery {
    /// TCP (6) or UDP (17).
    pub protocol: u8,
    /// Its source.
    pub peer: SocketAddr,
    /// Its destination, of the same family.
    pub local: SocketAddr,
    /// The index of the interface that it came in by; 0 is none.
    pub iif: u32,
}

/// What the kernel tells of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundSocket {
    /// Its state, by the numbers of TCP: 1 is connected, 10 listens; a socket of UDP that is not connected has 7.
    pub state: u8,
    /// Has it IP_TRANSPARENT? `None` of what is no socket yet, or no longer: of a connection that is being made, or in TIME_WAIT.
    pub is_transparent: Option<bool>,
    /// Is it bound to any address?
    pub is_wildcard: bool,
    /// Its mark, for those with CAP_NET_ADMIN.
    pub mark: Option<u32>,
    /// Tells it apart from others that may take its ends.
    pub cookie: u64,
}

/// `SOCK_DESTROY`.
const DESTROY: u16 = 21;
/// `INET_DIAG_MARK`.
const INET_DIAG_MARK: u16 = 15;
/// In the first byte of `struct inet_diag_sockopt`.
const TRANSPARENT: u8 = 0x20;
const NO_COOKIE: u64 = u64::MAX;
const UDP: u8 = 17;

impl SocketQuerySocket {
    /// Opens it in the network namespace of this thread.
    ///
    /// # Errors
    /// What the system says; of a kernel without sock_diag for TCP, that it has no such file.
    pub fn open() -> io::Result<SocketQuerySocket> {
        NlQuestionSocket::open(NETLINK_SOCK_DIAG).map(SocketQuerySocket)
    }

    /// The socket, if there is one.
    ///
    /// # Errors
    /// What the system says.
    pub fn find(&mut self, query: &SocketQuery) -> io::Result<Option<FoundSocket>> {
        self.ask(SOCK_DIAG_BY_FAMILY, query, NO_COOKIE)
    }

    /// Ends the connection with this cookie, if it is still there and has these ends. Needs CAP_NET_ADMIN, and a kernel with `INET_DIAG_DESTROY`.
    ///
    /// # Errors
    /// What the system says.
    pub fn end(&mut self, query: &SocketQuery, cookie: u64) -> io::Result<()> {
        self.ask(DESTROY, query, cookie).map(drop)
    }

    fn ask(&mut self, kind: u16, query: &SocketQuery, cookie: u64) -> io::Result<Option<FoundSocket>> {
        let flags = if kind == DESTROY { flag::ACK } else { 0 };
        self.0.ask(request(kind, flags, query, cookie), |answer| match answer.body {
            NlBody::Error(0 | libc::ENOENT) => Ok(None),
            NlBody::Error(number) => Err(io::Error::from_raw_os_error(number)),
            _ => Ok(decode(answer)),
        })
    }
}

fn request(kind: u16, flags: u16, query: &SocketQuery, cookie: u64) -> NlRequest {
    let family = if query.local.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let mut request = NlRequest::new(kind, flags, u8::try_from(family).unwrap_or_default()).version(query.protocol);
    request.append(&u32::MAX.to_ne_bytes());
    // The kernel swaps the ends of one socket of UDP (`udp_dump_one`).
    let ends = if query.protocol == UDP { [query.peer, query.local] } else { [query.local, query.peer] };
    ends.iter().for_each(|end| _ = request.append(&end.port().to_be_bytes()));
    for end in ends {
        request.append(&address_field(end.ip()));
    }
    request.append(&query.iif.to_ne_bytes());
    request.append(&cookie.to_ne_bytes());
    request
}

fn decode(message: &NlMessage<'_>) -> Option<FoundSocket> {
    let NlBody::Data { version: state, attributes: bytes, .. } = message.body else { return None };
    if message.kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let (fixed, attributes) = bytes.split_at_checked(MESSAGE_LEN)?;
    let id = fixed.get(..SOCKID_LEN)?;
    let is_wildcard = id.get(4..20)?.iter().all(|byte| *byte == 0);
    let cookie = u64::from_ne_bytes(*id.last_chunk()?);
    let mut found = FoundSocket { state, is_transparent: None, is_wildcard, mark: None, cookie };
    for attribute in NlAttrs::new(attributes) {
        let attribute = attribute.ok()?;
        match attribute.kind {
            INET_DIAG_MARK => found.mark = attribute.bytes::<4>("mark").ok().map(u32::from_ne_bytes),
            INET_DIAG_SOCKOPT => {
                found.is_transparent =
                    attribute.bytes::<2>("socket options").ok().map(|[first, _]| first & TRANSPARENT != 0);
            }
            _ => (),
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;
    use crate::netns::AnonNetns;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn query(protocol: u8, peer: SocketAddr, local: SocketAddr) -> SocketQuery {
        SocketQuery { protocol, peer, local, iif: 0 }
    }

    fn ask(asker: &mut SocketQuerySocket, protocol: u8, peer: SocketAddr, local: SocketAddr) -> Option<FoundSocket> {
        asker.find(&query(protocol, peer, local)).unwrap()
    }

    #[test]
    fn sockets_are_found_by_a_packets_ends() {
        let Ok(netns) = AnonNetns::create() else {
            return keepstate_test_support::report_skipped("sockets of packets: it needs root");
        };
        let find_all = || {
            crate::tun::set_link_up("lo").unwrap();
            let mut asker = SocketQuerySocket::open().unwrap();
            for (here, other) in [("127.0.0.1:0", "192.0.2.1:9"), ("[::1]:0", "[2001:db8::1]:9")] {
                let [here, other]: [SocketAddr; 2] = [here, other].map(|text| text.parse().unwrap());
                let listener = TcpListener::bind(here).unwrap();
                let at = listener.local_addr().unwrap();
                let found = ask(&mut asker, 6, other, at).unwrap();
                assert_eq!((found.state, found.is_transparent, found.is_wildcard), (10, Some(false), false));
                let client = TcpStream::connect(at).unwrap();
                let peer = client.local_addr().unwrap();
                let (served, _) = listener.accept().unwrap();
                let found = ask(&mut asker, 6, peer, at).unwrap();
                assert_eq!((found.state, found.is_transparent), (1, Some(false)));
                // The side that closes first remains.
                drop(served);
                (&client).read_to_end(&mut Vec::new()).unwrap();
                drop(client);
                let remains = ask(&mut asker, 6, peer, at).unwrap();
                assert_eq!((remains.state, remains.is_transparent), (6, None));
                // What has another number stays, and so does what listens.
                asker.end(&query(6, peer, at), remains.cookie ^ 1).unwrap();
                assert_eq!(ask(&mut asker, 6, peer, at), Some(remains));
                match asker.end(&query(6, peer, at), remains.cookie) {
                    Ok(()) => assert_eq!(ask(&mut asker, 6, peer, at).unwrap().state, 10),
                    Err(error) => keepstate_test_support::report_skipped(&format!("TIME_WAIT ended: {error}")),
                }
                drop(listener);
                assert_eq!(ask(&mut asker, 6, other, at), None);

                let server = UdpSocket::bind(here).unwrap();
                let at = server.local_addr().unwrap();
                assert_eq!(ask(&mut asker, 17, other, at).unwrap().state, 7);
                assert_eq!(ask(&mut asker, 17, at, other), None, "the ends have their places");
                drop(server);
                assert_eq!(ask(&mut asker, 17, other, at), None);
            }
        };
        netns.enter(find_all).unwrap();
    }

    #[test]
    fn short_messages_are_no_sockets() {
        for length in 0..MESSAGE_LEN {
            let bytes = vec![1; length];
            let body = NlBody::Data { family: 2, version: 1, resource: 0, attributes: &bytes };
            let message = NlMessage { kind: SOCK_DIAG_BY_FAMILY, flags: 0, sequence: 0, port: 0, body };
            assert_eq!(decode(&message), None, "{length}");
        }
    }
}
