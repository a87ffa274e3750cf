//! The header of a whole datagram, from those of its pieces.
//!
//! It is the header of the piece at offset zero, with the length of the whole and without the marks of a fragment. The
//! congestion marks of all pieces are joined (RFC 3168, section 5.3).
use super::FragmentInfo;
use super::queue::FragmentView;
use crate::checksum;
use crate::ipv6_ext;
use crate::{Family, ParseError};
use alloc::vec::Vec;

/// What is remembered of the pieces' headers.
#[derive(Debug, Default)]
pub(super) struct HeaderBuilder {
    /// The header of the piece at offset zero, without the fragment header.
    header: Vec<u8>,
    /// One bit for each congestion codepoint seen.
    ecn_seen: u8,
    /// Length of the longest piece, with its headers, and of the longest that forbids fragmenting (IPv4).
    max_size: usize,
    max_df_size: usize,
}

impl HeaderBuilder {
    /// Notes a piece that was taken, and says how much memory that costs.
    pub fn add_fragment(&mut self, piece: &FragmentView<'_, '_>, data_len: usize) -> usize {
        let bytes = piece.packet.bytes();
        let Some(&[first, second, _, _, _, _, flags, _]) = bytes.first_chunk::<8>() else { return 0 };
        let len = piece.packet.transport_at() + data_len;
        self.max_size = self.max_size.max(len);
        match piece.packet.family() {
            Family::V4 => {
                self.ecn_seen |= 1 << (second & 3);
                if flags & 0x40 != 0 {
                    self.max_df_size = self.max_df_size.max(len);
                }
                if piece.offset == 0 {
                    self.header = bytes.get(..usize::from(first & 15) * 4).unwrap_or(&[]).to_vec();
                }
            }
            Family::V6 => {
                self.ecn_seen |= 1 << ((second >> 4) & 3);
                if piece.offset == 0 {
                    self.header = unfragmentable(piece);
                }
            }
        }
        if piece.offset == 0 { self.header.capacity() } else { 0 }
    }
}

/// The headers before the fragment header, the last of them made to announce what the fragments hold.
fn unfragmentable(piece: &FragmentView<'_, '_>) -> Vec<u8> {
    let bytes = piece.packet.bytes();
    let at = piece.packet.fragment_header_at().unwrap_or(0);
    let mut header = bytes.get(..at).unwrap_or(&[]).to_vec();
    if let Some(link) = ipv6_ext::find_next_header_field(bytes, at).and_then(|link| header.get_mut(link)) {
        *link = piece.packet.protocol();
    }
    header
}

/// Writes the datagram made of `runs`, of `len` octets together, to `out`.
pub(super) fn build_packet<'r>(
    family: Family,
    sketch: &HeaderBuilder,
    runs: impl Iterator<Item = &'r [u8]>,
    len: usize,
    out: &mut Vec<u8>,
) -> Result<FragmentInfo, ParseError> {
    let congestion = merge_ecn(sketch.ecn_seen).ok_or(ParseError::FragmentEcn)?;
    let counted = match family {
        Family::V4 => sketch.header.len() + len,
        Family::V6 => (sketch.header.len() + len).saturating_sub(V6_HEADER_LEN),
    };
    let length = u16::try_from(counted).map_err(|_| ParseError::FragmentTooBig)?;
    out.clear();
    out.reserve(sketch.header.len() + len);
    out.extend_from_slice(&sketch.header);
    match family {
        Family::V4 => finish_v4_header(out, length, congestion, sketch.max_df_size == sketch.max_size),
        Family::V6 => finish_v6_header(out, length, congestion),
    }
    for run in runs {
        out.extend_from_slice(run);
    }
    Ok(FragmentInfo { max_size: sketch.max_size, header_len: sketch.header.len() })
}

fn finish_v4_header(header: &mut [u8], length: u16, congestion: u8, dont_fragment: bool) {
    if let Some([_, tos, a, b, _, _, flags, offset, _, _, check_a, check_b]) = header.first_chunk_mut::<12>() {
        *tos |= congestion;
        [*a, *b] = length.to_be_bytes();
        [*flags, *offset] = [if dont_fragment { 0x40 } else { 0 }, 0];
        [*check_a, *check_b] = [0, 0];
    }
    let check = checksum::internet(header);
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&check.to_be_bytes());
    }
}

fn finish_v6_header(header: &mut [u8], length: u16, congestion: u8) {
    if let Some([_, class, _, _, a, b]) = header.first_chunk_mut::<6>() {
        *class |= congestion << 4;
        [*a, *b] = length.to_be_bytes();
    }
}

/// The codepoint to add to the first piece's, given the set of those seen; none when a piece that knows nothing of
/// congestion marks came together with one that does.
fn merge_ecn(codepoints: u8) -> Option<u8> {
    const UNAWARE: u8 = 1;
    const EXPERIENCED: u8 = 1 << 3;
    match codepoints {
        UNAWARE => Some(0),
        mixed if mixed & UNAWARE != 0 => None,
        marked if marked & EXPERIENCED != 0 => Some(3),
        _ => Some(0),
    }
}

const V6_HEADER_LEN: usize = 40;
