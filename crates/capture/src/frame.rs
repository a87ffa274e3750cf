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
    /// The number of the interface it was captured on, where the file has several: a link header may say it besides.
    pub interface: Option<u32>,
    /// What is known of its transport checksum.
    pub checksum: FrameChecksum,
}

/// What is known of the transport checksum of a captured frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FrameChecksum {
    /// Nothing: the frame is from a file.
    #[default]
    Unknown,
    /// The kernel has not verified it.
    Unverified,
    /// The kernel says that it is not filled in yet, or that it was verified.
    Unnecessary,
}
