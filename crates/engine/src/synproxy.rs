//! Synproxy connections: the proxy completes the handshake with the client before the server sees a SYN (Linux's `synproxy`).
//!
//! The SYN-ACK of the proxy carries an initial sequence number and a timestamp, and no state is kept for it (SYN cookie). When the client's ACK
//! has proved its address, a connection to the server is begun and its [`SynproxyState`] is stored with it. When the server's SYN-ACK arrives, the
//! two handshakes are [joined](Engine::synproxy_adjust_server): from then on, on output, the server's sequence numbers and timestamps are shifted to those
//! the client was given. Nothing must ever be shifted in a connection without a [`SynproxyState`].
pub(crate) mod state;

pub use state::SynproxyState;

use crate::packet_ctx::Pending;
use crate::protocol::Tcp;
use crate::table::record::RecordKind;
use crate::{Direction, Engine, PacketCtx, Status, TcpState};
use keepstate_types::ipproto;

impl Engine {
    /// Stores the synproxy state of the connection that the packet (a SYN sent for the client) begins, or restarts before the server has answered.
    /// No effect for any other packet.
    pub fn set_synproxy(&mut self, ctx: &mut PacketCtx, synproxy: SynproxyState) {
        let has_synproxy = self.synproxy_state(ctx).is_some();
        match (&mut ctx.pending, ctx.outcome.connection) {
            (Pending::Unconfirmed(fresh), _) if fresh.original.protocol == ipproto::TCP => {
                fresh.extension.get_or_insert_default().synproxy = Some(synproxy);
                self.synproxy_in_use = true;
            }
            (_, Some(conn_id)) if has_synproxy => {
                self.extensions.find_or_insert(conn_id.slot).synproxy = Some(synproxy);
                self.dirty.mark_dirty(conn_id.slot);
            }
            _ => (),
        }
    }

    /// The synproxy state of the packet's connection, if it has one, and the TCP state after this packet.
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
            // Only a RST ends a connection immediately.
            (_, None) => Some((ctx.ended.as_ref()?.synproxy?, TcpState::Close)),
        }
    }

    /// Joins the two handshakes when the server has answered with initial sequence number `first` and timestamp `clock`: from now on the server's
    /// sequence numbers and timestamps are shifted to those the client was given.
    pub fn synproxy_adjust_server(&mut self, ctx: &mut PacketCtx, first: u32, clock: Option<u32>) {
        let (Some((synproxy, _)), Some(conn_id)) = (self.synproxy_state(ctx), ctx.outcome.connection) else {
            return;
        };
        let Some(hot) = self.table.records.hot_mut(conn_id.slot) else { return };
        hot.add_status(Status::SEQ_ADJUST);
        let extension = self.extensions.find_or_insert(conn_id.slot);
        let ahead = clock.map_or(0, |clock| clock.wrapping_sub(synproxy.initial_timestamp));
        extension.synproxy = Some(SynproxyState { timestamp_offset: ahead, ..synproxy });
        extension.seqadj.get_or_insert_default().init(Direction::Reply, synproxy.isn.wrapping_sub(first));
        self.dirty.mark_dirty(conn_id.slot);
    }
}
