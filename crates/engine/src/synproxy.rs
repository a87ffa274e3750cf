//! Connections whose handshake was answered for their server before it knew of them (Linux's `synproxy`).
//!
//! Whoever answers promises the client a first number and a clock, and keeps nothing. Once the client has shown that he is there, a connection is begun in his name,
//! and its [`Promise`] is noted with it; when the server answers for itself, both are [spliced](Engine::splice): from then on the server's numbers and clock are shifted to what
//! was promised, where a packet leaves. It must never shift anything of a connection to which nothing was promised.
use crate::packet_ctx::Pending;
use crate::protocol::Tcp;
use crate::table::record::RecordKind;
use crate::{Direction, Engine, PacketCtx, Status, TcpState};
use keepstate_types::ipproto;
use keepstate_wire::rewrite::PacketMut;

/// What was promised to a client in its server's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynproxyState {
    /// The sequence number of the answered SYN.
    pub isn: u32,
    /// The clock that was shown in its timestamps (RFC 7323), and came back; 0 without them.
    pub initial_timestamp: u32,
    /// The window that the client has shown.
    pub window: u16,
    /// By how much the server's clock is ahead of it, modulo 2³².
    pub(crate) timestamp_offset: u32,
}

impl SynproxyState {
    /// Of a connection whose server has not answered yet.
    pub fn new(isn: u32, initial_timestamp: u32, window: u16) -> SynproxyState {
        SynproxyState { isn, initial_timestamp, window, timestamp_offset: 0 }
    }

    /// For a description.
    pub(crate) fn to_bytes(&self) -> [u8; 14] {
        let mut octets = [0; 14];
        let words = [self.isn, self.initial_timestamp, self.timestamp_offset].map(u32::to_be_bytes);
        octets
            .iter_mut()
            .zip(words.iter().flatten().chain(&self.window.to_be_bytes()))
            .for_each(|(to, from)| *to = *from);
        octets
    }

    /// The same, read.
    pub(crate) fn from_bytes(octets: &[u8; 14]) -> SynproxyState {
        let word = |at: usize| octets.as_chunks::<4>().0.get(at).map_or(0, |word| u32::from_be_bytes(*word));
        let [.., high, low] = *octets;
        SynproxyState {
            isn: word(0),
            initial_timestamp: word(1),
            timestamp_offset: word(2),
            window: u16::from_be_bytes([high, low]),
        }
    }

    /// The server's clock, or its echo, in a packet of `direction`, as the other end knows it. False where there are no timestamps to be read.
    pub(crate) fn adjust_timestamps(&self, direction: Direction, rewrite: &mut PacketMut<'_>) -> bool {
        let ahead = self.timestamp_offset;
        match direction {
            _ if ahead == 0 => true,
            Direction::Original => rewrite.adjust_timestamps(|value| value, |echo| echo.wrapping_add(ahead)),
            Direction::Reply => rewrite.adjust_timestamps(|value| value.wrapping_sub(ahead), |echo| echo),
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synproxy_state_bytes_round_trip() {
        let promise =
            SynproxyState { isn: 0x0102_0304, initial_timestamp: u32::MAX, window: 0xabcd, timestamp_offset: 77 };
        assert_eq!(SynproxyState::from_bytes(&promise.to_bytes()), promise);
    }
}
