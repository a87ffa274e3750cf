//! Connections whose handshake was answered for their server before it knew of them (Linux's `synproxy`).
//!
//! Whoever answers promises the client a first number and a clock, and keeps nothing. Once the client has shown that he is there, a connection is begun in his name,
//! and its [`Promise`] is noted with it; when the server answers for itself, both are [spliced](Engine::splice): from then on the server's numbers and clock are shifted to what
//! was promised, where a packet leaves. It must never shift anything of a connection to which nothing was promised.
use crate::passage::Pending;
use crate::protocol::Tcp;
use crate::table::record::Kind;
use crate::tuple::protocol;
use crate::{Direction, Engine, Passage, Status, TcpState};
use keepstate_wire::edit::Rewrite;

/// What was promised to a client in its server's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// The sequence number of the answered SYN.
    pub first: u32,
    /// The clock that was shown in its timestamps (RFC 7323), and came back; 0 without them.
    pub clock: u32,
    /// The window that the client has shown.
    pub window: u16,
    /// By how much the server's clock is ahead of it, modulo 2³².
    pub(crate) ahead: u32,
}

impl Promise {
    /// Of a connection whose server has not answered yet.
    pub fn new(first: u32, clock: u32, window: u16) -> Promise {
        Promise { first, clock, window, ahead: 0 }
    }

    /// For a description.
    pub(crate) fn octets(&self) -> [u8; 14] {
        let mut octets = [0; 14];
        let words = [self.first, self.clock, self.ahead].map(u32::to_be_bytes);
        octets
            .iter_mut()
            .zip(words.iter().flatten().chain(&self.window.to_be_bytes()))
            .for_each(|(to, from)| *to = *from);
        octets
    }

    /// The same, read.
    pub(crate) fn from_octets(octets: &[u8; 14]) -> Promise {
        let word = |at: usize| octets.as_chunks::<4>().0.get(at).map_or(0, |word| u32::from_be_bytes(*word));
        let [.., high, low] = *octets;
        Promise { first: word(0), clock: word(1), ahead: word(2), window: u16::from_be_bytes([high, low]) }
    }

    /// The server's clock, or its echo, in a packet of `direction`, as the other end knows it. False where there are no timestamps to be read.
    pub(crate) fn keep(&self, direction: Direction, rewrite: &mut Rewrite<'_>) -> bool {
        let ahead = self.ahead;
        match direction {
            _ if ahead == 0 => true,
            Direction::Original => rewrite.timestamps(|value| value, |echo| echo.wrapping_add(ahead)),
            Direction::Reply => rewrite.timestamps(|value| value.wrapping_sub(ahead), |echo| echo),
        }
    }
}

impl Engine {
    /// Notes what the client was promised, of the connection that a packet in his name begins, or begins again before its server has answered. Of any other
    /// nothing is noted.
    pub fn promise(&mut self, passage: &mut Passage, promise: Promise) {
        let was_promised = self.promised(passage).is_some();
        match (&mut passage.pending, passage.outcome.connection) {
            (Pending::Begun(fresh), _) if fresh.original.protocol == protocol::TCP => {
                fresh.extra.get_or_insert_default().promise = Some(promise);
                self.promises = true;
            }
            (_, Some(handle)) if was_promised => {
                self.extras.make(handle.slot).promise = Some(promise);
                self.changes.note(handle.slot);
            }
            _ => (),
        }
    }

    /// What the client of a packet's connection was promised, if he was, and the state that the packet has brought it to.
    #[inline]
    pub fn promised(&self, passage: &Passage) -> Option<(Promise, TcpState)> {
        if self.promises { self.promise_of(passage) } else { None }
    }

    fn promise_of(&self, passage: &Passage) -> Option<(Promise, TcpState)> {
        match (&passage.pending, passage.outcome.connection) {
            (Pending::Begun(fresh), _) => Some((fresh.extra.as_ref()?.promise?, TcpState::SynSent)),
            (_, Some(handle)) => {
                let hot = self.table.records.hot(handle.slot).filter(|hot| hot.kind.is(Kind::EXTRAS))?;
                let promise = self.extras.of(handle.slot)?.promise?;
                (hot.protocol() == protocol::TCP).then(|| (promise, Tcp::load(hot).state()))
            }
            // Only a reset ends a connection at once.
            (_, None) => Some((passage.ended.as_ref()?.promise?, TcpState::Close)),
        }
    }

    /// The server of a packet's connection has answered, with this first number and this clock: from now on what it sends is shifted to what was promised.
    pub fn splice(&mut self, passage: &mut Passage, first: u32, clock: Option<u32>) {
        let (Some((promise, _)), Some(handle)) = (self.promised(passage), passage.outcome.connection) else { return };
        let Some(hot) = self.table.records.hot_mut(handle.slot) else { return };
        hot.status |= Status::SEQ_ADJUST.0;
        let extra = self.extras.make(handle.slot);
        let ahead = clock.map_or(0, |clock| clock.wrapping_sub(promise.clock));
        extra.promise = Some(Promise { ahead, ..promise });
        extra.shifts.get_or_insert_default().begin(Direction::Reply, promise.first.wrapping_sub(first));
        self.changes.note(handle.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_read_as_it_was_written() {
        let promise = Promise { first: 0x0102_0304, clock: u32::MAX, window: 0xabcd, ahead: 77 };
        assert_eq!(Promise::from_octets(&promise.octets()), promise);
    }
}
