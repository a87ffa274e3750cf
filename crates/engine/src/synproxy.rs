//! Connections whose handshake was answered for their server before it knew of them (Linux's `synproxy`).
//!
//! Whoever answers promises the client a first number and a clock, and keeps nothing. Once the client has shown that he is there, a connection is begun in his name,
//! and its [`Promise`] is noted with it; when the server answers for itself, both are [spliced](Engine::splice): from then on the server's numbers and clock are shifted to what
//! was promised, where a packet leaves. It must never shift anything of a connection to which nothing was promised.
pub(crate) mod state;

pub use state::SynproxyState;

use crate::packet_ctx::Pending;
use crate::protocol::Tcp;
use crate::table::record::RecordKind;
use crate::{Direction, Engine, PacketCtx, Status, TcpState};
use keepstate_types::ipproto;

impl Engine {
    /// Notes what the client was promised, of the connection that a packet in his name begins, or begins again before its server has answered. Of any other
    /// nothing is noted.
    pub fn set_synproxy(&mut self, passage: &mut PacketCtx, promise: SynproxyState) {
        let was_promised = self.synproxy_state(passage).is_some();
        match (&mut passage.pending, passage.outcome.connection) {
            (Pending::Unconfirmed(fresh), _) if fresh.original.protocol == ipproto::TCP => {
                fresh.extension.get_or_insert_default().synproxy = Some(promise);
                self.synproxy_in_use = true;
            }
            (_, Some(handle)) if was_promised => {
                self.extensions.find_or_insert(handle.slot).synproxy = Some(promise);
                self.dirty.mark_dirty(handle.slot);
            }
            _ => (),
        }
    }

    /// What the client of a packet's connection was promised, if he was, and the state that the packet has brought it to.
    #[inline]
    pub fn synproxy_state(&self, passage: &PacketCtx) -> Option<(SynproxyState, TcpState)> {
        if self.synproxy_in_use { self.find_synproxy_state(passage) } else { None }
    }

    fn find_synproxy_state(&self, passage: &PacketCtx) -> Option<(SynproxyState, TcpState)> {
        match (&passage.pending, passage.outcome.connection) {
            (Pending::Unconfirmed(fresh), _) => Some((fresh.extension.as_ref()?.synproxy?, TcpState::SynSent)),
            (_, Some(handle)) => {
                let hot = self.table.records.hot(handle.slot).filter(|hot| hot.kind.has(RecordKind::HAS_EXTENSION))?;
                let promise = self.extensions.find(handle.slot)?.synproxy?;
                (hot.protocol() == ipproto::TCP).then(|| (promise, Tcp::load(hot).state()))
            }
            // Only a reset ends a connection at once.
            (_, None) => Some((passage.ended.as_ref()?.synproxy?, TcpState::Close)),
        }
    }

    /// The server of a packet's connection has answered, with this first number and this clock: from now on what it sends is shifted to what was promised.
    pub fn synproxy_adjust_server(&mut self, passage: &mut PacketCtx, first: u32, clock: Option<u32>) {
        let (Some((promise, _)), Some(handle)) = (self.synproxy_state(passage), passage.outcome.connection) else {
            return;
        };
        let Some(hot) = self.table.records.hot_mut(handle.slot) else { return };
        hot.add_status(Status::SEQ_ADJUST);
        let extra = self.extensions.find_or_insert(handle.slot);
        let ahead = clock.map_or(0, |clock| clock.wrapping_sub(promise.initial_timestamp));
        extra.synproxy = Some(SynproxyState { timestamp_offset: ahead, ..promise });
        extra.seqadj.get_or_insert_default().init(Direction::Reply, promise.isn.wrapping_sub(first));
        self.dirty.mark_dirty(handle.slot);
    }
}
