//! Finding a TCP option in a segment as Linux's rules do: more lenient than [`TcpOptions`](crate::tcp::TcpOptions).
use core::ops::Range;

/// The range, in `segment`, of the first option of this kind that begins at or after `from`. As in Linux's rules, end-of-list (0) does
/// not end the search, and an option with length zero is one byte long. The range may go past the header.
pub fn find_tcp_option(segment: &[u8], kind: u8, from: usize) -> Option<Range<usize>> {
    const FIXED: usize = 20;
    let length = usize::from(segment.get(12)? >> 4) * 4;
    let header = segment.get(..length)?;
    let mut at = FIXED;
    loop {
        // The last byte alone is no option.
        let &[found, length, ..] = header.get(at..)? else { return None };
        let end = at + if found <= 1 || length == 0 { 1 } else { usize::from(length) };
        if found == kind && at >= from {
            return Some(at..end);
        }
        at = end;
    }
}

/// The maximum segment size option (RFC 9293, section 3.2): the offset of its value in `segment`, and the value.
pub fn find_mss_option(segment: &[u8]) -> Option<(usize, u16)> {
    let option = find_tcp_option(segment, 2, 0)?;
    let length = usize::from(segment.get(12)? >> 4) * 4;
    match segment.get(option.start..option.end.min(length))? {
        [_, _, high, low, ..] if option.end <= length => Some((option.start + 2, u16::from_be_bytes([*high, *low]))),
        _ => None,
    }
}
