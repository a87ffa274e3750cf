//! A part of all ports, for engines that take over from one another: what the one before may just have given is not given again.
//!
//! Linux knows no such thing; without a part ([`Engine::set_port_part`](crate::Engine::set_port_part) was never called) nothing here runs.

/// The ports (and ICMP identifiers) whose number, halved, leaves `part` when divided by `parts`: an even port and the odd one after it are in one part, as RTP and RTCP want it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortPart {
    part: u16,
    parts: u16,
    exclusive: bool,
}

impl PortPart {
    /// Number `part` of `parts`; `exclusive`: no other port is given, even if all of these are in use. `None` if there is no such part.
    pub const fn new(part: u16, parts: u16, exclusive: PartUse) -> Option<PortPart> {
        if part < parts && parts <= 64 {
            Some(PortPart { part, parts, exclusive: matches!(exclusive, PartUse::Only) })
        } else {
            None
        }
    }

    /// Is this port in it?
    pub const fn contains(&self, port: u16) -> bool {
        (port / 2) % self.parts == self.part
    }

    /// Has it a port in this range?
    pub(super) fn has_any(&self, first: u16, last: u16) -> bool {
        (first..=last).take(2 * usize::from(self.parts)).any(|port| self.contains(port))
    }

    pub(super) const fn is_exclusive(&self) -> bool {
        self.exclusive
    }
}

/// How a [`PortPart`] is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PartUse {
    /// No other port is given.
    Only,
    /// Other ports are given when these are in use.
    First,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_in_one_part_with_the_other_of_its_pair() {
        let parts: [PortPart; 4] = core::array::from_fn(|part| PortPart::new(part as u16, 4, PartUse::Only).unwrap());
        for port in 0..=u16::MAX {
            assert_eq!(parts.iter().filter(|part| part.contains(port)).count(), 1, "{port}");
            assert!(parts.iter().any(|part| part.contains(port & !1) && part.contains(port | 1)), "{port}");
        }
        assert!(parts[0].has_any(8, 8) && !parts[1].has_any(8, 9) && parts[1].has_any(3, 10));
        assert!(parts.iter().all(|part| part.has_any(40_000, 40_007)));
        assert_eq!(PortPart::new(4, 4, PartUse::Only), None);
    }
}
