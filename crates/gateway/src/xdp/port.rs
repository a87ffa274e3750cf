//! One device, as one worker has it: its queues' sockets, and the ways by which frames leave.
use keepstate_linux::offload::Offload;
use keepstate_linux::packet::Sender;
use keepstate_linux::xdp::{Burst, Diversion, Socket};
use std::io;

/// Octets of an Ethernet header.
pub(super) const HEADER: usize = 14;

/// One device.
pub(super) struct Port {
    pub(super) index: u32,
    pub(super) mac: [u8; 6],
    /// Never empty.
    pub(super) sockets: Vec<Socket>,
    /// Frames leave by the burst, not by a socket.
    pub(super) by_burst: bool,
    /// What stands for many segments leaves by this.
    pub(super) sender: Sender,
    /// Frames wait for the next flush.
    pub(super) waits: bool,
}

impl Port {
    /// Does the driver write into our frames?
    pub(super) fn is_zero_copy(&self) -> bool {
        self.sockets.iter().all(Socket::is_zero_copy)
    }

    /// By a socket. False if there is no room.
    pub(super) fn send_frame(&mut self, frame: &[u8]) -> bool {
        self.sockets.first_mut().is_some_and(|socket| socket.send(frame, &[]))
    }

    /// False if there is no room.
    pub(super) fn send(&mut self, to: [u8; 6], bytes: &[u8], burst: &mut Option<Burst>) -> bool {
        let header = self.header(to, bytes);
        self.waits = true;
        if self.by_burst && burst.as_mut().is_some_and(|burst| burst.put(self.index, &header, bytes)) {
            return true;
        }
        self.sockets.first_mut().is_some_and(|socket| socket.send(&header, bytes))
    }

    /// What stands for many segments. False if there is no room.
    ///
    /// # Errors
    /// The device is gone.
    pub(super) fn send_train(&self, to: [u8; 6], bytes: &[u8], left: Offload) -> io::Result<bool> {
        self.sender.send(&self.header(to, bytes), bytes, left)
    }

    /// The Ethernet header of a datagram to this neighbour.
    fn header(&self, to: [u8; 6], bytes: &[u8]) -> [u8; HEADER] {
        let v6 = bytes.first().is_some_and(|first| first >> 4 == 6);
        ethernet(to, self.mac, if v6 { [0x86, 0xdd] } else { [0x08, 0] })
    }
}

fn ethernet(to: [u8; 6], from: [u8; 6], kind: [u8; 2]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    for (octet, value) in header.iter_mut().zip(to.into_iter().chain(from).chain(kind)) {
        *octet = value;
    }
    header
}

/// Which devices take frames of a burst? A frame to itself, of a kind for experiments, says so, and nobody else minds it.
pub(super) fn probe(ports: &mut [Port], burst: &mut Burst, through: &Diversion) {
    for port in ports {
        let header = ethernet(port.mac, port.mac, [0x88, 0xb5]);
        port.by_burst = !port.is_zero_copy()
            && burst.put(port.index, &header, &[0; 46])
            && burst.go(through).is_ok_and(|lost| lost == 0);
    }
}
