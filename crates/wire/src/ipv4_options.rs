//! The options of an IPv4 header (RFC 791, section 3.1).
//!
//! Connection tracking ignores them; they are for logging and filtering.

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
