//! FTP scenarios: the recorded result of Linux 6.18 for each segment of a control connection, one scenario per file in `scenarios/`.
//!
//! ```text
//! again
//! >  8  PORT\s10,1,0,2,7,208\r\n  expect 2000
//! │  │  │                         └ expectation for this port, or `pass`, or `drop`
//! │  │  the payload; \s is a space
//! │  bytes sent before in this direction
//! > from the client 10.1.0.2, < from the server 10.2.0.9; `again` starts another connection
//! ```
use super::*;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use proptest::prelude::*;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2));
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 2, 0, 9));

/// Replaces the escapes `\r`, `\n`, `\t`, `\s`, `\\` and `\x00` with the bytes they stand for.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next().unwrap() {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b's' => b' ',
                b'x' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(core::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            },
            other => other,
        });
    }
    bytes
}

fn segment(side: &str, sent: u32, payload: &[u8]) -> (Direction, IpAddr, u32, Vec<u8>) {
    let (direction, sender) = if side == ">" { (Direction::Original, CLIENT) } else { (Direction::Reply, SERVER) };
    // Sequence numbers wrap in the middle of a scenario.
    (direction, sender, sent.wrapping_sub(10), payload.to_vec())
}

fn run_line(ftp: &mut Ftp, line: &str) -> Result<(), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if words[0] == "again" {
        *ftp = Ftp::default();
        return Ok(());
    }
    let sent: i64 = words[1].parse().unwrap();
    let sent = u32::try_from(sent.rem_euclid(1 << 32)).unwrap();
    let (direction, sender, seq, payload) = segment(words[0], sent, &unescape(words[2]));
    let result = match ftp.parse_segment(&FtpSegment { direction, seq, sender, payload: &payload }) {
        FtpParseResult::NoMatch | FtpParseResult::ThirdParty(_) => "pass".to_string(),
        FtpParseResult::Partial => "drop".to_string(),
        FtpParseResult::Expect(announcement) => format!("expect {}", announcement.port),
    };
    if result == words[3..].join(" ") { Ok(()) } else { Err(format!("`{line}` got: {result}")) }
}

fn run_scenario(name: &str, text: &str) {
    let mut ftp = Ftp::default();
    let mut segments = 0;
    for (number, text) in text.lines().enumerate().filter(|(_, text)| !text.starts_with('#')) {
        run_line(&mut ftp, text).unwrap_or_else(|wrong| panic!("{name} line {}: {wrong}", number + 1));
        segments += 1;
    }
    assert!(segments > 1, "{name} has too few lines");
}

macro_rules! scenarios {
    ($($test:ident $file:literal,)*) => {
        $(#[test] fn $test() { run_scenario($file, include_str!(concat!("scenarios/", $file, ".ledger"))); })*
    };
}

scenarios! {
    port "port",
    eprt "eprt",
    pasv "pasv",
    epsv "epsv",
    sides "sides",
    lines_begin "lines",
    two_lines "two-lines",
    mutated "mutated",
}

fn expect_endpoint(direction: Direction, sender: IpAddr, payload: &[u8]) -> DataEndpoint {
    match find_pattern(&FtpSegment { direction, seq: 0, sender, payload }) {
        FtpParseResult::Expect(announcement) => announcement,
        other => panic!("{other:?}"),
    }
}

/// The bytes that NAT would replace.
#[test]
fn match_range_covers_address_and_port() {
    for (direction, sender, payload, text) in [
        (Direction::Original, CLIENT, "PORT 10,1,0,2,7,208\r\n", "10,1,0,2,7,208"),
        (Direction::Original, CLIENT, "EPRT |1|10.1.0.2|2000|\r\n", "|1|10.1.0.2|2000|"),
        (Direction::Reply, SERVER, "227 Entering Passive Mode (10,2,0,9,7,208).\r\n", "10,2,0,9,7,208"),
        (Direction::Reply, SERVER, "229 Entering Extended Passive Mode (|||2000|)\r\n", "|||2000|"),
    ] {
        assert_eq!(&payload[expect_endpoint(direction, sender, payload.as_bytes()).match_range], text);
    }
}

/// Commands over IPv6, as Linux 6.18 parses them; in EPRT the address is then protocol 2 of RFC 2428.
#[test]
fn parses_commands_over_ipv6() {
    let client: IpAddr = "2001:db8:1::2".parse().unwrap();
    let server: IpAddr = "2001:db8:2::9".parse().unwrap();
    for (direction, payload, expected) in [
        (Direction::Original, "EPRT |2|2001:db8:1::2|2000|\r\n", "announced"),
        (Direction::Original, "EPRT |2|2001:DB8:1:0:0:0:0:2|2000|\r\n", "announced"),
        (Direction::Original, "EPRT a2a2001:db8:1::2a2000a\r\n", "announced"),
        (Direction::Original, "EPRT |2|2001:db8:1::3|2000|\r\n", "elsewhere"),
        (Direction::Original, "EPRT |2|::ffff:1.2.3.4|2000|\r\n", "elsewhere"),
        (Direction::Original, "EPRT |1|10.1.0.2|2000|\r\n", "partial"),
        (Direction::Original, "EPRT |2|2001:db8:1::2|2000\r\n", "partial"),
        (Direction::Original, "EPRT |2|2001:db8:1::2x|2000|\r\n", "partial"),
        (Direction::Original, "EPRT |2|2001:db8:1::2%1|2000|\r\n", "partial"),
        (Direction::Original, "EPRT |2||2000|\r\n", "partial"),
        (Direction::Original, "EPRT |2|2001:db8:1::2", "partial"),
        (Direction::Original, "PORT 10,1,0,2,7,208\r\n", "elsewhere"),
        (Direction::Reply, "227 (10,2,0,9,7,208)\r\n", "elsewhere"),
        (Direction::Reply, "229 (|||2000|)\r\n", "announced"),
    ] {
        let sender = if direction == Direction::Original { client } else { server };
        let result = match find_pattern(&FtpSegment { direction, seq: 0, sender, payload: payload.as_bytes() }) {
            FtpParseResult::NoMatch => "nothing",
            FtpParseResult::Expect(announcement) => {
                assert_eq!((announcement.address, announcement.port), (sender, 2000));
                "announced"
            }
            FtpParseResult::ThirdParty(_) => "elsewhere",
            FtpParseResult::Partial => "partial",
        };
        assert_eq!(result, expected, "{payload}");
    }
}

/// Lengths over 255 are not truncated to eight bits (CVE-2026-34956).
#[test]
fn pattern_is_found_in_long_lines() {
    let mut payload = b"229 ".to_vec();
    payload.extend([b'x'; 1000]);
    payload.extend(b"(|||2000|)\r\n");
    let announcement = expect_endpoint(Direction::Reply, SERVER, &payload);
    assert_eq!((announcement.port, announcement.match_range), (2000, 1005..1013));
}

proptest! {
    /// No input makes the helper panic; the match range of an announcement lies in the payload.
    #[test]
    fn arbitrary_bytes_never_panic(
        reply in any::<bool>(),
        word in prop::sample::select(&["PORT ", "EPRT |1|", "227 ", "229 (|||", ""][..]),
        rest in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"0123456789,.|()\r\n "[..])], 0..80),
    ) {
        let (direction, sender) = if reply { (Direction::Reply, SERVER) } else { (Direction::Original, CLIENT) };
        let payload: Vec<u8> = word.bytes().chain(rest).collect();
        let segment = FtpSegment { direction, seq: 7, sender, payload: &payload };
        if let FtpParseResult::Expect(announcement) | FtpParseResult::ThirdParty(announcement) = find_pattern(&segment) {
            prop_assert!(payload.get(announcement.match_range.clone()).is_some_and(|text| !text.is_empty()));
        }
        // Without a line end before it, the segment is not parsed.
        prop_assert_eq!(Ftp::default().parse_segment(&segment), FtpParseResult::NoMatch);
    }
}

#[test]
fn leading_zeros_in_ipv6_groups_are_ignored() {
    // Observed on Linux 6.18 by the oracle: `EPRT |2|0fd02::1|2000|` is a complete address, not a partial one.
    assert_eq!(parse_ipv6("0fd02::1"), "fd02::1".parse().ok());
    assert_eq!(parse_ipv6("00000:0:0:0:0:0:0:000001"), "::1".parse().ok());
    assert_eq!(parse_ipv6("::ffff:10.0.0.1"), "::ffff:10.0.0.1".parse().ok());
    assert_eq!(parse_ipv6("1fd02::1"), None);
    assert_eq!(parse_ipv6(""), None);
}
