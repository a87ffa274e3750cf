//! What names a connection: its original direction and its zone, in 42 bytes.
use keepstate_linux::ctnetlink::{CtFlow, CtTuple, protocol};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

/// Source, destination, transport and zone of the original direction. Built from a message, never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowKey {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Transport protocol by number.
    pub protocol: u8,
    /// Zone of the original direction; 0 without one.
    pub zone: u16,
    /// Source and destination port; ICMP's id and its type and code; GRE's keys.
    pub ports: [u16; 2],
}

impl FlowKey {
    /// The key of a connection; `None` if the message lacks addresses or protocol.
    pub fn of(flow: &CtFlow) -> Option<FlowKey> {
        FlowKey::of_tuple(&flow.original, flow.zone.or(flow.original.zone).unwrap_or(0))
    }

    /// The key of one direction.
    pub(crate) fn of_tuple(tuple: &CtTuple, zone: u16) -> Option<FlowKey> {
        let ports = match tuple.icmp_id {
            Some(id) => [id, u16::from_be_bytes([tuple.icmp_type.unwrap_or(0), tuple.icmp_code.unwrap_or(0)])],
            None => [tuple.source_port.unwrap_or(0), tuple.destination_port.unwrap_or(0)],
        };
        Some(FlowKey { source: tuple.source?, destination: tuple.destination?, protocol: tuple.protocol?, zone, ports })
    }

    /// The direction as it is in a message.
    pub fn tuple(&self) -> CtTuple {
        let [first, second] = self.ports;
        let mut tuple = CtTuple {
            source: Some(self.source),
            destination: Some(self.destination),
            protocol: Some(self.protocol),
            ..CtTuple::default()
        };
        if is_icmp(self.protocol) {
            let [kind, code] = second.to_be_bytes();
            (tuple.icmp_id, tuple.icmp_type, tuple.icmp_code) = (Some(first), Some(kind), Some(code));
        } else if self.has_ports() || self.protocol == protocol::GRE {
            (tuple.source_port, tuple.destination_port) = (Some(first), Some(second));
        }
        tuple
    }

    /// The other direction if nothing is translated. ICMP's reply type is not guessed: it stays the request's.
    pub(crate) fn inverted(&self) -> FlowKey {
        let [first, second] = self.ports;
        let ports = if is_icmp(self.protocol) { self.ports } else { [second, first] };
        FlowKey { source: self.destination, destination: self.source, ports, ..*self }
    }

    /// Do its two numbers mean ports?
    pub fn has_ports(&self) -> bool {
        keepstate_conntrack::format::protocol_and_keys(self.protocol).1 == keepstate_conntrack::format::L4Keys::Ports
    }

    /// The source as text, with its port if it has one.
    pub fn source_text(&self) -> String {
        endpoint_text(self.source, self.has_ports().then_some(self.ports[0]))
    }

    /// The destination as text, with its port if it has one.
    pub fn destination_text(&self) -> String {
        endpoint_text(self.destination, self.has_ports().then_some(self.ports[1]))
    }
}

impl Hash for FlowKey {
    /// All of it as one write: a keyed hasher takes several times as long for each field by itself.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [first, second] = self.ports.map(u64::from);
        let rest = u64::from(self.protocol) << 48 | u64::from(self.zone) << 32 | first << 16 | second;
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let addresses = u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits());
                state.write(&(u128::from(addresses) << 64 | u128::from(rest)).to_ne_bytes());
            }
            (source, destination) => {
                let mut bytes = [0; 40];
                let (addresses, tail) = bytes.split_at_mut(32);
                for (place, address) in addresses.chunks_exact_mut(16).zip([source, destination]) {
                    place.copy_from_slice(&mapped(address).to_ne_bytes());
                }
                tail.copy_from_slice(&rest.to_ne_bytes());
                state.write(&bytes);
            }
        }
    }
}

/// An address as one of IPv6.
fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// ICMP or ICMPv6, whose numbers are an id, a type and a code.
pub(crate) fn is_icmp(number: u8) -> bool {
    number == protocol::ICMP || number == protocol::ICMPV6
}

/// `10.0.0.1:80`, `[2001:db8::1]:80`, or the address alone.
pub(crate) fn endpoint_text(address: IpAddr, port: Option<u16>) -> String {
    match (address, port) {
        (address, None) => address.to_string(),
        (IpAddr::V4(address), Some(port)) => format!("{address}:{port}"),
        (IpAddr::V6(address), Some(port)) => format!("[{address}]:{port}"),
    }
}
