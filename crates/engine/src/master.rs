//! Masters and children: a connection whose helper created an expectation, and the connection that matched it.
//!
//! A first packet that matches an expectation begins a child: it is RELATED until answered, takes its master's mark, and counts as a reference to its
//! master while it exists. When a master ends its expectations are removed; its children continue and keep its original tuple. A later
//! connection in the master's slot must never be taken for the master.
use crate::expectation::{ExpectNat, Expectation};
use crate::extension::{Extension, Master};
use crate::table::record::{HotRecord, RecordKind};
use crate::table::{LookupKey, TupleRef};
use crate::time::Ticks;
use crate::{Direction, Engine, Helper, Instant, Status, Tuple, Unconfirmed, Zone};
use alloc::collections::BTreeMap;
use alloc::string::String;

impl Engine {
    /// Finds and removes the expectation that `probe`'s tuple matches; returns its master and the NAT of the child.
    #[inline]
    pub(crate) fn take_expectation(&mut self, probe: &LookupKey, now: Instant) -> Option<(Master, Option<ExpectNat>)> {
        // Most of the time there are no expectations.
        if self.expectations.is_empty() { None } else { self.match_expectation(probe, now) }
    }

    #[cold]
    fn match_expectation(&mut self, probe: &LookupKey, now: Instant) -> Option<(Master, Option<ExpectNat>)> {
        let before = self.expectations.len();
        let Expectation { master, nat: follow, .. } =
            self.expectations.find_expectation(&probe.key.tuple(), probe.zone.id, now)?;
        self.counters.expect_new += 1;
        self.counters.expect_delete += (before - self.expectations.len()) as u64;
        let hot = self.table.records.hot(master.slot)?;
        if hot.is_expired(now.tick()) {
            // The master has expired but was not removed yet.
            self.destroy(master.slot, now);
            return None;
        }
        let mark = self.table.records.mark(master.slot);
        let tuple = self.table.records.key(TupleRef::new(master.slot, Direction::Original))?.tuple();
        Some((
            Master { slot: master.slot, generation: self.table.records.generation(master.slot), tuple, mark },
            follow,
        ))
    }

    /// The master of an imported child, by its original tuple. If it has ended, only the tuple is kept.
    pub(crate) fn master_by_tuple(&self, tuple: &Tuple, zone: Zone) -> Master {
        let records = &self.table.records;
        let (slot, generation, mark) = match self.find_by_original(tuple, zone) {
            Some(slot) => (slot, records.generation(slot), records.mark(slot)),
            None => (u32::MAX, 0, 0),
        };
        Master { slot, generation, tuple: *tuple, mark }
    }

    /// Counts an inserted child at its master, if the master still exists.
    pub(crate) fn add_child(&mut self, master: &Master) {
        if self.is_master_alive(master) {
            self.extensions.find_or_insert(master.slot).children += 1;
        }
    }

    /// Removes a connection's extension when it ends, with its expectations and its reference to its master.
    #[cold]
    pub(crate) fn release_extension(&mut self, slot: u32) {
        let Some(extension) = self.extensions.remove(slot) else { return };
        if extension.helper_state.is_some() || extension.expects {
            let removed = self.expectations.remove_master(self.conn_id(slot));
            self.counters.expect_delete += removed.len() as u64;
        }
        if let Some(master) = extension.master.filter(|master| self.is_master_alive(master)) {
            let children = &mut self.extensions.find_or_insert(master.slot).children;
            *children = children.saturating_sub(1);
        }
    }

    /// Part of [`Engine::check_invariants`]: expectations and child counts.
    pub(crate) fn check_masters(&self) -> Result<(), String> {
        self.expectations.check()?;
        for expected in self.expectations.iter() {
            let slot = expected.master.slot;
            let same = self.table.records.hot(slot).is_some_and(HotRecord::is_confirmed)
                && self.conn_id(slot) == expected.master;
            if !same
                || self
                    .extensions
                    .find(slot)
                    .is_none_or(|extension| extension.helper_state.is_none() && !extension.expects)
            {
                return Err(alloc::format!("expected by nobody: {expected:?}"));
            }
        }
        let mut children = BTreeMap::<u32, u32>::new();
        for (slot, extension) in self.extensions.iter() {
            if !self
                .table
                .records
                .hot(slot)
                .is_some_and(|hot| hot.is_confirmed() && hot.kind.has(RecordKind::HAS_EXTENSION))
            {
                return Err(alloc::format!("slot {slot} is gone, or does not know of {extension:?}"));
            }
            if let Some(master) = extension.master.filter(|master| self.is_master_alive(master)) {
                *children.entry(master.slot).or_default() += 1;
            }
        }
        let wrong =
            |(slot, extension): &(u32, &Extension)| extension.children != children.get(slot).copied().unwrap_or(0);
        let wrong = self.extensions.iter().find(wrong);
        wrong.map_or(Ok(()), |(slot, extension)| Err(alloc::format!("not the children of slot {slot}: {extension:?}")))
    }

    /// Does the master still exist?
    pub(crate) fn is_master_alive(&self, master: &Master) -> bool {
        let records = &self.table.records;
        let same = records.generation(master.slot) == master.generation;
        same && records
            .hot(master.slot)
            .is_some_and(|hot| hot.is_confirmed() && hot.kind.has(RecordKind::HAS_EXTENSION))
    }
}

impl Engine {
    /// Attaches the helper that [`Engine::set_auto_helper`] configured for this protocol and destination port, if any.
    #[inline]
    pub(crate) fn try_assign_helper(&self, fresh: &mut Unconfirmed) {
        let to = |(protocol, port, _): &&(u8, u16, Helper)| {
            (*protocol, *port) == (fresh.original.protocol, fresh.original.keys as u16)
        };
        if let Some((_, _, helper)) = self.auto_helpers.iter().find(to) {
            fresh.attach_helper(*helper);
        }
    }
}

impl Unconfirmed {
    /// Makes it a child of `master`: EXPECTED, with the master's mark.
    pub(crate) fn set_master(&mut self, master: Master) {
        self.status |= Status::EXPECTED;
        self.mark = master.mark;
        self.extension.get_or_insert_default().master = Some(master);
    }
}
