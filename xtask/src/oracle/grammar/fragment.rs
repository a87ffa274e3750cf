//! Fragmented packets: in order or not, with a fragment missing, duplicated, overlapping, or with a wrong end.
use crate::oracle::kernel::Toward;
use crate::oracle::packet_builder;
use crate::oracle::rng::OracleRng;
use crate::oracle::step::{FlowHash, OracleStep};

/// Fragments `whole`, and appends the fragments.
pub fn push_fragments(toward: Toward, whole: &[u8], ident: u32, random: &mut OracleRng, into: &mut Vec<OracleStep>) {
    let header = if whole[0] >> 4 == 6 { 40 } else { 20 };
    let most = (whole.len() - header - 1) / 8;
    let mut cuts: Vec<usize> = (0..random.pick(&[1, 1, 2])).map(|_| 8 * (1 + random.below(most))).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut pieces = packet_builder::fragment_packet(whole, &cuts, ident);
    if random.percent(40) {
        let (one, other) = (random.below(pieces.len()), random.below(pieces.len()));
        pieces.swap(one, other);
    }
    if random.percent(12) {
        let chosen = pieces[random.below(pieces.len())].clone();
        pieces.insert(random.below(pieces.len() + 1), chosen);
    }
    if random.percent(8) {
        pieces.remove(random.below(pieces.len()));
    }
    if random.percent(8) && !pieces.is_empty() {
        let at = random.below(pieces.len());
        let odd = corrupt_fragment(pieces[at].clone(), random);
        pieces.insert(random.below(pieces.len() + 1), odd);
    }
    let flow = FlowHash::from_packet(whole);
    into.extend(pieces.into_iter().map(|bytes| OracleStep { not_before: 0, toward, bytes, flow }));
}

/// Changes the length, the offset, or the more-fragments flag.
fn corrupt_fragment(mut piece: Vec<u8>, random: &mut OracleRng) -> Vec<u8> {
    let v4 = piece[0] >> 4 == 4;
    let field = if v4 { 6 } else { 42 };
    match random.below(4) {
        0 => piece[field + usize::from(!v4)] ^= if v4 { 0x20 } else { 1 },
        1 => piece[field + 1] ^= if v4 { 1 } else { 8 },
        2 => piece.extend(vec![b'b'; random.pick(&[1, 8, 16])]),
        _ => {
            let least = if v4 { 20 } else { 48 };
            piece.truncate(piece.len() - random.below(piece.len() - least).min(16));
        }
    }
    let length = piece.len() - if v4 { 0 } else { 40 };
    let at = if v4 { 2 } else { 4 };
    piece[at..at + 2].copy_from_slice(&(length as u16).to_be_bytes());
    packet_builder::update_header_checksum(&mut piece);
    piece
}
