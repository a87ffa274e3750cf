//! What a network driver can do, as the kernel's netdev family of generic netlink and ethtool tell it: whether it runs XDP programs and sends their frames, whether it takes VLAN tags out of frames.
#![allow(unsafe_code, reason = "an ioctl's argument has the type that its number says")]

use crate::netlink::message::{NlRequest, flag};
use crate::netlink::{NetlinkError, NetlinkSocket};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;

/// What a driver can do with XDP (`NETDEV_XDP_ACT_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpFeatures(u64);

impl XdpFeatures {
    /// Does it run programs itself, and send on what they redirect?
    pub fn is_native(self) -> bool {
        self.0 & (BASIC | REDIRECT) == BASIC | REDIRECT
    }

    /// Does it send the frames that programs of other interfaces redirect to it?
    pub fn sends_frames(self) -> bool {
        self.0 & NDO_XMIT != 0
    }
}

const BASIC: u64 = 1;
const REDIRECT: u64 = 2;
const NDO_XMIT: u64 = 4;

/// Of generic netlink's controller.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// Of the netdev family.
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

/// Asks what the drivers of this thread's network namespace can do with XDP.
#[derive(Debug)]
pub struct XdpFeatureQuery {
    socket: NetlinkSocket,
    family: u16,
}

impl XdpFeatureQuery {
    /// Opens a socket.
    ///
    /// # Errors
    /// What the system says; a kernel before 6.3 has no such family.
    pub fn open() -> Result<XdpFeatureQuery, NetlinkError> {
        let mut socket = NetlinkSocket::open_generic()?;
        let mut family = None;
        let mut request = NlRequest::new(GENL_ID_CTRL, flag::DUMP, CTRL_CMD_GETFAMILY).version(1);
        socket.dump(&mut request, |message| {
            let (mut id, mut is_netdev) = (None, false);
            for attribute in message.attributes().flatten() {
                match attribute.kind {
                    CTRL_ATTR_FAMILY_ID => id = attribute.bytes("a family's number").map(u16::from_ne_bytes).ok(),
                    CTRL_ATTR_FAMILY_NAME => is_netdev = &*attribute.text() == "netdev",
                    _ => (),
                }
            }
            family = family.or(id.filter(|_| is_netdev));
            ControlFlow::Continue(())
        })?;
        let missing = || io::Error::new(io::ErrorKind::Unsupported, "the kernel has no netdev family (Linux 6.3)");
        Ok(XdpFeatureQuery { family: family.ok_or_else(missing)?, socket })
    }

    /// By the interface's index.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(&mut self) -> Result<HashMap<u32, XdpFeatures>, NetlinkError> {
        let mut all = HashMap::new();
        let mut request = NlRequest::new(self.family, flag::DUMP, NETDEV_CMD_DEV_GET).version(1);
        self.socket.dump(&mut request, |message| {
            let (mut ifindex, mut features) = (None, XdpFeatures::default());
            for attribute in message.attributes().flatten() {
                match attribute.kind {
                    NETDEV_A_DEV_IFINDEX => ifindex = attribute.bytes("an index").map(u32::from_ne_bytes).ok(),
                    NETDEV_A_DEV_XDP_FEATURES => {
                        features.0 = attribute.bytes("features").map_or(0, u64::from_ne_bytes);
                    }
                    _ => (),
                }
            }
            all.extend(ifindex.map(|ifindex| (ifindex, features)));
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

/// Does the driver take VLAN tags out of the frames that it receives? XDP programs then see a tagged frame as one without a tag.
///
/// # Errors
/// The interface is gone.
pub fn strips_vlan_tags(interface: &str) -> io::Result<bool> {
    match ethtool_flags(interface, ETHTOOL_GFLAGS, 0) {
        Ok(flags) => Ok(flags & ETH_FLAG_RXVLAN != 0),
        // A driver without such settings.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the driver is to take VLAN tags out of the frames that it receives: `ethtool -K INTERFACE rxvlan on|off`.
///
/// # Errors
/// The interface is gone, permission denied, the driver cannot do otherwise.
pub fn set_strips_vlan_tags(interface: &str, strips: bool) -> io::Result<()> {
    let flags = ethtool_flags(interface, ETHTOOL_GFLAGS, 0)?;
    let wanted = if strips { flags | ETH_FLAG_RXVLAN } else { flags & !ETH_FLAG_RXVLAN };
    ethtool_flags(interface, ETHTOOL_SFLAGS, wanted).map(drop)
}

fn ethtool_flags(interface: &str, command: u32, data: u32) -> io::Result<u32> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut value = EthtoolValue { command, data };
    // SAFETY: a structure of numbers and pointers may be all zeros.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: SIOCETHTOOL reads one ifreq, and reads and writes the value that it points to; both outlive the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } {
        0 => Ok(value.data),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    /// Every namespace has a loopback interface, which runs no programs; nobody needs to be root to ask.
    #[test]
    fn the_loopback_interface_has_no_native_xdp() {
        let features = XdpFeatureQuery::open().unwrap().read().unwrap();
        let lo = features[&1];
        assert!(!lo.is_native() && !lo.sends_frames(), "{lo:?}");
        assert!(!strips_vlan_tags("lo").unwrap());
        assert!(strips_vlan_tags("no such one").is_err());
    }
}
