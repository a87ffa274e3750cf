//! A packet socket for sending Ethernet frames (`AF_PACKET`, packet(7)).
#![allow(unsafe_code, reason = "rustix has no sockaddr_ll")]

use rustix::io::{Errno, writev};
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::OwnedFd;

/// Bytes of an Ethernet header.
const ETH_HEADER_LEN: usize = 14;

/// A socket bound to one interface.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens a socket on the interface with this index, in this thread's network namespace.
    ///
    /// # Errors
    /// The system's error: it needs CAP_NET_RAW.
    pub fn open(ifindex: u32) -> io::Result<PacketSocket> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // No protocol: nothing is received.
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        let ifindex = i32::try_from(ifindex).map_err(|_| ErrorKind::InvalidInput)?;
        bind(&socket, &LinkAddr { ifindex })?;
        Ok(PacketSocket(socket))
    }

    /// Sends a packet behind an Ethernet header. False if it is lost: no buffer space, the interface is down or does not accept it.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn send(&self, header: &[u8; ETH_HEADER_LEN], packet: &[u8]) -> io::Result<bool> {
        let parts = [IoSlice::new(header), IoSlice::new(packet)];
        loop {
            match writev(&self.0, &parts) {
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => (),
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NETDOWN | Errno::MSGSIZE | Errno::INVAL | Errno::IO) => {
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The address of an interface, all protocols: `struct sockaddr_ll`.
struct LinkAddr {
    ifindex: i32,
}

// SAFETY: `f` gets the address and the length of one whole sockaddr_ll, which outlives the call.
unsafe impl SocketAddrArg for LinkAddr {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as libc::sa_family_t,
            sll_protocol: 0,
            sll_ifindex: self.ifindex,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        f((&raw const address).cast(), size_of_val(&address) as SocketAddrLen)
    }
}
