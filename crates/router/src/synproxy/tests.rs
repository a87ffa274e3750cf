use super::*;
use keepstate_engine::Instant;
use keepstate_rules::ast::SynproxyInfo;
use keepstate_wire::Packet;
use keepstate_wire::tcp::{TcpFlags, TcpSegment};
use std::net::IpAddr;

const RULE: SynproxyInfo = SynproxyInfo { mss: Some(1460), wscale: Some(7), timestamp: true, sack: true };

/// A segment from port 4000 of one host to port 80 of another.
fn segment(seq: u32, ack: u32, flags: u8, options: &SynproxyOptions) -> Vec<u8> {
    let (from, to) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    let sending =
        OutgoingSegment { from: (from, 4000), to: (to, 80), seq, ack, flags, window: 1000, options: *options };
    crate::icmp_error::build_tcp_segment(from, to, sending.to_bytes()).unwrap()
}

fn parsed<T>(bytes: &[u8], what: impl FnOnce(&Packet<'_>, &TcpSegment<'_>) -> T) -> T {
    let packet = Packet::parse(bytes).unwrap();
    let segment = TcpSegment::parse(packet.transport(), packet.transport_len()).unwrap();
    what(&packet, &segment)
}

/// The SYN+ACK to the client, and the SYN to the server if the client acknowledges a cookie that is `more` off, `later` seconds later.
fn handshake(
    asked: &SynproxyOptions,
    rule: &SynproxyInfo,
    more: u32,
    later: u64,
) -> (OutgoingSegment, Option<OutgoingSegment>) {
    let mut cookies = SynCookies::new(keepstate_wire::keyed_hash::SipKey::new(1, 2));
    let now = Instant::from_secs(1_000_000);
    let promised = parsed(&segment(77, 0, TcpFlags::SYN, asked), |packet, syn| cookies.syn_ack(packet, syn, rule, now));
    let clocks = promised.options.timestamps.map(|(value, _)| (5, value));
    let options = SynproxyOptions { timestamps: clocks, ..SynproxyOptions::default() };
    let ack = segment(78, promised.seq.wrapping_add(1 + more), TcpFlags::ACK, &options);
    let then = Instant::from_secs(1_000_000 + later);
    let syn = parsed(&ack, |packet, ack| cookies.verify_ack(packet, ack, ack.seq.wrapping_sub(1), then));
    (promised, syn.map(|(syn, _)| syn))
}

#[test]
fn options_survive_the_cookie_round_trip() {
    for (mss, size) in [(None, 536), (Some(500), 536), (Some(1400), 1300), (Some(1460), 1460), (Some(9000), 1460)] {
        for (scale, sack) in [(None, false), (Some(0), true), (Some(14), false), (Some(7), true)] {
            let asked = SynproxyOptions { mss, wscale: scale, sack, timestamps: Some((99, 0)) };
            let (promised, syn) = handshake(&asked, &RULE, 0, 0);
            assert_eq!(promised.options.wscale, scale.map(|_| 7));
            assert_eq!((promised.options.sack, promised.options.mss), (sack, mss.map(|_| 1460)));
            let syn = syn.unwrap();
            assert_eq!((syn.options.mss, syn.options.wscale, syn.options.sack), (Some(size), scale, sack));
            assert_eq!((syn.seq, syn.flags, syn.window), (77, TcpFlags::SYN, 1000));
        }
    }
}

#[test]
fn without_timestamps_wscale_and_sack_are_not_offered() {
    let asked = SynproxyOptions { mss: Some(1460), wscale: Some(7), sack: true, timestamps: None };
    let (promised, syn) = handshake(&asked, &RULE, 0, 0);
    assert_eq!(promised.options, SynproxyOptions { mss: Some(1460), ..SynproxyOptions::default() });
    assert_eq!(syn.unwrap().options, SynproxyOptions { mss: Some(1460), ..SynproxyOptions::default() });
    let asked = SynproxyOptions { timestamps: Some((1, 0)), ..asked };
    let (promised, _) = handshake(&asked, &SynproxyInfo::default(), 0, 0);
    assert_eq!(promised.options, SynproxyOptions::default());
}

#[test]
fn forged_and_expired_cookies_are_refused() {
    let asked = SynproxyOptions { mss: Some(1460), ..SynproxyOptions::default() };
    for seconds in [0, 63, 64, 128] {
        assert!(handshake(&asked, &RULE, 0, seconds).1.is_some(), "{seconds} s");
    }
    assert!(handshake(&asked, &RULE, 0, 200).1.is_none());
    let believed = (1..20_000).filter(|more| handshake(&asked, &RULE, *more, 0).1.is_some()).count();
    assert_eq!(believed, 0);
}

#[test]
fn options_encode_and_parse_round_trip() {
    for number in 0..32_u8 {
        let options = SynproxyOptions {
            mss: (number & 1 != 0).then_some(1300),
            wscale: (number & 2 != 0).then_some(9),
            sack: number & 4 != 0,
            timestamps: (number & 8 != 0).then_some((7, 8)),
        };
        let bytes = segment(1, 2, TcpFlags::SYN, &options);
        assert_eq!(parsed(&bytes, |_, segment| SynproxyOptions::parse(segment)), options);
        assert!(Packet::parse(&bytes).unwrap().transport_checksum_ok());
    }
}
