//! A described connection enters a table, or is refused with a reason.
use super::{Description, Progress};
use crate::extras::Extra;
use crate::protocol::{Tracker, stateless::Stateless};
use crate::table::key::Key;
use crate::table::record::{Hot, Kind};
use crate::table::{Record, Reference};
use crate::time::{Clock, from_milliseconds};
use crate::tuple::protocol;
use crate::{Direction, Engine, EventKind, Handle, Instant, Knob, Status, Tuple};
use core::time::Duration;

/// How far the described TCP windows are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// No packet has passed since: they hold.
    Exact,
    /// Packets may have passed that nobody saw, or the windows were described some time before: as for a connection met in its middle, they are learned
    /// anew from what the ends send, and nothing is refused for its numbers meanwhile. Once both ends have sent a few segments, they hold as ever.
    Lenient,
}

/// Why a described connection was not entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Its time was over meanwhile.
    #[error("it has expired meanwhile")]
    Expired,
    /// One of its tuples belongs to another connection.
    #[error("another connection has one of its tuples")]
    Clash,
    /// The table is full: `nf_conntrack_max`.
    #[error("the table is full: nf_conntrack_max is too small for it")]
    Full,
    /// There is no memory for it.
    #[error("there is no memory for it")]
    NoMemory,
    /// No connection is like that.
    #[error("no connection can be like that: {0}")]
    Impossible(&'static str),
}

/// Longer than any timeout, in milliseconds.
const LONGEST: u64 = (1 << 31) * 4;

impl Engine {
    /// Enters a described connection; `gap` is the time since it was described. A child comes after its master, else it has none.
    ///
    /// # Errors
    /// Why it was not entered; then nothing has changed.
    pub fn import(
        &mut self,
        described: &Description,
        gap: Duration,
        trust: Trust,
        now: Instant,
    ) -> Result<Handle, Refused> {
        possible(described)?;
        let gap = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
        let remaining = from_milliseconds(described.remaining.saturating_sub(gap));
        if remaining == 0 {
            return Err(Refused::Expired);
        }
        let limit = self.knobs[Knob::Max] as usize;
        if limit != 0 && self.table.count() >= limit {
            return Err(Refused::Full);
        }
        let (original, reply) = (Key::from(&described.original), Key::from(&described.reply));
        let holder = |key, direction| self.table.holder(key, described.zone, direction);
        if holder(&original, Direction::Original).is_some() || holder(&reply, Direction::Reply).is_some() {
            return Err(Refused::Clash);
        }
        let timeouts = if described.timeouts.is_empty() { None } else { Some(self.timeouts(&described.timeouts)) };
        let timeouts =
            timeouts.transpose().map_err(|_| Refused::Impossible("a timeout of its own that cannot be set"))?;
        let (tracker, regains) = described.tracker(gap, trust, now);
        let extra = Extra {
            labels: described.labels,
            noted: described.noted,
            listener: described.listener,
            master: described.master.map(|tuple| self.master_named(&tuple, described.zone)),
            shifts: described.shifts,
            promise: described.promise,
            regains,
            timeouts,
            ..Extra::default()
        };
        let kept = Status(described.status.0 & !(Status::OFFLOAD.0 | Status::HW_OFFLOAD.0));
        let mut hot = Hot { deadline: now.tick().wrapping_add(remaining), status: kept.0, ..Hot::default() };
        tracker.store(&mut hot);
        let plain = original.invert() == Some(reply);
        let kind = if extra.is_empty() { 0 } else { Kind::EXTRAS } | if plain { Kind::PLAIN } else { 0 };
        let counts = described
            .accounting
            .map(|[original, reply]| [original.packets, original.bytes, reply.packets, reply.bytes]);
        let record = Record {
            original: &original,
            reply: &reply,
            zone: described.zone,
            mark: described.mark,
            hot,
            kind,
            counts,
            start: described.start.map_or(0, |start| start.0),
            hashes: [0; 2],
        };
        let slot = self.table.insert(&record, now.tick()).ok_or(Refused::NoMemory)?;
        self.promises |= extra.promise.is_some();
        if !extra.is_empty() {
            *self.extras.make(slot) = extra;
            extra.master.iter().for_each(|master| self.add_child(master));
        }
        self.nat.in_use |= !plain;
        self.remember_source(slot);
        self.remember_mapping(slot, now);
        self.changes.note(slot);
        if self.reports(EventKind::New) {
            self.report(EventKind::New, slot, now);
        }
        Ok(self.handle_of(slot))
    }
}

impl Description {
    /// What goes on in its record, and for how many segments each way it is not strict.
    fn tracker(&self, gap: u64, trust: Trust, now: Instant) -> (Tracker, Option<[u8; 2]>) {
        let stateless = |stateless| (Tracker::Stateless(stateless), None);
        match self.protocol {
            Progress::Tcp(mut tcp) => {
                let regains = match trust {
                    Trust::Exact => self.regains,
                    Trust::Lenient => tcp.resume(self.regains.is_some()),
                };
                (Tracker::Tcp(tcp), regains)
            }
            Progress::Sctp(sctp) => (Tracker::Sctp(sctp), None),
            Progress::Udp { stream_in } => {
                let ahead = from_milliseconds(stream_in.saturating_sub(gap));
                stateless(Stateless::Udp { stream_after: now.tick().wrapping_add(ahead).wrapping_sub(1) })
            }
            Progress::Gre { timeout, stream } => {
                stateless(Stateless::Gre { timeout: from_milliseconds(timeout), stream: from_milliseconds(stream) })
            }
            Progress::Stateless => stateless(match self.original.protocol {
                protocol::UDPLITE => Stateless::UdpLite,
                protocol::ICMP => Stateless::Icmp,
                protocol::ICMPV6 => Stateless::Icmpv6,
                other => Stateless::Other(other),
            }),
        }
    }
}

/// Can there be such a connection?
fn possible(described: &Description) -> Result<(), Refused> {
    let Description { original, reply, status, .. } = described;
    let ends = [original.source, original.destination, reply.source, reply.destination];
    let translated = Status(Status::SRC_NAT.0 | Status::DST_NAT.0);
    let progress = match original.protocol {
        protocol::TCP => matches!(described.protocol, Progress::Tcp(_)),
        protocol::SCTP => matches!(described.protocol, Progress::Sctp(_)),
        protocol::UDP => matches!(described.protocol, Progress::Udp { .. }),
        protocol::GRE => matches!(described.protocol, Progress::Gre { .. }),
        _ => described.protocol == Progress::Stateless,
    };
    let checks = [
        (ends.iter().all(|end| end.is_ipv6() == original.is_ipv6()), "addresses of both families"),
        (original.protocol == reply.protocol, "its directions have different protocols"),
        (original.invert().is_some() && reply.invert().is_some(), "a tuple that has no answer"),
        (status.has(Status::CONFIRMED), "it was never confirmed"),
        (status.0 & (Status::DYING.0 | Status::TEMPLATE.0) == 0, "it was dying, or a template"),
        (status.0 & translated.0 != 0 || original.invert() == Some(*reply), "translated, and not marked so"),
        (decided(*status), "translated without a decision"),
        (described.remaining <= LONGEST, "a timeout longer than there are"),
        (progress, "the state of another protocol"),
        (
            described.helper().is_none_or(|helper| helper.protocol() == original.protocol),
            "a helper of another protocol",
        ),
        (
            described.helper().is_some() == status.has(Status::HELPER),
            "a helper without its mark, or a mark without its helper",
        ),
        (described.master.is_none() || status.has(Status::EXPECTED), "a master's that was not expected"),
        (
            described.shifts.is_some() == status.has(Status::SEQ_ADJUST),
            "shifted numbers without their mark, or a mark without them",
        ),
        (described.promise.is_none() || original.protocol == protocol::TCP, "a handshake of a protocol that has none"),
        (described.regains.is_none() || original.protocol == protocol::TCP, "a window of a protocol that has none"),
    ];
    checks.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(Refused::Impossible(what)))
}

/// What is translated was decided.
fn decided(status: Status) -> bool {
    let source = !status.has(Status::SRC_NAT) || status.has(Status::SRC_NAT_DONE);
    source && (!status.has(Status::DST_NAT) || status.has(Status::DST_NAT_DONE))
}

impl Engine {
    /// Is the tuple the original one of a connection here?
    pub(crate) fn original_of(&self, tuple: &Tuple, zone: crate::Zone) -> Option<u32> {
        let found = self.table.holder(&tuple.into(), zone, Direction::Original)?;
        let same = found == Reference::new(found.slot(), Direction::Original);
        if same { Some(found.slot()) } else { None }
    }
}
