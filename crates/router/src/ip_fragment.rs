//! Fragmentation of packets longer than the MTU (RFC 791, 3.2; RFC 8200, 4.5).
use keepstate_wire::checksum::internet;
use keepstate_wire::keyed_hash::SipKey;
use std::hash::BuildHasher;
use std::hash::Hasher;

/// IPv4 header flags: don't fragment, more fragments.
const IP_DF: u16 = 0x4000;
const IP_MF: u16 = 0x2000;
/// The fragment offset in the same word, in units of 8 bytes.
const IP_OFFSET: u16 = 0x1fff;
/// Length and protocol number of IPv6's fragment header.
const FRAGMENT_HEADER_LEN: usize = 8;
const NEXTHDR_FRAGMENT: u8 = 44;

/// The fragments of an IPv4 packet in order, none longer than `mtu`; the packet itself, if it fits or cannot be fragmented. DF is kept in each fragment.
pub(crate) fn fragment_v4(packet: Vec<u8>, mtu: usize) -> Vec<Vec<u8>> {
    let header = packet.first().map_or(0, |first| usize::from(first & 15) * 4);
    let (Some(head), Some(body)) = (packet.get(..header), packet.get(header..)) else { return vec![packet] };
    let room = mtu.saturating_sub(header);
    if packet.len() <= mtu || header < 20 || room < 8 {
        return vec![packet];
    }
    let word = u16::from_be_bytes([head[6], head[7]]);
    let pieces = split_payload(body, room).map(|(at, piece, last)| {
        let mut head = head.to_vec();
        if at > 0 {
            clear_uncopied_options(&mut head);
        }
        // A packet has at most 65,535 bytes: the offset in units of 8 fits.
        let offset = (word & IP_OFFSET) + (at / 8) as u16;
        let more = if last { word & IP_MF } else { IP_MF };
        head[2..4].copy_from_slice(&((header + piece.len()) as u16).to_be_bytes());
        head[6..8].copy_from_slice(&(word & IP_DF | offset | more).to_be_bytes());
        head[10..12].fill(0);
        let sum = internet(&head);
        head[10..12].copy_from_slice(&sum.to_be_bytes());
        head.extend(piece);
        head
    });
    pieces.collect()
}

/// The fragments of an IPv6 packet, none longer than `mtu`, with the identification `number`: each has a fragment header after the first `headers` bytes. The packet itself, if it cannot be fragmented.
pub(crate) fn fragment_v6(packet: Vec<u8>, headers: usize, mtu: usize, number: u32) -> Vec<Vec<u8>> {
    let room = mtu.saturating_sub(headers + FRAGMENT_HEADER_LEN);
    let (Some(head), Some(body)) = (packet.get(..headers), packet.get(headers..)) else { return vec![packet] };
    let Some(link) = next_header_offset(head).filter(|_| room >= 8) else { return vec![packet] };
    let pieces = split_payload(body, room).map(|(at, piece, last)| {
        let mut whole = Vec::with_capacity(headers + FRAGMENT_HEADER_LEN + piece.len());
        whole.extend(head);
        let next = std::mem::replace(&mut whole[link], NEXTHDR_FRAGMENT);
        // As above; the offset is the upper thirteen bits of its word.
        let word = at as u16 & !7 | u16::from(!last);
        whole.extend([next, 0]);
        whole.extend(word.to_be_bytes());
        whole.extend(number.to_be_bytes());
        whole.extend(piece);
        let length = (whole.len() - 40) as u16;
        whole[4..6].copy_from_slice(&length.to_be_bytes());
        whole
    });
    pieces.collect()
}

/// The offset of each fragment's payload, the payload, and whether it is the last. All but the last are a multiple of 8 bytes.
fn split_payload(body: &[u8], room: usize) -> impl Iterator<Item = (usize, &[u8], bool)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = body.get(at..).filter(|rest| !rest.is_empty())?;
        let last = rest.len() <= room;
        let piece = if last { rest } else { rest.get(..room / 8 * 8)? };
        at += piece.len();
        Some((at - piece.len(), piece, last))
    })
}

/// The offset of the next-header field of the last of these headers.
fn next_header_offset(head: &[u8]) -> Option<usize> {
    let (mut link, mut at) = (6, 40);
    while at < head.len() {
        link = at;
        at += (usize::from(*head.get(at + 1)?) + 1) * 8;
    }
    (at == head.len()).then_some(link)
}

/// Unpredictable identifications for fragmented packets (RFC 7739).
pub(crate) struct FragmentIds {
    key: SipKey,
    issued: u64,
}

impl FragmentIds {
    pub(crate) fn new(key: SipKey) -> FragmentIds {
        FragmentIds { key, issued: 0 }
    }

    pub(crate) fn next_id(&mut self) -> u32 {
        self.issued += 1;
        let mut hasher = self.key.build_hasher();
        hasher.write_u64(self.issued);
        hasher.finish() as u32
    }
}

/// Replaces options that are not copied into later fragments with NOPs.
fn clear_uncopied_options(head: &mut [u8]) {
    const COPIED: u8 = 0x80;
    let mut at = 20;
    while let Some(kind) = head.get(at).copied() {
        let length = match kind {
            0 => return,
            1 => 1,
            _ => head.get(at + 1).map_or(0, |length| usize::from(*length)),
        };
        let Some(option) = head.get_mut(at..at + length).filter(|_| length > 0) else { return };
        if kind & COPIED == 0 {
            option.fill(1);
        }
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepstate_wire::Packet;
    use keepstate_wire::reassembly::{FragmentInfo, Reassembler, Reassembly, ReassemblyLimits};

    /// The reassembled packet, and what is known of its fragments.
    fn reassemble(pieces: &[Vec<u8>]) -> (Vec<u8>, FragmentInfo) {
        let mut reassembler =
            Reassembler::new((1, 2), ReassemblyLimits { high_thresh: 1 << 20, ..ReassemblyLimits::default() });
        let mut whole = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            match reassembler.push(&Packet::parse(piece).unwrap(), 0, &mut whole).unwrap() {
                Reassembly::Complete(came) => {
                    assert_eq!(at + 1, pieces.len());
                    return (whole, came);
                }
                Reassembly::Incomplete => {}
            }
        }
        panic!("a fragment is missing");
    }

    #[test]
    fn fragments_reassemble_to_the_packet_and_fit_the_mtu() {
        let mut whole = vec![0x46, 0, 0, 0, 0, 9, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 7, 3, 4, 1];
        whole.extend((0..3001_u32).map(|at| at as u8));
        let length = whole.len() as u16;
        whole[2..4].copy_from_slice(&length.to_be_bytes());
        let sum = internet(&whole[..24]);
        whole[10..12].copy_from_slice(&sum.to_be_bytes());
        for mtu in [68, 576, 1500, 3024, 3025, 9000] {
            let pieces = fragment_v4(whole.clone(), mtu);
            assert_eq!(pieces.len() == 1, mtu >= whole.len());
            for (at, piece) in pieces.iter().enumerate() {
                assert!(piece.len() <= mtu.max(24));
                // Record route is not copied.
                assert_eq!(piece[20..24], if at == 0 { [7, 3, 4, 1] } else { [1, 1, 1, 1] });
            }
            if pieces.len() > 1 {
                let (joined, came) = reassemble(&pieces);
                assert!(joined == whole, "mtu {mtu}");
                let max_size = pieces.iter().map(Vec::len).max().unwrap();
                assert_eq!(came, FragmentInfo { max_size, header_len: 24 });
            }
        }
    }

    #[test]
    fn last_fragment_need_not_be_a_multiple_of_eight() {
        let mut whole = vec![0x45, 0, 0, 0, 0, 9, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        whole.resize(20 + 8 + 12, 7);
        let lengths = |mtu| fragment_v4(whole.clone(), mtu).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(32), [28, 32]);
        assert!(fragment_v4(whole.clone(), 32).iter().all(|piece| piece[6] & 0x40 != 0), "DF is kept");
    }

    #[test]
    fn ipv6_fragments_with_and_without_extension_headers() {
        for before in [0_u8, 1, 3] {
            let mut whole = vec![0x60, 0, 0, 0, 0, 0, if before > 0 { 0 } else { 17 }, 64];
            whole.extend([0xfd; 32]);
            // Hop-by-hop options, then a routing header, then destination options.
            for (next, _) in [(43, 0), (60, 1), (17, 2)].iter().skip(3 - usize::from(before)) {
                whole.extend([*next, 0, 1, 4, 0, 0, 0, 0]);
            }
            let first = [0, 43, 60].get(3 - usize::from(before)).copied();
            if let Some(first) = first {
                whole[6] = first;
            }
            let headers = whole.len();
            whole.extend([0, 7, 0, 9, 0x0b, 0xb8, 1, 1]);
            whole.extend((0..2992_u32).map(|at| at as u8));
            let length = (whole.len() - 40) as u16;
            whole[4..6].copy_from_slice(&length.to_be_bytes());
            for mtu in [1280, 1300, 1500] {
                let pieces = fragment_v6(whole.clone(), headers, mtu, 77);
                assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() <= mtu));
                let (joined, came) = reassemble(&pieces);
                assert!(joined == whole, "{before} headers, mtu {mtu}");
                assert_eq!(came.header_len, headers);
            }
        }
        assert_ne!(FragmentIds::new(SipKey::new(1, 2)).next_id(), FragmentIds::new(SipKey::new(1, 3)).next_id());
    }
}
