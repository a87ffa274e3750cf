//! Where a capture's octets come from: a file or standard input, decompressed on the way.
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Octets of a capture. It remembers the error that reading ended with, which the parser does not pass on.
pub(super) struct Source {
    octets: Box<dyn Read + Send>,
    failure: Failure,
    compressed: bool,
    begun: bool,
}

/// The error that reading ended with.
#[derive(Clone, Default)]
pub(super) struct Failure(Arc<Mutex<Option<io::Error>>>);

impl Failure {
    pub(super) fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

impl Source {
    /// Opens `path`, `-` for standard input.
    pub(super) fn open(path: &Path) -> Result<Source> {
        let octets: Box<dyn Read + Send> = if path.as_os_str() == "-" {
            Box::new(io::stdin())
        } else {
            let file = File::open(path).with_context(|| match path.exists() {
                false => format!("{}: there is no such file", path.display()),
                true => format!("{} cannot be opened", path.display()),
            })?;
            anyhow::ensure!(!file.metadata()?.is_dir(), "{} is a folder: name a capture in it", path.display());
            Box::new(file)
        };
        Source::read(octets).with_context(|| format!("{} cannot be read", path.display()))
    }

    /// Octets from anywhere; what compresses them, the first ones say.
    pub(super) fn read(mut octets: Box<dyn Read + Send>) -> io::Result<Source> {
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
        Ok(Source { octets, failure: Failure::default(), compressed: gzip || zstd, begun: false })
    }

    pub(super) fn failure(&self) -> Failure {
        self.failure.clone()
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.compressed
    }
}

/// The parser looks at what the first read gives to tell pcap from pcapng: less than this may be no whole header yet.
const HEADER: usize = 128;

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = if self.begun { 1 } else { HEADER.min(buffer.len()) };
        self.begun = true;
        let mut length = 0;
        while length < wanted {
            match self.octets.read(&mut buffer[length..]) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => {
                    // The input ends here; the failure is asked for where it matters.
                    *self.failure.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    break;
                }
            }
        }
        Ok(length)
    }
}
