//! What tracking will read of packets that are about to be handled, fetched for several at once: cache misses then overlap. Nothing depends on it but speed.
use super::Router;
use keepstate_engine::Zone;
use keepstate_wire::Packet;

/// As many as the engine prefetches together.
const GROUP: usize = 32;

impl Router {
    /// Prefetches what [`Router::handle`] will read of the connections of `packets`, each from its IP header on: call it before handling a batch of them, in any number. Packets that are
    /// not well-formed are left out.
    pub fn prefetch<'a>(&mut self, packets: impl IntoIterator<Item = &'a [u8]>) {
        let mut parsed = packets.into_iter().filter_map(|bytes| Packet::parse(bytes).ok());
        while let Some(first) = parsed.next() {
            let mut group = [first; GROUP];
            let mut length = 1;
            for (place, packet) in group.iter_mut().skip(1).zip(&mut parsed) {
                *place = packet;
                length += 1;
            }
            // A single packet would only be hashed twice.
            if let (2.., Some(group)) = (length, group.get(..length)) {
                // Rules may give a packet another zone: it is then prefetched in vain.
                self.engine.prefetch(group, Zone::default());
            }
        }
    }
}
