//! The bytes of a capture: from a file or standard input, decompressed while reading.
use crate::framing::FileFormat;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{self, BufReader, Cursor, IsTerminal, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// The reader of a capture's bytes. It keeps the error that ended reading, since the parser does not pass it on.
pub(super) struct CaptureSource {
    reader: Box<dyn Read + Send>,
    read_error: ReadErrorSlot,
    compressed: bool,
    /// The file's header, as far as the file has one, until it is read.
    head: Vec<u8>,
}

/// The error that ended reading.
#[derive(Clone, Default)]
pub(super) struct ReadErrorSlot(Arc<Mutex<Option<io::Error>>>);

impl ReadErrorSlot {
    pub(super) fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The bytes without gzip or zstd, which are detected from the first bytes, and whether there was one.
///
/// # Errors
/// The first bytes cannot be read.
pub fn decompressed(mut bytes: Box<dyn Read + Send>) -> io::Result<(Box<dyn Read + Send>, bool)> {
    let mut first = Vec::new();
    bytes.by_ref().take(4).read_to_end(&mut first)?;
    let (gzip, zstd) = (first.starts_with(&GZIP), first.starts_with(&ZSTD));
    let whole = BufReader::with_capacity(1 << 18, Cursor::new(first).chain(bytes));
    Ok(if gzip {
        (Box::new(flate2::bufread::MultiGzDecoder::new(whole)), true)
    } else if zstd {
        (Box::new(zstd::Decoder::with_buffer(whole)?), true)
    } else {
        (Box::new(whole), false)
    })
}

impl CaptureSource {
    /// Opens `path`, `-` for standard input.
    pub(super) fn open(path: &Path) -> Result<CaptureSource> {
        let bytes: Box<dyn Read + Send> = if path.as_os_str() == "-" {
            anyhow::ensure!(
                !io::stdin().is_terminal(),
                "standard input is a terminal: pipe a capture into it, for example tcpdump -U -w - | keepstate replay -"
            );
            Box::new(io::stdin())
        } else {
            let file = File::open(path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => anyhow::anyhow!("{}: no such file", path.display()),
                _ => anyhow::Error::new(error).context(format!("{} cannot be opened", path.display())),
            })?;
            anyhow::ensure!(!file.metadata()?.is_dir(), "{} is a directory: give a capture file in it", path.display());
            Box::new(file)
        };
        CaptureSource::from_reader(bytes).with_context(|| format!("{} cannot be read", path.display()))
    }

    /// Reads from any reader; compression is detected from the first bytes.
    pub(super) fn from_reader(bytes: Box<dyn Read + Send>) -> io::Result<CaptureSource> {
        let (bytes, compressed) = decompressed(bytes)?;
        let mut source =
            CaptureSource { reader: bytes, read_error: ReadErrorSlot::default(), compressed, head: Vec::new() };
        source.head = source.read_header();
        Ok(source)
    }

    /// The file's header, which the parser needs complete at once. A pipe may deliver it in pieces.
    fn read_header(&mut self) -> Vec<u8> {
        let mut head = Vec::new();
        while let Some(missing) =
            FileFormat::header_len(&head).min(MAX_HEADER).checked_sub(head.len()).filter(|n| *n > 0)
        {
            let mut piece = vec![0; missing];
            match self.read(&mut piece) {
                Ok(length) if length > 0 => head.extend_from_slice(piece.get(..length).unwrap_or_default()),
                _ => break,
            }
        }
        head
    }

    /// The beginning of the file: its complete header, unless the file is truncated.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Replaces the first four bytes of the header that is about to be read.
    pub(super) fn set_magic(&mut self, magic: [u8; 4]) {
        self.head.iter_mut().zip(magic).for_each(|(byte, new)| *byte = new);
    }

    pub(super) fn read_error(&self) -> ReadErrorSlot {
        self.read_error.clone()
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.compressed
    }
}

/// The maximum length of a file header.
const MAX_HEADER: usize = 1 << 20;

impl Read for CaptureSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.head.is_empty() {
            let length = self.head.as_slice().read(buffer)?;
            self.head.drain(..length);
            return Ok(length);
        }
        loop {
            match self.reader.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => {
                    // The input ends here; the reader of frames asks for the error.
                    *self.read_error.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return Ok(0);
                }
                read => return read,
            }
        }
    }
}
