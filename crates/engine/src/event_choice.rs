//! Which events of a packet's connection are told: nftables' `ct event set`, for rules to choose and to read.
use crate::event_bits::EventBits;
use crate::{Engine, PacketCtx, ipproto};

impl Engine {
    /// Chooses which events of the packet's connection are told (`nft_ct_set_eval`, NFT_CT_EVENTMASK). False without a connection.
    pub fn set_event_bits(&mut self, ctx: &mut PacketCtx, told: EventBits) -> bool {
        if let Some(fresh) = ctx.unconfirmed() {
            fresh.event_bits = Some(told);
            return true;
        }
        let Some(conn_id) = ctx.outcome.connection else { return false };
        self.events.choose(conn_id.slot, told);
        true
    }

    /// Which events of the packet's connection are told, if a rule has chosen them.
    pub fn event_bits(&self, ctx: &mut PacketCtx) -> Option<EventBits> {
        match ctx.unconfirmed() {
            Some(fresh) => fresh.event_bits,
            None => self.events.chosen(ctx.outcome.connection?.slot),
        }
    }

    /// What is new about a connection that has just been inserted.
    pub(crate) fn bits_of_new(&self, slot: u32) -> EventBits {
        let extension = self.extensions.find(slot);
        let master = extension.and_then(|extension| extension.master);
        let has_state =
            self.table.records.hot(slot).is_some_and(|hot| matches!(hot.protocol(), ipproto::TCP | ipproto::SCTP));
        let begun = if master.is_some() { EventBits::RELATED } else { EventBits::NEW };
        begun
            .union(EventBits::PROTOINFO.when(has_state))
            .union(EventBits::MARK.when(self.table.records.mark(slot) != master.map_or(0, |master| master.mark)))
            .union(EventBits::LABEL.when(extension.is_some_and(|extension| extension.labels.is_some())))
            .union(EventBits::HELPER.when(extension.is_some_and(|extension| extension.helper_state.is_some())))
    }
}
