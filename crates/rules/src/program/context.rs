//! Input and output of an evaluation: packet, connection, metadata, verdict.
use super::trace::EvalTrace;
use crate::ast::{Endpoint, PayloadField, Reject, SynproxyInfo};
use crate::fib::{Fib, InterfaceInfo};
use keepstate_engine::{Engine, Instant, PacketCtx, Zone};
use keepstate_wire::Packet;
use std::net::IpAddr;

/// One packet at one hook.
pub struct EvalCtx<'a, 'p> {
    /// The connection tracking engine.
    pub engine: &'a mut Engine,
    /// The packet's connection; `None` before tracking.
    pub packet_ctx: Option<&'a mut PacketCtx>,
    /// The packet.
    pub packet: &'a Packet<'p>,
    /// Its metadata.
    pub meta: &'a mut PacketMeta,
    /// Interfaces, addresses and routes.
    pub fib: &'a dyn Fib,
    /// Current time.
    pub now: Instant,
}

/// Metadata of a packet, kept from one hook to the next.
#[derive(Clone, Debug, Default)]
pub struct PacketMeta {
    /// Header of the Ethernet frame that it came in: destination, source, type. `None` if the packet came without one.
    pub link_header: Option<[u8; 14]>,
    /// Input interface.
    pub iif: Option<InterfaceInfo>,
    /// Output interface.
    pub oif: Option<InterfaceInfo>,
    /// It is at the postrouting hook.
    pub is_leaving: bool,
    /// Mark.
    pub mark: u32,
    /// Priority.
    pub priority: u32,
    /// The zone that a rule has set before tracking.
    pub zone: Option<Zone>,
    /// `notrack` was applied.
    pub untracked: bool,
    /// Header changes to apply after this hook.
    pub rewrites: Vec<HeaderRewrite>,
    /// What the evaluations so far have consulted.
    pub trace: EvalTrace,
    /// Log lines: level and text.
    pub log_lines: Vec<(u8, String)>,
}

/// A change of a packet's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderRewrite {
    /// DSCP.
    Dscp(u8),
    /// TTL or hop limit.
    Ttl(u8),
    /// MSS of a SYN, never raised. 0 stands for the MTU of the route.
    TcpMss(u16),
    /// An address, without NAT of the connection.
    Address(Endpoint, IpAddr),
    /// A port, without NAT of the connection.
    Port(Endpoint, u16),
    /// Bits of a header.
    Payload(PayloadField, u128),
    /// Replaces the TCP option of this number by no-operations.
    TcpOptStrip(u8),
}

/// Result of the chains of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Accepted.
    Accept,
    /// Dropped.
    Drop,
    /// Dropped, with an error to the sender.
    Reject(Reject),
    /// A client's SYN or ACK that the SYN proxy answers.
    Synproxy(SynproxyInfo),
}
