//! Timeouts of single connections, as nftables' `ct timeout` gives them.
//!
//! A policy is the engine's knobs with some timeouts changed. It is made once ([`Engine::timeouts`]) and lives as long as the engine, since connections may have it; when a knob is set, every policy
//! follows in what it has not changed itself. As in Linux it is given to a connection before that is confirmed, and tells from the second packet on.
use crate::{Engine, Knob, KnobError, Knobs, Unconfirmed};
use alloc::vec::Vec;

/// Names a policy of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts(pub(crate) u16);

/// What a policy says.
#[derive(Debug)]
pub(crate) struct Policy {
    settings: Vec<(Knob, u32)>,
    pub(crate) knobs: Knobs,
}

impl Engine {
    /// The policy that sets these knobs (timeouts, in seconds), made if there is none like it.
    ///
    /// ```
    /// use keepstate_engine::{Engine, Instant, Knob, Knobs, Secret};
    /// let mut engine = Engine::new(Knobs::default(), Secret([7; 16]), Instant(0));
    /// let short = engine.timeouts(&[(Knob::UdpTimeout, 5)]).unwrap();
    /// assert_eq!(engine.timeouts(&[(Knob::UdpTimeout, 5)]).unwrap(), short);
    /// ```
    ///
    /// # Errors
    /// A value is not possible for its knob.
    pub fn timeouts(&mut self, settings: &[(Knob, u32)]) -> Result<Timeouts, KnobError> {
        let known = self.policies.iter().position(|policy| policy.settings == settings);
        if let Some(at) = known.and_then(|at| u16::try_from(at).ok()) {
            return Ok(Timeouts(at));
        }
        let knobs = self.with(settings)?;
        // As many as connections can name: the last stands for all beyond, which only a ruleset made for it has.
        let at = self.policies.len().min(usize::from(u16::MAX));
        self.policies.truncate(at);
        self.policies.push(Policy { settings: settings.to_vec(), knobs });
        Ok(Timeouts(at as u16))
    }

    /// What a connection's policy changes; nothing without one.
    pub(crate) fn settings_of(&self, timeouts: Option<Timeouts>) -> Vec<(Knob, u32)> {
        let policy = timeouts.and_then(|timeouts| self.policies.get(usize::from(timeouts.0)));
        policy.map_or_else(Vec::new, |policy| policy.settings.clone())
    }

    fn with(&self, settings: &[(Knob, u32)]) -> Result<Knobs, KnobError> {
        let mut knobs = self.knobs.clone();
        settings.iter().try_for_each(|(knob, value)| knobs.set(*knob, u64::from(*value)))?;
        Ok(knobs)
    }

    /// A knob has been set.
    pub(crate) fn renew_policies(&mut self) {
        for at in 0..self.policies.len() {
            let settings = self.policies.get_mut(at).map(|policy| core::mem::take(&mut policy.settings));
            let Some(settings) = settings else { return };
            if let (Ok(knobs), Some(policy)) = (self.with(&settings), self.policies.get_mut(at)) {
                *policy = Policy { settings, knobs };
            }
        }
    }
}

impl Unconfirmed {
    /// Gives it these timeouts; the first policy stays.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.extra.get_or_insert_default().timeouts.get_or_insert(timeouts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Instant, Secret, Zone};
    use alloc::vec;
    use keepstate_wire::{Packet, checksum};

    fn datagram(reply: bool) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0];
        let (ends, ports) = if reply {
            ([10, 0, 0, 9, 10, 0, 0, 2], [0, 53, 0x10, 0])
        } else {
            ([10, 0, 0, 2, 10, 0, 0, 9], [0x10, 0, 0, 53])
        };
        bytes.extend(ends);
        let check = checksum::internet(&bytes);
        bytes[10..12].copy_from_slice(&check.to_be_bytes());
        bytes.extend(ports);
        bytes.extend([0, 8, 0, 0]);
        bytes
    }

    #[test]
    fn a_connection_has_its_own_from_the_second_packet_on() {
        let mut engine = Engine::new(Knobs::default(), Secret([7; 16]), Instant(0));
        let (query, answer) = (datagram(false), datagram(true));
        let mut passage = engine.track(&Packet::parse(&query).unwrap(), Zone::default(), Instant(0));
        let timeouts = engine.timeouts(&[(Knob::UdpTimeout, 5), (Knob::UdpTimeoutStream, 7)]).unwrap();
        passage.unconfirmed().unwrap().set_timeouts(timeouts);
        let handle = engine.confirm(passage, Instant(0)).connection.unwrap();
        assert_eq!(engine.entry(handle, Instant(0)).unwrap().timeout, 30, "as it was before the rule");
        engine.handle(&Packet::parse(&answer).unwrap(), Zone::default(), Instant(0));
        assert_eq!(engine.entry(handle, Instant(0)).unwrap().timeout, 5);
        let later = Instant(3_000_000_000);
        engine.handle(&Packet::parse(&query).unwrap(), Zone::default(), later);
        assert_eq!(engine.entry(handle, later).unwrap().timeout, 7);
        // What a policy does not say follows the knobs; what it says stays.
        engine.set(Knob::UdpTimeoutStream, 100).unwrap();
        engine.set(Knob::Checksum, 0).unwrap();
        assert!(!engine.policies[0].knobs.on(Knob::Checksum));
        engine.handle(&Packet::parse(&query).unwrap(), Zone::default(), later);
        assert_eq!(engine.entry(handle, later).unwrap().timeout, 7);
    }
}
