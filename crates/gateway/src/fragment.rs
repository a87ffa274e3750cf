//! IPv4 datagrams cut to what a device takes (RFC 791, 3.2).
use keepstate_wire::checksum::internet;

/// In the flags of the header: more fragments follow.
const MORE: u16 = 0x2000;
/// The part of that word which is the offset, in eights.
const OFFSET: u16 = 0x1fff;

/// The pieces of `datagram`, none longer than `mtu`, in their order; itself, if it fits or cannot be cut.
pub(crate) fn cut(datagram: Vec<u8>, mtu: usize) -> Vec<Vec<u8>> {
    let header = datagram.first().map_or(0, |first| usize::from(first & 15) * 4);
    let room = mtu.saturating_sub(header) / 8 * 8;
    let (Some(head), Some(body)) = (datagram.get(..header), datagram.get(header..)) else { return vec![datagram] };
    if datagram.len() <= mtu || header < 20 || room == 0 {
        return vec![datagram];
    }
    let word = u16::from_be_bytes([head[6], head[7]]);
    let mut pieces = Vec::with_capacity(body.len() / room + 1);
    for (at, piece) in body.chunks(room).enumerate() {
        let mut head = head.to_vec();
        if at > 0 {
            forget_options(&mut head);
        }
        let last = (at + 1) * room >= body.len();
        // A datagram has at most 65,535 octets: the offset in eights fits.
        let offset = (word & OFFSET) + (at * room / 8) as u16;
        let more = if last { word & MORE } else { MORE };
        head[2..4].copy_from_slice(&((header + piece.len()) as u16).to_be_bytes());
        head[6..8].copy_from_slice(&(offset | more).to_be_bytes());
        head[10..12].fill(0);
        let sum = internet(&head);
        head[10..12].copy_from_slice(&sum.to_be_bytes());
        head.extend(piece);
        pieces.push(head);
    }
    pieces
}

/// Options that are not to be copied into later pieces become nothing of the same length.
fn forget_options(head: &mut [u8]) {
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

    #[test]
    fn the_pieces_make_the_whole_and_none_is_too_long() {
        let mut whole = vec![0x46, 0, 0, 0, 0, 9, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 7, 3, 4, 1];
        whole.extend((0..3001_u32).map(|at| at as u8));
        let length = whole.len() as u16;
        whole[2..4].copy_from_slice(&length.to_be_bytes());
        for mtu in [68, 576, 1500, 3024, 3025, 9000] {
            let pieces = cut(whole.clone(), mtu);
            assert_eq!(pieces.len() == 1, mtu >= whole.len());
            let mut body: Vec<u8> = Vec::new();
            for (at, piece) in pieces.iter().enumerate() {
                assert!(piece.len() <= mtu.max(24));
                let word = u16::from_be_bytes([piece[6], piece[7]]);
                assert_eq!(usize::from(word & OFFSET) * 8, body.len());
                assert_eq!(word & MORE != 0, at + 1 < pieces.len());
                // Record route is not copied.
                assert_eq!(piece[20..24], if at == 0 { [7, 3, 4, 1] } else { [1, 1, 1, 1] });
                assert!(pieces.len() == 1 || Packet::parse(piece).is_ok());
                body.extend(&piece[24..]);
            }
            assert!(body == whole[24..], "mtu {mtu}");
        }
    }
}
