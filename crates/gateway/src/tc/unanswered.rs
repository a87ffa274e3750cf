//! Neighbours that do not answer, and the packets sent to them: their senders are told (ICMP host unreachable), as the kernel does for packets that it forwards itself.
//!
//! The kernel resolves neighbours and keeps the packets meanwhile; what is kept here is a copy, until the kernel says how it went.
use keepstate_linux::rtnetlink::{RtMessage, RtNeighbour};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant as Clock};

/// The interface's index, and the address.
type NeighbourKey = (u32, IpAddr);

/// What is known of neighbours.
#[derive(Default)]
pub(super) struct Unanswered {
    /// Those whose address on the link is known.
    valid: HashSet<NeighbourKey>,
    waiting: HashMap<NeighbourKey, WaitingPackets>,
    /// How many packets wait.
    count: usize,
    /// Packets whose neighbour has not answered.
    failed: Vec<Vec<u8>>,
}

struct WaitingPackets {
    since: Clock,
    packets: Vec<Vec<u8>>,
}

/// Packets kept for one neighbour, and in total: an attacker may send to every address of a prefix.
const MAX_PER_NEIGHBOUR: usize = 16;
const MAX_PACKETS: usize = 1024;
/// By then the kernel has said how it went.
const MAX_AGE: Duration = Duration::from_secs(30);

impl Unanswered {
    /// Takes note of what the kernel tells.
    pub(super) fn observe(&mut self, message: &RtMessage) {
        let RtMessage::Neighbour(RtNeighbour { ifindex, address, mac, failed, .. }) = message else { return };
        let key = (*ifindex, *address);
        match (mac, failed) {
            (Some(_), _) => {
                self.valid.insert(key);
                self.take_waiting(&key);
            }
            (None, true) => {
                self.valid.remove(&key);
                let waiting = self.take_waiting(&key);
                self.failed.extend(waiting);
            }
            // It is being resolved, or gone.
            (None, false) => _ = self.valid.remove(&key),
        }
    }

    /// A packet is sent to a neighbour.
    pub(super) fn note(&mut self, key: NeighbourKey, packet: &[u8]) {
        if self.valid.contains(&key) {
            return;
        }
        if self.count >= MAX_PACKETS {
            self.waiting.retain(|_, waiting| waiting.since.elapsed() < MAX_AGE);
            self.count = self.waiting.values().map(|waiting| waiting.packets.len()).sum();
        }
        if self.count >= MAX_PACKETS {
            return;
        }
        let new = || WaitingPackets { since: Clock::now(), packets: Vec::new() };
        let waiting = self.waiting.entry(key).or_insert_with(new);
        if waiting.packets.len() < MAX_PER_NEIGHBOUR {
            waiting.packets.push(packet.to_vec());
            self.count += 1;
        }
    }

    /// The packets whose neighbour has not answered, since the last call.
    pub(super) fn take_failed(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.failed)
    }

    fn take_waiting(&mut self, key: &NeighbourKey) -> Vec<Vec<u8>> {
        let packets = self.waiting.remove(key).map(|waiting| waiting.packets).unwrap_or_default();
        self.count -= packets.len();
        packets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(mac: Option<[u8; 6]>, failed: bool) -> RtMessage {
        RtMessage::Neighbour(RtNeighbour { ifindex: 3, address: [10, 0, 0, 9].into(), mac, failed, is_confirmed: true })
    }

    #[test]
    fn packets_to_a_neighbour_that_fails_come_back_and_no_others() {
        let mut unanswered = Unanswered::default();
        let key = (3, [10, 0, 0, 9].into());
        unanswered.note(key, &[1]);
        unanswered.note((4, key.1), &[2]);
        unanswered.observe(&news(None, false));
        assert_eq!(unanswered.take_failed().len(), 0, "it is being resolved");
        unanswered.observe(&news(None, true));
        assert_eq!(unanswered.take_failed(), [vec![1]]);
        unanswered.note(key, &[3]);
        unanswered.observe(&news(Some([2; 6]), false));
        unanswered.note(key, &[4]);
        unanswered.observe(&news(None, true));
        assert_eq!(unanswered.take_failed().len(), 0, "it had answered");
        for number in 0..2 * MAX_PACKETS {
            unanswered.note((5, IpAddr::from(u32::try_from(number).unwrap().to_be_bytes())), &[0]);
        }
        assert_eq!(unanswered.count, MAX_PACKETS);
    }
}
