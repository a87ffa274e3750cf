//! The packets of a simulated connection, as real bytes.
//!
//! They have no transport checksum, because nothing can corrupt them; the simulation turns `nf_conntrack_checksum` off.
use keepstate_wire::{Packet, checksum};

/// TCP flags.
pub mod flag {
    /// FIN.
    pub const FIN: u8 = 1;
    /// SYN.
    pub const SYN: u8 = 2;
    /// RST.
    pub const RST: u8 = 4;
    /// ACK.
    pub const ACK: u8 = 16;
    /// PSH.
    pub const PSH: u8 = 8;
}

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimEndpoint {
    /// IPv4.
    pub address: u32,
    /// TCP or UDP.
    pub port: u16,
}

/// One segment.
#[derive(Clone, Copy, Debug)]
pub struct SimSegment {
    /// Source.
    pub from: SimEndpoint,
    /// Destination.
    pub to: SimEndpoint,
    /// See [`flag`].
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Bytes of data, at most [`MSS`].
    pub data: u16,
}

/// Data bytes of one segment (Ethernet's MTU of 1500).
pub const MSS: u16 = 1460;
const MTU: usize = 1500;
const IPV4_HEADER_LEN: usize = 20;
const TCP_HEADER_LEN: usize = 20;
const UDP_HEADER_LEN: usize = 8;

/// A buffer for one packet.
pub struct SimPacketBuilder([u8; MTU]);

impl SimPacketBuilder {
    /// An empty buffer.
    pub fn new() -> SimPacketBuilder {
        SimPacketBuilder([0; MTU])
    }

    /// A TCP segment.
    pub fn tcp(&mut self, segment: &SimSegment) -> Option<Packet<'_>> {
        let SimSegment { from, to, flags, seq, ack, data } = *segment;
        let header = [
            &from.port.to_be_bytes()[..],
            &to.port.to_be_bytes(),
            &seq.to_be_bytes(),
            &ack.to_be_bytes(),
            &[5 << 4, flags],
            &u16::MAX.to_be_bytes(),
            &[0; 4],
        ];
        self.ipv4(6, from, to, &header, TCP_HEADER_LEN + usize::from(data.min(MSS)))
    }

    /// A UDP datagram.
    pub fn udp(&mut self, from: SimEndpoint, to: SimEndpoint, data: u16) -> Option<Packet<'_>> {
        let length = UDP_HEADER_LEN as u16 + data.min(MSS);
        let header = [&from.port.to_be_bytes()[..], &to.port.to_be_bytes(), &length.to_be_bytes(), &[0; 2]];
        self.ipv4(17, from, to, &header, usize::from(length))
    }

    fn ipv4(
        &mut self,
        protocol: u8,
        from: SimEndpoint,
        to: SimEndpoint,
        header: &[&[u8]],
        length: usize,
    ) -> Option<Packet<'_>> {
        let total = IPV4_HEADER_LEN + length;
        let octets = self.0.get_mut(..total)?;
        let (ip, transport) = octets.split_at_mut_checked(IPV4_HEADER_LEN)?;
        let [high, low] = u16::try_from(total).ok()?.to_be_bytes();
        let [a, b, c, d] = from.address.to_be_bytes();
        let [e, f, g, h] = to.address.to_be_bytes();
        // Do not fragment; 64 hops.
        ip.copy_from_slice(&[0x45, 0, high, low, 0, 1, 0x40, 0, 64, protocol, 0, 0, a, b, c, d, e, f, g, h]);
        let sum = checksum::internet(ip).to_be_bytes();
        ip.get_mut(10..12)?.copy_from_slice(&sum);
        let mut at = 0;
        for field in header {
            transport.get_mut(at..at + field.len())?.copy_from_slice(field);
            at += field.len();
        }
        Packet::parse(octets).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_packets_parse() {
        let (from, to) =
            (SimEndpoint { address: 0x0a00_0001, port: 4000 }, SimEndpoint { address: 0xc000_0201, port: 1883 });
        let mut press = SimPacketBuilder::new();
        let segment = SimSegment { from, to, flags: flag::ACK, seq: 7, ack: 9, data: u16::MAX };
        let packet = press.tcp(&segment).unwrap();
        assert_eq!((packet.total_len(), packet.protocol()), (1500, 6));
        let packet = press.udp(from, to, 30).unwrap();
        assert_eq!((packet.total_len(), packet.protocol()), (58, 17));
    }
}
