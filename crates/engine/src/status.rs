//! The status bits of a connection, by the kernel's numbers (`enum ip_conntrack_status`).
use core::fmt;
use core::ops::{BitOr, BitOrAssign};

/// A set of status bits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Status(pub u16);

macro_rules! bits {
    ($($(#[$doc:meta])* $name:ident = $bit:literal;)*) => {
        impl Status {
            $($(#[$doc])* pub const $name: Status = Status(1 << $bit);)*
            /// Every bit with its name, lowest first.
            pub const NAMES: &'static [(Status, &'static str)] = &[$((Status::$name, stringify!($name)),)*];
        }
    };
}

bits! {
    /// It was expected: its first packet is RELATED.
    EXPECTED = 0;
    /// Packets were seen both ways.
    SEEN_REPLY = 1;
    /// It is not to be dropped early.
    ASSURED = 2;
    /// It is in the table.
    CONFIRMED = 3;
    /// Its source is translated.
    SRC_NAT = 4;
    /// Its destination is translated.
    DST_NAT = 5;
    /// Its sequence numbers are adjusted.
    SEQ_ADJUST = 6;
    /// Source translation was decided.
    SRC_NAT_DONE = 7;
    /// Destination translation was decided.
    DST_NAT_DONE = 8;
    /// It has been taken out of the table.
    DYING = 9;
    /// Its timeout is not refreshed.
    FIXED_TIMEOUT = 10;
    /// It is a template for others.
    TEMPLATE = 11;
    /// It lost a race and stands only in the reply direction, shortly.
    NAT_CLASH = 12;
    /// Its helper was set by rule.
    HELPER = 13;
    /// A flow table forwards it.
    OFFLOAD = 14;
    /// Hardware forwards it.
    HW_OFFLOAD = 15;
}

impl Status {
    /// All of `bits` set?
    pub const fn has(self, bits: Status) -> bool {
        self.0 & bits.0 == bits.0
    }
    /// Sets `bits`; true if they were not all set before.
    pub fn set(&mut self, bits: Status) -> bool {
        let fresh = !self.has(bits);
        self.0 |= bits.0;
        fresh
    }
    /// Clears `bits`.
    pub fn clear(&mut self, bits: Status) {
        self.0 &= !bits.0;
    }
}

impl BitOr for Status {
    type Output = Status;
    fn bitor(self, other: Status) -> Status {
        Status(self.0 | other.0)
    }
}

impl BitOrAssign for Status {
    fn bitor_assign(&mut self, other: Status) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Status::NAMES.iter().filter(|(bit, _)| self.has(*bit)).map(|(_, name)| *name);
        write!(f, "{}", names.next().unwrap_or("-"))?;
        names.try_for_each(|name| write!(f, "|{name}"))
    }
}
