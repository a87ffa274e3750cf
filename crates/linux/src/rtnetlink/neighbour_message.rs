//! rtnetlink's messages of neighbours: decoded, and the one that has the kernel resolve an address.
use super::fields::{family_of, parse_ip, push_ip, read_u32, rtm, split_header};
use crate::netlink::message::{NlRequest, flag};
use crate::netlink::{MalformedNetlink, NlAttrs};
use std::net::IpAddr;

/// A neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtNeighbour {
    /// The index of the interface.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
    /// Its MAC address; `None` while it is not known.
    pub mac: Option<[u8; 6]>,
    /// Resolution failed.
    pub failed: bool,
    /// Is the MAC address sure: confirmed lately, or set by hand?
    pub is_confirmed: bool,
}

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Its MAC address.
    Resolved([u8; 6]),
    /// It does not answer.
    Failed,
    /// It is being asked, or has no such address.
    Unknown,
}

impl RtNeighbour {
    /// What is known of it.
    pub fn state(&self) -> NeighbourState {
        match (self.mac, self.failed) {
            (Some(mac), _) => NeighbourState::Resolved(mac),
            (None, true) => NeighbourState::Failed,
            (None, false) => NeighbourState::Unknown,
        }
    }
}

/// States of a neighbour in which its address on the Ethernet holds: reachable, stale, delay, probe, no ARP, permanent.
const NUD_VALID: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;
/// Of these, those that need no confirmation: reachable, no ARP, permanent.
const NUD_CONFIRMED: u16 = 0x02 | 0x40 | 0x80;
/// It was asked for and did not answer.
const NUD_FAILED: u16 = 0x20;
/// Of its header, the bytes behind the first four.
pub(super) const NDMSG_REST: usize = 8;

/// Decodes one, known or gone; `None` without an address.
///
/// # Errors
/// It is cut off.
pub(super) fn decode(bytes: &[u8], gone: bool) -> Result<Option<RtNeighbour>, MalformedNetlink> {
    let (header, attributes) = split_header::<NDMSG_REST>(bytes, "a neighbour")?;
    let device = read_u32(header, 0);
    let state = header.get(4..6).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_ne_bytes);
    let (mut address, mut mac) = (None, None);
    for attribute in NlAttrs::new(attributes) {
        let attribute = attribute?;
        match attribute.kind {
            1 => address = parse_ip(attribute.payload),
            2 => mac = attribute.payload.try_into().ok(),
            _ => (),
        }
    }
    let mac = mac.filter(|_| state & NUD_VALID != 0 && !gone);
    // One that failed some time ago and is forgotten now says nothing of those who ask for it anew.
    let failed = state & NUD_FAILED != 0 && !gone;
    let is_confirmed = mac.is_some() && state & NUD_CONFIRMED != 0;
    Ok(address.map(|address| RtNeighbour { ifindex: device, address, mac, failed, is_confirmed }))
}

/// The request to resolve or probe a neighbour.
pub(super) fn resolve_request(device: u32, address: IpAddr) -> NlRequest {
    /// `NTF_USE`: somebody uses it now.
    const USED: u8 = 1;
    let mut request = NlRequest::new(rtm::NEW_NEIGHBOUR, flag::CREATE | flag::ACK, family_of(address));
    let mut header = device.to_ne_bytes().to_vec();
    header.extend([0, 0, USED, 0]);
    request.append(&header);
    push_ip(&mut request, 1, address);
    request
}
