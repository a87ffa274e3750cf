//! Random packets for log lines: the outer IP header is correct, whatever follows need not be.
use crate::rule_counters::address;
use crate::traffic::{Message, TrafficRng, insert_ipv4_options, ip_packet};

fn random_bytes(dice: &mut TrafficRng, length: usize) -> Vec<u8> {
    (0..length).map(|_| dice.below(256) as u8).collect()
}

/// A packet from lan0 to somewhere behind wan0.
pub fn packet(dice: &mut TrafficRng) -> Vec<u8> {
    if dice.below(2) == 0 { v4(dice) } else { v6(dice) }
}

fn v4(dice: &mut TrafficRng) -> Vec<u8> {
    const OPTIONS: [&[u8]; 6] =
        [&[], &[], &[], &[148, 4, 0, 0], &[1, 1, 1, 0], &[148, 4, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0]];
    let protocol = dice.pick(&[1, 1, 1, 1, 6, 6, 6, 17, 17, 136, 50, 51, 2, 47, 132, 255, 0, 58]);
    let bytes = transport(false, protocol, dice, true);
    let (from, to) = (address("10.1.0.2"), address("198.51.100.9"));
    let mut packet = ip_packet(false, from, to, 2 + dice.below(254) as u8, &plain(protocol, bytes));
    packet[1] = dice.below(256) as u8;
    packet[4..6].copy_from_slice(&random_bytes(dice, 2));
    packet[6] = dice.pick(&[0, 0x40, 0x80, 0xc0]);
    let options = dice.pick(&OPTIONS);
    insert_ipv4_options(&mut packet, options);
    packet
}

fn v6(dice: &mut TrafficRng) -> Vec<u8> {
    // Not AH: a malformed header of it is one that the router refuses.
    let protocol = dice.pick(&[58, 58, 58, 58, 6, 6, 17, 136, 50, 2, 47, 132, 255, 59, 1]);
    let mut bytes = transport(true, protocol, dice, true);
    let first = extension_headers(protocol, &mut bytes, false, dice);
    let (from, to) = (address("fd00:1::2"), address("2001:db8:f::9"));
    let mut packet = ip_packet(true, from, to, 2 + dice.below(254) as u8, &plain(first, bytes));
    packet[0] |= dice.below(16) as u8;
    packet[1..4].copy_from_slice(&random_bytes(dice, 3));
    packet
}

fn plain(protocol: u8, bytes: Vec<u8>) -> Message {
    Message { protocol, bytes, check_at: None }
}

/// Puts extension headers before `bytes`; returns the type of the first.
fn extension_headers(protocol: u8, bytes: &mut Vec<u8>, inner: bool, dice: &mut TrafficRng) -> u8 {
    let mut next = protocol;
    // A hundred and fifty of them make a line that is too long.
    let many = !inner && dice.below(30) == 0;
    let count = if many { 150 } else { dice.pick(&[0, 0, 0, 1, 2, 3]) };
    for _ in 0..count {
        let kind = if many {
            60
        } else if inner {
            dice.pick(&[0, 43, 44, 44, 51, 50, 60])
        } else {
            dice.pick(&[51, 60, 60])
        };
        let header = match kind {
            44 => {
                let word = dice.pick(&[0, 1, 8, 9, 0x1230, 0xfff9_u16]).to_be_bytes();
                [vec![next, 0, word[0], word[1]], random_bytes(dice, 4)].concat()
            }
            // Two words less are in its length.
            51 => [vec![next, 4, 0, 0], random_bytes(dice, 20)].concat(),
            _ => vec![next, 0, 1, 4, 0, 0, 0, 0],
        };
        bytes.splice(0..0, header);
        next = kind;
    }
    next
}

/// A transport header and something behind it; now and then not all of it.
fn transport(v6: bool, protocol: u8, dice: &mut TrafficRng, outer: bool) -> Vec<u8> {
    let length = dice.pick(&[20, 24, 40, 60]);
    let mut bytes = random_bytes(dice, length);
    match protocol {
        6 => bytes[12] = (dice.pick(&[5, 5, 6, 8, 10, 15, 0]) << 4) | dice.below(16) as u8,
        1 if !v6 => {
            bytes[0] = dice.pick(&[0, 3, 3, 3, 4, 5, 5, 8, 9, 11, 11, 12, 13, 14, 17, 18, 19, 200]);
            bytes[1] = dice.below(6) as u8;
            if outer && matches!(bytes[0], 3 | 4 | 5 | 11 | 12) && dice.below(6) > 0 {
                bytes.truncate(8);
                bytes.extend(inner_v4(dice));
            }
        }
        58 if v6 => {
            bytes[0] = dice.pick(&[0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 127, 128, 129, 130, 131, 132, 143, 160, 200]);
            bytes[1] = dice.below(6) as u8;
            if outer && bytes[0] < 6 && dice.below(6) > 0 {
                bytes.truncate(8);
                bytes.extend(inner_v6(dice));
            }
        }
        _ => (),
    }
    if dice.below(5) == 0 {
        let length = dice.below(bytes.len() + 1);
        bytes.truncate(length);
    }
    bytes
}

fn inner_v4(dice: &mut TrafficRng) -> Vec<u8> {
    let mut header = random_bytes(dice, 20);
    header[0] = dice.pick(&[0x45, 0x45, 0x45, 0x46, 0x48, 0x4f, 0x41, 0x00]);
    header[6..8].copy_from_slice(&dice.pick(&[0, 0, 0x4000, 0x2000, 0x2010, 0x1fff, 0xe001_u16]).to_be_bytes());
    header[9] = dice.pick(&[1, 1, 6, 6, 17, 136, 50, 51, 2, 47, 255]);
    let options = usize::from(header[0] & 15).saturating_sub(5) * 4;
    header.extend(random_bytes(dice, options));
    let protocol = header[9];
    header.extend(transport(false, protocol, dice, false));
    cut(header, dice)
}

fn inner_v6(dice: &mut TrafficRng) -> Vec<u8> {
    let mut header = random_bytes(dice, 40);
    header[0] = 0x60 | header[0] & 15;
    let protocol = dice.pick(&[58, 58, 6, 6, 17, 136, 50, 51, 2, 59, 255]);
    let mut bytes = transport(true, protocol, dice, false);
    header[6] = extension_headers(protocol, &mut bytes, true, dice);
    header.extend(bytes);
    header.truncate(1300);
    cut(header, dice)
}

fn cut(mut bytes: Vec<u8>, dice: &mut TrafficRng) -> Vec<u8> {
    if dice.below(4) == 0 {
        let length = dice.below(bytes.len() + 1);
        bytes.truncate(length);
    }
    bytes
}
