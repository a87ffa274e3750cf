//! What only few connections have, outside their records: labels, a noted segment, a helper, a master, timeouts, a promise.
use crate::helper::Listener;
use crate::master::Master;
use crate::nat::Shifts;
use crate::protocol::Noted;
use crate::{Direction, Promise, Timeouts};
use hashbrown::HashMap;

/// What one connection has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extra {
    pub(crate) labels: Option<[u8; 16]>,
    pub(crate) noted: Option<Noted>,
    /// What its helper keeps, if it has one.
    pub(crate) listener: Option<Listener>,
    /// Who announced it, if it was expected.
    pub(crate) master: Option<Master>,
    /// Segments each way until the window of a TCP connection that was kept over a gap is strict again.
    pub(crate) regains: Option<[u8; 2]>,
    /// How much longer its streams have become, if a helper wrote into them.
    pub(crate) shifts: Option<Shifts>,
    /// Living connections that it announced.
    pub(crate) children: u32,
    /// Timeouts of its own.
    pub(crate) timeouts: Option<Timeouts>,
    /// What its client was promised, if its handshake was answered for its server.
    pub(crate) promise: Option<Promise>,
}

impl Extra {
    /// Is there nothing to keep?
    pub(crate) const fn is_empty(&self) -> bool {
        let quiet = self.labels.is_none() && self.noted.is_none() && self.listener.is_none() && self.shifts.is_none();
        let alone = self.master.is_none() && self.children == 0 && self.promise.is_none();
        quiet && alone && self.regains.is_none() && self.timeouts.is_none()
    }
}

/// By slot. A record's `EXTRAS` flag says whether to look here.
pub(crate) struct Extras(HashMap<u32, Extra>);

impl Extras {
    pub(crate) fn new() -> Self {
        Extras(HashMap::new())
    }

    pub(crate) fn of(&self, slot: u32) -> Option<&Extra> {
        self.0.get(&slot)
    }

    /// What `slot` has, made empty if it had nothing. The caller sets the record's flag.
    pub(crate) fn make(&mut self, slot: u32) -> &mut Extra {
        self.0.entry(slot).or_default()
    }

    /// What the helper of `slot` keeps, if it has one.
    pub(crate) fn listener(&mut self, slot: u32) -> Option<&mut Listener> {
        self.0.get_mut(&slot)?.listener.as_mut()
    }

    /// How many segments each way a connection that was kept over a gap is not yet strict.
    pub(crate) fn regaining(&mut self, slot: u32) -> Option<&mut [u8; 2]> {
        self.0.get_mut(&slot)?.regains.as_mut()
    }

    /// A segment of a connection that was kept over a gap has passed. True once it is the last for which the window is not strict.
    #[cold]
    pub(crate) fn regain(&mut self, slot: u32, direction: Direction) -> bool {
        let Some(extra) = self.0.get_mut(&slot) else { return false };
        let Some(left) = &mut extra.regains else { return false };
        left[direction as usize] = left[direction as usize].saturating_sub(1);
        let regained = *left == [0; 2];
        extra.regains = extra.regains.filter(|_| !regained);
        regained
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<Extra> {
        self.0.remove(&slot)
    }

    /// All, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Extra)> {
        self.0.iter().map(|(slot, extra)| (*slot, extra))
    }
}
