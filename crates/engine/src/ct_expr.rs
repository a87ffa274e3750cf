//! Read and set attributes of a packet's connection, for nftables' `ct` expression.
use crate::event_bits::EventBits;
use crate::packet_ctx::Pending;
use crate::table::record::RecordKind;
use crate::{Accounting, ConnId, Connection, Engine, Instant, PacketCtx, Status, Sysctl};

impl Engine {
    /// A copy of the packet's connection, confirmed, unconfirmed, or ended by this packet; `None` if it has none.
    pub fn connection(&self, ctx: &PacketCtx, now: Instant) -> Option<Connection> {
        if let Pending::Unconfirmed(fresh) = &ctx.pending {
            let helper_state = fresh.extension.as_ref().and_then(|extension| extension.helper_state);
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
                helper: helper_state.map(|helper_state| helper_state.helper().name()),
                synproxy: None,
            });
        }
        match (ctx.outcome.connection, &ctx.ended) {
            (Some(conn_id), _) => self.dump_entry(conn_id.slot, now).map(|entry| Connection::from(&entry)),
            (None, ended) => ended.as_deref().copied(),
        }
    }

    /// The name of the helper that expected the packet's connection: what nftables' `ct helper` compares with.
    pub fn master_helper(&self, ctx: &PacketCtx) -> Option<&'static str> {
        let extension = match (&ctx.pending, ctx.outcome.connection) {
            (Pending::Unconfirmed(fresh), _) => fresh.extension.as_deref(),
            (_, connection) => self.extensions.find(connection?.slot),
        };
        let master = extension?.master.filter(|master| self.is_master_alive(master))?;
        Some(self.extensions.find(master.slot)?.helper_state?.helper().name())
    }

    /// The mark of the packet's connection; `None` without a connection.
    pub fn mark(&self, ctx: &PacketCtx) -> Option<u32> {
        match (&ctx.pending, ctx.outcome.connection) {
            (Pending::Unconfirmed(fresh), _) => Some(fresh.mark),
            (_, Some(conn_id)) => Some(self.table.records.mark(conn_id.slot)),
            _ => ctx.ended.as_ref().map(|ended| ended.mark),
        }
    }

    /// Sets the mark of the packet's connection. False without a connection, or without memory.
    pub fn set_mark(&mut self, ctx: &mut PacketCtx, mark: u32) -> bool {
        match (&mut ctx.pending, ctx.outcome.connection) {
            (Pending::Unconfirmed(fresh), _) => {
                fresh.mark = mark;
                true
            }
            (_, Some(conn_id)) => {
                let changed = self.table.records.mark(conn_id.slot) != mark;
                let done = self.table.records.set_mark(conn_id.slot, mark);
                if changed && done {
                    self.dirty.mark_dirty(conn_id.slot);
                    self.note_change(conn_id.slot, EventBits::MARK);
                    // Rules may judge its packets by it.
                    self.revoke(conn_id);
                }
                done
            }
            _ => false,
        }
    }

    /// The mark of a connection; 0 if it is not in the table.
    pub fn connection_mark(&self, conn_id: ConnId) -> u32 {
        if self.names(conn_id) { self.table.records.mark(conn_id.slot) } else { 0 }
    }

    /// Is a connection assured: has it seen enough to be kept where others are dropped early? From then on its status stays as it is.
    pub fn is_assured(&self, conn_id: ConnId) -> bool {
        let hot = self.table.records.hot(conn_id.slot).filter(|_| self.names(conn_id));
        hot.is_some_and(|hot| hot.status().contains(Status::ASSURED))
    }

    /// Adds labels (bit 0 first) to those of the packet's connection. False without a connection.
    pub fn add_labels(&mut self, ctx: &mut PacketCtx, labels: [u8; 16]) -> bool {
        let join = |known: &mut Option<[u8; 16]>| {
            let known = known.get_or_insert_default();
            known.iter_mut().zip(labels).for_each(|(byte, more)| *byte |= more);
        };
        match (&mut ctx.pending, ctx.outcome.connection) {
            (Pending::Unconfirmed(fresh), _) => join(&mut fresh.labels),
            (_, Some(conn_id)) => {
                let Some(hot) = self.table.records.hot_mut(conn_id.slot) else { return false };
                hot.kind.set(RecordKind::HAS_EXTENSION);
                let known = &mut self.extensions.find_or_insert(conn_id.slot).labels;
                let before = *known;
                join(known);
                if *known != before {
                    self.dirty.mark_dirty(conn_id.slot);
                    self.note_change(conn_id.slot, EventBits::LABEL);
                }
            }
            _ => return false,
        }
        true
    }
}
