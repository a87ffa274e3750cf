//! One connection as it leaves one engine and enters another: everything that matters about it, and nothing of where it stood.
//!
//! A [`Description`] is made from a living connection ([`Engine::export`]), may be written as octets that say themselves what they are
//! ([`Description::encode`]), and becomes a connection again in an engine that has neither of its tuples ([`Engine::import`]): its timeouts go on, a
//! child finds its master, a source keeps its mapping (of several, the one that was imported last). What changes meanwhile is told by [`Engine::poll_change`]. Octets are not believed: what
//! cannot be a connection is refused with a reason, and nothing of it is entered. Announced connections that have not come yet are not described.
mod changes;
mod codec;
mod import;

pub(crate) use changes::Changes;
pub use codec::Undecodable;
pub use import::{Refused, Trust};

use crate::helper::Listener;
use crate::nat::Shifts;
use crate::protocol::{Noted, Tcp, sctp::Sctp, stateless::Stateless};
use crate::table::Reference;
use crate::table::record::{Hot, Kind};
use crate::time::{Clock, milliseconds};
use crate::tuple::protocol;
use crate::{Accounting, Direction, Engine, Handle, Helper, Instant, Knob, Promise, Status, Tuple, Zone};
use alloc::vec::Vec;

/// One connection, apart from any engine. Times are relative to the moment of its export.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The first packet's tuple.
    pub original: Tuple,
    /// The answer's tuple; where it is not the original turned round, the connection is translated.
    pub reply: Tuple,
    /// Its zone.
    pub zone: Zone,
    /// Status bits.
    pub status: Status,
    /// Milliseconds until it expires.
    pub remaining: u64,
    /// The mark.
    pub mark: u32,
    /// Labels, bit 0 first; `None` if none were ever set.
    pub labels: Option<[u8; 16]>,
    /// Packets and bytes, original then reply, if they are counted.
    pub accounting: Option<[Accounting; 2]>,
    /// When it was confirmed, if that is kept.
    pub start: Option<Instant>,
    /// The original tuple of its master, if it was expected.
    pub master: Option<Tuple>,
    /// Timeouts of its own, in seconds: `ct timeout`.
    pub timeouts: Vec<(Knob, u32)>,
    pub(crate) protocol: Progress,
    pub(crate) listener: Option<Listener>,
    pub(crate) noted: Option<Noted>,
    /// How much longer its streams have become.
    pub(crate) shifts: Option<Shifts>,
    /// What its client was promised in its server's name.
    pub(crate) promise: Option<Promise>,
    /// Segments each way until its TCP window is strict again.
    pub(crate) regains: Option<[u8; 2]>,
}

/// How far its protocol has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Progress {
    Tcp(Tcp),
    Sctp(Sctp),
    /// UDP: milliseconds until it may be a stream; 0 if it may be one already.
    Udp {
        stream_in: u64,
    },
    /// GRE: the timeouts in force when it began, in milliseconds.
    Gre {
        timeout: u64,
        stream: u64,
    },
    /// Tuple and timeout are all there is.
    Stateless,
}

impl Description {
    /// The helper attached to it.
    pub fn helper(&self) -> Option<Helper> {
        self.listener.map(|listener| listener.helper())
    }
}

impl Engine {
    /// Describes one connection, if it still lives.
    ///
    /// ```
    /// use keepstate_engine::{Description, Engine, Instant, Knobs, Secret, Trust, Zone};
    /// use keepstate_wire::Packet;
    /// let ping = [0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0x66, 0xd3, 10, 1, 0, 2, 10, 2, 0, 9, 8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
    /// let mut engine = Engine::new(Knobs::default(), Secret([7; 16]), Instant(0));
    /// let outcome = engine.handle(&Packet::parse(&ping).unwrap(), Zone::default(), Instant(0));
    /// let mut octets = Vec::new();
    /// engine.export(outcome.connection.unwrap(), Instant(0)).unwrap().encode(&mut octets);
    /// // Ten seconds later, elsewhere:
    /// let (gap, now) = (std::time::Duration::from_secs(10), Instant::from_secs(10));
    /// let mut heir = Engine::new(Knobs::default(), Secret([8; 16]), now);
    /// let described = Description::decode(&octets).unwrap();
    /// let handle = heir.import(&described, gap, Trust::Exact, now).unwrap();
    /// assert_eq!(heir.entry(handle, now).unwrap().timeout, 20);
    /// ```
    pub fn export(&self, handle: Handle, now: Instant) -> Option<Description> {
        let lives = self.entry(handle, now).is_some();
        if lives { self.export_place(handle.slot, now) } else { None }
    }

    /// Describes the connection that stands in a place, if one does that has not expired. Places are numbered from 0 to [`Engine::places`].
    pub fn export_place(&self, place: u32, now: Instant) -> Option<Description> {
        let records = &self.table.records;
        let hot = records.hot(place).filter(|hot| hot.living() && !hot.expired(now.tick()))?;
        let extra = if hot.kind.is(Kind::EXTRAS) { self.extras.of(place) } else { None };
        let counts = if hot.kind.is(Kind::COUNTED) { records.counts(place) } else { None };
        let start = records.start(place);
        Some(Description {
            original: records.key(Reference::new(place, Direction::Original))?.tuple(),
            reply: records.key(Reference::new(place, Direction::Reply))?.tuple(),
            zone: records.zone(place),
            status: hot.status(),
            remaining: milliseconds(hot.deadline.wrapping_sub(now.tick())),
            mark: records.cold(place)?.mark,
            labels: extra.and_then(|extra| extra.labels),
            accounting: counts.map(|counts| [0, 2].map(|at| Accounting { packets: counts[at], bytes: counts[at + 1] })),
            start: (start != 0).then_some(Instant(start)),
            master: extra.and_then(|extra| extra.master).map(|master| master.tuple),
            timeouts: self.settings_of(extra.and_then(|extra| extra.timeouts)),
            protocol: Progress::of(hot, now.tick()),
            listener: extra.and_then(|extra| extra.listener),
            noted: extra.and_then(|extra| extra.noted),
            shifts: extra.and_then(|extra| extra.shifts),
            promise: extra.and_then(|extra| extra.promise),
            regains: extra.and_then(|extra| extra.regains),
        })
    }

    /// How many places there are, in use or not: as many as there ever were connections at a time, and some more.
    pub fn places(&self) -> u32 {
        u32::try_from(self.table.records.slots()).unwrap_or(u32::MAX)
    }

    /// Every connection that has not expired at `now`, described.
    pub fn exports(&self, now: Instant) -> impl Iterator<Item = Description> + '_ {
        (0..self.places()).filter_map(move |place| self.export_place(place, now))
    }

    /// Begins, or ceases, to note in which places connections begin, change or end.
    pub fn note_changes(&mut self, on: bool) {
        self.changes.turn(on);
    }

    /// A place whose connection has begun, ended or changed (its state, its status, its mark; not a count, a timeout or a window alone) since it was
    /// last given out.
    pub fn poll_change(&mut self) -> Option<u32> {
        self.changes.take()
    }
}

impl Progress {
    fn of(hot: &Hot, tick: u32) -> Progress {
        match hot.protocol() {
            protocol::TCP => Progress::Tcp(Tcp::load(hot).alone()),
            protocol::SCTP => Progress::Sctp(Sctp::load(hot)),
            _ => match Stateless::load(hot) {
                Stateless::Udp { stream_after } => {
                    // It may be one in the tick after that one.
                    let ahead = (stream_after.wrapping_sub(tick) as i32).saturating_add(1);
                    Progress::Udp { stream_in: u32::try_from(ahead).map_or(0, milliseconds) }
                }
                Stateless::Gre { timeout, stream } => {
                    Progress::Gre { timeout: milliseconds(timeout), stream: milliseconds(stream) }
                }
                Stateless::UdpLite | Stateless::Icmp | Stateless::Icmpv6 | Stateless::Other(_) => Progress::Stateless,
            },
        }
    }
}
