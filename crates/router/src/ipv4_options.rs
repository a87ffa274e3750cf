//! IPv4 options in a router (RFC 791, 3.1; RFC 1812, 4.2.2.6 and 5.3.13): checked, and record route and timestamp filled in.
use keepstate_wire::ipv4_options::{
    END, LOOSE_SOURCE_ROUTE, NOP, RECORD_ROUTE, STRICT_SOURCE_ROUTE, TIMESTAMP, check_options,
};
use std::ops::Range;

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

/// Checks the options of a header ([`check_options`]) and fills in timestamps: `milliseconds` since midnight, UTC. The options' pointers are advanced.
/// `is_ours` tells whether an address belongs to this machine.
///
/// # Errors
/// The offset of the malformed byte, as in ICMP's parameter problem.
pub(crate) fn parse_options(
    header: &mut [u8],
    milliseconds: u32,
    is_ours: impl Fn([u8; 4]) -> bool,
) -> Result<ParsedOptions, u8> {
    check_options(header)?;
    let mut asked = ParsedOptions::default();
    let mut at = IPV4_HEADER_LEN;
    while let Some([kind, rest @ ..]) = header.get_mut(at..) {
        let length = match (*kind, rest.first()) {
            (END, _) => {
                // What stands behind the end means nothing, and is cleared.
                rest.fill(END);
                break;
            }
            (NOP, _) | (_, None) => 1,
            (_, Some(length)) => usize::from(*length).max(1),
        };
        let kind = *kind;
        let option = header.get_mut(at..at + length).unwrap_or_default();
        let slot = match kind {
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => {
                asked.source_routed = true;
                None
            }
            RECORD_ROUTE => advance_record_route(option),
            TIMESTAMP => fill_timestamp(option, milliseconds, &is_ours),
            _ => None,
        };
        asked.router_address_slots.extend(slot.map(|slot| at + slot..at + slot + 4));
        at += length;
    }
    Ok(asked)
}

/// Advances the pointer of a well-formed record route; returns where the address goes, unless the option is full.
fn advance_record_route(option: &mut [u8]) -> Option<usize> {
    let length = option.len();
    let next = option.get_mut(2)?;
    let free = usize::from(*next);
    (free <= length).then(|| {
        *next = next.saturating_add(4);
        free - 1
    })
}

/// Fills in a well-formed timestamp option; returns where the router's address goes, if it is asked for.
fn fill_timestamp(option: &mut [u8], milliseconds: u32, is_ours: impl Fn([u8; 4]) -> bool) -> Option<usize> {
    const TS_ONLY: u8 = 0;
    const TS_AND_ADDRESS: u8 = 1;
    const TS_PRESPECIFIED: u8 = 3;
    let length = option.len();
    let (next, flags) = (option.get(2).copied()?, option.get(3).copied()?);
    let free = usize::from(next);
    let flag = flags & 15;
    if free > length {
        // The option's overflow counter.
        if flag != TS_PRESPECIFIED {
            *option.get_mut(3)? = flags.wrapping_add(16);
        }
        return None;
    }
    let address: Option<[u8; 4]> = option.get(free - 1..).and_then(|rest| rest.first_chunk()).copied();
    let (time, step, slot) = match flag {
        TS_ONLY => (free - 1, 4, None),
        TS_AND_ADDRESS => (free + 3, 8, Some(free - 1)),
        TS_PRESPECIFIED if address.is_some_and(is_ours) => (free + 3, 8, None),
        // For another router, or a flag without a meaning: Linux takes it as it is.
        _ => return None,
    };
    option.get_mut(time..time + 4)?.copy_from_slice(&milliseconds.to_be_bytes());
    *option.get_mut(2)? = next.saturating_add(step);
    slot
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

    /// Which are malformed is the business of `check_options`; here only that it is asked.
    #[test]
    fn malformed_options_report_their_offset() {
        for (options, at) in [
            (&[148, 9, 0, 0][..], 20),
            (&[7, 2, 0, 0], 21),
            (&[68, 8, 5, 1, 0, 0, 0, 0], 22),
            (&[134, 8, 0, 0, 0, 1, 1, 2], 22),
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
        let unknown_flag = [68, 8, 5, 2, 0, 0, 0, 0];
        assert_eq!(parse(&unknown_flag), (Ok(ParsedOptions::default()), unknown_flag.to_vec()));
        assert!(parse(&[131, 7, 4, 10, 1, 0, 9, 0]).0.unwrap().source_routed);
        assert_eq!(
            parse(&[0, 7, 7, 4]),
            (Ok(ParsedOptions::default()), vec![0, 0, 0, 0]),
            "options after the end are cleared"
        );
    }
}
