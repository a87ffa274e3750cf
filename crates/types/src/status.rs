//! The status bits of a connection, by the kernel's names and numbers (`enum ip_conntrack_status`).
use crate::UnknownName;
use core::fmt;
use core::str::FromStr;

bitflags::bitflags! {
    /// A set of status bits (`IPS_*`).
    ///
    /// Bits that have no name here are kept ([`Status::from_bits_retain`]): newer kernels may have more.
    /// `Display`, `Debug` and `FromStr` use the kernel's names, joined by `|`; no bit at all is `-`.
    #[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
    pub struct Status: u32 {
        /// It was expected: its first packet is RELATED.
        const EXPECTED = 1 << 0;
        /// Packets were seen in both directions.
        const SEEN_REPLY = 1 << 1;
        /// It is not dropped early when the table is full.
        const ASSURED = 1 << 2;
        /// It is in the table.
        const CONFIRMED = 1 << 3;
        /// Its source is translated.
        const SRC_NAT = 1 << 4;
        /// Its destination is translated.
        const DST_NAT = 1 << 5;
        /// Its sequence numbers are adjusted.
        const SEQ_ADJUST = 1 << 6;
        /// Source translation was decided.
        const SRC_NAT_DONE = 1 << 7;
        /// Destination translation was decided.
        const DST_NAT_DONE = 1 << 8;
        /// It was removed from the table.
        const DYING = 1 << 9;
        /// Packets do not refresh its timeout.
        const FIXED_TIMEOUT = 1 << 10;
        /// It is a template for others.
        const TEMPLATE = 1 << 11;
        /// It clashed with another connection and is in the table by its reply tuple only, for a short time.
        const NAT_CLASH = 1 << 12;
        /// Its helper was assigned by a rule.
        const HELPER = 1 << 13;
        /// A flow table forwards it.
        const OFFLOAD = 1 << 14;
        /// Hardware forwards it.
        const HW_OFFLOAD = 1 << 15;
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        let mut names = self.iter_names();
        let mut separator = "";
        for (name, _) in names.by_ref() {
            write!(f, "{separator}{name}")?;
            separator = "|";
        }
        match names.remaining().bits() {
            0 => Ok(()),
            unnamed => write!(f, "{separator}{unnamed:#x}"),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Status {
    type Err = UnknownName;

    /// The kernel's names, joined by `|`; `-` is the empty set.
    fn from_str(text: &str) -> Result<Status, UnknownName> {
        if text == "-" {
            return Ok(Status::empty());
        }
        text.split('|').try_fold(Status::empty(), |set, name| Ok(set | Status::from_name(name).ok_or(UnknownName)?))
    }
}
