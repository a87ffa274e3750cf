//! Helpers: parsers of control connections that announce further connections.
//!
//! A helper is attached to a connection by rule, never automatically. It is a pure function of the payload and of its small state
//! for the connection, a [`HelperState`]. It must never create expectations itself: the engine does, from the announcements it returns.
pub(crate) mod ftp;
pub(crate) mod tftp;

use crate::{Sysctl, Sysctls};
use ftp::Ftp;
use keepstate_types::ipproto;

/// A helper, named as in nftables' `ct helper`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Helper {
    /// FTP control connections (RFC 959, RFC 2428): PORT, EPRT and the replies 227 and 229.
    Ftp,
    /// TFTP requests (RFC 1350): the server answers from another port.
    Tftp,
}

impl Helper {
    /// All helpers.
    pub const ALL: &'static [Helper] = &[Helper::Ftp, Helper::Tftp];

    /// The name that nftables and `conntrack` use.
    pub const fn name(self) -> &'static str {
        match self {
            Helper::Ftp => "ftp",
            Helper::Tftp => "tftp",
        }
    }

    /// The helper with this name.
    ///
    /// ```
    /// use keepstate_engine::Helper;
    /// assert_eq!(Helper::from_name("ftp"), Some(Helper::Ftp));
    /// assert_eq!(Helper::from_name("irc"), None);
    /// ```
    pub fn from_name(name: &str) -> Option<Helper> {
        Helper::ALL.iter().copied().find(|helper| helper.name() == name)
    }

    /// The protocol number it parses; it is not attached to other protocols.
    pub const fn protocol(self) -> u8 {
        match self {
            Helper::Ftp => ipproto::TCP,
            Helper::Tftp => ipproto::UDP,
        }
    }

    /// The usual server port of its protocol.
    pub const fn default_port(self) -> u16 {
        match self {
            Helper::Ftp => 21,
            Helper::Tftp => 69,
        }
    }

    /// Limits on the number of its expectations.
    pub(crate) fn expect_limits(self, sysctls: &Sysctls) -> ExpectLimits {
        let of_class = match self {
            Helper::Ftp | Helper::Tftp => 1,
        };
        ExpectLimits { max_per_class: of_class, max_total: sysctls[Sysctl::ExpectMax] as usize }
    }

    /// Timeout of its expectations, in seconds.
    pub(crate) const fn expect_timeout_seconds(self) -> u32 {
        match self {
            Helper::Ftp | Helper::Tftp => 300,
        }
    }
}

/// A helper's state for the connection it is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HelperState {
    Ftp(Ftp),
    Tftp,
}

impl HelperState {
    pub(crate) fn new(helper: Helper) -> HelperState {
        match helper {
            Helper::Ftp => HelperState::Ftp(Ftp::default()),
            Helper::Tftp => HelperState::Tftp,
        }
    }

    pub(crate) const fn helper(&self) -> Helper {
        match self {
            HelperState::Ftp(_) => Helper::Ftp,
            HelperState::Tftp => Helper::Tftp,
        }
    }
}

/// Limits on the number of expectations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExpectLimits {
    /// Of this class with this master; 1 for FTP and TFTP.
    pub(crate) max_per_class: usize,
    /// In total: `nf_conntrack_expect_max`.
    pub(crate) max_total: usize,
}
