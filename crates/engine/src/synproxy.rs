//! Connections whose handshake was answered for their server before it knew of them (Linux's `synproxy`).
//!
//! Whoever answers promises the client a first number and a clock, and keeps nothing. Once the client has shown that he is there, a connection is begun in his name,
//! and its [`SynproxyState`] is noted with it; when the server answers for itself, both are [spliced](Engine::synproxy_adjust_server): from then on the server's numbers and clock are shifted to what
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
    pub fn set_synproxy(&mut self, ctx: &mut PacketCtx, synproxy: SynproxyState) {
        let was_promised = self.synproxy_state(ctx).is_some();
        match (&mut ctx.pending, ctx.outcome.connection) {
            (Pending::Unconfirmed(fresh), _) if fresh.original.protocol == ipproto::TCP => {
                fresh.extension.get_or_insert_default().synproxy = Some(synproxy);
                self.synproxy_in_use = true;
            }
            (_, Some(conn_id)) if was_promised => {
                self.extensions.find_or_insert(conn_id.slot).synproxy = Some(synproxy);
                self.dirty.mark_dirty(conn_id.slot);
            }
            _ => (),
        }
    }

    /// What the client of a packet's connection was promised, if he was, and the state that the packet has brought it to.
    #[inline]
    pub fn synproxy_state(&self, ctx: &PacketCtx) -> Option<(SynproxyState, TcpState)> {
        if self.synproxy_in_use { self.find_synproxy_state(ctx) } else { None }
    }

    fn find_synproxy_state(&self, ctx: &PacketCtx) -> Option<(SynproxyState, TcpState)> {
        match (&ctx.pending, ctx.outcome.connection) {
            (Pending::Unconfirmed(fresh), _) => Some((fresh.extension.as_ref()?.synproxy?, TcpState::SynSent)),
            (_, Some(conn_id)) => {
                let hot = self.table.records.hot(conn_id.slot).filter(|hot| hot.kind.has(RecordKind::HAS_EXTENSION))?;
                let synproxy = self.extensions.find(conn_id.slot)?.synproxy?;
                (hot.protocol() == ipproto::TCP).then(|| (synproxy, Tcp::load(hot).state()))
            }
            // Only a reset ends a connection at once.
            (_, None) => Some((ctx.ended.as_ref()?.synproxy?, TcpState::Close)),
        }
    }

    /// The server of a packet's connection has answered, with this first number and this clock: from now on what it sends is shifted to what was promised.
    pub fn synproxy_adjust_server(&mut self, ctx: &mut PacketCtx, first: u32, clock: Option<u32>) {
        let (Some((synproxy, _)), Some(conn_id)) = (self.synproxy_state(ctx), ctx.outcome.connection) else {
            return;
        };
        let Some(hot) = self.table.records.hot_mut(conn_id.slot) else { return };
        hot.add_status(Status::SEQ_ADJUST);
        let extra = self.extensions.find_or_insert(conn_id.slot);
        let ahead = clock.map_or(0, |clock| clock.wrapping_sub(synproxy.initial_timestamp));
        extra.synproxy = Some(SynproxyState { timestamp_offset: ahead, ..synproxy });
        extra.seqadj.get_or_insert_default().init(Direction::Reply, synproxy.isn.wrapping_sub(first));
        self.dirty.mark_dirty(conn_id.slot);
    }
}
