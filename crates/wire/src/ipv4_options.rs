//! The options of an IPv4 header (RFC 791, section 3.1).
//!
//! Connection tracking does not read them, but Linux drops a packet with malformed ones ([`check_options`]) before its connection is
//! confirmed.

/// End of the list.
pub const END: u8 = 0;
/// No operation.
pub const NOP: u8 = 1;
/// Record route.
pub const RECORD_ROUTE: u8 = 7;
/// Internet timestamp.
pub const TIMESTAMP: u8 = 68;
/// Loose source and record route.
pub const LOOSE_SOURCE_ROUTE: u8 = 131;
/// Commercial security (CIPSO).
pub const CIPSO: u8 = 134;
/// Strict source and record route.
pub const STRICT_SOURCE_ROUTE: u8 = 137;
/// Router alert (RFC 2113).
pub const ROUTER_ALERT: u8 = 148;

/// Checks the options of `header`, an IPv4 header of 20 to 60 bytes, as Linux does for a received packet (`ip_options_compile`).
///
/// ```
/// use keepstate_wire::ipv4_options::check_options;
/// let header = |options: &[u8]| [&[0x46; 20], options].concat();
/// assert_eq!(check_options(&header(&[148, 4, 0, 0])), Ok(()));
/// assert_eq!(check_options(&header(&[148, 3, 0, 0])), Err(21));
/// ```
///
/// # Errors
/// The offset of the malformed byte in the header, as in ICMP's parameter problem.
pub fn check_options(header: &[u8]) -> Result<(), u8> {
    let mut seen = [false; 4];
    let mut at = HEADER_LEN;
    while at < header.len() {
        // A header has at most 60 bytes.
        let malformed = |inside: usize| u8::try_from(at + inside).unwrap_or(u8::MAX);
        let rest = header.get(at..).unwrap_or_default();
        let (kind, length) = match rest {
            [END, ..] => return Ok(()),
            [NOP, ..] => {
                at += 1;
                continue;
            }
            [kind, length, ..] => (*kind, usize::from(*length)),
            _ => return Err(malformed(0)),
        };
        let Some(option) = rest.get(..length).filter(|option| option.len() >= 2) else { return Err(malformed(0)) };
        let mut repeated = |which: usize| seen.get_mut(which).is_none_or(|seen| core::mem::replace(seen, true));
        let result = match kind {
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => check_source_route(option, || repeated(0)),
            RECORD_ROUTE if repeated(1) => Err(0),
            RECORD_ROUTE => check_record_route(option),
            TIMESTAMP if repeated(2) => Err(0),
            TIMESTAMP => check_timestamp(option),
            ROUTER_ALERT if length < 4 => Err(1),
            // Refused, as by a kernel without a domain of interpretation.
            CIPSO if repeated(3) => Err(0),
            CIPSO if length < 8 => Err(1),
            CIPSO => Err(2),
            _ => Ok(()),
        };
        result.map_err(malformed)?;
        at += length;
    }
    Ok(())
}

/// The offset inside the option of what is malformed.
fn check_source_route(option: &[u8], repeated: impl FnOnce() -> bool) -> Result<(), usize> {
    match option.get(2) {
        None => Err(1),
        Some(0..4) => Err(2),
        Some(_) if repeated() => Err(0),
        Some(_) => Ok(()),
    }
}

fn check_record_route(option: &[u8]) -> Result<(), usize> {
    match option.get(2).map(|next| usize::from(*next)) {
        None => Err(1),
        Some(0..4) => Err(2),
        Some(next) if next <= option.len() && next + 3 > option.len() => Err(2),
        Some(_) => Ok(()),
    }
}

fn check_timestamp(option: &[u8]) -> Result<(), usize> {
    const WITH_ADDRESS: u8 = 1;
    const PRESPECIFIED: u8 = 3;
    let &[_, _, next, flags, ..] = option else { return Err(1) };
    let next = usize::from(next);
    match flags & 15 {
        _ if next < 5 => Err(2),
        // Full: the overflow counter is incremented, unless the addresses were given.
        flag if next > option.len() => {
            if flag != PRESPECIFIED && flags >> 4 == 15 {
                Err(3)
            } else {
                Ok(())
            }
        }
        _ if next + 3 > option.len() => Err(2),
        WITH_ADDRESS | PRESPECIFIED if next + 7 > option.len() => Err(2),
        _ => Ok(()),
    }
}

/// Length of the header without options.
const HEADER_LEN: usize = 20;

/// One option: its type byte and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ipv4Option<'a> {
    /// Type byte: copied flag, class and number.
    pub kind: u8,
    /// The bytes after the type and the length byte.
    pub value: &'a [u8],
}

/// Iterator over a header's options. It ends at the end-of-list option and at a malformed one; no-operation options are skipped.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4Options<'a> {
    rest: &'a [u8],
}

impl<'a> Ipv4Options<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Ipv4Options { rest: bytes }
    }
}

impl<'a> Iterator for Ipv4Options<'a> {
    type Item = Ipv4Option<'a>;

    fn next(&mut self) -> Option<Ipv4Option<'a>> {
        loop {
            let (&kind, after) = self.rest.split_first()?;
            self.rest = match kind {
                0 => &[],
                1 => after,
                _ => {
                    let (&length, after) = after.split_first()?;
                    let split = usize::from(length).checked_sub(2).and_then(|len| after.split_at_checked(len));
                    let (value, rest) = split.unwrap_or((&[], &[]));
                    self.rest = rest;
                    return split.map(|_| Ipv4Option { kind, value });
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn malformed_options_report_their_offset() {
        let check = |options: &[u8]| check_options(&[&[0x45; HEADER_LEN], options].concat());
        for good in [
            &[1, 1, 1, 0][..],
            &[7, 7, 4, 0, 0, 0, 0, 0],
            &[7, 7, 8, 0, 0, 0, 0, 0],
            &[68, 8, 5, 0, 0, 0, 0, 0],
            &[68, 8, 9, 0x10, 5, 5, 5, 5],
            &[131, 7, 4, 10, 1, 0, 9, 0],
            &[0, 7, 7, 4],
            &[0x82, 3, 1, 0],
            // A flag without a meaning.
            &[68, 8, 5, 2, 0, 0, 0, 0],
        ] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        for (options, at) in [
            (&[148, 9, 0, 0][..], 20),
            (&[148, 1, 0, 0], 20),
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
            (&[134, 7, 0, 0, 0, 1, 1, 0], 21),
            (&[134, 8, 0, 0, 0, 1, 1, 2], 22),
        ] {
            assert_eq!(check(options), Err(at), "{options:?}");
        }
    }

    #[test]
    fn iteration_stops_at_end_of_list_or_malformed_option() {
        let kinds =
            |bytes: &[u8]| Ipv4Options::new(bytes).map(|option| (option.kind, option.value.len())).collect::<Vec<_>>();
        assert_eq!(kinds(&[148, 4, 0, 0]), [(148, 2)]);
        assert_eq!(kinds(&[1, 7, 3, 4, 148, 4, 0, 0]), [(7, 1), (148, 2)]);
        assert_eq!(kinds(&[0, 148, 4, 0]), []);
        for broken in [[148, 1, 0, 0], [148, 5, 0, 0], [1, 1, 1, 148]] {
            assert_eq!(kinds(&broken), []);
        }
    }
}
