//! The header of the reassembled packet, from the headers of its fragments.
//!
//! It is the header of the fragment at offset zero, with the new length and without the fragment fields. The ECN codepoints of
//! all fragments are merged (RFC 3168, section 5.3).
use super::fragment::{FragmentInfo, FragmentView};
use crate::checksum;
use crate::ipv6_ext;
use crate::{Family, ParseError};
use alloc::vec::Vec;

/// What is kept of the fragments' headers.
#[derive(Debug, Default)]
pub(super) struct HeaderBuilder {
    /// The header of the fragment at offset zero, without the fragment header.
    header: Vec<u8>,
    /// One bit for each ECN codepoint seen.
    ecn_seen: u8,
    /// Length of the longest fragment, with its headers, and of the longest with "don't fragment" set (IPv4).
    max_size: usize,
    max_df_size: usize,
}

impl HeaderBuilder {
    /// Takes note of an accepted fragment. Returns how many bytes of memory that takes.
    pub fn add_fragment(&mut self, fragment: &FragmentView<'_, '_>, data_len: usize) -> usize {
        let bytes = fragment.packet.bytes();
        let Some(&[first, second, _, _, _, _, flags, _]) = bytes.first_chunk::<8>() else { return 0 };
        let len = fragment.packet.transport_at() + data_len;
        self.max_size = self.max_size.max(len);
        match fragment.packet.family() {
            Family::V4 => {
                self.ecn_seen |= 1 << (second & 3);
                if flags & 0x40 != 0 {
                    self.max_df_size = self.max_df_size.max(len);
                }
                if fragment.offset == 0 {
                    self.header = bytes.get(..usize::from(first & 15) * 4).unwrap_or(&[]).to_vec();
                }
            }
            Family::V6 => {
                self.ecn_seen |= 1 << ((second >> 4) & 3);
                if fragment.offset == 0 {
                    self.header = unfragmentable(fragment);
                }
            }
        }
        if fragment.offset == 0 { self.header.capacity() } else { 0 }
    }
}

/// The headers before the fragment header; the last of them names the header that the fragments begin with.
fn unfragmentable(fragment: &FragmentView<'_, '_>) -> Vec<u8> {
    let bytes = fragment.packet.bytes();
    let at = fragment.packet.fragment_header_at().unwrap_or(0);
    let mut header = bytes.get(..at).unwrap_or(&[]).to_vec();
    if let Some(next) = ipv6_ext::find_next_header_field(bytes, at).and_then(|field| header.get_mut(field)) {
        *next = fragment.packet.protocol();
    }
    header
}

/// Writes the packet to `out`: the header, then `runs`, which have `len` bytes in total.
pub(super) fn build_packet<'r>(
    family: Family,
    builder: &HeaderBuilder,
    runs: impl Iterator<Item = &'r [u8]>,
    len: usize,
    out: &mut Vec<u8>,
) -> Result<FragmentInfo, ParseError> {
    let ecn = merge_ecn(builder.ecn_seen).ok_or(ParseError::FragmentEcn)?;
    let length_field = match family {
        Family::V4 => builder.header.len() + len,
        Family::V6 => (builder.header.len() + len).saturating_sub(V6_HEADER_LEN),
    };
    let length = u16::try_from(length_field).map_err(|_| ParseError::FragmentTooBig)?;
    out.clear();
    out.reserve(builder.header.len() + len);
    out.extend_from_slice(&builder.header);
    match family {
        Family::V4 => finish_v4_header(out, length, ecn, builder.max_df_size == builder.max_size),
        Family::V6 => finish_v6_header(out, length, ecn),
    }
    for run in runs {
        out.extend_from_slice(run);
    }
    Ok(FragmentInfo { max_size: builder.max_size, header_len: builder.header.len() })
}

fn finish_v4_header(header: &mut [u8], length: u16, ecn: u8, dont_fragment: bool) {
    if let Some([_, tos, a, b, _, _, flags, offset, _, _, check_a, check_b]) = header.first_chunk_mut::<12>() {
        *tos |= ecn;
        [*a, *b] = length.to_be_bytes();
        [*flags, *offset] = [if dont_fragment { 0x40 } else { 0 }, 0];
        [*check_a, *check_b] = [0, 0];
    }
    let check = checksum::internet(header);
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&check.to_be_bytes());
    }
}

fn finish_v6_header(header: &mut [u8], length: u16, ecn: u8) {
    if let Some([_, class, _, _, a, b]) = header.first_chunk_mut::<6>() {
        *class |= ecn << 4;
        [*a, *b] = length.to_be_bytes();
    }
}

/// The codepoint to add to the first fragment's, given the set of codepoints seen; `None` if fragments that are not ECN-capable
/// are mixed with others.
fn merge_ecn(codepoints: u8) -> Option<u8> {
    const NOT_ECT: u8 = 1;
    const CE: u8 = 1 << 3;
    match codepoints {
        NOT_ECT => Some(0),
        mixed if mixed & NOT_ECT != 0 => None,
        marked if marked & CE != 0 => Some(3),
        _ => Some(0),
    }
}

const V6_HEADER_LEN: usize = 40;
