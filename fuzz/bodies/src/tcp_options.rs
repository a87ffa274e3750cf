//! Target `tcp_options`: any bytes as the options of a segment.

use keepstate_wire::tcp::{TcpOption, TcpSegment};

/// Parses `data` as the options after a valid header, and compares the option parsers.
pub fn tcp_options(data: &[u8]) {
    let options = &data[..data.len().min(40) / 4 * 4];
    let mut transport = vec![0; 20];
    transport[12] = ((20 + options.len()) / 4 * 16) as u8;
    transport[13] = 0x10;
    transport.extend_from_slice(options);
    let segment = TcpSegment::parse(&transport, transport.len()).expect("a header with room for its options");
    assert_eq!(segment.options, options);
    assert_eq!(segment.data_len, 0);

    let handshake = segment.syn_options();
    assert!(handshake.window_scale.is_none_or(|scale| scale <= 14), "RFC 7323, section 2.3");
    let mut rights = Vec::new();
    for option in segment.options() {
        if let TcpOption::Sack(blocks) = option {
            rights.extend(blocks.map(|(_, right)| right));
        }
    }
    for ack in [0, 1, u32::MAX / 2, u32::MAX] {
        let highest = segment.highest_sack(ack);
        assert!(
            highest == ack || rights.contains(&highest),
            "the highest edge is the acknowledgement or one of the blocks"
        );
        assert!(highest.wrapping_sub(ack) < 1 << 31 || rights.len() > 1, "one block cannot lead backwards");
    }
}
