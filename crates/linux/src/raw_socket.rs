//! Raw IP sockets: whole IP packets, with any source address, sent by the machine's own routes.
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

/// Sends IPv4 and IPv6 packets with their own headers.
#[derive(Debug)]
pub struct RawIpSender {
    v4: OwnedFd,
    /// `None` where the machine has no IPv6.
    v6: Option<OwnedFd>,
}

impl RawIpSender {
    /// Opens it in this thread's network namespace.
    ///
    /// # Errors
    /// Permission denied (CAP_NET_RAW).
    pub fn open() -> io::Result<RawIpSender> {
        Ok(RawIpSender { v4: open_raw_socket(AddressFamily::INET)?, v6: open_raw_socket(AddressFamily::INET6).ok() })
    }

    /// Sends a packet. False if it is lost: no route, no buffer space.
    pub fn send(&self, destination: IpAddr, packet: &[u8]) -> bool {
        crate::no_blocking::check("sending by a raw socket");
        let socket = match destination {
            IpAddr::V4(_) => Some(&self.v4),
            IpAddr::V6(_) => self.v6.as_ref(),
        };
        let address = SocketAddr::new(destination, 0);
        socket.is_some_and(|socket| sendto(socket, packet, SendFlags::empty(), &address).is_ok())
    }
}

fn open_raw_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, SocketType::RAW, flags, Some(ipproto::RAW))?)
}
