//! What an operator changes in a running engine: sysctls, helpers, removing connections.
use crate::protocol::FastPathTimeouts;
use crate::{ConnId, Engine, Helper, Instant, Sysctl, SysctlError};
use alloc::vec::Vec;

impl Engine {
    /// Changes a sysctl while the engine runs. A larger index is grown in steps; a smaller maximum removes nothing by itself.
    pub fn set_sysctl(&mut self, sysctl: Sysctl, value: u64) -> Result<(), SysctlError> {
        self.sysctls.set(sysctl, value)?;
        self.tcp_fast_timeouts = FastPathTimeouts::from(&self.sysctls);
        self.refresh_timeout_policies();
        if sysctl == Sysctl::Buckets {
            self.table.set_target_size(self.sysctls[Sysctl::Buckets] as usize);
        }
        Ok(())
    }

    /// Attaches `helper` to every new connection of `protocol` to `port`, from now on: for who has no rules (else see
    /// [`Unconfirmed::attach_helper`](crate::Unconfirmed::attach_helper)). No helper is ever attached otherwise.
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

    /// Removes one connection, as `conntrack -D`. False if it no longer lives.
    pub fn remove(&mut self, conn_id: ConnId, now: Instant) -> bool {
        let living = self.entry(conn_id, now).is_some();
        if living {
            self.destroy(conn_id.slot, now);
        }
        living
    }
}
