//! A packet socket that sends: frames with what is left to be done to them (`AF_PACKET`, packet(7)).
//!
//! For what AF_XDP cannot say: that a frame stands for many segments, which the device, or the kernel before it, cuts where it leaves.
#![allow(unsafe_code, reason = "packet sockets have no safe wrapper in std")]

use crate::virtio_net::VirtioNetHdr;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The option by which `virtio`'s header stands before each frame.
const PACKET_VNET_HDR: libc::c_int = 15;
/// Octets of an Ethernet header.
const ETH_HEADER_LEN: u16 = 14;
/// Octets that may be on their way: what a device takes at once, several times.
const SEND_BUFFER: libc::c_int = 8 << 20;

/// A socket on one device.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens one on the device with this index, in the network namespace of this thread.
    ///
    /// # Errors
    /// What the system says: CAP_NET_RAW is needed.
    pub fn open(device: u32) -> io::Result<PacketSocket> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: three numbers in, a descriptor or -1 out. Protocol 0: nothing is received.
        let raw = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was made just now and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        set_option(raw, libc::SOL_PACKET, PACKET_VNET_HDR, 1)?;
        // Not PACKET_QDISC_BYPASS: there the kernel drops what it would have to cut itself.
        // More than net.core.wmem_max allows, for who may; else as much as it does.
        if set_option(raw, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SEND_BUFFER).is_err() {
            set_option(raw, libc::SOL_SOCKET, libc::SO_SNDBUF, SEND_BUFFER)?;
        }
        // SAFETY: an address of zeros is one.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = i32::try_from(device).map_err(|_| ErrorKind::InvalidInput)?;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address and its length are those of one structure, which outlives the call.
        if unsafe { libc::bind(raw, (&raw const address).cast(), length) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(PacketSocket(socket))
    }

    /// Sends a datagram behind an Ethernet header, with what is left to be done to it. False if it is lost: there is no room, the device is down, or takes no such thing.
    ///
    /// # Errors
    /// The device is gone.
    pub fn send(
        &self,
        header: &[u8; ETH_HEADER_LEN as usize],
        datagram: &[u8],
        offload: VirtioNetHdr,
    ) -> io::Result<bool> {
        let virtio = offload.encode(datagram, ETH_HEADER_LEN);
        let parts = [IoSlice::new(&virtio), IoSlice::new(header), IoSlice::new(datagram)];
        loop {
            // SAFETY: `IoSlice` is laid out as `iovec` is; the slices outlive the call.
            let sent = unsafe { libc::writev(self.0.as_raw_fd(), parts.as_ptr().cast(), parts.len() as libc::c_int) };
            if sent >= 0 {
                return Ok(true);
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN | libc::ENOBUFS | libc::ENETDOWN | libc::EMSGSIZE | libc::EINVAL | libc::EIO) => {
                    return Ok(false);
                }
                _ => return Err(error),
            }
        }
    }
}

fn set_option(socket: i32, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer and the length are those of one value, which outlives the call.
    let done = unsafe { libc::setsockopt(socket, level, option, (&raw const value).cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
