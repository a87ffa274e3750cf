//! The synproxy state of one connection.
use crate::Direction;
use keepstate_wire::rewrite::PacketMut;

/// What the proxy's SYN-ACK told the client, stored with the connection to the server (`struct nf_conn_synproxy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynproxyState {
    /// The initial sequence number of the proxy's SYN-ACK.
    pub isn: u32,
    /// The timestamp (RFC 7323) of the proxy's SYN-ACK, which the client has echoed; 0 without timestamps.
    pub initial_timestamp: u32,
    /// The window that the client has advertised, unscaled.
    pub window: u16,
    /// By how much the server's timestamps are ahead of `initial_timestamp`, modulo 2³²; 0 until the server has answered.
    pub(crate) timestamp_offset: u32,
}

impl SynproxyState {
    /// The state of a connection whose server has not answered yet.
    pub fn new(isn: u32, initial_timestamp: u32, window: u16) -> SynproxyState {
        SynproxyState { isn, initial_timestamp, window, timestamp_offset: 0 }
    }

    /// Encodes it for a [`ConnSnapshot`](crate::ConnSnapshot): three 32-bit words (isn, timestamp, offset), then the window, big-endian.
    pub(crate) fn to_bytes(self) -> [u8; 14] {
        let mut bytes = [0; 14];
        let words = [self.isn, self.initial_timestamp, self.timestamp_offset].map(u32::to_be_bytes);
        bytes
            .iter_mut()
            .zip(words.iter().flatten().chain(&self.window.to_be_bytes()))
            .for_each(|(to, from)| *to = *from);
        bytes
    }

    /// Decodes [`SynproxyState::to_bytes`].
    pub(crate) fn from_bytes(bytes: &[u8; 14]) -> SynproxyState {
        let word = |at: usize| bytes.as_chunks::<4>().0.get(at).map_or(0, |word| u32::from_be_bytes(*word));
        let [.., high, low] = *bytes;
        SynproxyState {
            isn: word(0),
            initial_timestamp: word(1),
            timestamp_offset: word(2),
            window: u16::from_be_bytes([high, low]),
        }
    }

    /// Shifts the server's timestamp, or the client's echo of it, in a packet of `direction`. False if the TCP options cannot be parsed.
    pub(crate) fn adjust_timestamps(&self, direction: Direction, rewrite: &mut PacketMut<'_>) -> bool {
        let ahead = self.timestamp_offset;
        match direction {
            _ if ahead == 0 => true,
            Direction::Original => rewrite.adjust_timestamps(|value| value, |echo| echo.wrapping_add(ahead)),
            Direction::Reply => rewrite.adjust_timestamps(|value| value.wrapping_sub(ahead), |echo| echo),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synproxy_state_bytes_round_trip() {
        let synproxy =
            SynproxyState { isn: 0x0102_0304, initial_timestamp: u32::MAX, window: 0xabcd, timestamp_offset: 77 };
        assert_eq!(SynproxyState::from_bytes(&synproxy.to_bytes()), synproxy);
    }
}
