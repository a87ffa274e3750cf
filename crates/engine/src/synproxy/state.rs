//! What was promised to a client in its server's name.
use crate::Direction;
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
        let mut bytes = [0; 14];
        let words = [self.isn, self.initial_timestamp, self.timestamp_offset].map(u32::to_be_bytes);
        bytes
            .iter_mut()
            .zip(words.iter().flatten().chain(&self.window.to_be_bytes()))
            .for_each(|(to, from)| *to = *from);
        bytes
    }

    /// The same, read.
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
