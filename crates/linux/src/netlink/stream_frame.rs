//! Netlink messages over a stream: frames of one or more messages, each preceded by its length.
//!
//! ```text
//! length 4, network byte order │ messages: `length` bytes, at most 1 MiB
//! ```
//! A running gateway speaks this. A length that is too large is an error before anything is allocated.
use std::io::{self, ErrorKind, Read, Write};

/// The longest frame.
pub const MAX_FRAME_LEN: usize = 1 << 20;

/// Reads one frame into `piece`, replacing its contents. False at the end of the stream.
///
/// # Errors
/// The stream's error; an end inside a frame; a frame that is too long.
pub fn read_frame(from: &mut impl Read, piece: &mut Vec<u8>) -> io::Result<bool> {
    piece.clear();
    let mut length = [0; 4];
    let first = loop {
        match from.read(&mut length) {
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            done => break done?,
        }
    };
    if first == 0 {
        return Ok(false);
    }
    from.read_exact(length.get_mut(first..).unwrap_or_default())?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_FRAME_LEN {
        let text = format!("a piece of {length} bytes: {MAX_FRAME_LEN} are allowed");
        return Err(io::Error::new(ErrorKind::InvalidData, text));
    }
    piece.resize(length, 0);
    from.read_exact(piece)?;
    Ok(true)
}

/// Writes one frame.
///
/// # Errors
/// The stream's error; a frame that is too long.
pub fn write_frame(to: &mut impl Write, piece: &[u8]) -> io::Result<()> {
    let length = u32::try_from(piece.len()).ok().filter(|_| piece.len() <= MAX_FRAME_LEN);
    let length = length.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "a piece that is too long"))?;
    // In one go: the reader need not wake up twice.
    let mut bytes = Vec::with_capacity(piece.len() + 4);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(piece);
    to.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    #[test]
    fn frames_round_trip_and_truncated_ones_are_rejected() {
        let mut stream = Vec::new();
        for piece in [&b"one"[..], b"", b"three"] {
            write_frame(&mut stream, piece).unwrap();
        }
        let mut piece = Vec::new();
        let mut from = &stream[..];
        for expected in [&b"one"[..], b"", b"three"] {
            assert!(read_frame(&mut from, &mut piece).unwrap());
            assert_eq!(piece, expected);
        }
        assert!(!read_frame(&mut from, &mut piece).unwrap());
        let last = stream.len() - 5;
        for cut in [1, 3, last + 2] {
            let mut from = &stream[..cut];
            let result =
                std::iter::repeat_with(|| read_frame(&mut from, &mut piece)).find(|read| !matches!(read, Ok(true)));
            assert_eq!(result.unwrap().unwrap_err().kind(), ErrorKind::UnexpectedEof, "{cut}");
        }
        let mut from = &[0xff, 0xff, 0xff, 0xff, 1][..];
        assert_eq!(read_frame(&mut from, &mut piece).unwrap_err().kind(), ErrorKind::InvalidData);
        assert!(write_frame(&mut Vec::new(), &vec![0; MAX_FRAME_LEN + 1]).is_err());
    }
}
