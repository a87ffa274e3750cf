//! Captures: frames, one after another, out of a pcap or pcapng file, plain or compressed.
//!
//! A [`Capture`] is opened, read frame by frame to its end or to where it breaks, and dropped. What a file is, its first octets say, never its name. A
//! broken file gives all frames up to the break, then a [`Break`] that says where.
mod interface;
mod source;

use anyhow::{Context, Result};
use interface::Interface;
use keepstate_wire::link::LinkType;
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, PcapBlockOwned, PcapError};
use source::{Failure, Source};
use std::io::Read;
use std::path::Path;

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
pub struct Break {
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
    interfaces: Vec<Interface>,
    failure: Failure,
    compressed: bool,
}

/// The reader's buffer to begin with, and what a single block may need at most.
const BUFFER: usize = 1 << 20;
const LARGEST_BLOCK: usize = 256 << 20;

impl Capture {
    /// Opens `path`; `-` is standard input.
    ///
    /// # Errors
    /// If it cannot be read, is empty, or is no capture: what, and what to do.
    pub fn open(path: &Path) -> Result<Capture> {
        Capture::of(Source::open(path)?, path)
    }

    /// Reads a capture from anywhere; `name` is what it is called in errors.
    ///
    /// # Errors
    /// As [`Capture::open`].
    pub fn read(octets: impl Read + Send + 'static, name: &Path) -> Result<Capture> {
        Capture::of(Source::read(Box::new(octets))?, name)
    }

    fn of(source: Source, path: &Path) -> Result<Capture> {
        let (failure, compressed) = (source.failure(), source.is_compressed());
        let reader = pcap_parser::create_reader(BUFFER, source);
        let reader = match (reader, failure.take()) {
            (Ok(reader), _) => reader,
            (Err(_), Some(error)) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
            (Err(PcapError::Eof), None) => {
                anyhow::bail!("{} is empty: a capture has at least a header", path.display())
            }
            (Err(_), None) => anyhow::bail!(
                "{} is no capture: it begins neither as pcap nor as pcapng (nor .gz or .zst of one). \
                 Record one with: tcpdump -i any -w FILE",
                path.display()
            ),
        };
        Ok(Capture { reader, interfaces: Vec::new(), failure, compressed })
    }

    /// Octets read so far (uncompressed).
    pub fn offset(&self) -> u64 {
        self.reader.consumed() as u64
    }

    /// Gives every frame to `see`, until it says `false`. `Ok` at the end of the capture, or when `see` had enough.
    ///
    /// # Errors
    /// [`Break`] where the capture cannot be read on; or what `see` failed with.
    pub fn frames(&mut self, mut see: impl FnMut(Frame<'_>) -> Result<bool>) -> Result<()> {
        loop {
            let length = match self.reader.next() {
                Ok((length, block)) => {
                    if let Some(frame) = frame(&block, &mut self.interfaces)
                        && !see(frame)?
                    {
                        return Ok(());
                    }
                    Ok(length)
                }
                Err(error) => Err(Trouble::from(error)),
            };
            match length {
                Ok(length) => self.reader.consume(length),
                Err(Trouble::End) => {
                    return self.failure.take().map_or(Ok(()), |error| Err(self.broken(error.to_string())));
                }
                Err(Trouble::More) => self.more()?,
                Err(Trouble::Bad(what)) => return Err(self.broken(what)),
            }
        }
    }

    /// Reads on, making the buffer larger if a block does not fit.
    fn more(&mut self) -> Result<()> {
        let before = self.reader.data().len();
        if self.reader.reader_exhausted() {
            return Err(self.broken("it ends in the middle of a packet".into()));
        }
        if self.reader.refill().is_err() {
            let error = self.failure.take().map_or_else(|| "it cannot be read".into(), |error| error.to_string());
            return Err(self.broken(error));
        }
        if let Some(error) = self.failure.take() {
            return Err(self.broken(error.to_string()));
        }
        let full = self.reader.data().len() == before && !self.reader.reader_exhausted();
        let larger = (before * 2).max(BUFFER);
        if full && (larger > LARGEST_BLOCK || !self.reader.grow(larger)) {
            return Err(self.broken(format!("a block claims more than {} MiB", LARGEST_BLOCK >> 20)));
        }
        Ok(())
    }

    fn broken(&self, what: String) -> anyhow::Error {
        Break { offset: self.offset(), compressed: self.compressed, what }.into()
    }
}

/// What the reader complains of.
enum Trouble {
    End,
    More,
    Bad(String),
}

impl<I> From<PcapError<I>> for Trouble {
    fn from(error: PcapError<I>) -> Trouble {
        match error {
            PcapError::Eof => Trouble::End,
            PcapError::Incomplete(_) | PcapError::BufferTooSmall => Trouble::More,
            PcapError::UnexpectedEof => Trouble::Bad("it ends in the middle of a packet".into()),
            PcapError::ReadError => Trouble::Bad("it cannot be read".into()),
            PcapError::HeaderNotRecognized => Trouble::Bad("what follows is no block of a capture".into()),
            PcapError::NomError(..) | PcapError::OwnedNomError(..) => {
                Trouble::Bad("the lengths of a block or packet record contradict each other".into())
            }
        }
    }
}

/// The frame in a block; notes interfaces as they are described.
fn frame<'a>(block: &'a PcapBlockOwned<'a>, interfaces: &mut Vec<Interface>) -> Option<Frame<'a>> {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            *interfaces = vec![Interface::of_pcap(header)];
            None
        }
        PcapBlockOwned::Legacy(record) => {
            let interface = interfaces.first()?;
            let time = interface.time(u64::from(record.ts_sec), u64::from(record.ts_usec));
            let data = record.data.get(..record.caplen as usize).unwrap_or(record.data);
            Some(Frame { time: Some(time), link: interface.link, data, wire_len: record.origlen as usize })
        }
        PcapBlockOwned::NG(block) => match block {
            Block::SectionHeader(_) => {
                interfaces.clear();
                None
            }
            Block::InterfaceDescription(description) => {
                interfaces.push(Interface::of_pcapng(description));
                None
            }
            Block::EnhancedPacket(packet) => {
                let interface = interfaces.get(packet.if_id as usize)?;
                let time = interface.ticks(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low));
                let data = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
                Some(Frame { time: Some(time), link: interface.link, data, wire_len: packet.origlen as usize })
            }
            Block::SimplePacket(packet) => {
                let interface = interfaces.first()?;
                let kept = interface.kept(packet.origlen as usize);
                let data = packet.data.get(..kept).unwrap_or(packet.data);
                Some(Frame { time: None, link: interface.link, data, wire_len: packet.origlen as usize })
            }
            _ => None,
        },
    }
}
