//! A captured frame, from a file or from a packet ring.
use keepstate_wire::link::LinkType;

/// One captured frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Nanoseconds since the Unix epoch; `None` in a block without a time.
    pub time: Option<u64>,
    /// The link type: what `data` begins with.
    pub link: LinkType,
    /// The captured bytes.
    pub data: &'a [u8],
    /// The frame's length on the wire.
    pub wire_len: usize,
}
