//! What a control channel says, on its way through the rules: Linux lets a helper hear a packet only after the last rule has passed it.
//!
//! A [`Saying`] is a copy of one segment's data. It is made when the segment of a connection with a helper was tracked, owned by the passage, and
//! heard when the passage is confirmed; if a rule drops the packet, nobody has heard it. Where the connection is translated, what was announced is written anew
//! into the packet, and the numbers of all that follows are shifted.
use crate::expectation::{Expected, Flags, Mask, Refused};
use crate::helper::Listener;
use crate::helper::ftp::{Announcement, Heard, Segment, written};
use crate::nat::Follow;
use crate::protocol::ticks;
use crate::table::Reference;
use crate::time::Clock;
use crate::tuple::protocol;
use crate::{Direction, Engine, Handle, Helper, Info, Instant, Outcome, Status, Tuple, Verdict, Why};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use keepstate_wire::edit::exchange;
use keepstate_wire::{Packet, tcp};

/// Said by one end of a connection with a helper; nothing, perhaps, where only its numbers are to be shifted.
#[derive(Debug)]
pub(crate) struct Saying {
    connection: Handle,
    direction: Direction,
    seq: u32,
    data: Box<[u8]>,
}

/// Ports tried for an announced connection whose own is taken.
const MOST_PORTS: u16 = 128;

impl Saying {
    /// What `packet` says, if its connection has a helper and both ends have been heard. A capture that kept only a part of it says nothing.
    #[inline]
    pub(crate) fn of(engine: &Engine, packet: &Packet<'_>, outcome: &Outcome) -> Option<Saying> {
        let connection = outcome.connection?;
        let status = engine.table.records.hot(connection.slot)?.status();
        if status.0 & (Status::HELPER.0 | Status::SEQ_ADJUST.0) != 0 && outcome.info == Info::Established {
            Saying::copy(packet, connection, outcome.direction?, status)
        } else {
            None
        }
    }

    #[cold]
    fn copy(packet: &Packet<'_>, connection: Handle, direction: Direction, status: Status) -> Option<Saying> {
        if packet.protocol() != protocol::TCP {
            return None;
        }
        let segment = tcp::Segment::parse(packet.transport(), packet.transport_len()).ok()?;
        let whole = segment.data.len() == segment.data_len;
        let whole = whole && status.has(Status::HELPER);
        let wanted = whole && !segment.data.is_empty() || status.has(Status::SEQ_ADJUST);
        let data = if whole { segment.data } else { &[] };
        wanted.then(|| Saying { connection, direction, seq: segment.seq, data: data.into() })
    }
}

impl Engine {
    /// Lets the connection's helper hear; an announcement becomes an expectation. As Linux does, a packet is dropped whose announcement
    /// could not be read or kept: its sender will send it again.
    #[cold]
    pub(crate) fn hear(
        &mut self,
        saying: &Saying,
        outcome: Outcome,
        datagram: Option<&mut Vec<u8>>,
        now: Instant,
    ) -> Outcome {
        match self.listen_to(saying, datagram, now) {
            Ok(()) => outcome,
            Err(why) => {
                self.note(why);
                Outcome { verdict: Verdict::Drop, why: Some(why), ..outcome }
            }
        }
    }

    fn listen_to(&mut self, saying: &Saying, mut datagram: Option<&mut Vec<u8>>, now: Instant) -> Result<(), Why> {
        if self.table.records.hot(saying.connection.slot).is_none_or(|hot| !hot.living())
            || self.handle_of(saying.connection.slot) != saying.connection
        {
            return Ok(());
        }
        if let Some(ends) = self.ends(saying)
            && let Some(announcement) = self.heard(saying, &ends)?
        {
            self.announce(saying, &announcement, &ends, datagram.as_deref_mut(), now)?;
        }
        let renumbered =
            datagram.is_none_or(|datagram| self.renumber(saying.connection.slot, saying.direction, datagram));
        if renumbered { Ok(()) } else { Err(Why::HelperUnwritable) }
    }

    /// The tuples of the segment's own direction and the other, and the helper that listens, if one does.
    fn ends(&self, saying: &Saying) -> Option<Ends> {
        let Saying { connection, direction, .. } = *saying;
        let hot = self.table.records.hot(connection.slot)?;
        let key = |direction| self.table.records.key(Reference::new(connection.slot, direction)).map(|key| key.tuple());
        let helper = self.extras.of(connection.slot)?.listener?.helper();
        let translated = is_translated(hot.status());
        Some(Ends { own: key(direction)?, other: key(direction.opposite())?, translated, helper })
    }

    fn heard(&mut self, saying: &Saying, ends: &Ends) -> Result<Option<Announcement>, Why> {
        let Saying { connection, direction, seq, .. } = *saying;
        let Some(listener) = self.extras.listener(connection.slot) else { return Ok(None) };
        let heard = match listener {
            Listener::Ftp(_) if saying.data.is_empty() => Heard::Nothing,
            Listener::Ftp(ftp) => {
                ftp.handle(&Segment { direction, seq, sender: ends.own.source, payload: &saying.data })
            }
        };
        self.changes.note(connection.slot);
        match heard {
            Heard::Nothing | Heard::Elsewhere(_) => Ok(None),
            Heard::Partial => Err(Why::HelperPartial),
            Heard::Announced(announcement) => Ok(Some(announcement)),
        }
    }

    /// An announcement becomes an expectation; through a translation it is written anew, of the end that the other side sees.
    fn announce(
        &mut self,
        saying: &Saying,
        announcement: &Announcement,
        ends: &Ends,
        datagram: Option<&mut Vec<u8>>,
        now: Instant,
    ) -> Result<(), Why> {
        let Ends { own, other, translated, helper } = *ends;
        let slot = saying.connection.slot;
        let fresh = Expected {
            master: saying.connection,
            tuple: Tuple {
                source: other.source,
                destination: other.destination,
                protocol: protocol::TCP,
                source_key: 0,
                destination_key: announcement.port,
            },
            mask: Mask { source: exactly(other.source), source_key: 0 },
            zone: self.table.records.zone(slot).id,
            class: 0,
            helper,
            flags: Flags::default(),
            follow: None,
            deadline: now.after_ticks(ticks(helper.patience_seconds())),
        };
        let Some(datagram) = datagram.filter(|_| translated) else { return self.expect(fresh, now) };
        let follow = Follow { source: own.destination, destination: own.source, port: announcement.port };
        let port = self.expect_somewhere(Expected { follow: Some(follow), ..fresh }, now)?;
        let text = written(announcement.kind, other.destination, port);
        if !exchange(datagram, announcement.at.clone(), text.as_bytes()) {
            let over = self.expectations.remove_master(saying.connection);
            self.counters.expect_delete += over.len() as u64;
            return Err(Why::HelperUnwritable);
        }
        // Both are lengths of datagrams, and the difference is meant modulo 2³².
        let by = (text.len() as u32).wrapping_sub(announcement.at.len() as u32);
        self.lengthen(slot, saying.direction, saying.seq, by);
        Ok(())
    }

    /// Expects at the announced port; where others expect somebody there already, at one drawn above it.
    fn expect_somewhere(&mut self, fresh: Expected, now: Instant) -> Result<u16, Why> {
        let least = fresh.tuple.destination_key;
        let above = u16::MAX - least;
        let mut tuple = fresh.tuple;
        let mut left = above.min(MOST_PORTS);
        loop {
            match self.expect(Expected { tuple, ..fresh }, now) {
                Ok(()) => return Ok(tuple.destination_key),
                Err(Why::ExpectClash) if left > 1 => left -= 1,
                Err(why) => return Err(why),
            }
            tuple.destination_key = least + self.nat.draw() % above;
        }
    }

    fn expect(&mut self, fresh: Expected, now: Instant) -> Result<(), Why> {
        let before = self.expectations.len() as u64;
        let limits = fresh.helper.limits(&self.knobs);
        let refused = self.expectations.expect(fresh, limits, now).err();
        let created = u64::from(refused.is_none());
        self.counters.expect_create += created;
        self.counters.expect_delete += (before + created).saturating_sub(self.expectations.len() as u64);
        match refused {
            None => Ok(()),
            Some(Refused::Clash) => Err(Why::ExpectClash),
            Some(Refused::Full) => {
                self.log.line(now, || String::from("nf_conntrack: expectation table full"));
                Err(Why::ExpectFull)
            }
        }
    }
}

/// Who speaks with whom.
struct Ends {
    own: Tuple,
    other: Tuple,
    translated: bool,
    helper: Helper,
}

const fn is_translated(status: Status) -> bool {
    status.0 & (Status::SRC_NAT.0 | Status::DST_NAT.0) != 0
}

/// The mask under which every bit of an address counts.
const fn exactly(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::BROADCAST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
    }
}
