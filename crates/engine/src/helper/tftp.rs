//! The TFTP helper: a request is answered from a port that the server chooses (RFC 1350, section 4). It has no state.

/// Does the client ask for a file, or to send one?
pub(crate) fn is_request(payload: &[u8]) -> bool {
    const READ: u16 = 1;
    const WRITE: u16 = 2;
    payload.first_chunk().is_some_and(|opcode| [READ, WRITE].contains(&u16::from_be_bytes(*opcode)))
}

#[cfg(test)]
mod tests {
    use super::is_request;

    #[test]
    fn requests_are_told_from_data() {
        assert!(is_request(b"\0\x01file\0octet\0") && is_request(b"\0\x02"));
        for other in [&b""[..], b"\0", b"\0\x03\0\x01data", b"\0\x04\0\x01", b"\x01\0"] {
            assert!(!is_request(other), "{other:?}");
        }
    }
}
