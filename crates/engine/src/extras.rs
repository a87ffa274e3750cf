//! What only few connections have, outside their records: labels, a noted segment, a helper, a master, timeouts.
use crate::Timeouts;
use crate::helper::Listener;
use crate::master::Master;
use crate::nat::Shifts;
use crate::protocol::Noted;
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
    /// How much longer its streams have become, if a helper wrote into them.
    pub(crate) shifts: Option<Shifts>,
    /// Living connections that it announced.
    pub(crate) children: u32,
    /// Timeouts of its own.
    pub(crate) timeouts: Option<Timeouts>,
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

    pub(crate) fn remove(&mut self, slot: u32) -> Option<Extra> {
        self.0.remove(&slot)
    }

    /// All, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Extra)> {
        self.0.iter().map(|(slot, extra)| (*slot, extra))
    }
}
