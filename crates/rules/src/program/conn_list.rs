//! The connections that a `ct count` has seen, in the order in which they came.
//!
//! As in Linux (nf_conncount): a packet adds its connection, unless that is in the table and assured; a packet without a connection is counted as one of its own until the next look.
//! Entries that are no connection (any more), or a closed one, are dropped when the number matters.
#![allow(clippy::disallowed_types, reason = "std's hasher is SipHash-1-3 with a random key")]
use indexmap::IndexSet;
use keepstate_engine::{Engine, Instant, PacketCtx, ProtocolInfo, Status, TcpState, Tuple, Zone, packet_tuple};
use keepstate_wire::Packet;

const MILLISECOND: u64 = 1_000_000;
/// So many entries are looked through whenever a packet comes, as Linux does with any number.
const SHORT_LIST: usize = 64;

/// Connections by their original tuples.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnList {
    connections: IndexSet<(Tuple, Zone)>,
    /// When it was last looked through.
    last_gc: Option<Instant>,
}

impl ConnList {
    /// Takes note of a packet; returns the number of connections, which is right if it is above `limit`.
    pub(super) fn update(
        &mut self,
        limit: usize,
        packet: &Packet<'_>,
        engine: &Engine,
        packet_ctx: Option<&PacketCtx>,
        now: Instant,
    ) -> usize {
        let added = connection_to_add(packet, engine, packet_ctx, now);
        // As in Linux the look ends at the packet's own entry: what was added after it stays. An entry without a connection in the table is added anew, as the last one.
        let end = added.map_or(usize::MAX, |added| {
            if engine.find(&added.0, added.1, now).is_none() {
                self.connections.shift_remove(&added);
            }
            self.connections.insert_full(added).0
        });
        // At most once a millisecond, so that a flood cannot make every packet walk over all of them.
        let is_due = self.last_gc.is_none_or(|last| now.0 >= last.0.saturating_add(MILLISECOND));
        // A long list only when its number matters.
        if is_due && (self.connections.len() > limit || self.connections.len() <= SHORT_LIST) {
            self.last_gc = Some(now);
            let mut at = 0;
            self.connections.retain(|one| {
                at += 1;
                at > end || is_active(engine, one, now)
            });
        }
        self.connections.len()
    }
}

fn connection_to_add(
    packet: &Packet<'_>,
    engine: &Engine,
    packet_ctx: Option<&PacketCtx>,
    now: Instant,
) -> Option<(Tuple, Zone)> {
    if let Some(connection) = packet_ctx.and_then(|packet_ctx| engine.connection(packet_ctx, now)) {
        let is_known = connection.status.contains(Status::CONFIRMED | Status::ASSURED);
        return (!is_known).then_some((connection.original, connection.zone));
    }
    packet_tuple(packet).map(|tuple| (tuple, Zone::default()))
}

/// Does the connection count? TCP connections closed by both ends do not, even while they are in the table.
fn is_active(engine: &Engine, (tuple, zone): &(Tuple, Zone), now: Instant) -> bool {
    let found = engine.find(tuple, *zone, now).and_then(|(conn_id, _)| engine.entry(conn_id, now));
    found.is_some_and(|entry| {
        !matches!(entry.protocol, ProtocolInfo::Tcp { state: TcpState::TimeWait | TcpState::Close, .. })
    })
}
