//! Tracking, the first half of a packet's processing: updates its known connection, or creates an unconfirmed one.
//!
//! The protocol tracker returns a [`TrackResult`], which is applied here: status, timeout, counters, events. A new connection is only returned
//! as [`Unconfirmed`]; this module must never insert one into the table.
use crate::ct_timeout::timeouts_of;
use crate::event_bits::EventBits;
use crate::expectation::ExpectNat;
use crate::extension::Master;
use crate::nat::ack_offset;
use crate::offload::{ARRIVED, NOTED};
use crate::packet_ctx::Pending;
use crate::protocol::{IgnoredSyn, Tcp, TrackCtx, TrackResult, Tracker, sctp::Sctp, stateless::Stateless, tcp};
use crate::table::LookupKey;
use crate::table::key::TupleKey;
use crate::table::record::{HotRecord, RecordKind};
use crate::table::{Records, TupleRef};
use crate::time::Ticks;
use crate::{
    ConnId, CtInfo, CtVerdict, Direction, Engine, Instant, Outcome, PacketCtx, Reason, Status, Sysctl, TcpState,
    Unconfirmed,
};
use keepstate_types::ipproto;
use keepstate_wire::{Family, Packet, ParseError, sctp, tcp::TcpSegment, udp};

/// Does this packet of an offloaded connection end the offload? A segment that begins, closes or resets a connection does, and any while its handshake goes on. Others may come here for many reasons (IP options, fragments,
/// a packet on its way when the connection was offloaded), and change nothing.
fn ends_offload(packet: &Packet<'_>) -> bool {
    const FIN_SYN_RST: u8 = 7;
    packet.protocol() == ipproto::TCP && packet.transport().get(13).is_none_or(|flags| flags & FIN_SYN_RST != 0)
}

impl Engine {
    /// Handles a packet of the connection that `reference` names. `None` if that connection has expired or is restarted: look up again.
    #[inline(never)]
    pub(crate) fn handle_known(&mut self, packet: &Packet<'_>, reference: TupleRef, now: Instant) -> Option<Outcome> {
        self.track_in_slot::<ARRIVED>(packet, reference, now)
    }

    /// The same of a packet that has come here, or that the data path has forwarded and told (`HOW`): that one ends no offload, and is not counted.
    #[inline(always)]
    pub(crate) fn track_in_slot<const HOW: bool>(
        &mut self,
        packet: &Packet<'_>,
        reference: TupleRef,
        now: Instant,
    ) -> Option<Outcome> {
        let (slot, direction) = (reference.slot(), reference.direction());
        let tick = now.tick();
        let generation = self.table.records.generation(slot);
        let hot = self.table.records.hot_mut(slot)?;
        if hot.is_expired(tick) {
            self.destroy(slot, now);
            return None;
        }
        let status = hot.status();
        if status.contains(Status::OFFLOAD) {
            if packet.protocol() == ipproto::TCP {
                // What has passed elsewhere has moved the windows.
                Tcp::from_record_mut(hot).forget_moved_windows();
            }
            let is_opening = packet.protocol() == ipproto::TCP && Tcp::from_record_mut(hot).is_opening();
            if HOW == ARRIVED && (is_opening || ends_offload(packet)) {
                self.unoffload(slot);
                return self.handle_known(packet, reference, now);
            }
        }
        let info = match direction {
            Direction::Reply => CtInfo::Established,
            Direction::Original if status.contains(Status::SEEN_REPLY) => CtInfo::Established,
            Direction::Original if status.contains(Status::EXPECTED) => CtInfo::Related,
            Direction::Original => CtInfo::New,
        };
        let mut context = TrackCtx {
            sysctls: timeouts_of(slot, hot, &self.extensions, &self.timeout_policies, &self.sysctls),
            status,
            now: tick,
            remaining_ticks: hot.deadline.wrapping_sub(tick),
            secret: self.secret,
            ack_offset: 0,
        };
        let mut changed_by_invalid = false;
        let result = if packet.protocol() == ipproto::TCP {
            match parse_tcp_segment(packet, &self.sysctls) {
                Err(reason) => TrackResult::invalid(reason),
                Ok(segment) => {
                    let tcp = Tcp::from_record_mut(hot);
                    if tcp.are_windows_forgotten() && !status.contains(Status::OFFLOAD) {
                        // Back from a data path that saw what we did not.
                        if let Some(left) = tcp.resume(false) {
                            hot.kind.set(RecordKind::HAS_EXTENSION);
                            self.extensions.find_or_insert(slot).lenient_segments_left = Some(left);
                        }
                    }
                    if status.contains(Status::SEQ_ADJUST) {
                        context.ack_offset = ack_offset(self.extensions.find(slot), direction, segment.ack);
                    }
                    let mut ignored_syn = match hot.kind.has(RecordKind::HAS_EXTENSION) {
                        true => self.extensions.find(slot).and_then(|extension| extension.ignored_syn),
                        false => None,
                    };
                    if hot.kind.has(RecordKind::HAS_EXTENSION)
                        && let Some(left) = self.extensions.lenient_segments_left_mut(slot)
                    {
                        Tcp::from_record_mut(hot).relearn_windows(&segment, direction, left);
                    }
                    let result =
                        Tcp::from_record_mut(hot).track_packet(&segment, direction, &context, &mut ignored_syn);
                    // Only a segment that passes without a state change is ever recorded.
                    if matches!(result, TrackResult::NoRefresh { .. }) && ignored_syn.is_some() {
                        hot.kind.set(RecordKind::HAS_EXTENSION);
                        self.extensions.find_or_insert(slot).ignored_syn = ignored_syn;
                    }
                    let passed = matches!(result, TrackResult::Pass { .. });
                    if passed
                        && hot.kind.has(RecordKind::HAS_EXTENSION)
                        && self.extensions.count_lenient_segment(slot, direction)
                    {
                        self.extensions.make_strict(slot, hot);
                    }
                    result
                }
            }
        } else if let Err(reason) = check_l4_header(packet, &self.sysctls) {
            TrackResult::invalid(reason)
        } else if packet.protocol() == ipproto::SCTP {
            match sctp::SctpHeader::parse(packet.transport()) {
                Err(error) => TrackResult::invalid(Reason::parse_error(packet, error)),
                Ok(header) => {
                    let mut tracker = Sctp::load(hot);
                    let before = tracker.state;
                    let step = tracker.track_packet(&header, direction);
                    // The effect of earlier chunks stays, even if a later one is invalid.
                    tracker.store(hot);
                    changed_by_invalid = step.is_err() && tracker.state != before;
                    match tracker.track_result(step, &context) {
                        TrackResult::Invalid { reason: Reason::SctpChunks, .. } if packet.is_snapped() => {
                            TrackResult::invalid(Reason::ParseError(ParseError::NotCaptured))
                        }
                        result => result,
                    }
                }
            }
        } else {
            Stateless::load(hot).track_packet(&context)
        };
        let outcome = Outcome::tracked(info, direction, ConnId { slot, generation });
        let TrackResult::Pass { timeout, changed, assured } = result else {
            if changed_by_invalid {
                self.note_change(slot, EventBits::PROTOINFO);
            }
            return self.apply_track_result(packet, reference, result, outcome, now);
        };
        let mut news = EventBits::PROTOINFO.when(changed).union(EventBits::ASSURED.when(assured));
        let mut update = changed || assured;
        if assured {
            hot.add_status(Status::ASSURED);
        }
        if direction == Direction::Reply && !hot.status().contains(Status::SEEN_REPLY) {
            hot.add_status(Status::SEEN_REPLY);
            news = news.union(EventBits::REPLY);
            update = true;
        }
        let is_tcp = packet.protocol() == ipproto::TCP;
        if HOW == NOTED && is_tcp {
            // Segments behind it may have passed elsewhere too, untold, even if the offload has ended since.
            Tcp::from_record_mut(hot).forget_moved_windows();
        }
        let has_closed = changed
            && is_tcp
            && status.contains(Status::OFFLOAD)
            && Tcp::from_record_mut(hot).state() == TcpState::TimeWait;
        let (counted, fixed) = (hot.kind.has(RecordKind::COUNTED), hot.status().contains(Status::FIXED_TIMEOUT));
        if !fixed {
            let deadline = tick.wrapping_add(timeout);
            let earlier = (deadline.wrapping_sub(hot.deadline) as i32) < 0;
            hot.deadline = deadline;
            if earlier {
                self.table.lower_timer_bound(slot, deadline);
            }
        }
        if counted && HOW == ARRIVED {
            account_packet(&mut self.table.records, slot, direction, packet);
        }
        if has_closed {
            self.unoffload(slot);
        }
        if update {
            self.dirty.mark_dirty(slot);
            self.note_change(slot, news);
        }
        Some(outcome)
    }

    /// Applies a tracker's result other than `Pass`. `None` if the connection is restarted: look up again.
    #[cold]
    fn apply_track_result(
        &mut self,
        packet: &Packet<'_>,
        reference: TupleRef,
        result: TrackResult,
        outcome: Outcome,
        now: Instant,
    ) -> Option<Outcome> {
        let (slot, direction) = (reference.slot(), reference.direction());
        match result {
            TrackResult::Pass { .. } => Some(outcome),
            TrackResult::NoRefresh { reason, changed } => {
                reason.into_iter().for_each(|reason| self.count_reason(reason));
                let hot = self.table.records.hot_mut(slot)?;
                let answered = direction == Direction::Reply && !hot.status().contains(Status::SEEN_REPLY);
                if answered {
                    hot.add_status(Status::SEEN_REPLY);
                }
                if answered || changed {
                    self.dirty.mark_dirty(slot);
                    let news = EventBits::PROTOINFO.when(changed).union(EventBits::REPLY.when(answered));
                    self.note_change(slot, news);
                }
                Some(Outcome { reason, ..outcome })
            }
            TrackResult::Invalid { reason, shorten_to } => {
                Some(self.reject_invalid(packet, slot, reason, shorten_to, now))
            }
            TrackResult::Restart => {
                self.destroy(slot, now);
                None
            }
            TrackResult::Delete => {
                account_packet(&mut self.table.records, slot, direction, packet);
                self.save_ended_connection(slot, now);
                self.destroy(slot, now);
                Some(Outcome { connection: None, ..outcome })
            }
        }
    }

    /// Handles a packet that its connection's tracker calls invalid.
    #[cold]
    fn reject_invalid(
        &mut self,
        packet: &Packet<'_>,
        slot: u32,
        reason: Reason,
        shorten_to: Option<u32>,
        now: Instant,
    ) -> Outcome {
        if let (Some(timeout), Some(hot)) = (shorten_to, self.table.records.hot_mut(slot)) {
            hot.deadline = now.tick().wrapping_add(timeout);
            let deadline = hot.deadline;
            self.table.lower_timer_bound(slot, deadline);
        }
        self.log_invalid(packet.protocol(), reason, now);
        self.finish_untracked(Outcome::invalid(reason)).outcome
    }

    /// Handles a packet of no known connection: creates an unconfirmed one (`init_conntrack`).
    #[inline(never)]
    pub(crate) fn init_conntrack(&mut self, packet: &Packet<'_>, probe: &LookupKey, now: Instant) -> PacketCtx {
        if !self.shard.owns(&probe.key) {
            return self.drop_new(Reason::WrongShard);
        }
        // Before room is made: a source that has enough takes no other's entry.
        if let Err(reason) = self.check_source(&probe.key, now) {
            return self.drop_new(reason);
        }
        // Linux allocates the entry before it checks the packet: even an invalid one needs room.
        if !self.make_room(probe, now) {
            return self.drop_table_full(now);
        }
        // Linux also looks for an expectation before it checks the packet: even an invalid one uses it up.
        let master = self.take_expectation(probe, now);
        let opened = self.init_tracker(packet, probe, now);
        let (Some(reply), Ok(opened)) = (probe.key.invert(), &opened) else {
            return self.reject_new(packet, opened.err().unwrap_or(Reason::IcmpUnpaired), now);
        };
        if master.is_some() || !self.auto_helpers.is_empty() {
            let ctx = self.unconfirmed_ctx(packet, probe, reply, opened);
            return self.assign_master_and_helper(ctx, master, now);
        }
        // Nothing after it: it is built in place as the return value. It is large, and copying it is expensive.
        self.unconfirmed_ctx(packet, probe, reply, opened)
    }

    #[inline(always)]
    pub(crate) fn unconfirmed_ctx(
        &self,
        packet: &Packet<'_>,
        probe: &LookupKey,
        reply: TupleKey,
        opened: &InitialTracker,
    ) -> PacketCtx {
        PacketCtx {
            outcome: Outcome {
                info: CtInfo::New,
                direction: Some(Direction::Original),
                connection: None,
                reason: None,
                verdict: CtVerdict::Accept,
            },
            is_icmp_error: false,
            ended: None,
            pending: Pending::Unconfirmed(Unconfirmed {
                nat_exhausted: false,
                nat_refused: false,
                original: probe.key,
                reply,
                untranslated: true,
                zone: probe.zone,
                status: Status::default(),
                tracker: opened.tracker,
                timeout: opened.timeout,
                counted_bytes: opened.counted.then_some(packet.total_len() as u64),
                masqueraded: false,
                table_epoch: self.table.epoch(),
                reply_free_epoch: u64::MAX,
                hashes: [probe.hash, probe.reply_hash],
                extension: None,
                expected: None,
                event_bits: None,
                mark: 0,
                labels: None,
            }),
        }
    }

    /// The new connection becomes what was expected, or gets a helper.
    #[cold]
    fn assign_master_and_helper(
        &mut self,
        mut ctx: PacketCtx,
        master: Option<(Master, Option<ExpectNat>)>,
        now: Instant,
    ) -> PacketCtx {
        if let Some(fresh) = ctx.unconfirmed() {
            let follow = master.and_then(|(_, follow)| follow);
            master.into_iter().for_each(|(master, _)| fresh.set_master(master));
            self.try_assign_helper(fresh);
            if fresh.status.contains(Status::EXPECTED) {
                ctx.outcome.info = CtInfo::Related;
            }
            if let Some(follow) = follow {
                self.follow_master(&mut ctx, &follow, now);
            }
        }
        ctx
    }

    /// Handles a packet that cannot begin a connection.
    #[cold]
    fn reject_new(&mut self, packet: &Packet<'_>, reason: Reason, now: Instant) -> PacketCtx {
        self.log_invalid(packet.protocol(), reason, now);
        self.finish_untracked(Outcome::invalid(reason))
    }

    /// Creates the protocol tracker for a first packet; an error if the packet cannot begin a connection.
    fn init_tracker(&self, packet: &Packet<'_>, probe: &LookupKey, now: Instant) -> Result<InitialTracker, Reason> {
        let context = TrackCtx {
            sysctls: &self.sysctls,
            status: Status::default(),
            now: now.tick(),
            remaining_ticks: 0,
            secret: self.secret,
            ack_offset: 0,
        };
        let (tracker, result) = if packet.protocol() == ipproto::TCP {
            let segment = parse_tcp_segment(packet, &self.sysctls)?;
            if let Some((tcp, timeout)) = Tcp::from_plain_syn(&segment, &self.sysctls) {
                return Ok(InitialTracker { tracker: Tracker::Tcp(tcp), timeout, counted: true });
            }
            let mut tcp = Tcp::from_first_packet(&segment, &self.sysctls)?;
            let result = tcp.track_packet(&segment, Direction::Original, &context, &mut None::<IgnoredSyn>);
            (Tracker::Tcp(tcp), result)
        } else if packet.protocol() == ipproto::SCTP {
            check_l4_header(packet, &self.sysctls)?;
            let parse_error = |error| Reason::parse_error(packet, error);
            let header = sctp::SctpHeader::parse(packet.transport()).map_err(parse_error)?;
            let mut sctp = Sctp::from_first_packet(&header).map_err(|error| match Reason::from(error) {
                Reason::SctpChunks if packet.is_snapped() => Reason::ParseError(ParseError::NotCaptured),
                reason => reason,
            })?;
            let step = sctp.track_packet(&header, Direction::Original);
            (Tracker::Sctp(sctp), sctp.track_result(step, &context))
        } else {
            check_l4_header(packet, &self.sysctls)?;
            let stateless = Stateless::from_first_packet(&probe.key.tuple(), &context)?;
            let result = stateless.track_packet(&context);
            (Tracker::Stateless(stateless), result)
        };
        let (timeout, counted) = match result {
            TrackResult::Pass { timeout, .. } => (timeout, true),
            TrackResult::Invalid { reason, .. } => return Err(reason),
            TrackResult::NoRefresh { .. } | TrackResult::Restart | TrackResult::Delete => (0, false),
        };
        Ok(InitialTracker { tracker, timeout, counted })
    }

    fn log_invalid(&mut self, number: u8, reason: Reason, now: Instant) {
        let wanted = self.sysctls[Sysctl::LogInvalid];
        if reason == Reason::ParseError(ParseError::NotCaptured) {
            return;
        }
        if wanted == 255 || wanted != 0 && wanted == u32::from(number) {
            self.log.push_ratelimited(now, || alloc::format!("nf_ct_proto_{number}: {}", reason.text()));
        }
    }

    /// The connection in this slot that `conn_id` names, if it is still there.
    #[inline(always)]
    pub(crate) fn names(&self, conn_id: ConnId) -> bool {
        self.table.records.generation(conn_id.slot) == conn_id.generation
            && self.table.records.hot(conn_id.slot).is_some_and(HotRecord::is_confirmed)
    }

    #[inline(always)]
    pub(crate) fn conn_id(&self, slot: u32) -> ConnId {
        ConnId { slot, generation: self.table.records.generation(slot) }
    }
}

/// The tracker of a new connection.
pub(crate) struct InitialTracker {
    pub(crate) tracker: Tracker,
    /// Its timeout in ticks.
    pub(crate) timeout: u32,
    /// Does accounting count the first packet?
    pub(crate) counted: bool,
}

/// Adds a packet to its connection's counters, if it has any.
pub(crate) fn account_packet(records: &mut Records, slot: u32, direction: Direction, packet: &Packet<'_>) {
    let counted = records.hot(slot).is_some_and(|hot| hot.kind.has(RecordKind::COUNTED));
    if let (true, Some(counts)) = (counted, records.counts_mut(slot)) {
        let at = direction as usize * 2;
        counts[at] += 1;
        counts[at + 1] += packet.total_len() as u64;
    }
}

/// Parses the TCP segment of a packet. The error is the reason Linux would call it invalid for: header, checksum or flags.
#[inline(always)]
pub(crate) fn parse_tcp_segment<'a>(packet: &Packet<'a>, sysctls: &crate::Sysctls) -> Result<TcpSegment<'a>, Reason> {
    let segment = TcpSegment::parse(packet.transport(), packet.transport_len())
        .map_err(|error| Reason::parse_error(packet, error))?;
    if sysctls.is_enabled(Sysctl::Checksum) && !packet.transport_checksum_ok() {
        return Err(Reason::Checksum);
    }
    tcp::check_flags(&segment)?;
    Ok(segment)
}

/// Checks the transport header and checksum of a packet other than TCP. ICMP was checked by `classify`.
fn check_l4_header(packet: &Packet<'_>, sysctls: &crate::Sysctls) -> Result<(), Reason> {
    let (transport, length) = (packet.transport(), packet.transport_len());
    let parse_error = |error| Reason::parse_error(packet, error);
    match (packet.protocol(), packet.family()) {
        (ipproto::UDP, _) => udp::UdpHeader::parse(transport, length).map(drop).map_err(parse_error)?,
        (ipproto::UDPLITE, _) => udp::UdpHeader::parse_lite(transport, length).map(drop).map_err(parse_error)?,
        (ipproto::SCTP, _) => sctp::SctpHeader::parse(transport).map(drop).map_err(parse_error)?,
        (ipproto::ICMP, Family::V6) | (ipproto::ICMPV6, Family::V4) => return Err(Reason::WrongFamily),
        (ipproto::ICMP | ipproto::ICMPV6, _) => return Ok(()),
        _ => return Ok(()),
    }
    // Linux uses UDP's protocol number in the pseudo header of UDP-Lite, and so does this; see docs/differences.md for why.
    let holds = match packet.protocol() {
        ipproto::UDPLITE => packet.udp_lite_checksum_ok_as_udp(),
        _ => packet.transport_checksum_ok(),
    };
    if sysctls.is_enabled(Sysctl::Checksum) && !holds { Err(Reason::Checksum) } else { Ok(()) }
}
