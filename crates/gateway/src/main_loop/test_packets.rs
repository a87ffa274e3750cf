//! Packets that the tests of the main loop send.
use keepstate_wire::checksum;

/// A UDP packet with one byte of payload from this address and port to 10.2.0.9:53.
pub(super) fn udp_packet(source: [u8; 4], port: u16) -> [u8; 29] {
    let ([a, b, c, d], [high, low]) = (source, port.to_be_bytes());
    let mut packet =
        [0x45, 0, 0, 29, 0, 1, 0, 0, 64, 17, 0, 0, a, b, c, d, 10, 2, 0, 9, high, low, 0, 53, 0, 9, 0, 0, 7];
    let sum = checksum::internet(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}
