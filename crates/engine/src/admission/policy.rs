//! What a user chooses for a table that gets full. Without a choice it is Linux's behaviour.
use crate::Tuple;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::RangeInclusive;
use thiserror::Error;

/// Which new connections the table takes, beyond Linux's rules. The default is Linux's behaviour. See [`Engine::set_admission`](crate::Engine::set_admission).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdmissionPolicy {
    /// Entries that are kept free for some connections. A connection belongs to the first that selects it.
    pub reserves: Vec<TableReserve>,
    /// Limits for each source. The first that selects a connection holds for it.
    pub source_limits: Vec<SourceLimit>,
    /// Timeouts that become shorter while the table fills.
    pub adaptive_timeouts: Option<AdaptiveTimeouts>,
    /// When the table is full, `nf_conntrack_max` is doubled, up to this many connections.
    pub grow_to: Option<u32>,
}

/// Connections, by what their first packet says: before any translation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TupleSelector {
    /// The protocol's number.
    pub protocol: Option<u8>,
    /// The destination port is in one of these; empty for any.
    pub ports: Vec<RangeInclusive<u16>>,
    /// The source is in this prefix.
    pub source: Option<AddressPrefix>,
    /// The destination is in this prefix.
    pub destination: Option<AddressPrefix>,
}

/// An address and the number of its leading bits that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPrefix {
    /// The address; the other bits are 0.
    pub address: IpAddr,
    /// 0 to 32, for IPv6 to 128.
    pub length: u8,
}

/// Entries of the table that no other connections take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableReserve {
    /// How many.
    pub entries: u32,
    /// For which connections.
    pub selector: TupleSelector,
}

/// What each source may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLimit {
    /// Connections at a time.
    pub connections: Option<u32>,
    /// New connections a second.
    pub new_per_second: Option<u32>,
    /// New connections at once, of a source that had none for a while. At least 1.
    pub burst: u32,
    /// Sources with this many leading bits in common are one: 32 for each IPv4 address.
    pub ipv4_length: u8,
    /// The same for IPv6: 64 for each network.
    pub ipv6_length: u8,
    /// For which connections.
    pub selector: TupleSelector,
}

/// Timeouts that become shorter while the table fills: in full up to `start` connections, then in proportion to what is left up to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveTimeouts {
    /// Connections from which on timeouts are shorter.
    pub start: u32,
    /// Connections at which they would be nothing; they are never shorter than a second, nor than a thirty-second of what is configured.
    pub end: u32,
}

/// Why a policy is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AdmissionPolicyError {
    /// The reserves are the whole table.
    #[error("the reserves take {reserved} entries of a table of {limit} (nf_conntrack_max); leave some for the others")]
    ReservesTooLarge {
        /// Entries reserved.
        reserved: u64,
        /// `nf_conntrack_max`.
        limit: u32,
    },
    /// Timeouts cannot become shorter between these.
    #[error("adaptive timeouts need an end above the start, not {start}-{end}")]
    EmptyRange {
        /// Where they begin.
        start: u32,
        /// Where they end.
        end: u32,
    },
    /// A limit that does nothing is a mistake; more than can be told apart too.
    #[error("at most {} limits by source can be told apart", MAX_SOURCE_LIMITS)]
    TooManyLimits,
}

/// The most limits by source.
pub(super) const MAX_SOURCE_LIMITS: usize = 255;

impl AdmissionPolicy {
    /// Checks the policy for a table of `limit` connections; 0 is no limit.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self, limit: u32) -> Result<(), AdmissionPolicyError> {
        let reserved: u64 = self.reserves.iter().map(|reserve| u64::from(reserve.entries)).sum();
        if limit != 0 && reserved >= u64::from(limit) {
            return Err(AdmissionPolicyError::ReservesTooLarge { reserved, limit });
        }
        if self.source_limits.len() > MAX_SOURCE_LIMITS {
            return Err(AdmissionPolicyError::TooManyLimits);
        }
        match self.adaptive_timeouts {
            Some(AdaptiveTimeouts { start, end }) if end <= start => {
                Err(AdmissionPolicyError::EmptyRange { start, end })
            }
            _ => Ok(()),
        }
    }
}

impl TupleSelector {
    /// Does it select the connection that begins with `tuple`?
    pub fn matches(&self, tuple: &Tuple) -> bool {
        let within = |prefix: &Option<AddressPrefix>, address| prefix.is_none_or(|prefix| prefix.contains(address));
        self.protocol.is_none_or(|protocol| protocol == tuple.protocol)
            && (self.ports.is_empty() || self.ports.iter().any(|ports| ports.contains(&tuple.destination_key)))
            && within(&self.source, tuple.source)
            && within(&self.destination, tuple.destination)
    }
}

impl AddressPrefix {
    /// The prefix of an address. `None` if the length is too large for its family.
    pub fn new(address: IpAddr, length: u8) -> Option<AddressPrefix> {
        let address = masked(address, length)?;
        Some(AddressPrefix { address, length })
    }

    /// Is `address` in it?
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && masked(address, self.length) == Some(self.address)
    }
}

/// The address with its leading `length` bits alone. `None` if it has not so many.
fn masked(address: IpAddr, length: u8) -> Option<IpAddr> {
    let length = u32::from(length);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(length)?).unwrap_or(0);
            Some(IpAddr::V4((address.to_bits() & mask).into()))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.checked_sub(length)?).unwrap_or(0);
            Some(IpAddr::V6((address.to_bits() & mask).into()))
        }
    }
}

impl SourceLimit {
    /// The source that `address` belongs to.
    pub(super) fn source_of(&self, address: IpAddr) -> IpAddr {
        let length = if address.is_ipv4() { self.ipv4_length } else { self.ipv6_length };
        masked(address, length).unwrap_or(address)
    }

    /// Nanoseconds that each new connection takes of the allowance; `None` without a limit. A rate of 0 is one of 1.
    pub(super) fn interval(&self) -> Option<u64> {
        self.new_per_second.map(|rate| 1_000_000_000 / u64::from(rate.max(1)))
    }
}

/// What the choices have done so far. Refused packets are also counted by their [`Reason`](crate::Reason).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdmissionStats {
    /// How often `nf_conntrack_max` was doubled.
    pub limit_raised: u64,
    /// Timeouts in percent of what is configured: 100 unless the table is filling.
    pub timeout_percent: u32,
    /// Connections whose remaining time was cut because the table filled.
    pub timeouts_cut: u64,
    /// Sources that are remembered.
    pub sources: usize,
}

/// The error of a text that says no part of a policy.
pub(super) type TextError = String;
