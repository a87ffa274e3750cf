//! What an evaluation has consulted: the proof that a faster data path may, or must not, forward a connection's packets without asking the rules again.
//!
//! While a packet is evaluated, everything that is consulted and that may differ for the next packet of its connection is noted. If nothing was, every further packet of the same connection, direction
//! and state gets the same verdict, as long as the ruleset, its sets and the routes stay as they are. Rule counters on the way are noted too, for whoever counts the packets that do not come here,
//! and lookups in named sets, for whoever is told that their elements have changed.
use super::set_lookup::SetLookup;
use bitflags::bitflags;
use smallvec::SmallVec;

bitflags! {
    /// What keeps a connection from being offloaded.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct HoldReasons: u16 {
        /// A limit, a quota, or a limit of connections.
        const METER = 1 << 0;
        /// A log line for each packet.
        const LOG = 1 << 1;
        /// A set that packets change, or an element of a set that expires, counts or limits.
        const DYNAMIC_SET = 1 << 2;
        /// A part of the packet other than addresses, ports and protocol: length, DSCP, TTL, TCP flags, payload.
        const PACKET_CONTENT = 1 << 3;
        /// The mark that a packet came with, a connection's mark that rules change from packet to packet, its label, or the packet's priority.
        const MARK = 1 << 4;
        /// Counters or the timeout of the connection.
        const CT_COUNTER = 1 << 5;
        /// The time of day.
        const TIME = 1 << 6;
        /// A random or running number.
        const NUMGEN = 1 << 7;
        /// The packet is changed beyond NAT, or its connection.
        const REWRITE = 1 << 8;
        /// The socket or the route of the packet.
        const SOCKET = 1 << 9;
        /// The rules answer for the server (synproxy).
        const SYNPROXY = 1 << 10;
        /// More rules count its packets than are told to the data path.
        const COUNTERS = 1 << 11;
    }
}

impl HoldReasons {
    /// The name of a single reason, in statistics.
    pub fn name(self) -> &'static str {
        match self {
            HoldReasons::METER => "held_limit",
            HoldReasons::LOG => "held_log",
            HoldReasons::DYNAMIC_SET => "held_dynamic_set",
            HoldReasons::PACKET_CONTENT => "held_packet_content",
            HoldReasons::MARK => "held_mark",
            HoldReasons::CT_COUNTER => "held_ct_counter",
            HoldReasons::TIME => "held_time",
            HoldReasons::NUMGEN => "held_numgen",
            HoldReasons::REWRITE => "held_rewrite",
            HoldReasons::SOCKET => "held_socket",
            HoldReasons::SYNPROXY => "held_synproxy",
            HoldReasons::COUNTERS => "held_counters",
            _ => "held",
        }
    }
}

/// Indices of counters.
pub type RuleCounters = SmallVec<[u32; MAX_COUNTERS]>;

/// What an evaluation has consulted, beyond what stays the same for the packets of a connection.
#[derive(Clone, Debug, Default)]
pub struct EvalTrace {
    /// What may differ for the next packet.
    pub holds: HoldReasons,
    /// Indices of the counters that have counted the packet, as [`Program::count_offloaded`](super::Program::count_offloaded) takes them.
    pub counters: RuleCounters,
    /// The mark that the packet came with was consulted: a packet with another one may be judged otherwise.
    pub mark_read: bool,
    /// Rules have set the packet's mark: from then on it is that of the rules.
    pub mark_set: bool,
    /// Routes to the packet's addresses, or what kind of addresses they are, were consulted (`fib`).
    pub fib_read: bool,
    /// A packet of TCP was found to have no socket of its own: another verdict is possible once something else listens, or once the machine itself takes the connection.
    pub listeners_read: bool,
    /// The connection's status was consulted, which changes until it is assured.
    pub status_read: bool,
    /// More was consulted than the connection's addresses, the server's port, its interfaces, and that it is new: another connection of the same client to the same server may be judged otherwise.
    pub one_connection: bool,
    /// The flags of TCP that were consulted, of SYN, FIN, RST and ACK, by matches that asked for nothing else, and were as in ordinary segments: those have ACK alone. Segments with other flags may be judged
    /// otherwise.
    pub tcp_flags_read: u8,
    /// Lookups in named sets, each once: a change of what they find changes the verdict. [`SetLookup::ANY`] stands for those that were too many.
    pub lookups: SmallVec<[SetLookup; MAX_LOOKUPS]>,
}

/// Counters that are noted, at most: so many need no allocation.
const MAX_COUNTERS: usize = 8;
/// Lookups that are noted, at most.
const MAX_LOOKUPS: usize = 8;

impl EvalTrace {
    /// Notes that a counter has counted the packet.
    pub(super) fn note_counter(&mut self, counter: u32) {
        match self.counters.len() < MAX_COUNTERS {
            true => self.counters.push(counter),
            false => self.holds |= HoldReasons::COUNTERS,
        }
    }

    /// Notes a lookup.
    pub(super) fn note_lookup(&mut self, lookup: SetLookup) {
        if self.lookups.contains(&lookup) {
            return;
        }
        if self.lookups.len() < MAX_LOOKUPS {
            self.lookups.push(lookup);
        } else if let Some(last) = self.lookups.last_mut() {
            *last = SetLookup::ANY;
        }
    }

    /// Notes that the packet's mark is consulted.
    pub fn note_mark(&mut self) {
        self.mark_read |= !self.mark_set;
    }

    /// Adds what another chain's evaluation has consulted.
    pub(super) fn add(&mut self, other: &EvalTrace) {
        self.holds |= other.holds;
        self.mark_read |= other.mark_read;
        self.mark_set |= other.mark_set;
        self.fib_read |= other.fib_read;
        self.listeners_read |= other.listeners_read;
        self.status_read |= other.status_read;
        self.one_connection |= other.one_connection;
        self.tcp_flags_read |= other.tcp_flags_read;
        other.counters.iter().for_each(|counter| self.note_counter(*counter));
        other.lookups.iter().for_each(|lookup| self.note_lookup(*lookup));
    }

    /// Begins the next chain of a packet, whose mark rules have set before or not.
    pub(super) fn begin_chain(&mut self, mark_set: bool) {
        self.holds = HoldReasons::empty();
        self.counters.clear();
        self.lookups.clear();
        self.mark_read = false;
        self.fib_read = false;
        self.listeners_read = false;
        self.status_read = false;
        self.one_connection = false;
        self.tcp_flags_read = 0;
        self.mark_set = mark_set;
    }
}
