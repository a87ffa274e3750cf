//! A packet on its way through the rules: tracked, not yet confirmed.
use crate::extension::Extension;
use crate::helper::HelperState;
use crate::helper_packet::HelperPacket;
use crate::protocol::Tracker;
use crate::table::key::TupleKey;
use crate::{ConnId, Connection, CtInfo, Direction, Helper, Outcome, Reason, Status, Tuple, Zone};
use alloc::boxed::Box;

/// What [`Engine::track`](crate::Engine::track) found. Give it to [`Engine::confirm`](crate::Engine::confirm) when the packet has passed
/// the last rule; drop it when a rule dropped the packet, and nothing is left of it.
#[derive(Debug)]
pub struct PacketCtx {
    pub(crate) outcome: Outcome,
    pub(crate) pending: Pending,
    /// The packet is an ICMP error about its connection, not of it.
    pub(crate) is_icmp_error: bool,
    /// The connection that the packet has ended: rules may still ask about it, and the packet is translated as ever.
    pub(crate) ended: Option<Box<Connection>>,
}

/// What waits for the packet to pass the last rule.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a box would be an allocation a connection")]
pub(crate) enum Pending {
    Nothing,
    /// A connection to be entered.
    Unconfirmed(Unconfirmed),
    /// Words for a helper.
    HelperPacket(HelperPacket),
}

impl PacketCtx {
    /// Nothing waits.
    pub(crate) const fn finished(outcome: Outcome) -> PacketCtx {
        PacketCtx { outcome, pending: Pending::Nothing, is_icmp_error: false, ended: None }
    }
    /// All that tracking says of the packet so far.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }
    /// The packet of an answer of our own to this packet (an ICMP error, a reset): of the same connection, the other way, and RELATED.
    pub fn reply_ctx(&self) -> PacketCtx {
        let outcome = Outcome {
            info: CtInfo::Related,
            direction: self.outcome.direction.map(Direction::opposite),
            ..self.outcome
        };
        PacketCtx { outcome, pending: Pending::Nothing, is_icmp_error: false, ended: self.ended.clone() }
    }
    /// The packet of a packet of our own that goes the same way: of the same connection, as much answered as this one.
    pub fn same_direction_ctx(&self) -> PacketCtx {
        PacketCtx { ended: self.ended.clone(), ..PacketCtx::finished(self.outcome) }
    }
    /// Its relation to the table.
    pub fn info(&self) -> CtInfo {
        self.outcome.info
    }
    /// Its direction, if it has a connection.
    pub fn direction(&self) -> Option<Direction> {
        self.outcome.direction
    }
    /// Its connection, if that is in the table.
    pub fn connection(&self) -> Option<ConnId> {
        self.outcome.connection
    }
    /// Why it is invalid or was ignored.
    pub fn reason(&self) -> Option<Reason> {
        self.outcome.reason
    }
    /// The connection it begins: rules may still change it.
    pub fn unconfirmed(&mut self) -> Option<&mut Unconfirmed> {
        match &mut self.pending {
            Pending::Unconfirmed(fresh) => Some(fresh),
            Pending::Nothing | Pending::HelperPacket(_) => None,
        }
    }
}

/// A connection that exists only as long as its first packet is on its way: the only time its reply tuple may change.
#[derive(Debug)]
pub struct Unconfirmed {
    pub(crate) original: TupleKey,
    pub(crate) reply: TupleKey,
    /// The reply is the original turned round: nothing was translated.
    pub(crate) untranslated: bool,
    pub(crate) zone: Zone,
    pub(crate) status: Status,
    pub(crate) tracker: Tracker,
    /// Ticks from its confirmation on.
    pub(crate) timeout: u32,
    /// Bytes of the first packet, once it was counted.
    pub(crate) counted_bytes: Option<u64>,
    /// A translation found no free tuple: it cannot be entered.
    pub(crate) nat_exhausted: bool,
    /// What it was to have is not to be had, though its tuple may be free: it is not entered.
    pub(crate) nat_refused: bool,
    /// The table's epoch when the tuples were found free.
    pub(crate) table_epoch: u64,
    /// The hashes of both tuples, each 0 if not known.
    pub(crate) hashes: [u64; 2],
    /// A helper, a master: for the few that have one.
    pub(crate) extension: Option<Box<Extension>>,
    /// The mark; kept with the connection.
    pub mark: u32,
    /// Labels; kept with the connection.
    pub labels: Option<[u8; 16]>,
}

impl Unconfirmed {
    /// The tuple of the first packet.
    pub fn original(&self) -> Tuple {
        self.original.tuple()
    }
    /// The tuple the answer will have.
    pub fn reply(&self) -> Tuple {
        self.reply.tuple()
    }
    /// Status bits so far.
    pub fn status(&self) -> Status {
        self.status
    }
    pub(crate) const fn has_extension(&self) -> bool {
        self.labels.is_some() || self.extension.is_some()
    }
    /// Attaches a helper, as nftables' `ct helper set` does. A connection of a protocol that the helper does not hear stays as it is.
    pub fn attach_helper(&mut self, helper: Helper) {
        if self.original.protocol == helper.protocol() {
            self.extension.get_or_insert_default().helper_state = Some(HelperState::new(helper));
            self.status |= Status::HELPER;
        }
    }
}
