//! Transparent proxies: sockets that take what was sent to others, and answer in their name.
use crate::peers::spawn_in_netns;
use crate::sockets::{accept_within, bind_udp_socket, exchange, open_tcp};
use crate::twin::{Lab, PATIENCE};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io::ErrorKind;
use std::mem::{size_of, size_of_val};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

impl Lab {
    /// A step with a proxy, which runs on the router:
    /// - `listen AT`, `listen-opaque AT`: sockets of TCP and UDP there, which may or may not speak for others; `listen-both AT`: for IPv4 as well. `close AT`.
    /// - `tcp SIDE FROM TO AT`: a connection, which the proxy that listens at AT takes; it stays.
    /// - `udp SIDE FROM TO AT`: datagrams, which it answers by a socket with the address that was asked for; `udp-connected`: which takes the further ones.
    pub fn proxy(&mut self, words: &[&str]) -> String {
        match *words {
            ["listen", at] => self.listen_as_proxy(at, true, false),
            ["listen-both", at] => self.listen_as_proxy(at, true, true),
            ["listen-opaque", at] => self.listen_as_proxy(at, false, false),
            ["close", at] => {
                let key = ("r".to_owned(), at.to_owned());
                self.listeners.remove(&key);
                self.datagram_servers.remove(&key);
                self.wait_until_closed("r", &listed_end(at.parse().unwrap()));
                String::new()
            }
            ["tcp", side, from, to, at] => self.proxied_tcp(side, (from, to), at),
            ["udp", side, from, to, at] => self.proxied_udp(side, (from, to), at, false),
            ["udp-connected", side, from, to, at] => self.proxied_udp(side, (from, to), at, true),
            _ => panic!("{words:?}: no such step"),
        }
    }

    fn listen_as_proxy(&mut self, at: &str, is_transparent: bool, takes_both: bool) -> String {
        let key = ("r".to_owned(), at.to_owned());
        let address: SocketAddr = at.parse().unwrap();
        let opened = spawn_in_netns(&self.netns.name("r"), move || {
            let [listener, datagrams] = [SocketType::STREAM, SocketType::DGRAM].map(|kind| open(address, kind));
            for socket in [&listener, &datagrams] {
                if address.is_ipv6() {
                    sockopt::set_ipv6_v6only(socket, !takes_both).unwrap();
                }
                rustix::net::bind(socket, &address).unwrap();
            }
            rustix::net::listen(&listener, 16).unwrap();
            let (listener, datagrams) = (TcpListener::from(listener), UdpSocket::from(datagrams));
            set_option(&datagrams, address, (libc::IP_RECVORIGDSTADDR, libc::IPV6_RECVORIGDSTADDR));
            if is_transparent {
                set_option(&listener, address, (libc::IP_TRANSPARENT, libc::IPV6_TRANSPARENT));
                set_option(&datagrams, address, (libc::IP_TRANSPARENT, libc::IPV6_TRANSPARENT));
            }
            (listener, datagrams)
        });
        let (listener, datagrams) = opened.join().unwrap();
        self.listeners.insert(key.clone(), listener);
        self.datagram_servers.insert(key, datagrams);
        String::new()
    }

    fn proxied_tcp(&mut self, side: &str, (from, to): (&str, &str), at: &str) -> String {
        let [from, to]: [SocketAddr; 2] = [from, to].map(|text| text.parse().unwrap());
        let opens = move || open_tcp(from, to, PATIENCE);
        let client = match spawn_in_netns(&self.netns.name(side), opens).join().unwrap() {
            Ok(client) => client,
            Err(error) => return format!("{error:?}"),
        };
        let listener = &self.listeners[&("r".to_owned(), at.to_owned())];
        let Some((served, peer)) = accept_within(listener, PATIENCE) else { return "somebody else answers".to_owned() };
        if let Err(error) = exchange(&client, &served) {
            return format!("breaks: {:?}", error.kind());
        }
        let shown = format!("{peer} asks for {}", served.local_addr().unwrap());
        self.streams.push((client, served));
        shown
    }

    fn proxied_udp(&self, side: &str, (from, to): (&str, &str), at: &str, is_connected: bool) -> String {
        let [from, to]: [SocketAddr; 2] = [from, to].map(|text| text.parse().unwrap());
        let opens = move || {
            let socket = bind_udp_socket(from);
            socket.connect(to).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        let client = spawn_in_netns(&self.netns.name(side), opens).join().unwrap();
        let proxy = &self.datagram_servers[&("r".to_owned(), at.to_owned())];
        let mut first: Option<(UdpSocket, SocketAddr, SocketAddr)> = None;
        for round in 0..12_u8 {
            client.send(&[round; 100]).unwrap();
            let (answers, peer, asked) = match &first {
                Some((answers, peer, asked)) if is_connected => match answers.recv(&mut [0; 300]) {
                    Ok(100) => (answers, *peer, *asked),
                    other => return format!("round {round}: {:?}", other.map_err(|error| error.kind())),
                },
                _ => {
                    let (peer, asked) = match receive_with_destination(proxy, round) {
                        Ok(heard) => heard,
                        Err(error) => return format!("round {round}: {error:?}"),
                    };
                    if first.as_ref().is_some_and(|(_, peer_before, before)| (*peer_before, *before) != (peer, asked)) {
                        return format!("round {round}: {peer} asks for {asked}");
                    }
                    let (answers, ..) = first.get_or_insert_with(|| {
                        let opens = move || answer_as(asked, peer, is_connected);
                        (spawn_in_netns(&self.netns.name("r"), opens).join().unwrap(), peer, asked)
                    });
                    (&*answers, peer, asked)
                }
            };
            let sent = if is_connected { answers.send(&[round; 50]) } else { answers.send_to(&[round; 50], peer) };
            sent.unwrap();
            let mut bytes = [0; 300];
            match client.recv(&mut bytes) {
                Ok(50) if bytes[0] == round => (),
                other => {
                    return format!(
                        "{peer} asks for {asked}, answer {round}: {:?}",
                        other.map_err(|error| error.kind())
                    );
                }
            }
        }
        first.map_or_else(String::new, |(_, peer, asked)| format!("{peer} asks for {asked}"))
    }
}

fn open(at: SocketAddr, kind: SocketType) -> OwnedFd {
    let family = if at.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    socket
}

/// A socket that answers in the name of the address that was asked for.
fn answer_as(asked: SocketAddr, peer: SocketAddr, is_connected: bool) -> UdpSocket {
    let socket = open(asked, SocketType::DGRAM);
    set_option(&socket, asked, (libc::IP_TRANSPARENT, libc::IPV6_TRANSPARENT));
    rustix::net::bind(&socket, &asked).unwrap();
    let socket = UdpSocket::from(socket);
    if is_connected {
        socket.connect(peer).unwrap();
    }
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sets an option to 1: that of IPv4, or of IPv6.
fn set_option(socket: &impl AsRawFd, at: SocketAddr, (v4, v6): (i32, i32)) {
    let (level, option) = if at.is_ipv6() { (libc::SOL_IPV6, v6) } else { (libc::SOL_IP, v4) };
    let on: libc::c_int = 1;
    #[allow(unsafe_code, reason = "the options of transparent proxies have no safe wrapper")]
    // SAFETY: the pointer and the length are those of `on`, which outlives the call.
    let done = unsafe {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), length)
    };
    assert_eq!(done, 0);
}

/// A datagram whose bytes are `round`: whom it is from, and where it was sent to.
fn receive_with_destination(socket: &UdpSocket, round: u8) -> Result<(SocketAddr, SocketAddr), ErrorKind> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = [0_u8; 300];
    let mut name = [0_u8; 28];
    // Aligned for the header of a control message.
    let mut control = [0_u64; 16];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    #[allow(unsafe_code, reason = "the original destination comes in a control message")]
    // SAFETY: all pointers and lengths are those of arrays that outlive the calls; control messages are read as the macros say, within what the kernel has written.
    let (length, asked) = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_name = name.as_mut_ptr().cast();
        message.msg_namelen = name.len() as libc::socklen_t;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        let length = libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0);
        let mut asked = None;
        let mut at = libc::CMSG_FIRSTHDR(&raw const message);
        while length > 0 && !at.is_null() {
            if matches!((*at).cmsg_type, libc::IP_ORIGDSTADDR | libc::IPV6_ORIGDSTADDR) {
                let data = std::slice::from_raw_parts(libc::CMSG_DATA(at), (*at).cmsg_len - libc::CMSG_LEN(0) as usize);
                asked = Some(data.to_vec());
            }
            at = libc::CMSG_NXTHDR(&raw const message, at);
        }
        (length, asked)
    };
    if length < 0 {
        return Err(std::io::Error::last_os_error().kind());
    }
    assert_eq!(bytes[0], round, "another datagram");
    Ok((socket_address(&name), socket_address(&asked.unwrap())))
}

/// `struct sockaddr_in` or `struct sockaddr_in6`.
fn socket_address(bytes: &[u8]) -> SocketAddr {
    let port = u16::from_be_bytes([bytes[2], bytes[3]]);
    let address = if i32::from(u16::from_ne_bytes([bytes[0], bytes[1]])) == libc::AF_INET6 {
        IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[8..24]).unwrap()))
    } else {
        IpAddr::from(Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]))
    };
    SocketAddr::new(address, port)
}

/// An end as /proc/net/tcp and its like list it.
fn listed_end(end: SocketAddr) -> String {
    let words = |bytes: &[u8]| {
        let word = |bytes: &[u8]| format!("{:08X}", u32::from_ne_bytes(bytes.try_into().unwrap()));
        bytes.chunks(4).map(word).collect::<String>()
    };
    let address = match end.ip() {
        IpAddr::V4(of) => words(&of.octets()),
        IpAddr::V6(of) => words(&of.octets()),
    };
    format!("{address}:{:04X}", end.port())
}
