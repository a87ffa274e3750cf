//! The way of a packet that has passed, with what the rules have consulted: what the next packets of its direction are judged by.
use super::flow_way::{FlowSource, FlowTarget};
use keepstate_engine::Tuple;
use keepstate_rules::{EvalTrace, HoldReasons, RuleCounters, SetLookup};
use smallvec::{SmallVec, smallvec};
use std::net::IpAddr;

/// The way of one direction, as its last packet took it.
#[derive(Clone, Debug)]
pub(crate) struct NotedWay {
    pub(super) source: FlowSource,
    pub(super) target: FlowTarget,
    pub(super) set_mark: Option<u32>,
    pub(super) unmarked_only: bool,
    pub(super) plain_tos_only: bool,
    pub(super) counters: RuleCounters,
    /// Flags of TCP that rules have asked for.
    pub(super) tcp_flags_read: u8,
    /// Rules have asked for routes.
    pub(super) fib_read: bool,
    /// What rules have looked up in sets.
    pub(super) lookups: Box<[SetLookup]>,
    /// The last change of routes and of sets before it was found.
    pub(super) route_changes: u64,
    pub(super) set_changes: u64,
    /// The connection's mark that it was judged by.
    pub(super) conn_mark: u32,
    /// Another connection of the same ends may be judged otherwise.
    pub(super) one_connection: bool,
}

/// Where a packet came from and goes to; whether it came with a mark, and the one it has now; whether routes go by the type of service.
pub(crate) type PacketWay = (FlowSource, FlowTarget, (bool, u32), bool);

pub(super) type RoutedAddresses = SmallVec<[IpAddr; 1]>;

impl NotedWay {
    /// The way of a packet that has passed, or what keeps its connection here.
    pub(super) fn new(
        (source, target, (came_marked, mark), plain_tos_only): PacketWay,
        trace: &EvalTrace,
        conn_mark: u32,
        [route_changes, set_changes]: [u64; 2],
    ) -> Result<NotedWay, HoldReasons> {
        let unmarked_only = trace.mark_read;
        let by_mark = if unmarked_only && came_marked { HoldReasons::MARK } else { HoldReasons::empty() };
        // What the machine itself takes gets a socket.
        let is_forwarded = matches!(target, FlowTarget::Forward { .. });
        let by_socket = if trace.listeners_read && !is_forwarded { HoldReasons::SOCKET } else { HoldReasons::empty() };
        let holds = trace.holds | by_mark | by_socket;
        if !holds.is_empty() {
            return Err(holds);
        }
        Ok(NotedWay {
            source,
            target,
            set_mark: trace.mark_set.then_some(mark),
            unmarked_only,
            plain_tos_only,
            counters: trace.counters.clone(),
            tcp_flags_read: trace.tcp_flags_read,
            fib_read: trace.fib_read,
            lookups: trace.lookups.as_slice().into(),
            route_changes,
            set_changes,
            conn_mark,
            one_connection: trace.one_connection || trace.status_read,
        })
    }

    /// Where its packets go to.
    pub(crate) fn target(&self) -> FlowTarget {
        self.target
    }

    /// Would the packets of every other connection of the same ends take it too, by what is known of them when they come?
    pub(crate) fn is_of_ends(&self) -> bool {
        !self.one_connection && self.set_mark.is_none() && self.conn_mark == 0
    }

    /// The addresses whose routes it depends on: where it was forwarded to, whom the machine itself speaks with, and all that rules may have asked for.
    pub(super) fn routed_addresses(&self, tuple: &Tuple, translated: &Tuple) -> RoutedAddresses {
        let mut addresses: RoutedAddresses = match self.target {
            FlowTarget::Forward { .. } | FlowTarget::LetOut => smallvec![translated.destination],
            FlowTarget::Host => smallvec![tuple.source],
        };
        if self.fib_read {
            addresses.extend([tuple.source, tuple.destination, translated.source, translated.destination]);
        }
        addresses
    }
}
