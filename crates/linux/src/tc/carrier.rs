//! The carrier: a TAP interface on which packets of governed interfaces come to user space and go back, each behind a header of its own (`struct carrier_hdr`).
//!
//! Once it is persistent, it stays when its process ends, so that programs which redirect to it have something to redirect to. Only one process can have it open.
use crate::address_field::address_field;
use crate::tun;
use crate::virtio_net::{VNET_HDR_LEN, VirtioNetHdr};
use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

/// The name of the interface.
pub const CARRIER_NAME: &str = "keepstate0";
/// Bytes that a frame is longer on its way to user space.
pub const CARRIER_OVERHEAD: usize = CARRIER_HDR_LEN + SENDER_LEN + ETHERNET_LEN;

/// Bytes of `struct carrier_hdr`.
const CARRIER_HDR_LEN: usize = 14;
/// Bytes of `struct sender`.
const SENDER_LEN: usize = 4;
/// Bytes of `struct next_hop`, and of `struct proxy`.
const NEXT_HOP_LEN: usize = 20;
/// Bytes of an Ethernet header.
const ETHERNET_LEN: usize = 14;
/// In its second byte: the sender is known.
const HAS_UID: u8 = 2;
/// The first byte of `struct carrier_hdr`.
const UNICAST: u8 = 2;
/// The longest frame that a TAP interface of this MTU carries is the longest GSO packet.
const MTU: i32 = 65_521;

/// The hook that a packet was taken at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcHook {
    /// It came in by the interface.
    Ingress,
    /// The machine itself sends it by the interface.
    Egress,
}

/// A packet as it came, beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CarriedPacket {
    /// Where it was taken.
    pub hook: TcHook,
    /// The index of the interface.
    pub ifindex: u32,
    /// The packet's mark.
    pub mark: u32,
    /// The user that the sending socket belongs to, if the machine itself sends it and its socket is known.
    pub uid: Option<u32>,
    /// Its Ethernet header.
    pub ethernet: [u8; ETHERNET_LEN],
    /// Its offloads.
    pub offload: VirtioNetHdr,
    /// Its length from the IP header on.
    pub length: usize,
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarrierAction {
    /// To the machine itself, as if it came in by this interface.
    Deliver(u32),
    /// As [`CarrierAction::Deliver`], to the socket of a transparent proxy.
    Proxy {
        /// The index of the interface.
        ifindex: u32,
        /// TCP (6) or UDP (17).
        protocol: u8,
        /// Where the socket listens; of the packet's family.
        listens_at: SocketAddr,
    },
    /// Out by this interface, to this neighbour; the kernel knows or finds its MAC address.
    Neighbour(u32, IpAddr),
    /// Out by this interface, with the Ethernet header that it has.
    Send(u32),
}

/// The interface, opened.
#[derive(Debug)]
pub struct Carrier {
    file: File,
    index: u32,
}

impl Carrier {
    /// Opens the interface, and creates it if there is none.
    ///
    /// # Errors
    /// Permission denied (CAP_NET_ADMIN), no `/dev/net/tun`; [`ErrorKind::ResourceBusy`] if another process has it open.
    pub fn open() -> io::Result<Carrier> {
        let file = tun::open_device(CARRIER_NAME, libc::IFF_TAP | libc::IFF_VNET_HDR)?;
        tun::offer_offloads(&file)?;
        // The machine has no business of its own on it. Without IPv6 the file does not exist.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{CARRIER_NAME}/disable_ipv6"), "1");
        tun::set_mtu(CARRIER_NAME, MTU)?;
        tun::set_link_up(CARRIER_NAME)?;
        Ok(Carrier { file, index: tun::index_of(CARRIER_NAME)? })
    }

    /// The index of the interface.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether the interface stays when this process ends.
    ///
    /// # Errors
    /// The system's error.
    pub fn set_persistent(&mut self, persistent: bool) -> io::Result<()> {
        tun::set_persistent(&self.file, persistent)
    }

    /// Reads the next packet into `buffer`, from its IP header on; `None` if none waits.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<CarriedPacket>> {
        crate::no_blocking::check("reading the carrier");
        loop {
            let mut vnet = [0; VNET_HDR_LEN];
            let mut header = [0; CARRIER_HDR_LEN];
            let mut sender = [0; SENDER_LEN];
            let mut ethernet = [0; ETHERNET_LEN];
            let mut parts = [&mut vnet[..], &mut header, &mut sender, &mut ethernet, buffer].map(IoSliceMut::new);
            match self.file.read_vectored(&mut parts) {
                Ok(length) => {
                    if let Some(packet) = decode(vnet, header, sender, ethernet, length) {
                        return Ok(Some(packet));
                    }
                    // Not from the programs: the kernel's own attempts on a new interface.
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a packet on. False if it is lost, as on any link: no buffer space, or an invalid packet.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn write(
        &mut self,
        action: CarrierAction,
        carried: &CarriedPacket,
        packet: &[u8],
        offload: VirtioNetHdr,
    ) -> io::Result<bool> {
        crate::no_blocking::check("writing to the carrier");
        let vnet = offload.encode(packet, FRONT_LEN);
        let protocol = if packet.first().is_some_and(|first| first >> 4 == 6) { ETH_P_IPV6 } else { ETH_P_IP };
        let (what, ifindex, detail) = match action {
            CarrierAction::Deliver(ifindex) => (1, ifindex, [0; NEXT_HOP_LEN]),
            CarrierAction::Neighbour(ifindex, hop) => (2, ifindex, encode_next_hop(hop)),
            CarrierAction::Send(ifindex) => (3, ifindex, [0; NEXT_HOP_LEN]),
            CarrierAction::Proxy { ifindex, protocol, listens_at } => (4, ifindex, encode_proxy(protocol, listens_at)),
        };
        let mut header = [0; CARRIER_HDR_LEN];
        header[0] = UNICAST;
        header[1] = what;
        header[2..6].copy_from_slice(&ifindex.to_ne_bytes());
        header[6..10].copy_from_slice(&carried.mark.to_ne_bytes());
        header[12..].copy_from_slice(&protocol);
        let mut ethernet = carried.ethernet;
        ethernet[12..].copy_from_slice(&protocol);
        tun::was_sent(self.file.write_vectored(&[&vnet[..], &header, &detail, &ethernet, packet].map(IoSlice::new)))
    }
}

impl AsFd for Carrier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Bytes in front of a packet on its way from user space.
const FRONT_LEN: u16 = (CARRIER_HDR_LEN + NEXT_HOP_LEN + ETHERNET_LEN) as u16;
const ETH_P_IP: [u8; 2] = [8, 0];
const ETH_P_IPV6: [u8; 2] = [0x86, 0xdd];

/// `struct next_hop`.
fn encode_next_hop(hop: IpAddr) -> [u8; NEXT_HOP_LEN] {
    let mut encoded = [0; NEXT_HOP_LEN];
    let (front, address) = encoded.split_at_mut(4);
    let family = if hop.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    front.copy_from_slice(&family.to_ne_bytes());
    address.copy_from_slice(&address_field(hop));
    encoded
}

/// `struct proxy`.
fn encode_proxy(protocol: u8, listens_at: SocketAddr) -> [u8; NEXT_HOP_LEN] {
    let mut encoded = [0; NEXT_HOP_LEN];
    let (front, address) = encoded.split_at_mut(4);
    let [high, low] = listens_at.port().to_be_bytes();
    front.copy_from_slice(&[u8::from(listens_at.is_ipv6()), protocol, high, low]);
    address.copy_from_slice(&address_field(listens_at.ip()));
    encoded
}

/// The packet of a frame of `length` bytes with all its headers; `None` if the programs have not sent it.
fn decode(
    vnet: [u8; VNET_HDR_LEN],
    header: [u8; CARRIER_HDR_LEN],
    sender: [u8; SENDER_LEN],
    ethernet: [u8; ETHERNET_LEN],
    length: usize,
) -> Option<CarriedPacket> {
    let [UNICAST, what, i0, i1, i2, i3, m0, m1, m2, m3, ..] = header else { return None };
    let front = CARRIER_OVERHEAD as u16;
    let mut offload = VirtioNetHdr::decode(vnet)?;
    if let Some((from, _)) = &mut offload.needs_csum {
        *from = from.checked_sub(front)?;
    }
    Some(CarriedPacket {
        hook: if what & 1 == 0 { TcHook::Ingress } else { TcHook::Egress },
        ifindex: u32::from_ne_bytes([i0, i1, i2, i3]),
        mark: u32::from_ne_bytes([m0, m1, m2, m3]),
        uid: (what & HAS_UID != 0).then_some(u32::from_ne_bytes(sender)),
        ethernet,
        offload,
        length: length.checked_sub(VNET_HDR_LEN + CARRIER_OVERHEAD)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_others_are_no_packets() {
        let ethernet = [3; ETHERNET_LEN];
        let mut header = [0; CARRIER_HDR_LEN];
        let sender = 1000_u32.to_ne_bytes();
        assert_eq!(decode([0; VNET_HDR_LEN], header, sender, ethernet, 100), None);
        (header[0], header[1], header[2], header[6]) = (UNICAST, 1, 7, 9);
        assert_eq!(decode([0; VNET_HDR_LEN], header, sender, ethernet, 100).unwrap().uid, None);
        header[1] |= HAS_UID;
        let packet = decode([0; VNET_HDR_LEN], header, sender, ethernet, 100).unwrap();
        assert_eq!(packet.uid, Some(1000));
        assert_eq!((packet.hook, packet.ifindex.to_le(), packet.mark.to_le()), (TcHook::Egress, 7, 9));
        assert_eq!((packet.ethernet, packet.length), (ethernet, 58));
        assert_eq!(decode([0; VNET_HDR_LEN], header, sender, ethernet, 20), None, "shorter than its headers");
    }
}
