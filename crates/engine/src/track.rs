//! The first half of a packet's way: what does its connection make of it, or which one does it begin?
use crate::nat::ahead;
use crate::passage::Pending;
use crate::protocol::{Context, Noted, Ruling, Tcp, Tracker, sctp::Sctp, stateless::Stateless, tcp};
use crate::table::Probe;
use crate::table::record::Kind;
use crate::table::{Records, Reference};
use crate::time::Clock;
use crate::tuple::protocol;
use crate::{
    Direction, Engine, EventKind, Handle, Info, Instant, Knob, Outcome, Passage, Status, Unconfirmed, Verdict, Why,
};
use keepstate_wire::{Family, Packet, sctp, tcp::Segment, udp};

impl Engine {
    /// A packet of the connection that `reference` names. `None` if that connection has ended before this packet: look again.
    #[inline(never)]
    pub(crate) fn follow(&mut self, packet: &Packet<'_>, reference: Reference, now: Instant) -> Option<Outcome> {
        let (slot, direction) = (reference.slot(), reference.direction());
        let tick = now.tick();
        let hot = self.table.records.hot_mut(slot)?;
        if hot.expired(tick) {
            self.destroy(slot, now);
            return None;
        }
        let status = hot.status();
        if status.has(Status::OFFLOAD) {
            // It comes by here again: it is forwarded here again.
            self.come_back(slot);
            return self.follow(packet, reference, now);
        }
        let info = match direction {
            Direction::Reply => Info::Established,
            Direction::Original if status.has(Status::SEEN_REPLY) => Info::Established,
            Direction::Original if status.has(Status::EXPECTED) => Info::Related,
            Direction::Original => Info::New,
        };
        let policy = match hot.kind.is(Kind::EXTRAS) {
            true => self.extras.of(slot).and_then(|extra| self.policies.get(usize::from(extra.timeouts?.0))),
            false => None,
        };
        let mut context = Context {
            knobs: policy.map_or(&self.knobs, |policy| &policy.knobs),
            status,
            now: tick,
            remaining_ticks: hot.deadline.wrapping_sub(tick),
            secret: self.secret,
            ahead: 0,
        };
        let ruling = if packet.protocol() == protocol::TCP {
            match segment(packet, &self.knobs) {
                Err(why) => Ruling::invalid(why),
                Ok(segment) => {
                    if status.has(Status::SEQ_ADJUST) {
                        context.ahead = ahead(self.extras.of(slot), direction, segment.ack);
                    }
                    let mut noted = match hot.kind.is(Kind::EXTRAS) {
                        true => self.extras.of(slot).and_then(|extra| extra.noted),
                        false => None,
                    };
                    if hot.kind.is(Kind::EXTRAS)
                        && let Some(left) = self.extras.regaining(slot)
                    {
                        Tcp::of(hot).relearn(&segment, direction, left);
                    }
                    let ruling = Tcp::of(hot).advance(&segment, direction, &context, &mut noted);
                    // Only a segment that is let pass without a change is ever noted.
                    if matches!(ruling, Ruling::Quiet { .. }) && noted.is_some() {
                        hot.kind.set(Kind::EXTRAS);
                        self.extras.make(slot).noted = noted;
                    }
                    let passed = matches!(ruling, Ruling::Pass { .. });
                    if passed && hot.kind.is(Kind::EXTRAS) && self.extras.regain(slot, direction) {
                        Tcp::of(hot).regain();
                    }
                    ruling
                }
            }
        } else if let Err(why) = check(packet, &self.knobs) {
            Ruling::invalid(why)
        } else if packet.protocol() == protocol::SCTP {
            match sctp::Header::parse(packet.transport()) {
                Err(refusal) => Ruling::invalid(Why::Refused(refusal)),
                Ok(header) => {
                    let mut tracker = Sctp::load(hot);
                    let step = tracker.advance(&header, direction);
                    // What earlier chunks did stands, even if a later one is invalid.
                    tracker.store(hot);
                    tracker.rule(step, &context)
                }
            }
        } else {
            Stateless::load(hot).advance(&context)
        };
        let outcome = Outcome::of(info, direction, Handle { slot, stamp: hot.stamp(self.secret.0) });
        let Ruling::Pass { timeout, changed, assured } = ruling else {
            return self.depart(packet, reference, ruling, outcome, now);
        };
        let mut update = changed || assured;
        if assured {
            hot.status |= Status::ASSURED.0;
        }
        if direction == Direction::Reply && hot.status & Status::SEEN_REPLY.0 == 0 {
            hot.status |= Status::SEEN_REPLY.0;
            update = true;
        }
        let (counted, fixed) = (hot.kind.is(Kind::COUNTED), hot.status & Status::FIXED_TIMEOUT.0 != 0);
        if !fixed {
            let deadline = tick.wrapping_add(timeout);
            let earlier = (deadline.wrapping_sub(hot.deadline) as i32) < 0;
            hot.deadline = deadline;
            if earlier {
                self.table.lower_deadline(slot, deadline);
            }
        }
        if counted {
            count(&mut self.table.records, slot, direction, packet);
        }
        if update {
            self.changes.note(slot);
            if self.reports(EventKind::Update) {
                self.report_update(slot, changed, now);
            }
        }
        Some(outcome)
    }

    /// What a packet's connection ruled, other than to pass it and refresh the timeout.
    #[cold]
    fn depart(
        &mut self,
        packet: &Packet<'_>,
        reference: Reference,
        ruling: Ruling,
        outcome: Outcome,
        now: Instant,
    ) -> Option<Outcome> {
        let (slot, direction) = (reference.slot(), reference.direction());
        match ruling {
            Ruling::Pass { .. } => Some(outcome),
            Ruling::Quiet { why, changed } => {
                why.into_iter().for_each(|why| self.note(why));
                let hot = self.table.records.hot_mut(slot)?;
                let answered = direction == Direction::Reply && hot.status & Status::SEEN_REPLY.0 == 0;
                if answered {
                    hot.status |= Status::SEEN_REPLY.0;
                }
                if answered || changed {
                    self.changes.note(slot);
                    if self.reports(EventKind::Update) {
                        self.report_update(slot, changed, now);
                    }
                }
                Some(Outcome { why, ..outcome })
            }
            Ruling::Invalid { why, shorten_to } => Some(self.reject(packet, slot, why, shorten_to, now)),
            Ruling::Reopen => {
                self.destroy(slot, now);
                None
            }
            Ruling::End => {
                count(&mut self.table.records, slot, direction, packet);
                self.remember_end(slot, now);
                self.destroy(slot, now);
                Some(Outcome { connection: None, ..outcome })
            }
        }
    }

    /// A packet that its connection disowns.
    #[cold]
    fn reject(&mut self, packet: &Packet<'_>, slot: u32, why: Why, shorten_to: Option<u32>, now: Instant) -> Outcome {
        if let (Some(timeout), Some(hot)) = (shorten_to, self.table.records.hot_mut(slot)) {
            hot.deadline = now.tick().wrapping_add(timeout);
            let deadline = hot.deadline;
            self.table.lower_deadline(slot, deadline);
        }
        self.log_invalid(packet.protocol(), why, now);
        self.settle(Outcome::invalid(why)).outcome
    }

    /// A packet of no known connection: it may begin one.
    #[inline(never)]
    pub(crate) fn begin(&mut self, packet: &Packet<'_>, probe: &Probe, now: Instant) -> Passage {
        // Linux takes the place before it looks at the packet: even one that turns out invalid needs room.
        if !self.make_room(probe, now) {
            return self.settle_full(now);
        }
        // Linux asks who expects it before it looks at the packet, too: an invalid one uses the expectation up.
        let master = self.expecting(probe, now);
        let opened = self.open(packet, probe, now);
        let (Some(reply), Ok(opened)) = (probe.key.invert(), &opened) else {
            return self.refuse_beginning(packet, opened.err().unwrap_or(Why::IcmpUnpaired), now);
        };
        // Built where it goes to the caller from: it is large, and to move it costs.
        let mut passage = Passage {
            outcome: Outcome {
                info: Info::New,
                direction: Some(Direction::Original),
                connection: None,
                why: None,
                verdict: Verdict::Accept,
            },
            about: false,
            ended: None,
            pending: Pending::Begun(Unconfirmed {
                exhausted: false,
                refused: false,
                original: probe.key,
                reply,
                plain: true,
                zone: probe.zone,
                status: Status::default(),
                tracker: opened.tracker,
                timeout: opened.timeout,
                counted: opened.counted.then_some(packet.total_len() as u64),
                epoch: self.table.epoch(),
                hashes: [probe.hash, probe.answer_hash],
                extra: None,
                mark: 0,
                labels: None,
            }),
        };
        if let (true, Some(fresh)) = (master.is_some() || !self.helped.is_empty(), passage.unconfirmed()) {
            let follow = master.and_then(|(_, follow)| follow);
            master.into_iter().for_each(|(master, _)| fresh.adopt(master));
            self.give_helper(fresh);
            if fresh.status.has(Status::EXPECTED) {
                passage.outcome.info = Info::Related;
            }
            if let Some(follow) = follow {
                self.follow_master(&mut passage, &follow, now);
            }
        }
        passage
    }

    /// A first packet that begins nothing.
    #[cold]
    fn refuse_beginning(&mut self, packet: &Packet<'_>, why: Why, now: Instant) -> Passage {
        self.log_invalid(packet.protocol(), why, now);
        self.settle(Outcome::invalid(why))
    }

    /// What the protocol makes of a first packet.
    fn open(&self, packet: &Packet<'_>, probe: &Probe, now: Instant) -> Result<Opened, Why> {
        let context = Context {
            knobs: &self.knobs,
            status: Status::default(),
            now: now.tick(),
            remaining_ticks: 0,
            secret: self.secret,
            ahead: 0,
        };
        let (tracker, ruling) = if packet.protocol() == protocol::TCP {
            let segment = segment(packet, &self.knobs)?;
            let mut tcp = Tcp::open(&segment, &self.knobs)?;
            let ruling = tcp.advance(&segment, Direction::Original, &context, &mut None::<Noted>);
            (Tracker::Tcp(tcp), ruling)
        } else if packet.protocol() == protocol::SCTP {
            check(packet, &self.knobs)?;
            let header = sctp::Header::parse(packet.transport()).map_err(Why::Refused)?;
            let mut sctp = Sctp::open(&header)?;
            let step = sctp.advance(&header, Direction::Original);
            (Tracker::Sctp(sctp), sctp.rule(step, &context))
        } else {
            check(packet, &self.knobs)?;
            let stateless = Stateless::open(&probe.key.tuple(), &context)?;
            let ruling = stateless.advance(&context);
            (Tracker::Stateless(stateless), ruling)
        };
        let (timeout, counted) = match ruling {
            Ruling::Pass { timeout, .. } => (timeout, true),
            Ruling::Invalid { why, .. } => return Err(why),
            Ruling::Quiet { .. } | Ruling::Reopen | Ruling::End => (0, false),
        };
        Ok(Opened { tracker, timeout, counted })
    }

    fn log_invalid(&mut self, number: u8, why: Why, now: Instant) {
        let wanted = self.knobs[Knob::LogInvalid];
        if wanted == 255 || wanted != 0 && wanted == u32::from(number) {
            self.log.line(now, || alloc::format!("nf_ct_proto_{number}: {}", why.text()));
        }
    }

    #[inline(always)]
    pub(crate) fn handle_of(&self, slot: u32) -> Handle {
        Handle { slot, stamp: self.table.records.hot(slot).map_or(0, |hot| hot.stamp(self.secret.0)) }
    }
}

/// A connection as its protocol begins it.
struct Opened {
    tracker: Tracker,
    /// In ticks.
    timeout: u32,
    /// Is the first packet counted?
    counted: bool,
}

/// Counts a packet, if its connection counts.
pub(crate) fn count(records: &mut Records, slot: u32, direction: Direction, packet: &Packet<'_>) {
    let counted = records.hot(slot).is_some_and(|hot| hot.kind.is(Kind::COUNTED));
    if let (true, Some(counts)) = (counted, records.counts_mut(slot)) {
        let at = direction as usize * 2;
        counts[at] += 1;
        counts[at + 1] += packet.total_len() as u64;
    }
}

/// The segment in a packet, if Linux would call it well-formed.
#[inline(always)]
pub(crate) fn segment<'a>(packet: &Packet<'a>, knobs: &crate::Knobs) -> Result<Segment<'a>, Why> {
    let segment = Segment::parse(packet.transport(), packet.transport_len()).map_err(Why::Refused)?;
    if knobs.on(Knob::Checksum) && !packet.transport_checksum_ok() {
        return Err(Why::Checksum);
    }
    tcp::check_flags(&segment)?;
    Ok(segment)
}

/// Is a packet of another protocol than TCP well-formed? ICMP was looked at before.
fn check(packet: &Packet<'_>, knobs: &crate::Knobs) -> Result<(), Why> {
    let (transport, length) = (packet.transport(), packet.transport_len());
    match (packet.protocol(), packet.family()) {
        (protocol::UDP, _) => udp::Header::parse(transport, length).map(drop).map_err(Why::Refused)?,
        (protocol::UDPLITE, _) => udp::Header::parse_lite(transport, length).map(drop).map_err(Why::Refused)?,
        (protocol::SCTP, _) => sctp::Header::parse(transport).map(drop).map_err(Why::Refused)?,
        (protocol::ICMP, Family::V6) | (protocol::ICMPV6, Family::V4) => return Err(Why::WrongFamily),
        (protocol::ICMP | protocol::ICMPV6, _) => return Ok(()),
        _ => return Ok(()),
    }
    // Linux sums UDP's number into the pseudo header of UDP-Lite; see docs/differences.md for why so do we.
    let holds = match packet.protocol() {
        protocol::UDPLITE => packet.udp_lite_checksum_ok_as_udp(),
        _ => packet.transport_checksum_ok(),
    };
    if knobs.on(Knob::Checksum) && !holds { Err(Why::Checksum) } else { Ok(()) }
}
