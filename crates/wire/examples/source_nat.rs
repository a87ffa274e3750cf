//! Source NAT of one packet in place: a new source address and port, with incremental checksums, and the reply mapped back.
//!
//! ```sh
//! cargo run --example source_nat
//! ```
use keepstate_wire::rewrite::PacketMut;
use keepstate_wire::{Packet, ParseError};
use std::net::{IpAddr, Ipv4Addr};

const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const GATEWAY_PORT: u16 = 1024;

fn main() -> Result<(), ParseError> {
    // A TCP SYN with checksums, from 10.1.0.2:40000 to 203.0.113.9:1883.
    let mut request = [
        0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0xf4, 0xc2, 10, 1, 0, 2, 203, 0, 113, 9, // IPv4
        0x9c, 0x40, 7, 0x5b, 0, 0, 0, 100, 0, 0, 0, 0, 0x50, 2, 0xfa, 0xf0, 0xca, 0xe5, 0, 0, // TCP
    ];
    let (source, port) = print("request", &request)?;

    let mut packet = PacketMut::new(&mut request)?;
    packet.set_source(GATEWAY);
    packet.set_source_port(GATEWAY_PORT);
    packet.set_hop_limit(63);
    print("after source NAT", &request)?;

    // A router looks up the client of the reply in its table; here it is remembered in two variables.
    let mut packet = PacketMut::new(&mut request)?;
    packet.set_source(source);
    packet.set_source_port(port);
    packet.set_hop_limit(64);
    print("mapped back", &request)?;
    Ok(())
}

/// Prints the packet and its checksums; returns its source.
fn print(label: &str, bytes: &[u8]) -> Result<(IpAddr, u16), ParseError> {
    let packet = Packet::parse(bytes)?;
    let check = |at: usize| format!("{:02x}{:02x}", bytes[at], bytes[at + 1]);
    let state = if packet.transport_checksum_ok() { "ok" } else { "wrong" };
    println!("{label:<17} {packet}, header checksum {}, TCP checksum {} ({state})", check(10), check(36));
    let (port, _) = packet.ports().unwrap_or_default();
    Ok((packet.addresses().source(), port))
}
