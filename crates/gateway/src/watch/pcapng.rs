//! Captures as pcapng (draft-ietf-opsawg-pcapng): a block for each interface when its first packet comes, packets with direction and comment, and how many were lost.
use super::CapturedPacket;
use std::io::{self, Write};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
/// LINKTYPE_RAW: the packet begins with its IP header.
const LINK_TYPE_RAW: u16 = 101;
/// Codes of options; the same number means different things in different blocks.
const OPT_COMMENT: u16 = 1;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const SHB_USERAPPL: u16 = 4;
const EPB_FLAGS: u16 = 2;
const ISB_IFDROP: u16 = 5;

/// Writes a capture.
pub(super) struct PcapngWriter<W> {
    out: W,
    interfaces: Vec<String>,
    snaplen: u32,
    /// The time of the last packet.
    last_time: u64,
    /// Lost packets that the file tells of already.
    lost: u64,
}

impl<W: Write> PcapngWriter<W> {
    /// Begins a capture.
    ///
    /// # Errors
    /// Those of the writer.
    pub(super) fn new(mut out: W, snaplen: usize) -> io::Result<PcapngWriter<W>> {
        let mut body = Vec::new();
        body.extend(0x1a2b_3c4d_u32.to_ne_bytes());
        body.extend(1_u16.to_ne_bytes());
        body.extend(0_u16.to_ne_bytes());
        // The section's length is not known.
        body.extend(u64::MAX.to_ne_bytes());
        push_option(&mut body, SHB_USERAPPL, concat!("keepstate ", env!("CARGO_PKG_VERSION")).as_bytes());
        push_end(&mut body);
        write_block(&mut out, SECTION_HEADER, &body)?;
        let snaplen = u32::try_from(snaplen).unwrap_or(0);
        Ok(PcapngWriter { out, interfaces: Vec::new(), snaplen, last_time: 0, lost: 0 })
    }

    /// Writes a packet.
    ///
    /// # Errors
    /// Those of the writer.
    pub(super) fn write(&mut self, packet: &CapturedPacket) -> io::Result<()> {
        let interface = self.interface(&packet.interface)?;
        self.last_time = packet.time;
        let mut body = Vec::with_capacity(packet.bytes.len() + 64);
        body.extend(interface.to_ne_bytes());
        push_time(&mut body, packet.time);
        body.extend(saturating_u32(packet.bytes.len()).to_ne_bytes());
        body.extend(saturating_u32(packet.length).to_ne_bytes());
        push_padded(&mut body, &packet.bytes);
        let direction: u32 = if packet.inbound { 1 } else { 2 };
        push_option(&mut body, EPB_FLAGS, &direction.to_ne_bytes());
        if let Some(comment) = &packet.comment {
            push_option(&mut body, OPT_COMMENT, comment.as_bytes());
        }
        push_end(&mut body);
        write_block(&mut self.out, ENHANCED_PACKET, &body)
    }

    /// Tells how many packets were lost so far, if that has changed.
    ///
    /// # Errors
    /// Those of the writer.
    pub(super) fn note_lost(&mut self, lost: u64) -> io::Result<()> {
        if lost == self.lost || self.interfaces.is_empty() {
            return Ok(());
        }
        self.lost = lost;
        let mut body = Vec::new();
        body.extend(0_u32.to_ne_bytes());
        push_time(&mut body, self.last_time);
        push_option(&mut body, ISB_IFDROP, &lost.to_ne_bytes());
        push_end(&mut body);
        write_block(&mut self.out, INTERFACE_STATISTICS, &body)
    }

    /// What is beneath, to flush it.
    pub(super) fn beneath(&mut self) -> &mut W {
        &mut self.out
    }

    /// The number of an interface, which is described when it is new.
    fn interface(&mut self, name: &str) -> io::Result<u32> {
        if let Some(at) = self.interfaces.iter().position(|known| known == name) {
            return Ok(saturating_u32(at));
        }
        let mut body = Vec::new();
        body.extend(LINK_TYPE_RAW.to_ne_bytes());
        body.extend(0_u16.to_ne_bytes());
        body.extend(self.snaplen.to_ne_bytes());
        push_option(&mut body, IF_NAME, name.as_bytes());
        // Nanoseconds.
        push_option(&mut body, IF_TSRESOL, &[9]);
        push_end(&mut body);
        write_block(&mut self.out, INTERFACE_DESCRIPTION, &body)?;
        self.interfaces.push(name.to_owned());
        Ok(saturating_u32(self.interfaces.len() - 1))
    }
}

/// Lengths here are those of packets and of lists of interfaces: they fit.
fn saturating_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn push_time(body: &mut Vec<u8>, time: u64) {
    body.extend(saturating_u32((time >> 32) as usize).to_ne_bytes());
    body.extend(((time & u64::from(u32::MAX)) as u32).to_ne_bytes());
}

fn push_padded(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend(bytes);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn push_option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let Ok(length) = u16::try_from(value.len()) else { return };
    body.extend(code.to_ne_bytes());
    body.extend(length.to_ne_bytes());
    push_padded(body, value);
}

fn push_end(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

/// A block in one write, so that what a reader gets ends with a whole block.
fn write_block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let length = saturating_u32(body.len() + 12);
    let mut block = Vec::with_capacity(body.len() + 12);
    block.extend(kind.to_ne_bytes());
    block.extend(length.to_ne_bytes());
    block.extend(body);
    block.extend(length.to_ne_bytes());
    out.write_all(&block)
}
