//! Administration of a running engine: set sysctls, assign helpers, remove connections.
use crate::table::TupleRef;
use crate::{ConnId, Direction, Engine, Helper, Instant, Sysctl, SysctlError};
use alloc::vec::Vec;
use core::net::IpAddr;

impl Engine {
    /// Sets a sysctl while the engine runs. A larger `nf_conntrack_buckets` grows the index in steps; a smaller `nf_conntrack_max`
    /// removes no connection.
    ///
    /// # Errors
    /// The value is out of range, or the sysctl is read-only.
    pub fn set_sysctl(&mut self, sysctl: Sysctl, value: u64) -> Result<(), SysctlError> {
        self.sysctls.set(sysctl, value)?;
        self.revoke_short_lived(sysctl);
        if let Some(state) = &mut self.admission {
            state.configured.set(sysctl, value)?;
        }
        self.timeouts_changed();
        if sysctl == Sysctl::Buckets {
            let connections = self.shard.share_of(self.sysctls[Sysctl::Buckets] as usize);
            self.table.set_target_size(connections);
        }
        Ok(())
    }

    /// Attaches `helper` to every later connection of `protocol` to destination port `port`. Without a ruleset this is the only way to
    /// attach one; with a ruleset use [`Unconfirmed::attach_helper`](crate::Unconfirmed::attach_helper). There is no default helper.
    pub fn set_auto_helper(&mut self, protocol: u8, port: u16, helper: Helper) {
        self.auto_helpers.retain(|(known, at, _)| (*known, *at) != (protocol, port));
        self.auto_helpers.push((protocol, port, helper));
    }

    /// Removes every connection, as `conntrack -F`.
    pub fn flush(&mut self, now: Instant) {
        let slots: Vec<u32> = self.table.used_slots().collect();
        for slot in slots {
            self.destroy(slot, now);
        }
    }

    /// Removes the masqueraded connections that end with their address, of which `ends` is told, in the slots from `from` on, `max_slots` at most; as Linux does when an address or an interface goes.
    /// Returns where to go on; `None` if all were checked.
    pub fn end_masqueraded(
        &mut self,
        from: u32,
        max_slots: u32,
        ends: impl Fn(ConnId, IpAddr) -> bool,
        now: Instant,
    ) -> Option<u32> {
        let behind = self.slot_count().min(from.saturating_add(max_slots));
        for slot in from..behind {
            let records = &self.table.records;
            let is_masqueraded = records.hot(slot).is_some_and(|hot| hot.is_confirmed() && hot.is_masqueraded());
            let reply = if is_masqueraded { records.key(TupleRef::new(slot, Direction::Reply)) } else { None };
            if reply.is_some_and(|reply| ends(self.conn_id(slot), reply.tuple().destination)) {
                self.destroy(slot, now);
            }
        }
        (behind < self.slot_count()).then_some(behind)
    }

    /// Removes one connection, as `conntrack -D`. False if it does not exist any more.
    pub fn remove(&mut self, conn_id: ConnId, now: Instant) -> bool {
        let exists = self.entry(conn_id, now).is_some();
        if exists {
            self.destroy(conn_id.slot, now);
        }
        exists
    }
}
