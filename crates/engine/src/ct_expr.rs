//! What rules ask and set of a packet's connection (nftables' `ct` expression).
use crate::packet_ctx::Pending;
use crate::table::record::RecordKind;
use crate::{Accounting, Connection, Engine, Instant, PacketCtx, Sysctl};

impl Engine {
    /// The connection of a packet on its way.
    pub fn connection(&self, passage: &PacketCtx, now: Instant) -> Option<Connection> {
        if let Pending::Unconfirmed(fresh) = &passage.pending {
            let listener = fresh.extension.as_ref().and_then(|extra| extra.helper_state);
            return Some(Connection {
                original: fresh.original(),
                reply: fresh.reply(),
                status: fresh.status,
                mark: fresh.mark,
                zone: fresh.zone,
                labels: fresh.labels,
                accounting: fresh
                    .counted_bytes
                    .map(|bytes| [Accounting { packets: 1, bytes }, Accounting::default()])
                    .filter(|_| self.sysctls.is_enabled(Sysctl::Acct)),
                timeout: 0,
                id: 0,
                helper: listener.map(|listener| listener.helper().name()),
                synproxy: None,
            });
        }
        match (passage.outcome.connection, &passage.ended) {
            (Some(handle), _) => self.dump_entry(handle.slot, now).map(|entry| Connection::from(&entry)),
            (None, ended) => ended.as_deref().copied(),
        }
    }

    /// The mark of a packet's connection; `None` where it has none.
    pub fn mark(&self, passage: &PacketCtx) -> Option<u32> {
        match (&passage.pending, passage.outcome.connection) {
            (Pending::Unconfirmed(fresh), _) => Some(fresh.mark),
            (_, Some(handle)) => self.table.records.cold(handle.slot).map(|cold| cold.mark),
            _ => passage.ended.as_ref().map(|ended| ended.mark),
        }
    }

    /// Sets the mark of a packet's connection. False where it has none.
    pub fn set_mark(&mut self, passage: &mut PacketCtx, mark: u32) -> bool {
        match (&mut passage.pending, passage.outcome.connection) {
            (Pending::Unconfirmed(fresh), _) => {
                fresh.mark = mark;
                true
            }
            (_, Some(handle)) => match self.table.records.cold_mut(handle.slot) {
                Some(cold) => {
                    cold.mark = mark;
                    self.dirty.mark_dirty(handle.slot);
                    true
                }
                None => false,
            },
            _ => false,
        }
    }

    /// Adds labels to a packet's connection, bit 0 first. False where it has none.
    pub fn add_labels(&mut self, passage: &mut PacketCtx, labels: [u8; 16]) -> bool {
        let join = |known: &mut Option<[u8; 16]>| {
            let known = known.get_or_insert_default();
            known.iter_mut().zip(labels).for_each(|(octet, more)| *octet |= more);
        };
        match (&mut passage.pending, passage.outcome.connection) {
            (Pending::Unconfirmed(fresh), _) => join(&mut fresh.labels),
            (_, Some(handle)) => {
                let Some(hot) = self.table.records.hot_mut(handle.slot) else { return false };
                hot.kind.set(RecordKind::HAS_EXTENSION);
                join(&mut self.extensions.find_or_insert(handle.slot).labels);
                self.dirty.mark_dirty(handle.slot);
            }
            _ => return false,
        }
        true
    }
}
