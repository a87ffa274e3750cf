//! A connection in so few words that it fits a narrow terminal: for people only, conntrack has nothing like it.
use super::protocol::{L4Keys, protocol_and_keys};
use super::text_buf::TextBuf;
use keepstate_engine::{Entry, ProtocolInfo, Status};
use std::net::IpAddr;

/// Protocol, remaining seconds, state, both ends of the original direction, and whether there was an answer.
pub fn brief_line(entry: &Entry) -> String {
    let (original, (name, keys)) = (&entry.original, protocol_and_keys(entry.original.protocol));
    let name = name.map_or_else(|| original.protocol.to_string(), str::to_owned);
    let state = match entry.protocol {
        ProtocolInfo::Tcp { state, .. } => state.name(),
        ProtocolInfo::Sctp { state, .. } => state.name(),
        ProtocolInfo::Stateless => "-",
    };
    let answered = if entry.status.contains(Status::ASSURED) {
        "assured"
    } else if entry.status.contains(Status::SEEN_REPLY) {
        "answered"
    } else {
        "unreplied"
    };
    let (from, to) = (
        format_endpoint(original.source, keys, original.source_key),
        format_endpoint(original.destination, keys, original.destination_key),
    );
    format!("{name:<7} {:>6} {state:<11} {answered:<9} {from} > {to}", entry.timeout)
}

/// An address, with its port where there are ports.
fn format_endpoint(address: IpAddr, keys: L4Keys, key: u16) -> String {
    let mut text = TextBuf::default();
    let ports = keys == L4Keys::Ports;
    text.push(if ports && address.is_ipv6() { "[" } else { "" }).address(address);
    if ports {
        text.push(if address.is_ipv6() { "]:" } else { ":" }).number(key);
    }
    String::from_utf8_lossy(text.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_entries::{EntryBuilder, entry_between};
    use keepstate_engine::TcpState;

    #[test]
    fn brief_line_fits_eighty_columns() {
        let web = entry_between(6, ("192.168.100.200", 54321), ("203.0.113.200", 443));
        let row = brief_line(&web.tcp(TcpState::Established).seen_reply().assured().timeout(431_999));
        assert_eq!(row, "tcp     431999 ESTABLISHED assured   192.168.100.200:54321 > 203.0.113.200:443");
        assert!(row.len() <= 80);
        let name = entry_between(17, ("2001:db8::1", 1000), ("2001:db8::2", 53)).timeout(30);
        assert_eq!(brief_line(&name), "udp         30 -           unreplied [2001:db8::1]:1000 > [2001:db8::2]:53");
        let other = entry_between(50, ("10.0.0.1", 0), ("10.0.0.2", 0)).timeout(600);
        assert_eq!(brief_line(&other), "50         600 -           unreplied 10.0.0.1 > 10.0.0.2");
    }
}
