//! Captures: the frames of a pcap or pcapng file, plain or compressed.
//!
//! A [`Capture`] is opened, read frame by frame to its end or to where it breaks, and dropped. The format is detected from the first
//! bytes, never from the name. A broken file yields all frames up to the break, then a [`CorruptCapture`] that says where.
use crate::frame::{Frame, FrameChecksum};
use crate::framing::{ByteOrder, FileFormat, MODIFIED_RECORD_HEADER, NextBlock};
use crate::interface::CaptureInterface;
use crate::source::{CaptureSource, ReadErrorSlot};
use anyhow::{Context, Result};
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, PcapBlockOwned, PcapError};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where and why a capture cannot be read on.
#[derive(Debug, thiserror::Error)]
#[error("the capture is corrupt at byte {offset}{}: {what}. Everything before that was read; try a fresh copy of the file", if *.compressed { " of its uncompressed content" } else { "" })]
pub struct CorruptCapture {
    /// Bytes before the block or record that cannot be read.
    pub offset: u64,
    /// The offset counts uncompressed bytes.
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

/// The reader's initial buffer; it grows to the size of the largest block. [`FileFormat`] limits the size of a block.
const INITIAL_BUFFER: usize = 1 << 20;
const MAX_BUFFER: usize = 512 << 20;

impl Capture {
    /// Opens `path`; `-` is standard input.
    ///
    /// # Errors
    /// It cannot be read, is empty, or is no capture: which, and what to do.
    pub fn open(path: &Path) -> Result<Capture> {
        Capture::from_source(CaptureSource::open(path)?, path)
    }

    /// Reads a capture from `reader`; errors call it `name`.
    ///
    /// # Errors
    /// As [`Capture::open`].
    pub fn from_reader(reader: impl Read + Send + 'static, name: &Path) -> Result<Capture> {
        Capture::from_source(CaptureSource::from_reader(Box::new(reader))?, name)
    }

    fn from_source(source: CaptureSource, path: &Path) -> Result<Capture> {
        let mut source = source;
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
                "{} is no capture: neither pcap nor pcapng (nor .gz or .zst of one). \
                 Record one with: tcpdump -i any -w FILE",
                path.display()
            ),
            (Some(layout), None) => {
                let whole = head >= FileFormat::header_len(source.head());
                if let FileFormat::ModifiedPcap(order) = layout {
                    // The header is an ordinary one; the records are not, and are parsed here.
                    source.set_magic(order.pcap_magic());
                }
                let reader = pcap_parser::create_reader(INITIAL_BUFFER, source).map_err(|_| match whole {
                    true => broken("the file header is inconsistent".into()),
                    false => broken(format!("it ends at byte {head}, inside the file header")),
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

    /// Bytes read so far (uncompressed).
    pub fn offset(&self) -> u64 {
        self.reader.consumed() as u64
    }

    /// Calls `see` with every frame, until it returns `false`. `Ok` at the end of the capture, or after `false`.
    ///
    /// # Errors
    /// [`CorruptCapture`] where the capture cannot be read on; or the error of `see`.
    pub fn for_each_frame(&mut self, mut see: impl FnMut(Frame<'_>) -> Result<bool>) -> Result<()> {
        loop {
            // The parser first returns the header of a pcap file, which is no record.
            let header = !matches!(self.format, FileFormat::Pcapng(_)) && self.offset() == 0;
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
                NextBlock::ModifiedRecord(length) => {
                    let record = self.reader.data().get(..length).unwrap_or_default();
                    let frame = parse_modified_record(record, self.format.byte_order(), &self.interfaces);
                    let Ok(frame) = frame else { return Err(self.corrupt(frame.err().unwrap_or_default())) };
                    if !see(frame)? {
                        return Ok(());
                    }
                    length
                }
                NextBlock::Incomplete if matches!(self.format, FileFormat::ModifiedPcap(_)) => {
                    if self.reader.reader_exhausted() && self.reader.data().is_empty() {
                        return self.read_error.take().map_or(Ok(()), |error| Err(self.corrupt(error.to_string())));
                    }
                    self.refill()?;
                    continue;
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
                        return Err(self.corrupt("a block's content is longer than the block".into()));
                    }
                },
            };
            self.reader.consume(length);
        }
    }

    /// Parses the next block and calls `see` with its frame; returns its length, or `None` if `see` returned `false`.
    fn parse_next(&mut self, see: &mut impl FnMut(Frame<'_>) -> Result<bool>) -> Result<Option<usize>, ParseStop> {
        let order = self.format.byte_order();
        let (length, block) = self.reader.next()?;
        let frame = frame_in_block(&block, order, &mut self.interfaces).map_err(ParseStop::Corrupt)?;
        let more = frame.map_or(Ok(true), see).map_err(ParseStop::Callback)?;
        Ok(more.then_some(length))
    }

    /// Reads more, with a larger buffer if a block does not fit.
    fn refill(&mut self) -> Result<()> {
        let before = self.reader.data().len();
        if self.reader.reader_exhausted() {
            let end = self.offset().saturating_add(before as u64);
            return Err(self.corrupt(format!("it ends at byte {end}, inside a packet")));
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
            return Err(self.corrupt("a block is too large".into()));
        }
        Ok(())
    }

    fn corrupt(&self, what: String) -> anyhow::Error {
        corrupt_capture(CorruptCapture { offset: self.offset(), compressed: self.compressed, what }, &self.name)
    }
}

/// The error with the capture's name before it.
fn corrupt_capture(at: CorruptCapture, path: &Path) -> anyhow::Error {
    anyhow::Error::new(at).context(path.display().to_string())
}

/// Why there is no next block or record.
enum ParseStop {
    Eof,
    Incomplete,
    Corrupt(String),
    /// The callback failed.
    Callback(anyhow::Error),
}

impl<I> From<PcapError<I>> for ParseStop {
    fn from(error: PcapError<I>) -> ParseStop {
        match error {
            PcapError::Eof => ParseStop::Eof,
            PcapError::Incomplete(_) | PcapError::BufferTooSmall | PcapError::UnexpectedEof => ParseStop::Incomplete,
            PcapError::ReadError => ParseStop::Corrupt("it cannot be read".into()),
            PcapError::HeaderNotRecognized => ParseStop::Corrupt("the next bytes are no block of a capture".into()),
            PcapError::NomError(..) | PcapError::OwnedNomError(..) => {
                ParseStop::Corrupt("the lengths in a block or packet record are inconsistent".into())
            }
        }
    }
}

/// The frame in a block; interface descriptions are added to `interfaces`.
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
            Some(Frame {
                time: Some(time),
                link: interface.link_type,
                data,
                wire_len: record.origlen as usize,
                interface: None,
                checksum: FrameChecksum::Unknown,
            })
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
                let number = several(interfaces, packet.if_id);
                let interface = interface_of(interfaces, packet.if_id)?;
                let time = interface.ticks_to_nanos(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low));
                let data = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
                Some(Frame {
                    time: Some(time),
                    link: interface.link_type,
                    data,
                    wire_len: packet.origlen as usize,
                    interface: number,
                    checksum: FrameChecksum::Unknown,
                })
            }
            Block::SimplePacket(packet) => {
                let interface = interface_of(interfaces, 0)?;
                let captured = interface.captured_len(packet.origlen as usize);
                let data = packet.data.get(..captured).unwrap_or(packet.data);
                Some(Frame {
                    time: None,
                    link: interface.link_type,
                    data,
                    wire_len: packet.origlen as usize,
                    interface: several(interfaces, 0),
                    checksum: FrameChecksum::Unknown,
                })
            }
            _ => None,
        },
    })
}

/// The frame in the body of an obsolete Packet Block, which the parser does not support: interface and drops (two bytes each), time,
/// captured length, length on the wire, data.
fn parse_obsolete_packet<'a>(
    body: &'a [u8],
    order: ByteOrder,
    interfaces: &[CaptureInterface],
) -> Result<Frame<'a>, String> {
    let four = |at: usize| body.get(at..).and_then(|bytes| order.read_u32(bytes)).unwrap_or(0);
    let number = order.read_u16(body).unwrap_or(0).into();
    let interface = interface_of(interfaces, number)?;
    let time = interface.ticks_to_nanos(u64::from(four(4)) << 32 | u64::from(four(8)));
    let data = usize::try_from(four(12)).ok().and_then(|captured| body.get(20..)?.get(..captured));
    let data = data.ok_or("a block's content is longer than the block")?;
    Ok(Frame {
        time: Some(time),
        link: interface.link_type,
        data,
        wire_len: four(16) as usize,
        interface: several(interfaces, number),
        checksum: FrameChecksum::Unknown,
    })
}

/// The frame in a record of a "modified" pcap file (Alexey Kuznetsov's): interface, protocol and packet type follow the usual header.
fn parse_modified_record<'a>(
    record: &'a [u8],
    order: ByteOrder,
    interfaces: &[CaptureInterface],
) -> Result<Frame<'a>, String> {
    let four = |at: usize| record.get(at..).and_then(|bytes| order.read_u32(bytes)).unwrap_or(0);
    let interface = interface_of(interfaces, 0)?;
    Ok(Frame {
        time: Some(interface.to_nanos(u64::from(four(0)), u64::from(four(4)))),
        link: interface.link_type,
        data: record.get(MODIFIED_RECORD_HEADER..).unwrap_or_default(),
        wire_len: four(12) as usize,
        interface: None,
        checksum: FrameChecksum::Unknown,
    })
}

/// The number of an interface, if it is one of several.
fn several(interfaces: &[CaptureInterface], number: u32) -> Option<u32> {
    (interfaces.len() > 1).then_some(number)
}

/// The interface of a packet.
fn interface_of(interfaces: &[CaptureInterface], number: u32) -> Result<&CaptureInterface, String> {
    let interface = usize::try_from(number).ok().and_then(|number| interfaces.get(number));
    interface.ok_or_else(|| format!("a packet is from interface {number}, which no earlier block describes"))
}
