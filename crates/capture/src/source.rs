//! Where a capture's octets come from: a file or standard input, decompressed on the way.
use super::framing::FileFormat;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{self, BufReader, Cursor, IsTerminal, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Octets of a capture. It remembers the error that reading ended with, which the parser does not pass on.
pub(super) struct CaptureSource {
    reader: Box<dyn Read + Send>,
    read_error: ReadErrorSlot,
    compressed: bool,
    /// The file's header, or as much of it as there is, until it is read.
    head: Vec<u8>,
}

/// The error that reading ended with.
#[derive(Clone, Default)]
pub(super) struct ReadErrorSlot(Arc<Mutex<Option<io::Error>>>);

impl ReadErrorSlot {
    pub(super) fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

impl CaptureSource {
    /// Opens `path`, `-` for standard input.
    pub(super) fn open(path: &Path) -> Result<CaptureSource> {
        let octets: Box<dyn Read + Send> = if path.as_os_str() == "-" {
            anyhow::ensure!(
                !io::stdin().is_terminal(),
                "standard input is a terminal: pipe a capture into it, as with tcpdump -U -w - | keepstate replay -"
            );
            Box::new(io::stdin())
        } else {
            let file = File::open(path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => anyhow::anyhow!("{}: there is no such file", path.display()),
                _ => anyhow::Error::new(error).context(format!("{} cannot be opened", path.display())),
            })?;
            anyhow::ensure!(!file.metadata()?.is_dir(), "{} is a folder: name a capture in it", path.display());
            Box::new(file)
        };
        CaptureSource::from_reader(octets).with_context(|| format!("{} cannot be read", path.display()))
    }

    /// Octets from anywhere; what compresses them, the first ones say.
    pub(super) fn from_reader(mut octets: Box<dyn Read + Send>) -> io::Result<CaptureSource> {
        let mut first = Vec::new();
        octets.by_ref().take(4).read_to_end(&mut first)?;
        let (gzip, zstd) = (first.starts_with(&GZIP), first.starts_with(&ZSTD));
        let whole = BufReader::with_capacity(1 << 18, Cursor::new(first).chain(octets));
        let octets: Box<dyn Read + Send> = if gzip {
            Box::new(flate2::bufread::MultiGzDecoder::new(whole))
        } else if zstd {
            Box::new(zstd::Decoder::with_buffer(whole)?)
        } else {
            Box::new(whole)
        };
        let mut source = CaptureSource {
            reader: octets,
            read_error: ReadErrorSlot::default(),
            compressed: gzip || zstd,
            head: Vec::new(),
        };
        source.head = source.read_header();
        Ok(source)
    }

    /// The file's header, which the parser wants to see whole at its first look. A pipe may hand it over in pieces.
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

    /// What the file begins with: all of its header, if it has one and is not cut short.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    pub(super) fn read_error(&self) -> ReadErrorSlot {
        self.read_error.clone()
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.compressed
    }
}

/// No header of a file is longer.
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
                    // The input ends here; the failure is asked for where it matters.
                    *self.read_error.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return Ok(0);
                }
                read => return read,
            }
        }
    }
}
