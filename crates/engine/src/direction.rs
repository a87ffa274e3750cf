//! The direction of a packet within its connection.

/// The direction of a packet within its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Direction {
    /// The direction of the connection's first packet.
    Original = 0,
    /// The opposite direction.
    Reply = 1,
}

impl Direction {
    /// The opposite direction.
    pub const fn opposite(self) -> Direction {
        match self {
            Direction::Original => Direction::Reply,
            Direction::Reply => Direction::Original,
        }
    }
}
