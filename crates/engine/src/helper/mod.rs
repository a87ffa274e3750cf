//! Helpers: readers of control channels that announce connections to come.
//!
//! A helper is attached to a connection by rule, never by itself. It is a pure function of the bytes it is shown and of what little it
//! keeps for its connection, a [`HelperState`]; what it hears becomes an expectation elsewhere.
pub(crate) mod ftp;

use crate::{Sysctl, Sysctls};
use ftp::Ftp;
use keepstate_types::ipproto;

/// A helper, as nftables' `ct helper` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Helper {
    /// FTP's control channel (RFC 959, RFC 2428): PORT, EPRT and the answers 227 and 229.
    Ftp,
}

impl Helper {
    /// Every helper.
    pub const ALL: &'static [Helper] = &[Helper::Ftp];

    /// As nftables and `conntrack` call it.
    pub const fn name(self) -> &'static str {
        match self {
            Helper::Ftp => "ftp",
        }
    }

    /// The helper of this name.
    ///
    /// ```
    /// use keepstate_engine::Helper;
    /// assert_eq!(Helper::from_name("ftp"), Some(Helper::Ftp));
    /// assert_eq!(Helper::from_name("irc"), None);
    /// ```
    pub fn from_name(name: &str) -> Option<Helper> {
        Helper::ALL.iter().copied().find(|helper| helper.name() == name)
    }

    /// The number of the protocol it hears; it is attached to no other.
    pub const fn protocol(self) -> u8 {
        match self {
            Helper::Ftp => ipproto::TCP,
        }
    }

    /// The port where what it hears is usually spoken.
    pub const fn default_port(self) -> u16 {
        match self {
            Helper::Ftp => 21,
        }
    }

    /// How many connections may be expected for it.
    pub(crate) fn expect_limits(self, sysctls: &Sysctls) -> ExpectLimits {
        let of_class = match self {
            Helper::Ftp => 1,
        };
        ExpectLimits { max_per_class: of_class, max_total: sysctls[Sysctl::ExpectMax] as usize }
    }

    /// How long what it hears is expected.
    pub(crate) const fn expect_timeout_seconds(self) -> u32 {
        match self {
            Helper::Ftp => 300,
        }
    }
}

/// What a helper keeps for the connection that it is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HelperState {
    Ftp(Ftp),
}

impl HelperState {
    pub(crate) fn new(helper: Helper) -> HelperState {
        match helper {
            Helper::Ftp => HelperState::Ftp(Ftp::default()),
        }
    }

    pub(crate) const fn helper(&self) -> Helper {
        match self {
            HelperState::Ftp(_) => Helper::Ftp,
        }
    }
}

/// How many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExpectLimits {
    /// Of this class with this master; FTP has one.
    pub(crate) max_per_class: usize,
    /// In all: `nf_conntrack_expect_max`.
    pub(crate) max_total: usize,
}
