//! NAT state outside the connection table.
use super::bysource::BysourceTable;
use super::eim_table::EimTable;
use super::exhaustion::Exhaustion;
use super::own_sources::OwnSources;
use super::port_part::PortPart;
use crate::table::key::{HashKeys, TupleKey};
use crate::{Connection, NatPolicy, Secret};
use alloc::boxed::Box;

/// NAT state outside the connection table.
#[derive(Clone)]
pub(crate) struct NatState {
    pub(crate) keys: HashKeys,
    pub(crate) random_counter: u64,
    pub(crate) bysource: BysourceTable,
    pub(crate) exhaustion: Exhaustion,
    pub(crate) eim: EimTable,
    /// The ports that source NAT selects from, if not all.
    pub(crate) port_part: Option<PortPart>,
    /// The addresses that source NAT selects from, each with its part, if not all.
    pub(crate) own_sources: Option<OwnSources>,
    /// The reply tuple that was looked for last, and its hash: most of the time the one that is chosen.
    pub(crate) looked_for: Option<(TupleKey, u64)>,
    /// True once any connection has been translated.
    pub(crate) in_use: bool,
    /// Whether a connection that the current packet ends is stored for the ruleset.
    pub(crate) keep_ended: bool,
    /// The connection that the current packet ended.
    pub(crate) ended: Option<Box<Connection>>,
}

impl NatState {
    /// Without a translation; sized for `connections`.
    pub(crate) fn new(secret: &Secret, connections: usize) -> NatState {
        let tables = HashKeys::derive(secret, 5).sip_key();
        NatState {
            keys: HashKeys::derive(secret, 4),
            random_counter: 0,
            bysource: BysourceTable::new(HashKeys::derive(secret, 6), connections),
            exhaustion: Exhaustion::new(tables.derive(1)),
            eim: EimTable::new(NatPolicy::default(), tables.derive(2)),
            port_part: None,
            own_sources: None,
            looked_for: None,
            in_use: false,
            keep_ended: false,
            ended: None,
        }
    }

    /// Does source NAT take other addresses or ports than Linux's?
    #[inline(always)]
    pub(crate) fn chooses_ports(&self) -> bool {
        self.port_part.is_some() || self.own_sources.is_some()
    }

    /// A number that cannot be predicted without the secret.
    pub(crate) fn random_u16(&mut self) -> u16 {
        self.random_counter += 1;
        self.keys.hash([self.random_counter]) as u16
    }
}
