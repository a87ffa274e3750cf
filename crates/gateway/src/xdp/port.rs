//! One interface as one worker has it: the sockets of its queues, and how frames are sent.
use keepstate_linux::af_packet::PacketSocket;
use keepstate_linux::virtio_net::VirtioNetHdr;
use keepstate_linux::xdp::{LiveFrames, XdpRedirect, XskSocket};
use std::io;

/// The length of an Ethernet header, in bytes.
pub(super) const ETH_HEADER_LEN: usize = 14;

/// One interface.
pub(super) struct Port {
    pub(super) index: u32,
    pub(super) mac: [u8; 6],
    /// Never empty.
    pub(super) sockets: Vec<XskSocket>,
    /// Frames are sent by [`LiveFrames`] (batched tx), not by a socket.
    pub(super) uses_burst: bool,
    /// GSO packets are sent by this.
    pub(super) sender: PacketSocket,
    /// There are frames to flush.
    pub(super) needs_flush: bool,
}

impl Port {
    /// Are all sockets zero-copy?
    pub(super) fn is_zero_copy(&self) -> bool {
        self.sockets.iter().all(XskSocket::is_zero_copy)
    }

    /// Sends a frame by a socket. False if its ring is full.
    pub(super) fn send_frame(&mut self, frame: &[u8]) -> bool {
        self.sockets.first_mut().is_some_and(|socket| socket.send(frame, &[]))
    }

    /// Sends a packet to a MAC address. False if the ring is full.
    pub(super) fn send(&mut self, to: [u8; 6], bytes: &[u8], burst: &mut Option<LiveFrames>) -> bool {
        let header = self.ethernet_header(to, bytes);
        self.needs_flush = true;
        if self.uses_burst && burst.as_mut().is_some_and(|burst| burst.push(self.index, &header, bytes)) {
            return true;
        }
        self.sockets.first_mut().is_some_and(|socket| socket.send(&header, bytes))
    }

    /// Sends a GSO packet. False if the ring is full.
    ///
    /// # Errors
    /// The interface is gone.
    pub(super) fn send_gso(&self, to: [u8; 6], bytes: &[u8], offload: VirtioNetHdr) -> io::Result<bool> {
        self.sender.send(&self.ethernet_header(to, bytes), bytes, offload)
    }

    /// The Ethernet header of a packet to this MAC address.
    fn ethernet_header(&self, to: [u8; 6], bytes: &[u8]) -> [u8; ETH_HEADER_LEN] {
        let v6 = bytes.first().is_some_and(|first| first >> 4 == 6);
        build_ethernet_header(to, self.mac, if v6 { [0x86, 0xdd] } else { [0x08, 0] })
    }
}

fn build_ethernet_header(to: [u8; 6], from: [u8; 6], kind: [u8; 2]) -> [u8; ETH_HEADER_LEN] {
    let mut header = [0; ETH_HEADER_LEN];
    for (byte, value) in header.iter_mut().zip(to.into_iter().chain(from).chain(kind)) {
        *byte = value;
    }
    header
}

/// Finds out which interfaces support batched tx, by a frame to their own MAC address of the EtherType for local experiments, which no host acts on.
pub(super) fn probe_burst(ports: &mut [Port], burst: &mut LiveFrames, redirect: &XdpRedirect) {
    for port in ports {
        let header = build_ethernet_header(port.mac, port.mac, [0x88, 0xb5]);
        port.uses_burst = !port.is_zero_copy()
            && burst.push(port.index, &header, &[0; 46])
            && burst.send(redirect).is_ok_and(|lost| lost == 0);
    }
}
