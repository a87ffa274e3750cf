//! IPsec policies of this thread's network namespace (xfrm), as far as they concern what is forwarded.
use crate::netlink::message::NlBody;
use crate::netlink::{NetlinkError, NetlinkSocket, NlAttrs, NlMessage, NlRequest, message::flag};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::ControlFlow;
use std::time::Duration;

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XfrmPolicy {
    /// Source: address, and length of the prefix.
    pub source: (IpAddr, u8),
    /// Destination, likewise.
    pub destination: (IpAddr, u8),
    /// Protocol; 0 is any.
    pub protocol: u8,
    /// Source port, and which of its bits count.
    pub source_port: (u16, u16),
    /// Destination port, likewise.
    pub destination_port: (u16, u16),
    /// The index of the interface; 0 is any.
    pub ifindex: u32,
    /// The mark, and which of its bits count.
    pub mark: (u32, u32),
    /// The smallest is asked first.
    pub priority: u32,
    /// Which packets it is for.
    pub direction: IpsecDirection,
    /// What becomes of them.
    pub action: XfrmAction,
}

/// Which packets a policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpsecDirection {
    /// Those for the machine itself.
    In,
    /// Those that leave it.
    Out,
    /// Those that it forwards.
    Forward,
}

/// What becomes of a policy's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XfrmAction {
    /// They pass as they are.
    Allow,
    /// They are dropped.
    Block,
    /// They are to be transformed (encrypted, mostly), or have been.
    Transform,
}

/// `XFRM_MSG_NEWPOLICY` and `XFRM_MSG_GETPOLICY`.
const NEW_POLICY: u16 = 0x13;
const GET_POLICY: u16 = 0x15;
/// `XFRMNLGRP_POLICY`.
const POLICY_GROUP: u32 = 4;
/// Bytes of `struct xfrm_userpolicy_info`.
const POLICY_LEN: usize = 168;
/// Bytes of `struct xfrm_userpolicy_id`.
const POLICY_ID_LEN: usize = 64;
/// Where its parts are.
const SOURCE_AT: usize = 16;
const DESTINATION_PORT_AT: usize = 32;
const SOURCE_PORT_AT: usize = 36;
const FAMILY_AT: usize = 40;
const PREFIX_LENGTHS_AT: usize = 42;
const PROTOCOL_AT: usize = 44;
const IFINDEX_AT: usize = 48;
const PRIORITY_AT: usize = 152;
const DIRECTION_AT: usize = 160;
const ACTION_AT: usize = 161;
/// `XFRMA_TMPL` and `XFRMA_MARK`.
const TEMPLATES: u16 = 5;
const MARK: u16 = 21;

/// The policies of this thread's network namespace, the one that is asked first in front.
///
/// # Errors
/// The kernel has no IPsec, or does not tell: it needs CAP_NET_ADMIN.
pub fn xfrm_policies() -> Result<Vec<XfrmPolicy>, NetlinkError> {
    let mut socket = NetlinkSocket::open_xfrm()?;
    // The request's own header is the first of the four words that are always there.
    let mut request = NlRequest::new(GET_POLICY, flag::DUMP, 0);
    request.append(&[0; POLICY_ID_LEN - 4]);
    let mut found = Vec::new();
    socket.dump(&mut request, |message| {
        found.extend(decode(&message));
        ControlFlow::Continue(())
    })?;
    // Those of one priority in the order that they came.
    found.sort_by_key(|policy| policy.priority);
    Ok(found)
}

/// Hears of changed policies.
#[derive(Debug)]
pub struct XfrmPolicyMonitor(NetlinkSocket);

impl XfrmPolicyMonitor {
    /// In this thread's network namespace.
    ///
    /// # Errors
    /// The kernel has no IPsec.
    pub fn open() -> io::Result<XfrmPolicyMonitor> {
        let mut socket = NetlinkSocket::open_xfrm()?;
        socket.join_groups(&[POLICY_GROUP])?;
        Ok(XfrmPolicyMonitor(socket))
    }

    /// Waits for a change, but not longer than this; whether there was one, or may have been.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, NetlinkError> {
        if !self.0.wait_readable(timeout)? {
            return Ok(false);
        }
        match self.0.receive() {
            Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => Err(error.into()),
            _ => Ok(true),
        }
    }
}

fn decode(message: &NlMessage<'_>) -> Option<XfrmPolicy> {
    let NlBody::Data { family, version, resource, attributes } = message.body else { return None };
    if message.kind != NEW_POLICY {
        return None;
    }
    // What other messages begin with is the first word of this one's destination.
    let [high, low] = resource.to_be_bytes();
    let (rest, attributes) = attributes.split_at_checked(POLICY_LEN - 4)?;
    let bytes = [&[family, version, high, low], rest].concat();
    let byte = |at: usize| bytes.get(at).copied();
    let be16 = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let is_v6 = i32::from(u16::from_ne_bytes(*bytes.get(FAMILY_AT..)?.first_chunk()?)) == libc::AF_INET6;
    let address = |at: usize| {
        let bytes = bytes.get(at..)?;
        Some(match is_v6 {
            true => IpAddr::from(Ipv6Addr::from(*bytes.first_chunk::<16>()?)),
            false => IpAddr::from(Ipv4Addr::from(*bytes.first_chunk::<4>()?)),
        })
    };
    let (mut mark, mut has_templates) = ((0, 0), false);
    for attribute in NlAttrs::new(attributes).flatten() {
        match (attribute.kind, attribute.payload) {
            (TEMPLATES, templates) => has_templates = !templates.is_empty(),
            (MARK, &[a, b, c, d, e, f, g, h]) => {
                mark = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
            }
            _ => (),
        }
    }
    Some(XfrmPolicy {
        source: (address(SOURCE_AT)?, byte(PREFIX_LENGTHS_AT + 1)?),
        destination: (address(0)?, byte(PREFIX_LENGTHS_AT)?),
        protocol: byte(PROTOCOL_AT)?,
        source_port: (be16(SOURCE_PORT_AT)?, be16(SOURCE_PORT_AT + 2)?),
        destination_port: (be16(DESTINATION_PORT_AT)?, be16(DESTINATION_PORT_AT + 2)?),
        ifindex: word(IFINDEX_AT)?,
        mark,
        priority: word(PRIORITY_AT)?,
        direction: match byte(DIRECTION_AT)? {
            0 => IpsecDirection::In,
            1 => IpsecDirection::Out,
            2 => IpsecDirection::Forward,
            // Of one socket.
            _ => return None,
        },
        action: match (byte(ACTION_AT)?, has_templates) {
            (0, false) => XfrmAction::Allow,
            (0, true) => XfrmAction::Transform,
            _ => XfrmAction::Block,
        },
    })
}
