//! Expectations: connections announced to a helper, or expected by a rule. An expectation lives until the connection arrives, it times out, or its master ends.
//!
//! An [`Expectation`] belongs to the connection that announced it, its master. The first packet of a new connection matches it if its
//! destination equals the announced one and its source matches under the mask. A match consumes the expectation, unless it is
//! permanent, even if that packet is dropped later. A master's expectations are limited per class: a new one replaces the oldest.
//! An expectation must never replace another master's: if the two overlap, the new one is refused. The total never exceeds the limit.
mod dump;
mod policy;
#[cfg(test)]
mod tests;

pub use dump::ExpectationEntry;
pub(crate) use policy::PendingExpectations;
pub use policy::{ExpectResult, ExpectationPolicy};

use crate::helper::ExpectLimits;
use crate::{ConnId, Helper, Instant, Tuple};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use keepstate_wire::keyed_hash::{KeyedMap, SipKey};

/// Which bits of a tuple's source must match. Destination and protocol must always match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExpectMask {
    /// Mask of the source address.
    pub(crate) source: IpAddr,
    /// Mask of the source key.
    pub(crate) source_key: u16,
}

/// The flags of an expectation, with the kernel's bit values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExpectFlags(pub(crate) u8);

impl ExpectFlags {
    /// A match does not consume it.
    pub(crate) const PERMANENT: u8 = 1;
    /// It never matches.
    pub(crate) const INACTIVE: u8 = 2;
    /// Created by user space, not by a helper.
    #[allow(dead_code, reason = "helpers alone expect, as long as there is no ctnetlink")]
    pub(crate) const USERSPACE: u8 = 4;

    const fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }
}

/// One expected connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expectation {
    /// The connection that announced it.
    pub(crate) master: ConnId,
    /// Its original tuple, under the mask.
    pub(crate) tuple: Tuple,
    /// The bits of the source that must match.
    pub(crate) mask: ExpectMask,
    /// The zone of its packets.
    pub(crate) zone: u16,
    /// Its expectation class within the helper; each class has a limit.
    pub(crate) class: u8,
    /// The helper of the connection that announced it; a rule may have expected it for one without.
    pub(crate) helper: Option<Helper>,
    pub(crate) flags: ExpectFlags,
    /// How the connection is translated, if its master is.
    pub(crate) nat: Option<ExpectNat>,
    /// Time at which it expires.
    pub(crate) deadline: Instant,
}

/// How an expected connection is translated if its master is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExpectNat {
    /// The source as its destination sees it: the end that the announcement was sent to.
    pub(crate) source: IpAddr,
    /// The address of the end that announced it, before translation …
    pub(crate) destination: IpAddr,
    /// … and the port it listens on.
    pub(crate) port: u16,
}

/// Why an expectation was refused. As in Linux, the packet that announced it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExpectError {
    /// It overlaps another expectation.
    Clash,
    /// The limit is reached.
    Full,
}

/// All expectations.
#[derive(Clone)]
pub(crate) struct ExpectationTable {
    by_destination: KeyedMap<Destination, Vec<Expectation>>,
    /// The same expectations by master, oldest first.
    by_master: KeyedMap<ConnId, Vec<Expectation>>,
    /// Number of expectations by deadline and destination, to find the expired ones.
    by_deadline: BTreeMap<(Instant, Destination), usize>,
    count: usize,
}

/// The part of the tuple that is compared in full.
type Destination = (IpAddr, u16, u8);

const fn destination_key(tuple: &Tuple) -> Destination {
    (tuple.destination, tuple.destination_key, tuple.protocol)
}

impl ExpectationTable {
    /// An empty table. `keys` must be unknown to senders of packets.
    pub(crate) fn new(keys: SipKey) -> Self {
        ExpectationTable {
            by_destination: keys.derive(0).map(),
            by_master: keys.derive(1).map(),
            by_deadline: BTreeMap::new(),
            count: 0,
        }
    }

    /// Number of expectations, including expired ones that were not removed yet.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds an expectation. Returns the one it replaces: an identical one, or the oldest of its class. Expired ones with the same destination
    /// are removed without a report: call [`ExpectationTable::remove_expired`] before if the end of each must be reported.
    pub(crate) fn expect_related(
        &mut self,
        fresh: Expectation,
        limits: ExpectLimits,
        now: Instant,
    ) -> Result<Option<Expectation>, ExpectError> {
        let at = destination_key(&fresh.tuple);
        self.drop_expired_at(at, now);
        let rivals = self.by_destination.get(&at).map_or(&[][..], Vec::as_slice);
        if rivals.iter().any(|known| !known.is_same(&fresh) && known.overlaps(&fresh)) {
            return Err(ExpectError::Clash);
        }
        let replaced = if rivals.iter().any(|known| known.is_same(&fresh)) {
            self.remove_first(at, |known| known.is_same(&fresh))
        } else if self.of_same_class(&fresh).count() >= limits.max_per_class {
            self.evict_oldest(&fresh)
        } else {
            None
        };
        if self.count >= limits.max_total {
            return Err(ExpectError::Full);
        }
        self.by_destination.entry(at).or_default().push(fresh);
        self.by_master.entry(fresh.master).or_default().push(fresh);
        *self.by_deadline.entry((fresh.deadline, at)).or_default() += 1;
        self.count += 1;
        Ok(replaced)
    }

    /// The expectation that a new connection with `tuple` matches. It is removed, unless it is permanent.
    pub(crate) fn find_expectation(&mut self, tuple: &Tuple, zone: u16, now: Instant) -> Option<Expectation> {
        let at = destination_key(tuple);
        let found = *self.by_destination.get(&at)?.iter().find(|known| known.matches(tuple, zone, now))?;
        if !found.flags.has(ExpectFlags::PERMANENT) {
            self.remove_first(at, |known| *known == found);
        }
        Some(found)
    }

    /// Removes the expectations of a master that has ended, and returns them.
    pub(crate) fn remove_master(&mut self, master: ConnId) -> Vec<Expectation> {
        let all = self.by_master.get(&master).cloned().unwrap_or_default();
        all.into_iter()
            .filter_map(|one| self.remove_first(destination_key(&one.tuple), |known| *known == one))
            .collect()
    }

    /// Removes at most `most` expired expectations; returns their number.
    pub(crate) fn remove_expired(&mut self, now: Instant, most: usize) -> usize {
        let before = self.count;
        while let Some((deadline, at)) = self.by_deadline.keys().next().copied() {
            let over = deadline <= now && before - self.count < most;
            if !over || self.remove_first(at, |known| known.deadline == deadline).is_none() {
                break;
            }
        }
        before - self.count
    }

    /// Time at which the next one expires.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.keys().next().map(|(deadline, _)| *deadline)
    }

    /// All expectations, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Expectation> {
        self.by_destination.values().flatten()
    }

    /// Checks the invariants: all three maps have the same expectations.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (masters, deadlines) =
            (self.by_master.values().map(Vec::len).sum::<usize>(), self.by_deadline.values().sum::<usize>());
        if self.iter().count() != self.count || masters != self.count || deadlines != self.count {
            return Err(alloc::format!(
                "{} expectations counted: {} by destination, {masters} by master, {deadlines} by deadline",
                self.count,
                self.iter().count()
            ));
        }
        let lost = self.iter().find(|known| {
            let own = self.by_master.get(&known.master).is_some_and(|own| own.contains(known));
            !own || !self.by_deadline.contains_key(&(known.deadline, destination_key(&known.tuple)))
        });
        lost.map_or(Ok(()), |lost| Err(alloc::format!("not everywhere: {lost:?}")))
    }

    /// Is there an expectation that matches packets that this one matches too?
    pub(crate) fn overlaps_any(&mut self, one: &Expectation, now: Instant) -> bool {
        let at = destination_key(&one.tuple);
        self.drop_expired_at(at, now);
        self.by_destination.get(&at).is_some_and(|known| known.iter().any(|known| known.overlaps(one)))
    }

    fn of_same_class(&self, fresh: &Expectation) -> impl Iterator<Item = &Expectation> {
        let class = fresh.class;
        let all = self.by_master.get(&fresh.master).map_or(&[][..], Vec::as_slice);
        all.iter().filter(move |known| known.class == class)
    }

    fn evict_oldest(&mut self, fresh: &Expectation) -> Option<Expectation> {
        let oldest = *self.of_same_class(fresh).next()?;
        self.remove_first(destination_key(&oldest.tuple), |known| *known == oldest)
    }

    fn drop_expired_at(&mut self, at: Destination, now: Instant) {
        while self.remove_first(at, |known| known.deadline <= now).is_some() {}
    }

    /// Removes the first expectation at `at` for which `wanted` holds, from all maps.
    fn remove_first(&mut self, at: Destination, wanted: impl Fn(&Expectation) -> bool) -> Option<Expectation> {
        let here = self.by_destination.get_mut(&at)?;
        let taken = here.remove(here.iter().position(wanted)?);
        if here.is_empty() {
            self.by_destination.remove(&at);
        }
        if let Some(all) = self.by_master.get_mut(&taken.master) {
            if let Some(index) = all.iter().position(|known| *known == taken) {
                all.remove(index);
            }
            if all.is_empty() {
                self.by_master.remove(&taken.master);
            }
        }
        if let Some(there) = self.by_deadline.get_mut(&(taken.deadline, at)) {
            *there -= 1;
            if *there == 0 {
                self.by_deadline.remove(&(taken.deadline, at));
            }
        }
        self.count -= 1;
        Some(taken)
    }
}

impl Expectation {
    fn matches(&self, tuple: &Tuple, zone: u16, now: Instant) -> bool {
        let source = apply_mask(tuple.source, self.mask.source) == apply_mask(self.tuple.source, self.mask.source);
        let source_key = (tuple.source_key ^ self.tuple.source_key) & self.mask.source_key == 0;
        source && source_key && self.zone == zone && now < self.deadline && !self.flags.has(ExpectFlags::INACTIVE)
    }

    /// Is it identical: the same master, matching the same packets?
    pub(crate) fn is_same(&self, other: &Expectation) -> bool {
        let same = self.master == other.master && self.class == other.class && self.zone == other.zone;
        same && self.mask == other.mask && self.tuple == other.tuple
    }

    /// Is there a packet that matches both? Their destinations are equal.
    fn overlaps(&self, other: &Expectation) -> bool {
        let mask = match (self.mask.source, other.mask.source) {
            (IpAddr::V4(a), IpAddr::V4(b)) => IpAddr::V4(a & b),
            (IpAddr::V6(a), IpAddr::V6(b)) => IpAddr::V6(a & b),
            _ => return false,
        };
        let key_mask = self.mask.source_key & other.mask.source_key;
        self.zone == other.zone
            && apply_mask(self.tuple.source, mask) == apply_mask(other.tuple.source, mask)
            && (self.tuple.source_key ^ other.tuple.source_key) & key_mask == 0
    }
}

/// The address under the mask; the address itself if the mask has another family, which never happens.
fn apply_mask(address: IpAddr, mask: IpAddr) -> IpAddr {
    match (address, mask) {
        (IpAddr::V4(address), IpAddr::V4(mask)) => IpAddr::V4(address & mask),
        (IpAddr::V6(address), IpAddr::V6(mask)) => IpAddr::V6(address & mask),
        _ => address,
    }
}
