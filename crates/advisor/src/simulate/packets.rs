//! The packets of a simulated conversation, octet by octet as they would cross the machine.
//!
//! They carry no transport checksum, for nothing can corrupt them here; whoever simulates turns `nf_conntrack_checksum` off.
use keepstate_wire::{Packet, checksum};

/// TCP flags.
pub mod flag {
    /// The last octet of its sender.
    pub const FIN: u8 = 1;
    /// The first.
    pub const SYN: u8 = 2;
    /// No such connection.
    pub const RST: u8 = 4;
    /// The acknowledgement is meant.
    pub const ACK: u8 = 16;
    /// Data for the application, now.
    pub const PSH: u8 = 8;
}

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// IPv4.
    pub address: u32,
    /// TCP or UDP.
    pub port: u16,
}

/// One segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// From where.
    pub from: End,
    /// To where.
    pub to: End,
    /// See [`flag`].
    pub flags: u8,
    /// The number of its first octet.
    pub seq: u32,
    /// The next it expects.
    pub ack: u32,
    /// Octets of data, at most [`LARGEST`].
    pub data: u16,
}

/// Data one segment may carry (Ethernet's 1500 octets).
pub const LARGEST: u16 = 1460;
const ROOM: usize = 1500;
const IP: usize = 20;
const TCP: usize = 20;
const UDP: usize = 8;

/// Where a packet is written before it is handed on.
pub struct Press([u8; ROOM]);

impl Press {
    /// An empty one.
    pub fn new() -> Press {
        Press([0; ROOM])
    }

    /// A TCP segment.
    pub fn segment(&mut self, segment: &Segment) -> Option<Packet<'_>> {
        let Segment { from, to, flags, seq, ack, data } = *segment;
        let header = [
            &from.port.to_be_bytes()[..],
            &to.port.to_be_bytes(),
            &seq.to_be_bytes(),
            &ack.to_be_bytes(),
            &[5 << 4, flags],
            &u16::MAX.to_be_bytes(),
            &[0; 4],
        ];
        self.datagram(6, from, to, &header, TCP + usize::from(data.min(LARGEST)))
    }

    /// A UDP datagram.
    pub fn question(&mut self, from: End, to: End, data: u16) -> Option<Packet<'_>> {
        let length = UDP as u16 + data.min(LARGEST);
        let header = [&from.port.to_be_bytes()[..], &to.port.to_be_bytes(), &length.to_be_bytes(), &[0; 2]];
        self.datagram(17, from, to, &header, usize::from(length))
    }

    fn datagram(&mut self, protocol: u8, from: End, to: End, header: &[&[u8]], length: usize) -> Option<Packet<'_>> {
        let total = IP + length;
        let octets = self.0.get_mut(..total)?;
        let (ip, transport) = octets.split_at_mut_checked(IP)?;
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
    fn they_are_packets() {
        let (from, to) = (End { address: 0x0a00_0001, port: 4000 }, End { address: 0xc000_0201, port: 1883 });
        let mut press = Press::new();
        let segment = Segment { from, to, flags: flag::ACK, seq: 7, ack: 9, data: u16::MAX };
        let packet = press.segment(&segment).unwrap();
        assert_eq!((packet.total_len(), packet.protocol()), (1500, 6));
        let packet = press.question(from, to, 30).unwrap();
        assert_eq!((packet.total_len(), packet.protocol()), (58, 17));
    }
}
