//! Handshakes that collide, and openings that nobody answers, beside the kernel: both ends of SCTP and of TCP open at once, with other tags and numbers; the table must go on alike.
use crate::rule_counters::{Additions, Arrival, address, compare_rule_counters, in_own_thread};
use crate::traffic::{ACK, Message, SYN, TrafficRng, ip_packet, tcp};
use std::fmt::Write;

const CLIENT: &str = "10.1.0.2";
const SERVER: &str = "198.51.100.9";

fn ruleset() -> String {
    let mut text = "table ip t {\nchain c {\ntype filter hook forward priority filter;\n".to_owned();
    for key in ["new", "established", "related", "invalid"] {
        writeln!(text, "ct state {key} counter").unwrap();
    }
    for key in ["seen-reply", "assured", "confirmed"] {
        writeln!(text, "ct status {key} counter").unwrap();
    }
    // None is near to a timeout: Linux compares milliseconds.
    for seconds in [5, 20, 45, 90, 150, 1000] {
        writeln!(text, "ct expiration > {seconds}s counter").unwrap();
    }
    text + "}\n}\n"
}

/// An SCTP packet of one chunk: its type, its verification tag, and for INIT and INIT-ACK the tag that its sender wants.
fn sctp(from: u16, to: u16, tag: u32, chunk: (u8, u8), init_tag: u32) -> Message {
    let mut bytes = Vec::new();
    bytes.extend(from.to_be_bytes());
    bytes.extend(to.to_be_bytes());
    bytes.extend(tag.to_be_bytes());
    bytes.extend([0; 4]);
    let body: Vec<u8> = match chunk.0 {
        // INIT, INIT-ACK: the tag, a window, streams, the first number.
        1 | 2 => [&init_tag.to_be_bytes()[..], &[0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]].concat(),
        // COOKIE-ECHO, HEARTBEAT and its answer, DATA: some bytes.
        0 => vec![0; 16],
        4 | 5 | 10 => vec![0; 4],
        _ => Vec::new(),
    };
    bytes.extend([chunk.0, chunk.1]);
    bytes.extend((4 + body.len() as u16).to_be_bytes());
    bytes.extend(body);
    let sum = crc32c(&bytes);
    bytes[8..12].copy_from_slice(&sum.to_le_bytes());
    Message { protocol: 132, bytes, check_at: None }
}

/// CRC32c, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

fn arrival(what: &str, device: usize, message: &Message) -> Arrival {
    let (from, to) = if device == 0 { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
    Arrival { what: what.to_owned(), device, packet: ip_packet(false, address(from), address(to), 64, message) }
}

const INIT: (u8, u8) = (1, 0);
const INIT_ACK: (u8, u8) = (2, 0);
const COOKIE_ECHO: (u8, u8) = (10, 0);
const COOKIE_ACK: (u8, u8) = (11, 0);
const HEARTBEAT: (u8, u8) = (4, 0);
const HEARTBEAT_ACK: (u8, u8) = (5, 0);
const DATA: (u8, u8) = (0, 3);

/// Both ends send INIT; one association comes of it. Either end's cookie is echoed first.
#[test]
fn sctp_init_collision_is_tracked_as_in_linux() {
    let (ours, theirs) = (0x1111_1111, 0x2222_2222);
    let out = |tag, chunk, init| sctp(4000, 5000, tag, chunk, init);
    let back = |tag, chunk, init| sctp(5000, 4000, tag, chunk, init);
    in_own_thread(move || {
        let arrivals = [
            arrival("INIT", 0, &out(0, INIT, ours)),
            arrival("INIT of the other end", 1, &back(0, INIT, theirs)),
            arrival("INIT-ACK", 1, &back(ours, INIT_ACK, theirs)),
            arrival("INIT-ACK to the other end", 0, &out(theirs, INIT_ACK, ours)),
            arrival("COOKIE-ECHO", 0, &out(theirs, COOKIE_ECHO, 0)),
            arrival("COOKIE-ECHO of the other end", 1, &back(ours, COOKIE_ECHO, 0)),
            arrival("COOKIE-ACK", 1, &back(ours, COOKIE_ACK, 0)),
            arrival("COOKIE-ACK to the other end", 0, &out(theirs, COOKIE_ACK, 0)),
            arrival("DATA", 0, &out(theirs, DATA, 0)),
            arrival("DATA back", 1, &back(ours, DATA, 0)),
            arrival("DATA with a wrong tag", 1, &back(77, DATA, 0)),
            arrival("HEARTBEAT", 0, &out(theirs, HEARTBEAT, 0)),
            arrival("answer to the HEARTBEAT", 1, &back(ours, HEARTBEAT_ACK, 0)),
        ];
        compare_rule_counters(&ruleset(), &Additions::default(), &arrivals)
    });
}

/// Random chunks of both ends, with right, old and wrong tags.
#[test]
fn sctp_chunks_in_any_order_are_tracked_as_in_linux() {
    for seed in 1..=6 {
        in_own_thread(move || {
            let mut dice = TrafficRng::new(seed);
            let tags = [0, 0x1111_1111, 0x2222_2222, 0x3333_3333];
            let arrivals: Vec<Arrival> = (0..80)
                .map(|number| {
                    let device = dice.below(2);
                    let (from, to) = if device == 0 { (4000, 5000) } else { (5000, 4000) };
                    let chunk = dice.pick(&[
                        INIT,
                        INIT,
                        INIT_ACK,
                        COOKIE_ECHO,
                        COOKIE_ACK,
                        HEARTBEAT,
                        HEARTBEAT_ACK,
                        DATA,
                        (6, 0),
                        (7, 0),
                        (8, 0),
                        (14, 0),
                    ]);
                    let tag = if chunk == INIT { 0 } else { tags[1 + dice.below(3)] };
                    let wanted = tags[1 + dice.below(2)];
                    arrival(
                        &format!("{number}: chunk {} tag {tag:x}", chunk.0),
                        device,
                        &sctp(from, to, tag, chunk, wanted),
                    )
                })
                .collect();
            compare_rule_counters(&ruleset(), &Additions::default(), &arrivals)
        });
    }
}

/// Both ends open a TCP connection at once; and SYNs that nobody answers, of the same and of another beginning, do not keep it.
#[test]
fn tcp_openings_that_collide_or_are_not_answered_are_tracked_as_in_linux() {
    in_own_thread(|| {
        let arrivals = [
            arrival("SYN", 0, &tcp(4000, 5000, 100, 0, SYN, 0)),
            arrival("SYN of the other end", 1, &tcp(5000, 4000, 900, 0, SYN, 0)),
            arrival("SYN-ACK", 0, &tcp(4000, 5000, 100, 901, SYN | ACK, 0)),
            arrival("SYN-ACK of the other end", 1, &tcp(5000, 4000, 900, 101, SYN | ACK, 0)),
            arrival("ACK", 0, &tcp(4000, 5000, 101, 901, ACK, 3)),
            arrival("ACK of the other end", 1, &tcp(5000, 4000, 901, 104, ACK, 3)),
            arrival("lonely SYN", 0, &tcp(4001, 5000, 100, 0, SYN, 0)),
            arrival("lonely SYN again", 0, &tcp(4001, 5000, 100, 0, SYN, 0)),
            arrival("lonely SYN, another beginning", 0, &tcp(4001, 5000, 5000, 0, SYN, 0)),
            arrival("ACK to the lonely one", 1, &tcp(5000, 4001, 7, 5001, ACK, 0)),
            arrival("reset of the lonely one", 1, &tcp(5000, 4001, 7, 5001, 0x14, 0)),
            arrival("lonely SYN once more", 0, &tcp(4001, 5000, 9000, 0, SYN, 0)),
        ];
        compare_rule_counters(&ruleset(), &Additions::default(), &arrivals)
    });
}
