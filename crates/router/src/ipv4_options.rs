//! IPv4 options in a router (RFC 791, 3.1; RFC 1812, 4.2.2.6 and 5.3.13): checked, and record route and timestamp filled in.
use std::ops::Range;

const OPT_END: u8 = 0;
const OPT_NOP: u8 = 1;
const RECORD_ROUTE: u8 = 7;
const TIMESTAMP: u8 = 68;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;
const ROUTER_ALERT: u8 = 148;
/// The length of the header without options.
const IPV4_HEADER_LEN: usize = 20;

/// The options of one header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ParsedOptions {
    /// Where the address of the outgoing interface is to be written.
    pub(crate) router_address_slots: Vec<Range<usize>>,
    /// The packet has a source route.
    pub(crate) source_routed: bool,
}

/// Parses the options of a header and fills in timestamps: `milliseconds` since midnight, UTC. The options' pointers are advanced.
/// `is_ours` tells whether an address belongs to this machine.
///
/// # Errors
/// The offset of the malformed byte, as in ICMP's parameter problem.
pub(crate) fn parse_options(
    header: &mut [u8],
    milliseconds: u32,
    is_ours: impl Fn([u8; 4]) -> bool,
) -> Result<ParsedOptions, u8> {
    let mut asked = ParsedOptions::default();
    let mut seen = [false; 3];
    let mut at = IPV4_HEADER_LEN;
    while at < header.len() {
        // A header has at most 60 bytes.
        let broken = |inside: usize| Err((at + inside) as u8);
        let (kind, length) = match header.get(at..) {
            Some([OPT_END, rest @ ..]) => {
                let end = at + 1 + rest.len();
                header.get_mut(at..end).unwrap_or_default().fill(OPT_END);
                return Ok(asked);
            }
            Some([OPT_NOP, ..]) => {
                at += 1;
                continue;
            }
            Some([kind, length, ..]) => (*kind, usize::from(*length)),
            _ => return broken(0),
        };
        let Some(option) = header.get_mut(at..at + length).filter(|option| option.len() >= 2) else { return broken(0) };
        let mut once = |which: usize| seen.get_mut(which).is_some_and(|seen| !std::mem::replace(seen, true));
        match (kind, &mut *option) {
            (LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE, [_, _, rest @ ..]) => match rest {
                [] => return broken(1),
                [0..4, ..] => return broken(2),
                _ if !once(0) => return broken(0),
                _ => asked.source_routed = true,
            },
            (RECORD_ROUTE, _) if !once(1) => return broken(0),
            (RECORD_ROUTE, [_, _]) => return broken(1),
            (RECORD_ROUTE, [_, _, 0..4, ..]) => return broken(2),
            (RECORD_ROUTE, [_, _, next, ..]) => {
                let free = usize::from(*next);
                if free <= length {
                    if free + 3 > length {
                        return broken(2);
                    }
                    *next += 4;
                    asked.router_address_slots.push(at + free - 1..at + free + 3);
                }
            }
            (TIMESTAMP, _) if !once(2) => return broken(0),
            (TIMESTAMP, [_, _] | [_, _, _]) => return broken(1),
            (TIMESTAMP, [_, _, 0..5, ..]) => return broken(2),
            (TIMESTAMP, [_, _, _, flags, ..]) => {
                let (flags, free) = (*flags, usize::from(option.get(2).copied().unwrap_or(0)));
                const TS_ONLY: u8 = 0;
                const TS_AND_ADDRESS: u8 = 1;
                const TS_PRESPECIFIED: u8 = 3;
                if free > length {
                    if flags & 15 != TS_PRESPECIFIED {
                        // The option's overflow counter.
                        if flags >> 4 == 15 {
                            return broken(3);
                        }
                        if let Some(counted) = option.get_mut(3) {
                            *counted = flags + 16;
                        }
                    }
                } else if free + 3 > length || flags & 15 != TS_ONLY && free + 7 > length {
                    return broken(2);
                } else {
                    let first: Option<[u8; 4]> = option.get(free - 1..).and_then(|rest| rest.first_chunk()).copied();
                    let (time, step) = match flags & 15 {
                        TS_ONLY => (Some(free - 1), 4),
                        TS_AND_ADDRESS => {
                            asked.router_address_slots.push(at + free - 1..at + free + 3);
                            (Some(free + 3), 8)
                        }
                        TS_PRESPECIFIED if first.is_some_and(&is_ours) => (Some(free + 3), 8),
                        _ => (None, 0),
                    };
                    if let Some(time) = time.and_then(|time| option.get_mut(time..time + 4)) {
                        time.copy_from_slice(&milliseconds.to_be_bytes());
                    }
                    if let Some(next) = option.get_mut(2) {
                        *next += step;
                    }
                }
            }
            (ROUTER_ALERT, [_, _] | [_, _, _]) => return broken(1),
            _ => (),
        }
        at += length;
    }
    Ok(asked)
}

/// Recomputes the header checksum.
pub(crate) fn update_header_checksum(header: &mut [u8]) {
    if let Some(field) = header.get_mut(10..12) {
        field.fill(0);
    }
    let sum = keepstate_wire::checksum::internet(header);
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[u8]) -> (Result<ParsedOptions, u8>, Vec<u8>) {
        let mut header = vec![0x45; IPV4_HEADER_LEN];
        header.extend(options);
        let result = parse_options(&mut header, 0x0102_0304, |address| address == [9, 9, 9, 9]);
        (result, header.split_off(IPV4_HEADER_LEN))
    }

    #[test]
    fn malformed_options_report_their_offset() {
        for (options, at) in [
            (&[148, 9, 0, 0][..], 20),
            (&[1, 1, 1, 7], 23),
            (&[7, 2, 0, 0], 21),
            (&[7, 7, 3, 0, 0, 0, 0, 0], 22),
            (&[7, 6, 4, 0, 0, 0, 0, 0], 22),
            (&[7, 3, 4, 7, 3, 4, 0, 0], 23),
            (&[131, 2, 0, 0], 21),
            (&[131, 3, 3, 0], 22),
            (&[68, 4, 4, 0], 22),
            (&[68, 4, 5, 0xf0], 23),
            (&[68, 8, 5, 1, 0, 0, 0, 0], 22),
            (&[148, 3, 0, 0], 21),
        ] {
            assert_eq!(parse(options).0, Err(at), "{options:?}");
        }
    }

    #[test]
    fn record_route_and_timestamp_are_processed() {
        let (result, left) = parse(&[7, 7, 4, 0, 0, 0, 0, 0]);
        assert_eq!(
            (result.unwrap().router_address_slots.first(), left),
            (Some(&(23..27)), vec![7, 7, 8, 0, 0, 0, 0, 0])
        );
        let (result, left) = parse(&[68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            (result.unwrap().router_address_slots.first(), left),
            (Some(&(24..28)), vec![68, 12, 13, 1, 0, 0, 0, 0, 1, 2, 3, 4])
        );
        assert_eq!(parse(&[68, 8, 5, 0, 0, 0, 0, 0]).1, [68, 8, 9, 0, 1, 2, 3, 4]);
        assert_eq!(parse(&[68, 8, 9, 0x10, 5, 5, 5, 5]).1, [68, 8, 9, 0x20, 5, 5, 5, 5], "the overflow is counted");
        assert_eq!(parse(&[68, 12, 5, 3, 9, 9, 9, 9, 0, 0, 0, 0]).1, [68, 12, 13, 3, 9, 9, 9, 9, 1, 2, 3, 4]);
        assert_eq!(parse(&[68, 12, 5, 3, 9, 9, 9, 8, 0, 0, 0, 0]).1, [68, 12, 5, 3, 9, 9, 9, 8, 0, 0, 0, 0]);
        assert!(parse(&[131, 7, 4, 10, 1, 0, 9, 0]).0.unwrap().source_routed);
        assert_eq!(
            parse(&[0, 7, 7, 4]),
            (Ok(ParsedOptions::default()), vec![0, 0, 0, 0]),
            "options after the end are cleared"
        );
    }
}
