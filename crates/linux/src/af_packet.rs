//! A packet socket for sending: Ethernet frames with offloads (`AF_PACKET`, packet(7)).
//!
//! For what AF_XDP cannot express: a frame that stands for many segments, which the interface, or the kernel before it, segments on output.
#![allow(unsafe_code, reason = "rustix has neither sockaddr_ll nor the options of SOL_PACKET")]

use crate::virtio_net::VirtioNetHdr;
use rustix::io::{Errno, writev};
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::AsFd;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Socket option: each frame is preceded by a virtio header.
const PACKET_VNET_HDR: libc::c_int = 15;
/// Bytes of an Ethernet header.
const ETH_HEADER_LEN: u16 = 14;
/// Send buffer, in bytes: several times what an interface queues.
const SEND_BUFFER: usize = 8 << 20;

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
        enable_vnet_hdr(socket.as_fd())?;
        // Not PACKET_QDISC_BYPASS: with it the kernel drops frames that it would have to segment.
        // Above net.core.wmem_max with CAP_NET_ADMIN; else as much as that allows.
        sockopt::set_socket_send_buffer_size_force(&socket, SEND_BUFFER)
            .or_else(|_| sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER))?;
        let ifindex = i32::try_from(ifindex).map_err(|_| ErrorKind::InvalidInput)?;
        bind(&socket, &LinkAddr { ifindex })?;
        Ok(PacketSocket(socket))
    }

    /// Sends a packet behind an Ethernet header, with its offloads. False if it is lost: no buffer space, the interface is down or does not accept it.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn send(
        &self,
        header: &[u8; ETH_HEADER_LEN as usize],
        packet: &[u8],
        offload: VirtioNetHdr,
    ) -> io::Result<bool> {
        let virtio = offload.encode(packet, ETH_HEADER_LEN);
        let parts = [IoSlice::new(&virtio), IoSlice::new(header), IoSlice::new(packet)];
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

fn enable_vnet_hdr(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the pointer and the length are those of one value, which outlives the call.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, PACKET_VNET_HDR, (&raw const on).cast(), length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
