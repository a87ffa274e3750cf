//! The tracking context of a packet between tracking and confirmation, while the ruleset processes it (as `skb->_nfct` in Linux).
use crate::event_bits::EventBits;
use crate::expectation::PendingExpectations;
use crate::extension::Extension;
use crate::helper::HelperState;
use crate::helper_packet::HelperPacket;
use crate::protocol::Tracker;
use crate::table::key::TupleKey;
use crate::{ConnId, Connection, CtInfo, Direction, Engine, Helper, Outcome, Reason, Status, Tuple, Zone};
use alloc::boxed::Box;

/// The result of [`Engine::track`](crate::Engine::track). Pass it to [`Engine::confirm`](crate::Engine::confirm) when the packet has passed
/// the last rule. If a rule drops the packet, drop the context: the table is as if the packet's new connection had never been.
#[derive(Debug)]
pub struct PacketCtx {
    pub(crate) outcome: Outcome,
    pub(crate) pending: Pending,
    /// The packet is an ICMP error about its connection, not of it.
    pub(crate) is_icmp_error: bool,
    /// A copy of the connection that the packet has ended: the ruleset can still read it, and the packet is still translated.
    pub(crate) ended: Option<Box<Connection>>,
}

/// What confirmation has to do.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a box would be an allocation a connection")]
pub(crate) enum Pending {
    Nothing,
    /// Insert a connection.
    Unconfirmed(Unconfirmed),
    /// Pass a payload to a helper.
    HelperPacket(HelperPacket),
}

impl Engine {
    /// The context that a packet of a connection would have once it is established: for asking rules what they would do with it. Nothing is tracked.
    pub fn established_ctx(&self, conn_id: ConnId, direction: Direction) -> PacketCtx {
        PacketCtx::finished(Outcome::tracked(CtInfo::Established, direction, conn_id))
    }
}

impl PacketCtx {
    /// A context without anything to confirm.
    pub(crate) const fn finished(outcome: Outcome) -> PacketCtx {
        PacketCtx { outcome, pending: Pending::Nothing, is_icmp_error: false, ended: None }
    }
    /// The result of tracking so far.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }
    /// The context of a locally generated reply to this packet (an ICMP error, a RST): same connection, opposite direction, RELATED.
    pub fn reply_ctx(&self) -> PacketCtx {
        let outcome = Outcome {
            info: CtInfo::Related,
            direction: self.outcome.direction.map(Direction::opposite),
            ..self.outcome
        };
        PacketCtx { outcome, pending: Pending::Nothing, is_icmp_error: false, ended: self.ended.clone() }
    }
    /// The context of a locally generated packet in the same direction: same connection, same `ct state`.
    pub fn same_direction_ctx(&self) -> PacketCtx {
        PacketCtx { ended: self.ended.clone(), ..PacketCtx::finished(self.outcome) }
    }
    /// The same of a packet that was confirmed as one of this connection, for hooks that it passes afterwards: Linux keeps it (`skb->_nfct`) over the loopback interface.
    pub fn confirmed_as(self, conn_id: Option<ConnId>) -> PacketCtx {
        let connection = conn_id.or(self.outcome.connection);
        PacketCtx { outcome: Outcome { connection, ..self.outcome }, ..self }
    }
    /// Its relation to the table.
    pub fn info(&self) -> CtInfo {
        self.outcome.info
    }
    /// Its direction, if it has a connection.
    pub fn direction(&self) -> Option<Direction> {
        self.outcome.direction
    }
    /// Its connection, if it is in the table.
    pub fn connection(&self) -> Option<ConnId> {
        self.outcome.connection
    }
    /// Why it is invalid, ignored or dropped.
    pub fn reason(&self) -> Option<Reason> {
        self.outcome.reason
    }
    /// The connection it begins. Rules may still change it.
    pub fn unconfirmed(&mut self) -> Option<&mut Unconfirmed> {
        match &mut self.pending {
            Pending::Unconfirmed(fresh) => Some(fresh),
            Pending::Nothing | Pending::HelperPacket(_) => None,
        }
    }
}

/// A connection whose first packet is not confirmed yet. It is not in the table, and its reply tuple may still change (NAT).
#[derive(Debug)]
pub struct Unconfirmed {
    pub(crate) original: TupleKey,
    pub(crate) reply: TupleKey,
    /// The reply is the inverse of the original: nothing was translated.
    pub(crate) untranslated: bool,
    pub(crate) zone: Zone,
    pub(crate) status: Status,
    pub(crate) tracker: Tracker,
    /// Its timeout in ticks, counted from confirmation.
    pub(crate) timeout: u32,
    /// Bytes of the first packet; `None` if it is not counted.
    pub(crate) counted_bytes: Option<u64>,
    /// NAT found no free tuple: it cannot be inserted.
    pub(crate) nat_exhausted: bool,
    /// NAT refused it although its tuple may be free: it is not inserted.
    pub(crate) nat_refused: bool,
    /// Its source is the address that an interface has now.
    pub(crate) masqueraded: bool,
    /// The table's epoch when its tuples were found free.
    pub(crate) table_epoch: u64,
    /// The table's epoch when NAT found the reply tuple, as it is now, free; `u64::MAX` if it has not.
    pub(crate) reply_free_epoch: u64,
    /// The hashes of both tuples; 0 if unknown.
    pub(crate) hashes: [u64; 2],
    /// Helper, master and other extensions, if it has any.
    pub(crate) extension: Option<Box<Extension>>,
    /// What rules expect of it.
    pub(crate) expected: Option<Box<PendingExpectations>>,
    /// Which of its events are told, if a rule has chosen them.
    pub(crate) event_bits: Option<EventBits>,
    /// The mark of the connection.
    pub mark: u32,
    /// The labels of the connection, bit 0 first.
    pub labels: Option<[u8; 16]>,
}

impl Unconfirmed {
    /// The tuple of the first packet.
    pub fn original(&self) -> Tuple {
        self.original.tuple()
    }
    /// The reply tuple, with the NAT decided so far.
    pub fn reply(&self) -> Tuple {
        self.reply.tuple()
    }
    /// Status bits so far.
    pub fn status(&self) -> Status {
        self.status
    }
    pub(crate) const fn has_extension(&self) -> bool {
        self.labels.is_some() || self.extension.is_some() || self.expected.is_some()
    }
    /// Attaches a helper, as nftables' `ct helper set` does. No effect if the connection has another protocol than the helper.
    pub fn attach_helper(&mut self, helper: Helper) {
        if self.original.protocol == helper.protocol() {
            self.extension.get_or_insert_default().helper_state = Some(HelperState::new(helper));
            self.status |= Status::HELPER;
        }
    }
}
