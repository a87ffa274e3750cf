//! One device, as one worker has it: its queues' sockets, and the ways by which frames leave.
use keepstate_linux::af_packet::PacketSocket;
use keepstate_linux::virtio_net::VirtioNetHdr;
use keepstate_linux::xdp::{LiveFrames, XdpRedirect, XskSocket};
use std::io;

/// Octets of an Ethernet header.
pub(super) const ETH_HEADER_LEN: usize = 14;

/// One device.
pub(super) struct Port {
    pub(super) index: u32,
    pub(super) mac: [u8; 6],
    /// Never empty.
    pub(super) sockets: Vec<XskSocket>,
    /// Frames leave by the burst, not by a socket.
    pub(super) uses_burst: bool,
    /// What stands for many segments leaves by this.
    pub(super) sender: PacketSocket,
    /// Frames wait for the next flush.
    pub(super) needs_flush: bool,
}

impl Port {
    /// Does the driver write into our frames?
    pub(super) fn is_zero_copy(&self) -> bool {
        self.sockets.iter().all(XskSocket::is_zero_copy)
    }

    /// By a socket. False if there is no room.
    pub(super) fn send_frame(&mut self, frame: &[u8]) -> bool {
        self.sockets.first_mut().is_some_and(|socket| socket.send(frame, &[]))
    }

    /// False if there is no room.
    pub(super) fn send(&mut self, to: [u8; 6], bytes: &[u8], burst: &mut Option<LiveFrames>) -> bool {
        let header = self.ethernet_header(to, bytes);
        self.needs_flush = true;
        if self.uses_burst && burst.as_mut().is_some_and(|burst| burst.push(self.index, &header, bytes)) {
            return true;
        }
        self.sockets.first_mut().is_some_and(|socket| socket.send(&header, bytes))
    }

    /// What stands for many segments. False if there is no room.
    ///
    /// # Errors
    /// The device is gone.
    pub(super) fn send_gso(&self, to: [u8; 6], bytes: &[u8], left: VirtioNetHdr) -> io::Result<bool> {
        self.sender.send(&self.ethernet_header(to, bytes), bytes, left)
    }

    /// The Ethernet header of a datagram to this neighbour.
    fn ethernet_header(&self, to: [u8; 6], bytes: &[u8]) -> [u8; ETH_HEADER_LEN] {
        let v6 = bytes.first().is_some_and(|first| first >> 4 == 6);
        build_ethernet_header(to, self.mac, if v6 { [0x86, 0xdd] } else { [0x08, 0] })
    }
}

fn build_ethernet_header(to: [u8; 6], from: [u8; 6], kind: [u8; 2]) -> [u8; ETH_HEADER_LEN] {
    let mut header = [0; ETH_HEADER_LEN];
    for (octet, value) in header.iter_mut().zip(to.into_iter().chain(from).chain(kind)) {
        *octet = value;
    }
    header
}

/// Which devices take frames of a burst? A frame to itself, of a kind for experiments, says so, and nobody else minds it.
pub(super) fn probe_burst(ports: &mut [Port], burst: &mut LiveFrames, through: &XdpRedirect) {
    for port in ports {
        let header = build_ethernet_header(port.mac, port.mac, [0x88, 0xb5]);
        port.uses_burst = !port.is_zero_copy()
            && burst.push(port.index, &header, &[0; 46])
            && burst.send(through).is_ok_and(|lost| lost == 0);
    }
}
