//! A socket for whole frames of one interface (packet(7)).
#![allow(unsafe_code, reason = "packet sockets have no safe wrapper in std")]
use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

pub(crate) struct PacketSocket(std::fs::File);

impl PacketSocket {
    /// Opens it in this thread's network namespace.
    pub(crate) fn open(device: &str) -> PacketSocket {
        const ALL: u16 = libc::ETH_P_ALL as u16;
        let name = CString::new(device).unwrap();
        // SAFETY: the calls get a string that ends with zero and an address of its own length; the descriptor is new, and has one owner.
        unsafe {
            let index = libc::if_nametoindex(name.as_ptr());
            assert!(index > 0, "no interface {device}");
            let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(ALL.to_be()));
            assert!(socket >= 0, "{}", std::io::Error::last_os_error());
            let socket = OwnedFd::from_raw_fd(socket);
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = ALL.to_be();
            address.sll_ifindex = index as i32;
            let length = size_of::<libc::sockaddr_ll>() as u32;
            assert_eq!(libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length), 0);
            PacketSocket(socket.into())
        }
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        (&self.0).write_all(frame).unwrap();
    }

    /// The next frame that is as wanted; `None` if there is none for so long.
    pub(crate) fn receive(&self, patience: Duration, is_wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let until = Instant::now() + patience;
        let mut frame = vec![0; 65_536];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = rustix::time::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let socket = self.0.as_fd();
            let mut polled = [rustix::event::PollFd::new(&socket, rustix::event::PollFlags::IN)];
            if rustix::event::poll(&mut polled, Some(&left)) == Ok(0) {
                return None;
            }
            let Ok(length) = (&self.0).read(&mut frame) else { continue };
            if is_wanted(&frame[..length]) {
                return Some(frame[..length].to_vec());
            }
        }
    }
}
