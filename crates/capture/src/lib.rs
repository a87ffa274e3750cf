//! Captures: frames, one after another, out of a pcap or pcapng file, plain or compressed.
//!
//! A [`Capture`] is opened, read frame by frame to its end or to where it breaks, and dropped. What a file is, its first octets say, never its name. A
//! broken file gives all frames up to the break, then a [`Break`] that says where.
pub mod capture_tracker;
mod framing;
mod interface;
pub mod packet_mmap;
mod source;

use anyhow::{Context, Result};
use framing::{ByteOrder, FileFormat, NextBlock};
use interface::CaptureInterface;
use keepstate_wire::link::LinkType;
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, PcapBlockOwned, PcapError};
use source::{CaptureSource, ReadErrorSlot};
use std::io::Read;
use std::path::{Path, PathBuf};

/// One captured frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Nanoseconds since the Unix epoch; `None` in a block without a time.
    pub time: Option<u64>,
    /// What `data` begins with.
    pub link: LinkType,
    /// The octets kept.
    pub data: &'a [u8],
    /// Octets the frame had on the wire.
    pub wire_len: usize,
}

/// Where and why a capture ends before its end.
#[derive(Debug, thiserror::Error)]
#[error("the capture breaks at byte {offset}{}: {what}. Everything before that was read; try a fresh copy of the file", if *.compressed { " of its uncompressed content" } else { "" })]
pub struct CorruptCapture {
    /// Octets read before the block or record that cannot be read.
    pub offset: u64,
    /// The offset counts uncompressed octets.
    pub compressed: bool,
    /// What is wrong.
    pub what: String,
}

/// A capture being read.
pub struct Capture {
    reader: Box<dyn PcapReaderIterator>,
    format: FileFormat,
    interfaces: Vec<CaptureInterface>,
    read_error: ReadErrorSlot,
    compressed: bool,
    name: PathBuf,
}

/// The reader's buffer to begin with; it grows to the size of the largest block there is. What a block may claim, its [`Layout`] decides.
const INITIAL_BUFFER: usize = 1 << 20;
const MAX_BUFFER: usize = 512 << 20;

impl Capture {
    /// Opens `path`; `-` is standard input.
    ///
    /// # Errors
    /// If it cannot be read, is empty, or is no capture: what, and what to do.
    pub fn open(path: &Path) -> Result<Capture> {
        Capture::from_source(CaptureSource::open(path)?, path)
    }

    /// Reads a capture from anywhere; `name` is what it is called in errors.
    ///
    /// # Errors
    /// As [`Capture::open`].
    pub fn from_reader(octets: impl Read + Send + 'static, name: &Path) -> Result<Capture> {
        Capture::from_source(CaptureSource::from_reader(Box::new(octets))?, name)
    }

    fn from_source(source: CaptureSource, path: &Path) -> Result<Capture> {
        let (failure, compressed) = (source.read_error(), source.is_compressed());
        let (head, layout) = (source.head().len(), FileFormat::detect(source.head()));
        let broken = |what: String| corrupt_capture(CorruptCapture { offset: 0, compressed, what }, path);
        let trouble = failure.take();
        match (layout, trouble) {
            (_, Some(error)) if head == 0 => Err(error).with_context(|| format!("{} cannot be read", path.display())),
            (Some(_), Some(error)) => Err(broken(error.to_string())),
            (None, None) if head == 0 => {
                anyhow::bail!("{} is empty: a capture has at least a header", path.display())
            }
            (None, _) => anyhow::bail!(
                "{} is no capture: it begins neither as pcap nor as pcapng (nor .gz or .zst of one). \
                 Record one with: tcpdump -i any -w FILE",
                path.display()
            ),
            (Some(layout), None) => {
                let whole = head >= FileFormat::header_len(source.head());
                let reader = pcap_parser::create_reader(INITIAL_BUFFER, source).map_err(|_| match whole {
                    true => broken("the header of the file contradicts itself".into()),
                    false => broken(format!("it ends at byte {head}, in the middle of the header of the file")),
                })?;
                Ok(Capture {
                    reader,
                    format: layout,
                    interfaces: Vec::new(),
                    read_error: failure,
                    compressed,
                    name: path.to_owned(),
                })
            }
        }
    }

    /// Octets read so far (uncompressed).
    pub fn offset(&self) -> u64 {
        self.reader.consumed() as u64
    }

    /// Gives every frame to `see`, until it says `false`. `Ok` at the end of the capture, or when `see` had enough.
    ///
    /// # Errors
    /// [`Break`] where the capture cannot be read on; or what `see` failed with.
    pub fn for_each_frame(&mut self, mut see: impl FnMut(Frame<'_>) -> Result<bool>) -> Result<()> {
        loop {
            // What the parser says first is the header of a pcap file, which is no record.
            let header = matches!(self.format, FileFormat::Pcap(_)) && self.offset() == 0;
            let coming = if header { Ok(NextBlock::Complete) } else { self.format.check_next(self.reader.data()) };
            let length = match coming.map_err(|what| self.corrupt(what))? {
                NextBlock::Skipped(length) => length,
                NextBlock::ObsoletePacket(length) => {
                    let body = self.reader.data().get(8..length - 4).unwrap_or_default();
                    let frame = parse_obsolete_packet(body, self.format.byte_order(), &self.interfaces);
                    let Ok(frame) = frame else { return Err(self.corrupt(frame.err().unwrap_or_default())) };
                    if !see(frame)? {
                        return Ok(());
                    }
                    length
                }
                coming => match self.parse_next(&mut see) {
                    Ok(Some(length)) => length,
                    Ok(None) => return Ok(()),
                    Err(ParseStop::Callback(error)) => return Err(error),
                    Err(ParseStop::Eof) => {
                        return self.read_error.take().map_or(Ok(()), |error| Err(self.corrupt(error.to_string())));
                    }
                    Err(ParseStop::Corrupt(what)) => return Err(self.corrupt(what)),
                    Err(ParseStop::Incomplete) if coming == NextBlock::Incomplete => {
                        self.refill()?;
                        continue;
                    }
                    Err(ParseStop::Incomplete) => {
                        return Err(self.corrupt("what a block holds is longer than the block".into()));
                    }
                },
            };
            self.reader.consume(length);
        }
    }

    /// Parses what comes next and gives a frame in it to `see`; its length, or `None` when `see` had enough.
    fn parse_next(&mut self, see: &mut impl FnMut(Frame<'_>) -> Result<bool>) -> Result<Option<usize>, ParseStop> {
        let order = self.format.byte_order();
        let (length, block) = self.reader.next()?;
        let frame = frame_in_block(&block, order, &mut self.interfaces).map_err(ParseStop::Corrupt)?;
        let more = frame.map_or(Ok(true), see).map_err(ParseStop::Callback)?;
        Ok(more.then_some(length))
    }

    /// Reads on, making the buffer larger if a block does not fit.
    fn refill(&mut self) -> Result<()> {
        let before = self.reader.data().len();
        if self.reader.reader_exhausted() {
            let end = self.offset().saturating_add(before as u64);
            return Err(self.corrupt(format!("it ends at byte {end}, in the middle of a packet")));
        }
        if self.reader.refill().is_err() {
            let error = self.read_error.take().map_or_else(|| "it cannot be read".into(), |error| error.to_string());
            return Err(self.corrupt(error));
        }
        if let Some(error) = self.read_error.take() {
            return Err(self.corrupt(error.to_string()));
        }
        let full = self.reader.data().len() == before && !self.reader.reader_exhausted();
        let larger = (before * 2).max(INITIAL_BUFFER);
        if full && (larger > MAX_BUFFER || !self.reader.grow(larger)) {
            return Err(self.corrupt("a block is larger than any can be".into()));
        }
        Ok(())
    }

    fn corrupt(&self, what: String) -> anyhow::Error {
        corrupt_capture(CorruptCapture { offset: self.offset(), compressed: self.compressed, what }, &self.name)
    }
}

/// A break, with the name of what is broken before it.
fn corrupt_capture(at: CorruptCapture, path: &Path) -> anyhow::Error {
    anyhow::Error::new(at).context(path.display().to_string())
}

/// Why the next block or record is not had.
enum ParseStop {
    Eof,
    Incomplete,
    Corrupt(String),
    /// Whoever sees the frames failed.
    Callback(anyhow::Error),
}

impl<I> From<PcapError<I>> for ParseStop {
    fn from(error: PcapError<I>) -> ParseStop {
        match error {
            PcapError::Eof => ParseStop::Eof,
            PcapError::Incomplete(_) | PcapError::BufferTooSmall | PcapError::UnexpectedEof => ParseStop::Incomplete,
            PcapError::ReadError => ParseStop::Corrupt("it cannot be read".into()),
            PcapError::HeaderNotRecognized => ParseStop::Corrupt("what follows is no block of a capture".into()),
            PcapError::NomError(..) | PcapError::OwnedNomError(..) => {
                ParseStop::Corrupt("the lengths in a block or packet record contradict each other".into())
            }
        }
    }
}

/// The frame in a block; notes interfaces as they are described.
fn frame_in_block<'a>(
    block: &'a PcapBlockOwned<'a>,
    order: ByteOrder,
    interfaces: &mut Vec<CaptureInterface>,
) -> Result<Option<Frame<'a>>, String> {
    Ok(match block {
        PcapBlockOwned::LegacyHeader(header) => {
            *interfaces = vec![CaptureInterface::from_pcap(header)];
            None
        }
        PcapBlockOwned::Legacy(record) => {
            let interface = interface_of(interfaces, 0)?;
            let time = interface.to_nanos(u64::from(record.ts_sec), u64::from(record.ts_usec));
            let data = record.data.get(..record.caplen as usize).unwrap_or(record.data);
            Some(Frame { time: Some(time), link: interface.link_type, data, wire_len: record.origlen as usize })
        }
        PcapBlockOwned::NG(block) => match block {
            Block::SectionHeader(_) => {
                interfaces.clear();
                None
            }
            Block::InterfaceDescription(description) => {
                interfaces.push(CaptureInterface::from_pcapng(description, order)?);
                None
            }
            Block::EnhancedPacket(packet) => {
                let interface = interface_of(interfaces, packet.if_id)?;
                let time = interface.ticks_to_nanos(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low));
                let data = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
                Some(Frame { time: Some(time), link: interface.link_type, data, wire_len: packet.origlen as usize })
            }
            Block::SimplePacket(packet) => {
                let interface = interface_of(interfaces, 0)?;
                let kept = interface.captured_len(packet.origlen as usize);
                let data = packet.data.get(..kept).unwrap_or(packet.data);
                Some(Frame { time: None, link: interface.link_type, data, wire_len: packet.origlen as usize })
            }
            _ => None,
        },
    })
}

/// The frame in the body of a Packet Block, which the parser does not know: interface and drops in two octets each, time, octets kept, octets there
/// were, the octets.
fn parse_obsolete_packet<'a>(
    body: &'a [u8],
    order: ByteOrder,
    interfaces: &[CaptureInterface],
) -> Result<Frame<'a>, String> {
    let four = |at: usize| body.get(at..).and_then(|octets| order.read_u32(octets)).unwrap_or(0);
    let interface = interface_of(interfaces, order.read_u16(body).unwrap_or(0).into())?;
    let time = interface.ticks_to_nanos(u64::from(four(4)) << 32 | u64::from(four(8)));
    let data = usize::try_from(four(12)).ok().and_then(|kept| body.get(20..)?.get(..kept));
    let data = data.ok_or("what a block holds is longer than the block")?;
    Ok(Frame { time: Some(time), link: interface.link_type, data, wire_len: four(16) as usize })
}

/// The interface of a packet.
fn interface_of(interfaces: &[CaptureInterface], number: u32) -> Result<&CaptureInterface, String> {
    let interface = usize::try_from(number).ok().and_then(|number| interfaces.get(number));
    interface.ok_or_else(|| format!("a packet comes from interface {number}, which no block before it describes"))
}
