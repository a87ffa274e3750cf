//! What a control channel says, on its way through the rules: Linux lets a helper hear a packet only after the last rule has passed it.
//!
//! A [`Saying`] is a copy of one segment's data. It is made when the segment of a connection with a helper was tracked, owned by the passage, and
//! heard when the passage is confirmed; if a rule drops the packet, nobody has heard it.
use crate::expectation::{Expected, Flags, Mask, Refused};
use crate::helper::Listener;
use crate::helper::ftp::{Announcement, Heard, Segment};
use crate::protocol::ticks;
use crate::table::Reference;
use crate::time::Clock;
use crate::tuple::protocol;
use crate::{Direction, Engine, Handle, Info, Instant, Outcome, Status, Tuple, Verdict, Why};
use alloc::boxed::Box;
use alloc::string::String;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use keepstate_wire::{Packet, tcp};

/// Said by one end of a connection with a helper.
#[derive(Debug)]
pub(crate) struct Saying {
    connection: Handle,
    direction: Direction,
    seq: u32,
    data: Box<[u8]>,
}

impl Saying {
    /// What `packet` says, if its connection has a helper and both ends have been heard. A capture that kept only a part of it says nothing.
    #[inline]
    pub(crate) fn of(engine: &Engine, packet: &Packet<'_>, outcome: &Outcome) -> Option<Saying> {
        let connection = outcome.connection?;
        let helped = engine.table.records.hot(connection.slot)?.status().has(Status::HELPER);
        if helped && outcome.info == Info::Established {
            Saying::copy(packet, connection, outcome.direction?)
        } else {
            None
        }
    }

    #[cold]
    fn copy(packet: &Packet<'_>, connection: Handle, direction: Direction) -> Option<Saying> {
        if packet.protocol() != protocol::TCP {
            return None;
        }
        let segment = tcp::Segment::parse(packet.transport(), packet.transport_len()).ok()?;
        let whole = !segment.data.is_empty() && segment.data.len() == segment.data_len;
        whole.then(|| Saying { connection, direction, seq: segment.seq, data: segment.data.into() })
    }
}

impl Engine {
    /// Lets the connection's helper hear; an announcement becomes an expectation. As Linux does, a packet is dropped whose announcement
    /// could not be read or kept: its sender will send it again.
    #[cold]
    pub(crate) fn hear(&mut self, saying: &Saying, outcome: Outcome, now: Instant) -> Outcome {
        match self.listen_to(saying, now) {
            Ok(()) => outcome,
            Err(why) => {
                self.note(why);
                Outcome { verdict: Verdict::Drop, why: Some(why), ..outcome }
            }
        }
    }

    fn listen_to(&mut self, saying: &Saying, now: Instant) -> Result<(), Why> {
        let Saying { connection, direction, .. } = *saying;
        let key = |direction| {
            // It may have ended since its packet was tracked.
            let lives = self.table.records.hot(connection.slot).is_some_and(|hot| hot.living());
            let key = self.table.records.key(Reference::new(connection.slot, direction));
            key.filter(|_| lives && self.handle_of(connection.slot) == connection).map(|key| key.tuple())
        };
        let (Some(own), Some(other)) = (key(direction), key(direction.opposite())) else { return Ok(()) };
        let Some(listener) = self.extras.listener(connection.slot) else { return Ok(()) };
        let heard = match listener {
            Listener::Ftp(ftp) => {
                ftp.handle(&Segment { direction, seq: saying.seq, sender: own.source, payload: &saying.data })
            }
        };
        let helper = listener.helper();
        self.changes.note(connection.slot);
        match heard {
            Heard::Nothing | Heard::Elsewhere(_) => Ok(()),
            Heard::Partial => Err(Why::HelperPartial),
            Heard::Announced(Announcement { address, port, .. }) => self.expect(
                Expected {
                    master: connection,
                    tuple: Tuple {
                        source: other.source,
                        destination: address,
                        protocol: protocol::TCP,
                        source_key: 0,
                        destination_key: port,
                    },
                    mask: Mask { source: exactly(other.source), source_key: 0 },
                    zone: self.table.records.zone(connection.slot).id,
                    class: 0,
                    helper,
                    flags: Flags::default(),
                    deadline: now.after_ticks(ticks(helper.patience_seconds())),
                },
                now,
            ),
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

/// The mask under which every bit of an address counts.
const fn exactly(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::BROADCAST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
    }
}
