//! A listener for conntrack's events that asked for every one and reads none: ended connections wait for it. Made inside a namespace.
#![allow(unsafe_code, reason = "std has no netlink sockets")]
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The group of the events of ended connections.
const NFNLGRP_CONNTRACK_DESTROY: i32 = 3;

/// The socket, as long as it is held.
pub struct StalledListener(OwnedFd);

impl StalledListener {
    pub fn new() -> StalledListener {
        // SAFETY: the call takes numbers only.
        let descriptor =
            unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_NETFILTER) };
        assert!(descriptor >= 0);
        // SAFETY: it was opened right here, and nobody else has it.
        let listener = StalledListener(unsafe { OwnedFd::from_raw_fd(descriptor) });
        // The kernel gives it a number; without one it gets no events.
        // SAFETY: all of a sockaddr_nl's fields may be zero.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        let length = size_of::<libc::sockaddr_nl>() as u32;
        // SAFETY: the address lives through the call, and its length is its own.
        let done = unsafe { libc::bind(listener.0.as_raw_fd(), (&raw const address).cast(), length) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        listener.set(libc::SOL_SOCKET, libc::SO_RCVBUF, 1);
        // An event that does not fit is an error to its sender.
        listener.set(libc::SOL_NETLINK, libc::NETLINK_BROADCAST_ERROR, 1);
        listener.set(libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, NFNLGRP_CONNTRACK_DESTROY);
        listener
    }

    fn set(&self, level: i32, option: i32, value: i32) {
        let length = size_of::<i32>() as u32;
        // SAFETY: the value lives through the call, and its length is its own.
        let done = unsafe { libc::setsockopt(self.0.as_raw_fd(), level, option, (&raw const value).cast(), length) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
}
