//! What a program is shown of one packet, and what it leaves behind.
use crate::ast::{Endpoint, PayloadField, Reject, SynproxyInfo};
use keepstate_engine::{Engine, Instant, PacketCtx, Zone};
use keepstate_wire::Packet;
use std::net::IpAddr;

/// One packet at one place of its way.
pub struct EvalCtx<'a, 'p> {
    /// The table that tracks it.
    pub engine: &'a mut Engine,
    /// What tracking made of it; `None` before it was tracked.
    pub packet_ctx: Option<&'a mut PacketCtx>,
    /// The packet as it is now.
    pub packet: &'a Packet<'p>,
    /// What goes with it.
    pub meta: &'a mut PacketMeta,
    /// Devices, addresses and routes.
    pub fib: &'a dyn Fib,
    /// The time.
    pub now: Instant,
}

/// What goes with a packet from one place to the next.
#[derive(Clone, Debug, Default)]
pub struct PacketMeta {
    /// Where it came in.
    pub iif: Option<InterfaceInfo>,
    /// Where it is to go out.
    pub oif: Option<InterfaceInfo>,
    /// Its mark.
    pub mark: u32,
    /// Its priority.
    pub priority: u32,
    /// The zone it is to be tracked in.
    pub zone: Zone,
    /// It is not to be tracked.
    pub untracked: bool,
    /// What is to be changed in it when it leaves this place.
    pub rewrites: Vec<HeaderRewrite>,
    /// Lines for the log: level and text.
    pub log_lines: Vec<(u8, String)>,
}

/// A change of a packet's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderRewrite {
    /// The six bits of its class.
    Dscp(u8),
    /// How many routers it may still pass.
    Ttl(u8),
    /// The greatest segment a SYN announces: never raised. 0 is what fits the way out.
    TcpMss(u16),
    /// An address, though its connection keeps it.
    Address(Endpoint, IpAddr),
    /// A port, likewise.
    Port(Endpoint, u16),
    /// Bits of a header.
    Payload(PayloadField, u128),
    /// The option of TCP of this number becomes no-operations.
    TcpOptStrip(u8),
}

/// A device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceInfo {
    /// Its index.
    pub index: u32,
    /// Its name, as [`letters`](crate::kind::letters) has it.
    pub name: u128,
    /// The group it belongs to; 0 is the default.
    pub group: u32,
}

/// What an address is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the kernel's (rtnetlink)")]
pub enum AddressType {
    Unspecified = 0,
    Unicast = 1,
    Local = 2,
    Broadcast = 3,
    Anycast = 4,
    Multicast = 5,
    Blackhole = 6,
    Unreachable = 7,
    Prohibit = 8,
}

/// The machine a packet passes: what rules may ask of it.
pub trait Fib {
    /// What an address is, by the routes; of those through `device` only, if one is given.
    fn address_type(&self, address: IpAddr, device: Option<u32>) -> AddressType;
    /// The device a packet to this address would leave by; among routes through `device` only, if one is given.
    fn route_lookup(&self, address: IpAddr, device: Option<u32>) -> Option<InterfaceInfo>;
    /// The address that a device would send from (of the family, to this destination).
    fn source_address(&self, device: u32, to: IpAddr) -> Option<IpAddr>;
    /// The largest datagram a device takes.
    fn mtu(&self, device: u32) -> u32;
}

/// What becomes of a packet at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Accept,
    /// It is gone.
    Drop,
    /// It is gone, and its sender is told so.
    Reject(Reject),
    /// A SYN, or an ACK, of a client whose handshake is answered in his server's name.
    Synproxy(SynproxyInfo),
}
