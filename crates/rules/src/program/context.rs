//! Input and output of an evaluation: packet, connection, metadata, verdict.
use super::rule_trace::RuleTrace;
use super::trace::EvalTrace;
use crate::ast::{Reject, SynproxyInfo};
use crate::fib::{Fib, InterfaceInfo};
use crate::socket_lookup::{ProxySocket, SocketLookup};
use keepstate_engine::{Engine, Instant, PacketCtx, Zone};
use keepstate_wire::{Addresses, Packet};
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
    /// The machine's sockets; `None` if they cannot be asked for.
    pub sockets: Option<&'a dyn SocketLookup>,
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
    /// Where its route leads next, if it is known: a router, or its destination.
    pub next_hop: Option<IpAddr>,
    /// It is at the postrouting hook.
    pub is_leaving: bool,
    /// Mark.
    pub mark: u32,
    /// A chain of type route has changed what the packet's route depends on: its mark then.
    pub reroute_mark: Option<u32>,
    /// The user whose socket sends it, if that is known.
    pub socket_uid: Option<u32>,
    /// A socket of the machine sends it, or the kernel itself.
    pub is_sent: bool,
    /// The socket of a transparent proxy that a rule has given it to.
    pub proxy: Option<ProxySocket>,
    /// Priority.
    pub priority: u32,
    /// The zone that a rule has set before tracking.
    pub zone: Option<Zone>,
    /// `notrack` was applied.
    pub untracked: bool,
    /// The packet's type, where its frame or a rule says it.
    pub packet_type: Option<u8>,
    /// It is at the input hook: its route leads to this machine.
    pub is_delivered: bool,
    /// Copies that rules have made (`dup to`), to be sent when it leaves the hook.
    pub copies: Vec<PacketCopy>,
    /// The packet as rules have changed it: what leaves the hook in its place. Empty if none has.
    pub rewritten: Vec<u8>,
    /// It is a question, not a packet: what the rules would do with the next packet of a connection. Nothing is counted, and nothing is changed; a rule that would change something drops it, which
    /// its trace says by a reason to hold.
    pub is_probe: bool,
    /// What the evaluations so far have consulted.
    pub trace: EvalTrace,
    /// What rules do with the packet, recorded if this is there.
    pub rule_trace: Option<Box<RuleTrace>>,
    /// Log lines: level and text.
    pub log_lines: Vec<(u8, String)>,
}

impl EvalCtx<'_, '_> {
    /// What Linux compares behind a chain of type route (`nf_route_table_hook4`, `nf_route_table_hook6`): mark, addresses, and of the header TOS, or class, flow label and hop limit.
    pub(super) fn route_key(&self) -> (u32, Addresses, [u8; 5]) {
        let packet = self.current_packet();
        let header = match *packet.bytes() {
            [first, class, a, b, _, _, _, hops, ..] if first >> 4 == 6 => [first, class, a, b, hops],
            [_, tos, ..] => [0, tos, 0, 0, 0],
            _ => [0; 5],
        };
        (self.meta.mark, packet.addresses(), header)
    }
}

/// A copy of a packet for another machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketCopy {
    /// The packet as it was when the rule was reached.
    pub bytes: Vec<u8>,
    /// The gateway that it is sent to.
    pub to: IpAddr,
    /// The interface that the gateway is behind, by its name, encoded as [`InterfaceInfo::name`]; any if `None`.
    pub device: Option<u128>,
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
