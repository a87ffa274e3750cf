//! Creates a connection by request (`ctnetlink_create_conntrack`).
use super::{NewConnection, UNCHANGEABLE_STATUS, UpdateError, merge_status};
use crate::packet_ctx::Pending;
use crate::protocol::stateless::Stateless;
use crate::protocol::{Tracker, sctp::Sctp, seconds_to_ticks, tcp::Tcp};
use crate::table::key::TupleKey;
use crate::table::record::HotRecord;
use crate::time::Ticks;
use crate::{
    ConnId, CtInfo, CtVerdict, Direction, Engine, Instant, Manip, NatResult, Outcome, PacketCtx, Status, Sysctl,
    Unconfirmed,
};
use keepstate_types::ipproto;

impl Engine {
    /// Inserts a connection into the table, as `conntrack -I` does.
    ///
    /// ```
    /// use keepstate_engine::{NewConnection, Engine, Instant, Sysctls, UpdateError, Secret, Tuple, ConnUpdate, Zone};
    /// let now = Instant(0);
    /// let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    /// let original = Tuple {
    ///     source: [10, 1, 0, 2].into(), destination: [10, 2, 0, 9].into(), protocol: 17, source_key: 4000, destination_key: 53,
    /// };
    /// let request = NewConnection {
    ///     original,
    ///     reply: original.invert().unwrap(),
    ///     zone: Zone::default(),
    ///     attributes: ConnUpdate { timeout: Some(30), mark: Some(5), ..ConnUpdate::default() },
    ///     dst_nat: None,
    ///     src_nat: None,
    /// };
    /// let conn_id = engine.create(&request, now).unwrap();
    /// assert_eq!(engine.entry(conn_id, now).unwrap().mark, 5);
    /// assert_eq!(engine.create(&request, now), Err(UpdateError::Exists));
    /// ```
    ///
    /// # Errors
    /// One of its tuples is taken, it is invalid, or the table is full, or its source has what [`Engine::set_admission`] allows. Then nothing has changed.
    pub fn create(&mut self, new: &NewConnection, now: Instant) -> Result<ConnId, UpdateError> {
        let (original, reply) = (TupleKey::from(&new.original), TupleKey::from(&new.reply));
        if !self.tuple_is_free(&original, new, Direction::Original, now) {
            return Err(UpdateError::Exists);
        }
        let fresh = self.build_unconfirmed(new, original, reply, now)?;
        if !self.shard.owns(&original) {
            return Err(UpdateError::WrongShard);
        }
        let outcome = Outcome {
            info: CtInfo::New,
            direction: Some(Direction::Original),
            connection: None,
            reason: None,
            verdict: CtVerdict::Accept,
        };
        let mut ctx = PacketCtx { outcome, pending: Pending::Unconfirmed(fresh), is_icmp_error: false, ended: None };
        if new.dst_nat.is_some() || new.src_nat.is_some() {
            // As in the kernel: if NAT of one side is given, the other side gets a null binding.
            for (manip, range) in [(Manip::Destination, &new.dst_nat), (Manip::Source, &new.src_nat)] {
                let done = match range {
                    Some(range) => self.translate(&mut ctx, manip, range, now),
                    None => self.nat_null_binding(&mut ctx, manip, now),
                };
                if done == NatResult::Exhausted {
                    return Err(UpdateError::Exists);
                }
            }
        }
        let Pending::Unconfirmed(fresh) = &ctx.pending else { return Err(UpdateError::Invalid) };
        let reply = fresh.reply;
        if !self.shard.owns(&reply) {
            return Err(UpdateError::WrongShard);
        }
        if !self.tuple_is_free(&reply, new, Direction::Reply, now) {
            return Err(UpdateError::Exists);
        }
        let probe = self.table.lookup_key(original, new.zone);
        if self.check_source(&original, now).is_err() || !self.make_room(&probe, now) {
            return Err(UpdateError::TableFull);
        }
        let conn_id = self.confirm(ctx, now).connection.ok_or(UpdateError::TableFull)?;
        self.counters.insert += 1;
        Ok(conn_id)
    }

    /// Is the tuple free? A connection that has it but has expired is removed.
    fn tuple_is_free(&mut self, key: &TupleKey, new: &NewConnection, direction: Direction, now: Instant) -> bool {
        let Some(owner) = self.table.tuple_owner(key, new.zone, direction) else { return true };
        let expired = self.table.records.hot(owner.slot()).is_some_and(|hot| hot.is_expired(now.tick()));
        if expired {
            self.destroy(owner.slot(), now);
        }
        expired
    }

    fn build_unconfirmed(
        &self,
        new: &NewConnection,
        original: TupleKey,
        reply: TupleKey,
        now: Instant,
    ) -> Result<Unconfirmed, UpdateError> {
        let (from, to) = (&new.original, &new.reply);
        let ends = [from.destination, to.source, to.destination];
        let alike = from.protocol == to.protocol && ends.iter().all(|end| end.is_ipv6() == from.is_ipv6());
        if !alike || from.invert().is_none() || to.invert().is_none() {
            return Err(UpdateError::Invalid);
        }
        let timeout = new.attributes.timeout.ok_or(UpdateError::Invalid)?;
        // CONFIRMED is set anyway: a request without it is no change.
        let requested = new.attributes.status.map(|status| status | Status::CONFIRMED);
        let mut status = merge_status(Status::CONFIRMED, requested)?;
        status.remove(UNCHANGEABLE_STATUS | Status::HELPER);
        let mut hot = HotRecord::of_protocol(from.protocol);
        if let Some(protocol_update) = &new.attributes.protocol {
            protocol_update.apply_to(&mut hot)?;
        }
        Ok(Unconfirmed {
            nat_exhausted: false,
            nat_refused: false,
            original,
            reply,
            untranslated: original.invert() == Some(reply),
            zone: new.zone,
            status,
            tracker: self.build_tracker(from.protocol, &hot, now),
            timeout: seconds_to_ticks(timeout),
            counted_bytes: None,
            masqueraded: false,
            // Never a valid epoch, so that its tuples are looked up again on confirmation.
            table_epoch: u64::MAX,
            reply_free_epoch: u64::MAX,
            hashes: [0; 2],
            extension: None,
            expected: None,
            event_bits: None,
            mark: new.attributes.mark.unwrap_or(0),
            labels: new.attributes.labels.map(|[labels, mask]| {
                let mut set = labels;
                set.iter_mut().zip(mask).for_each(|(label, mask)| *label &= mask);
                set
            }),
        })
    }

    /// The tracker of a connection that no packet has begun. A UDP connection can become a stream immediately.
    fn build_tracker(&self, number: u8, hot: &HotRecord, now: Instant) -> Tracker {
        let sysctl = |sysctl| seconds_to_ticks(self.sysctls[sysctl]);
        Tracker::Stateless(match number {
            ipproto::TCP => return Tracker::Tcp(Tcp::load(hot)),
            ipproto::SCTP => return Tracker::Sctp(Sctp::load(hot)),
            ipproto::UDP => Stateless::Udp { stream_after: now.tick().wrapping_sub(1) },
            ipproto::UDPLITE => Stateless::UdpLite,
            ipproto::ICMP => Stateless::Icmp,
            ipproto::ICMPV6 => Stateless::Icmpv6,
            ipproto::GRE => {
                Stateless::Gre { timeout: sysctl(Sysctl::GreTimeout), stream: sysctl(Sysctl::GreTimeoutStream) }
            }
            other => Stateless::Other(other),
        })
    }
}
