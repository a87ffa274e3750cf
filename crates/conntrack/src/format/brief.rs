//! A connection in so few words that it fits a narrow terminal: for people only, conntrack has nothing like it.
use super::text::Text;
use super::{Keys, protocol};
use keepstate_engine::{Entry, ProtocolInfo, Status};
use std::net::IpAddr;

/// Protocol, remaining seconds, state, both ends of the original direction, and whether there was an answer.
pub fn brief(entry: &Entry) -> String {
    let (original, (name, keys)) = (&entry.original, protocol(entry.original.protocol));
    let name = name.map_or_else(|| original.protocol.to_string(), str::to_owned);
    let state = match entry.protocol {
        ProtocolInfo::Tcp { state, .. } => state.name(),
        ProtocolInfo::Sctp { state, .. } => state.name(),
        ProtocolInfo::Stateless => "-",
    };
    let answered = if entry.status.has(Status::ASSURED) {
        "assured"
    } else if entry.status.has(Status::SEEN_REPLY) {
        "answered"
    } else {
        "unreplied"
    };
    let (from, to) =
        (end(original.source, keys, original.source_key), end(original.destination, keys, original.destination_key));
    format!("{name:<7} {:>6} {state:<11} {answered:<9} {from} > {to}", entry.timeout)
}

/// An address, with its port where there are ports.
fn end(address: IpAddr, keys: Keys, key: u16) -> String {
    let mut text = Text::default();
    let ports = keys == Keys::Ports;
    text.push(if ports && address.is_ipv6() { "[" } else { "" }).address(address);
    if ports {
        text.push(if address.is_ipv6() { "]:" } else { ":" }).number(key);
    }
    String::from_utf8_lossy(text.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Sample, connection};
    use keepstate_engine::TcpState;

    #[test]
    fn a_connection_fits_eighty_columns() {
        let web = connection(6, ("192.168.100.200", 54321), ("203.0.113.200", 443));
        let row = brief(&web.tcp(TcpState::Established).answered().assured().timeout(431_999));
        assert_eq!(row, "tcp     431999 ESTABLISHED assured   192.168.100.200:54321 > 203.0.113.200:443");
        assert!(row.len() <= 80);
        let name = connection(17, ("2001:db8::1", 1000), ("2001:db8::2", 53)).timeout(30);
        assert_eq!(brief(&name), "udp         30 -           unreplied [2001:db8::1]:1000 > [2001:db8::2]:53");
        let other = connection(50, ("10.0.0.1", 0), ("10.0.0.2", 0)).timeout(600);
        assert_eq!(brief(&other), "50         600 -           unreplied 10.0.0.1 > 10.0.0.2");
    }
}
