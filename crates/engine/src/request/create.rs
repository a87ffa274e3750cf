//! A drafted connection enters the table.
use super::{Draft, LEFT_ALONE, Refusal, wished_status};
use crate::passage::Pending;
use crate::protocol::stateless::Stateless;
use crate::protocol::{Tracker, sctp::Sctp, tcp::Tcp, ticks};
use crate::table::key::Key;
use crate::table::record::Hot;
use crate::time::Clock;
use crate::tuple::protocol;
use crate::{
    Direction, Engine, Handle, Info, Instant, Knob, Manip, Outcome, Passage, Status, Translated, Unconfirmed, Verdict,
};

impl Engine {
    /// Puts a connection into the table, as `conntrack -I` does.
    ///
    /// ```
    /// use keepstate_engine::{Draft, Engine, Instant, Knobs, Refusal, Secret, Tuple, Wish, Zone};
    /// let now = Instant(0);
    /// let mut engine = Engine::new(Knobs::default(), Secret([7; 16]), now);
    /// let original = Tuple {
    ///     source: [10, 1, 0, 2].into(), destination: [10, 2, 0, 9].into(), protocol: 17, source_key: 4000, destination_key: 53,
    /// };
    /// let draft = Draft {
    ///     original,
    ///     reply: original.invert().unwrap(),
    ///     zone: Zone::default(),
    ///     wish: Wish { timeout: Some(30), mark: Some(5), ..Wish::default() },
    ///     destination: None,
    ///     source: None,
    /// };
    /// let handle = engine.create(&draft, now).unwrap();
    /// assert_eq!(engine.entry(handle, now).unwrap().mark, 5);
    /// assert_eq!(engine.create(&draft, now), Err(Refusal::Exists));
    /// ```
    ///
    /// # Errors
    /// Why it was not made.
    pub fn create(&mut self, draft: &Draft, now: Instant) -> Result<Handle, Refusal> {
        let (original, reply) = (Key::from(&draft.original), Key::from(&draft.reply));
        if !self.is_free(&original, draft, Direction::Original, now) {
            return Err(Refusal::Exists);
        }
        let fresh = self.unconfirmed(draft, original, reply, now)?;
        let outcome = Outcome {
            info: Info::New,
            direction: Some(Direction::Original),
            connection: None,
            why: None,
            verdict: Verdict::Accept,
        };
        let mut passage = Passage { outcome, pending: Pending::Begun(fresh), about: false, ended: None };
        if draft.destination.is_some() || draft.source.is_some() {
            // As the kernel does it: if one end is told, the other is decided too.
            for (manip, range) in [(Manip::Destination, &draft.destination), (Manip::Source, &draft.source)] {
                let done = match range {
                    Some(range) => self.translate(&mut passage, manip, range, now),
                    None => self.keep(&mut passage, manip, now),
                };
                if done == Translated::Exhausted {
                    return Err(Refusal::Exists);
                }
            }
        }
        let Pending::Begun(fresh) = &passage.pending else { return Err(Refusal::Impossible) };
        let reply = fresh.reply;
        if !self.is_free(&reply, draft, Direction::Reply, now) {
            return Err(Refusal::Exists);
        }
        let probe = self.table.probe(original, draft.zone);
        if !self.make_room(&probe, now) {
            return Err(Refusal::Full);
        }
        let handle = self.confirm(passage, now).connection.ok_or(Refusal::Full)?;
        self.counters.insert += 1;
        Ok(handle)
    }

    /// Does nobody have a tuple, or only a connection that is over?
    fn is_free(&mut self, key: &Key, draft: &Draft, direction: Direction, now: Instant) -> bool {
        let Some(holder) = self.table.holder(key, draft.zone, direction) else { return true };
        let expired = self.table.records.hot(holder.slot()).is_some_and(|hot| hot.expired(now.tick()));
        if expired {
            self.destroy(holder.slot(), now);
        }
        expired
    }

    fn unconfirmed(&self, draft: &Draft, original: Key, reply: Key, now: Instant) -> Result<Unconfirmed, Refusal> {
        let (from, to) = (&draft.original, &draft.reply);
        let ends = [from.destination, to.source, to.destination];
        let alike = from.protocol == to.protocol && ends.iter().all(|end| end.is_ipv6() == from.is_ipv6());
        if !alike || from.invert().is_none() || to.invert().is_none() {
            return Err(Refusal::Impossible);
        }
        let timeout = draft.wish.timeout.ok_or(Refusal::Impossible)?;
        // What the confirmation sets is no change.
        let wished = draft.wish.status.map(|status| status | Status::CONFIRMED);
        let mut status = wished_status(Status::CONFIRMED, wished)?;
        status.clear(Status(LEFT_ALONE | Status::HELPER.0));
        let mut hot = Hot::of_protocol(from.protocol);
        if let Some(knowledge) = &draft.wish.protocol {
            knowledge.learn(&mut hot)?;
        }
        Ok(Unconfirmed {
            exhausted: false,
            refused: false,
            original,
            reply,
            plain: original.invert() == Some(reply),
            zone: draft.zone,
            status,
            tracker: self.tracker(from.protocol, &hot, now),
            timeout: ticks(timeout),
            counted: None,
            // Of no time at all: its tuples are looked up again when it is confirmed.
            epoch: u64::MAX,
            hashes: [0; 2],
            extra: None,
            mark: draft.wish.mark.unwrap_or(0),
            labels: draft.wish.labels.map(|[labels, mask]| {
                let mut set = labels;
                set.iter_mut().zip(mask).for_each(|(label, mask)| *label &= mask);
                set
            }),
        })
    }

    /// A connection that no packet has begun: its conversation is as old as one can be.
    fn tracker(&self, number: u8, hot: &Hot, now: Instant) -> Tracker {
        let knob = |knob| ticks(self.knobs[knob]);
        Tracker::Stateless(match number {
            protocol::TCP => return Tracker::Tcp(Tcp::load(hot)),
            protocol::SCTP => return Tracker::Sctp(Sctp::load(hot)),
            protocol::UDP => Stateless::Udp { stream_after: now.tick().wrapping_sub(1) },
            protocol::UDPLITE => Stateless::UdpLite,
            protocol::ICMP => Stateless::Icmp,
            protocol::ICMPV6 => Stateless::Icmpv6,
            protocol::GRE => Stateless::Gre { timeout: knob(Knob::GreTimeout), stream: knob(Knob::GreTimeoutStream) },
            other => Stateless::Other(other),
        })
    }
}
