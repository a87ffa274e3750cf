//! Expectations: connections that a helper heard announced, until they come, or their time or their master is over.
//!
//! An [`Expected`] is one of them; it belongs to the connection that announced it, its master. It is found by the first packet of a new connection: the
//! destination must be the announced one; what the mask leaves open of the source may be anything. Finding uses it up, unless it is
//! permanent, even if that packet is dropped later. A master has few at a time: a new one of the same class pushes out the oldest.
//! Nobody else can: an announcement that another master's expectation overlaps is refused. There are never more than the limit.
mod shown;
#[cfg(test)]
mod tests;

pub use shown::Expectation;

use crate::nat::Follow;
use crate::{Handle, Helper, Instant, Tuple};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use core::net::IpAddr;
use hashbrown::HashMap;
use siphasher::sip::SipHasher13;

/// What of a tuple's source must be as expected. The destination and the protocol always must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mask {
    /// The bits of the source address that count.
    pub(crate) source: IpAddr,
    /// The bits of the source key that count.
    pub(crate) source_key: u16,
}

/// The flags of an expectation, by the kernel's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(pub(crate) u8);

impl Flags {
    /// Being found does not use it up.
    pub(crate) const PERMANENT: u8 = 1;
    /// It is not found.
    pub(crate) const INACTIVE: u8 = 2;
    /// A person or a program made it, not a helper.
    #[allow(dead_code, reason = "helpers alone expect, as long as there is no ctnetlink")]
    pub(crate) const USERSPACE: u8 = 4;

    const fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }
}

/// One connection that is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Who announced it.
    pub(crate) master: Handle,
    /// Its original tuple, so far as the mask counts.
    pub(crate) tuple: Tuple,
    /// What counts.
    pub(crate) mask: Mask,
    /// The zone its packets are in.
    pub(crate) zone: u16,
    /// Which of the helper's kinds of expectations it is; each has a limit of its own.
    pub(crate) class: u8,
    /// The helper that heard it.
    pub(crate) helper: Helper,
    pub(crate) flags: Flags,
    /// How it is translated, if its master is.
    pub(crate) follow: Option<Follow>,
    /// When it is over.
    pub(crate) deadline: Instant,
}

/// How many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Of this class with this master; FTP has one.
    pub(crate) of_class: usize,
    /// In all: `nf_conntrack_expect_max`.
    pub(crate) in_all: usize,
}

/// Why an announcement was refused. Linux drops the packet that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Packets that it would match, another expectation matches.
    Clash,
    /// There are as many as there may be.
    Full,
}

/// All expectations.
pub(crate) struct Expectations {
    by_destination: HashMap<Destination, Vec<Expected>, Keys>,
    /// The same once more, by master, oldest first.
    by_master: HashMap<Handle, Vec<Expected>, Keys>,
    /// Where to look for what expires, and how many are to be found there.
    by_deadline: BTreeMap<(Instant, Destination), usize>,
    count: usize,
}

/// What every packet of an expected connection shares with its expectation.
type Destination = (IpAddr, u16, u8);

const fn destination(tuple: &Tuple) -> Destination {
    (tuple.destination, tuple.destination_key, tuple.protocol)
}

impl Expectations {
    /// None yet. `keys` must be unknown to whoever sends packets.
    pub(crate) fn new(keys: (u64, u64)) -> Self {
        let keys = Keys(keys.0, keys.1);
        Expectations {
            by_destination: HashMap::with_hasher(keys),
            by_master: HashMap::with_hasher(keys),
            by_deadline: BTreeMap::new(),
            count: 0,
        }
    }

    /// How many there are, those included whose time is over and that nobody has met since.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds one. What it replaces is returned: the same one announced before, or the oldest of its class. One in its way whose time is over
    /// is forgotten without a word: call [`Expectations::remove_expired`] before, if the end of each is to be reported.
    pub(crate) fn expect(
        &mut self,
        fresh: Expected,
        limits: Limits,
        now: Instant,
    ) -> Result<Option<Expected>, Refused> {
        let at = destination(&fresh.tuple);
        self.forget_expired(at, now);
        let rivals = self.by_destination.get(&at).map_or(&[][..], Vec::as_slice);
        if rivals.iter().any(|known| !known.is_same(&fresh) && known.overlaps(&fresh)) {
            return Err(Refused::Clash);
        }
        let replaced = if rivals.iter().any(|known| known.is_same(&fresh)) {
            self.take(at, |known| known.is_same(&fresh))
        } else if self.of_class(&fresh).count() >= limits.of_class {
            self.take_oldest(&fresh)
        } else {
            None
        };
        if self.count >= limits.in_all {
            return Err(Refused::Full);
        }
        self.by_destination.entry(at).or_default().push(fresh);
        self.by_master.entry(fresh.master).or_default().push(fresh);
        *self.by_deadline.entry((fresh.deadline, at)).or_default() += 1;
        self.count += 1;
        Ok(replaced)
    }

    /// The one that a new connection with `tuple` fulfils. It is used up, unless it is permanent.
    pub(crate) fn find(&mut self, tuple: &Tuple, zone: u16, now: Instant) -> Option<Expected> {
        let at = destination(tuple);
        let found = *self.by_destination.get(&at)?.iter().find(|known| known.matches(tuple, zone, now))?;
        if !found.flags.has(Flags::PERMANENT) {
            self.take(at, |known| *known == found);
        }
        Some(found)
    }

    /// Removes those of a master that is over, and returns them.
    pub(crate) fn remove_master(&mut self, master: Handle) -> Vec<Expected> {
        let all = self.by_master.get(&master).cloned().unwrap_or_default();
        all.into_iter().filter_map(|one| self.take(destination(&one.tuple), |known| *known == one)).collect()
    }

    /// Removes those whose time is over, `most` at most; says how many.
    pub(crate) fn remove_expired(&mut self, now: Instant, most: usize) -> usize {
        let before = self.count;
        while let Some((deadline, at)) = self.by_deadline.keys().next().copied() {
            let over = deadline <= now && before - self.count < most;
            if !over || self.take(at, |known| known.deadline == deadline).is_none() {
                break;
            }
        }
        before - self.count
    }

    /// When the first of them is over.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.keys().next().map(|(deadline, _)| *deadline)
    }

    /// All, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Expected> {
        self.by_destination.values().flatten()
    }

    /// Checks what must always hold: all three maps know the same.
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
            !own || !self.by_deadline.contains_key(&(known.deadline, destination(&known.tuple)))
        });
        lost.map_or(Ok(()), |lost| Err(alloc::format!("not everywhere: {lost:?}")))
    }

    fn of_class(&self, fresh: &Expected) -> impl Iterator<Item = &Expected> {
        let class = fresh.class;
        let all = self.by_master.get(&fresh.master).map_or(&[][..], Vec::as_slice);
        all.iter().filter(move |known| known.class == class)
    }

    fn take_oldest(&mut self, fresh: &Expected) -> Option<Expected> {
        let oldest = *self.of_class(fresh).next()?;
        self.take(destination(&oldest.tuple), |known| *known == oldest)
    }

    fn forget_expired(&mut self, at: Destination, now: Instant) {
        while self.take(at, |known| known.deadline <= now).is_some() {}
    }

    /// Removes the first at `at` that is `wanted`, from both maps.
    fn take(&mut self, at: Destination, wanted: impl Fn(&Expected) -> bool) -> Option<Expected> {
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

impl Expected {
    fn matches(&self, tuple: &Tuple, zone: u16, now: Instant) -> bool {
        let source = masked(tuple.source, self.mask.source) == masked(self.tuple.source, self.mask.source);
        let source_key = (tuple.source_key ^ self.tuple.source_key) & self.mask.source_key == 0;
        source && source_key && self.zone == zone && now < self.deadline && !self.flags.has(Flags::INACTIVE)
    }

    /// Announced twice: by the same master, for the same packets.
    fn is_same(&self, other: &Expected) -> bool {
        let same = self.master == other.master && self.class == other.class && self.zone == other.zone;
        same && self.mask == other.mask && self.tuple == other.tuple
    }

    /// Is there a packet that both match? Their destinations are the same.
    fn overlaps(&self, other: &Expected) -> bool {
        let mask = match (self.mask.source, other.mask.source) {
            (IpAddr::V4(a), IpAddr::V4(b)) => IpAddr::V4(a & b),
            (IpAddr::V6(a), IpAddr::V6(b)) => IpAddr::V6(a & b),
            _ => return false,
        };
        let key_mask = self.mask.source_key & other.mask.source_key;
        self.zone == other.zone
            && masked(self.tuple.source, mask) == masked(other.tuple.source, mask)
            && (self.tuple.source_key ^ other.tuple.source_key) & key_mask == 0
    }
}

/// The address so far as the mask counts; all of it under a mask of the other family, which never is.
fn masked(address: IpAddr, mask: IpAddr) -> IpAddr {
    match (address, mask) {
        (IpAddr::V4(address), IpAddr::V4(mask)) => IpAddr::V4(address & mask),
        (IpAddr::V6(address), IpAddr::V6(mask)) => IpAddr::V6(address & mask),
        _ => address,
    }
}

/// Makes hashers that nobody outside can foresee.
#[derive(Clone, Copy)]
struct Keys(u64, u64);

impl BuildHasher for Keys {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}
