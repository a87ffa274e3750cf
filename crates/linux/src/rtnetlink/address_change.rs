//! Addresses of interfaces added and removed: those that move to the machine that decides. The only thing that is changed here.
use super::fields::{family_of, push_ip, rtm};
use crate::netlink::message::{NlRequest, flag};
use crate::netlink::{NetlinkError, NetlinkSocket};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// Attributes of an address, by the kernel's names.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
/// IPv6: it is used at once, without asking whether another machine has it.
const IFA_F_NODAD: u32 = 0x02;

/// A socket that adds and removes addresses. It needs CAP_NET_ADMIN.
#[derive(Debug)]
pub struct AddressSocket {
    socket: NetlinkSocket,
}

impl AddressSocket {
    /// Opens it in the network namespace of this thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn open() -> io::Result<AddressSocket> {
        Ok(AddressSocket { socket: NetlinkSocket::open_rtnetlink()? })
    }

    /// Gives an interface an address, which the kernel removes by itself after `lifetime` (whole seconds) unless it is given again.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn put(
        &mut self,
        ifindex: u32,
        (address, length): (IpAddr, u8),
        lifetime: Duration,
    ) -> Result<(), NetlinkError> {
        let mut request = address_request(rtm::NEW_ADDRESS, flag::CREATE | flag::REPLACE, ifindex, (address, length));
        let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX).to_ne_bytes();
        // Preferred and valid time; the kernel says when it was made and changed.
        request.push(IFA_CACHEINFO, &[seconds, seconds, [0; 4], [0; 4]].concat());
        request.push(IFA_FLAGS, &IFA_F_NODAD.to_ne_bytes());
        self.socket.request(&mut request)
    }

    /// Takes it away; nothing happens if the interface does not have it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove(&mut self, ifindex: u32, address: (IpAddr, u8)) -> Result<(), NetlinkError> {
        match self.socket.request(&mut address_request(rtm::DEL_ADDRESS, 0, ifindex, address)) {
            Err(error) if error.errno() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            other => other,
        }
    }
}

fn address_request(kind: u16, flags: u16, ifindex: u32, (address, length): (IpAddr, u8)) -> NlRequest {
    // `struct ifaddrmsg`: family, prefix length, flags, scope; index.
    let mut request = NlRequest::new(kind, flags | flag::ACK, family_of(address)).version(length);
    request.append(&ifindex.to_ne_bytes());
    push_ip(&mut request, IFA_LOCAL, address);
    push_ip(&mut request, IFA_ADDRESS, address);
    request
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::super::{RtMessage, RtMonitor, dump_links};
    use super::*;
    use crate::netns::AnonNetns;

    #[test]
    fn an_address_is_there_from_put_to_remove() {
        let Ok(netns) = AnonNetns::create() else {
            return keepstate_test_support::report_skipped("changing addresses needs root");
        };
        let has = |address: IpAddr| {
            let all = RtMonitor::open().unwrap().dump_all().unwrap();
            all.iter().any(|told| matches!(told, RtMessage::Address(one) if one.address == address))
        };
        netns
            .enter(|| {
                let lo = dump_links().unwrap().into_iter().find(|link| link.name == "lo").unwrap().index;
                let mut socket = AddressSocket::open().unwrap();
                for (address, length) in [("192.0.2.77", 24), ("2001:db8::77", 64)] {
                    let address: IpAddr = address.parse().unwrap();
                    // Without IPv6 there is no such address.
                    let put = socket.put(lo, (address, length), Duration::from_secs(600));
                    if address.is_ipv6() && put.is_err() {
                        continue;
                    }
                    put.unwrap();
                    // Again: it lives longer.
                    socket.put(lo, (address, length), Duration::from_secs(1200)).unwrap();
                    assert!(has(address), "{address}");
                    socket.remove(lo, (address, length)).unwrap();
                    assert!(!has(address), "{address}");
                    socket.remove(lo, (address, length)).unwrap();
                }
                assert!(socket.put(9999, ([192, 0, 2, 77].into(), 24), Duration::from_secs(9)).is_err());
            })
            .unwrap();
    }
}
