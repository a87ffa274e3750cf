//! What a program is shown of one packet, and what it leaves behind.
use crate::ast::{Endpoint, PayloadField, Reject, SynproxyInfo};
use crate::fib::{Fib, InterfaceInfo};
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
