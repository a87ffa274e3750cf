//! A packet on its way through the rules: tracked, not yet confirmed.
use crate::extras::Extra;
use crate::helper::Listener;
use crate::protocol::Tracker;
use crate::saying::Saying;
use crate::table::key::Key;
use crate::{Connection, Direction, Handle, Helper, Info, Outcome, Status, Tuple, Why, Zone};
use alloc::boxed::Box;

/// What [`Engine::track`](crate::Engine::track) found. Give it to [`Engine::confirm`](crate::Engine::confirm) when the packet has passed
/// the last rule; drop it when a rule dropped the packet, and nothing is left of it.
#[derive(Debug)]
pub struct Passage {
    pub(crate) outcome: Outcome,
    pub(crate) pending: Pending,
    /// The packet is an ICMP error about its connection, not of it.
    pub(crate) about: bool,
    /// The connection that the packet has ended: rules may still ask about it, and the packet is translated as ever.
    pub(crate) ended: Option<Box<Connection>>,
}

/// What waits for the packet to pass the last rule.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a box would be an allocation a connection")]
pub(crate) enum Pending {
    Nothing,
    /// A connection to be entered.
    Begun(Unconfirmed),
    /// Words for a helper.
    Said(Saying),
}

impl Passage {
    /// Nothing waits.
    pub(crate) const fn settled(outcome: Outcome) -> Passage {
        Passage { outcome, pending: Pending::Nothing, about: false, ended: None }
    }
    /// All that tracking says of the packet so far.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }
    /// The passage of an answer of our own to this packet (an ICMP error, a reset): of the same connection, the other way, and RELATED.
    pub fn answer(&self) -> Passage {
        let outcome =
            Outcome { info: Info::Related, direction: self.outcome.direction.map(Direction::opposite), ..self.outcome };
        Passage { outcome, pending: Pending::Nothing, about: false, ended: self.ended.clone() }
    }
    /// The passage of a packet of our own that goes the same way: of the same connection, as much answered as this one.
    pub fn again(&self) -> Passage {
        Passage { ended: self.ended.clone(), ..Passage::settled(self.outcome) }
    }
    /// Its relation to the table.
    pub fn info(&self) -> Info {
        self.outcome.info
    }
    /// Its direction, if it has a connection.
    pub fn direction(&self) -> Option<Direction> {
        self.outcome.direction
    }
    /// Its connection, if that is in the table.
    pub fn connection(&self) -> Option<Handle> {
        self.outcome.connection
    }
    /// Why it is invalid or was ignored.
    pub fn why(&self) -> Option<Why> {
        self.outcome.why
    }
    /// The connection it begins: rules may still change it.
    pub fn unconfirmed(&mut self) -> Option<&mut Unconfirmed> {
        match &mut self.pending {
            Pending::Begun(fresh) => Some(fresh),
            Pending::Nothing | Pending::Said(_) => None,
        }
    }
}

/// A connection that exists only as long as its first packet is on its way: the only time its reply tuple may change.
#[derive(Debug)]
pub struct Unconfirmed {
    pub(crate) original: Key,
    pub(crate) reply: Key,
    /// The reply is the original turned round: nothing was translated.
    pub(crate) plain: bool,
    pub(crate) zone: Zone,
    pub(crate) status: Status,
    pub(crate) tracker: Tracker,
    /// Ticks from its confirmation on.
    pub(crate) timeout: u32,
    /// Octets of the first packet, once it was counted.
    pub(crate) counted: Option<u64>,
    /// A translation found no free tuple: it cannot be entered.
    pub(crate) exhausted: bool,
    /// What it was to have is not to be had, though its tuple may be free: it is not entered.
    pub(crate) refused: bool,
    /// The table's epoch when the tuples were found free.
    pub(crate) epoch: u64,
    /// The hashes of both tuples, each 0 if not known.
    pub(crate) hashes: [u64; 2],
    /// A helper, a master: for the few that have one.
    pub(crate) extra: Option<Box<Extra>>,
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
    pub(crate) const fn has_extras(&self) -> bool {
        self.labels.is_some() || self.extra.is_some()
    }
    /// Attaches a helper, as nftables' `ct helper set` does. A connection of a protocol that the helper does not hear stays as it is.
    pub fn attach_helper(&mut self, helper: Helper) {
        if self.original.protocol == helper.protocol() {
            self.extra.get_or_insert_default().listener = Some(Listener::new(helper));
            self.status |= Status::HELPER;
        }
    }
}
