//! Segments that no connection sends, by a raw socket: made inside a namespace.
#![allow(unsafe_code, reason = "std has no raw sockets")]
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;

/// A raw socket for TCP.
pub struct RawTcpSocket(OwnedFd);

impl RawTcpSocket {
    pub fn new() -> RawTcpSocket {
        // SAFETY: the call takes numbers only.
        let descriptor = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_TCP) };
        assert!(descriptor >= 0, "a raw socket needs CAP_NET_RAW");
        // SAFETY: it was opened right here, and nobody else has it.
        RawTcpSocket(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }

    /// Sends one segment. Its checksum is right if loopback's address is its source: elsewhere nobody checks it on the way out.
    pub fn send_segment(&self, from: u16, to: SocketAddrV4, seq: u32, flags: u8) {
        let mut segment = [from.to_be_bytes(), to.port().to_be_bytes()].concat();
        segment.extend(seq.to_be_bytes());
        segment.extend(1_u32.to_be_bytes());
        segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        let sum = tcp_checksum(Ipv4Addr::LOCALHOST, *to.ip(), &segment);
        segment.splice(16..18, sum.to_be_bytes());
        let address = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(to.ip().octets()) },
            sin_zero: [0; 8],
        };
        // SAFETY: both pointers are to values that live through the call, with their own lengths.
        unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                segment.as_ptr().cast(),
                segment.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_in>() as u32,
            );
        }
    }
}

/// The checksum of a segment of an even number of bytes.
fn tcp_checksum(source: Ipv4Addr, destination: Ipv4Addr, segment: &[u8]) -> u16 {
    let pseudo = [&source.octets()[..], &destination.octets(), &[0, 6, 0, segment.len() as u8], segment].concat();
    let mut sum: u32 = pseudo.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
