//! A packet's connection as the ruleset sees it: a copy, taken at one moment.
use crate::{Accounting, Entry, Status, SynproxyState, Tuple, Zone};

/// What nftables' `ct` expression can read of a packet's connection: a copy, taken at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Connection {
    /// The first packet's tuple.
    pub original: Tuple,
    /// The reply tuple, with the NAT decided so far.
    pub reply: Tuple,
    /// Status bits.
    pub status: Status,
    /// The mark.
    pub mark: u32,
    /// Its zone.
    pub zone: Zone,
    /// Labels, bit 0 first; `None` if none were ever set.
    pub labels: Option<[u8; 16]>,
    /// Packets and bytes, original then reply, if they are counted.
    pub accounting: Option<[Accounting; 2]>,
    /// Whole seconds until it expires.
    pub timeout: u32,
    /// Its id; 0 while it is unconfirmed.
    pub id: u32,
    /// The helper attached to it.
    pub helper: Option<&'static str>,
    /// Its synproxy state, if the packet has ended it.
    pub(crate) synproxy: Option<SynproxyState>,
}

impl From<&Entry> for Connection {
    fn from(entry: &Entry) -> Connection {
        Connection {
            original: entry.original,
            reply: entry.reply,
            status: entry.status,
            mark: entry.mark,
            zone: entry.zone,
            labels: entry.labels,
            accounting: entry.accounting,
            timeout: entry.timeout,
            id: entry.id,
            helper: entry.helper,
            synproxy: None,
        }
    }
}
