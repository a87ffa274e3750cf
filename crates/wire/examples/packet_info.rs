//! Parses a packet given in hex and prints its addresses, ports, transport header and checksums.
//!
//! ```sh
//! cargo run --example packet_info -- 4500002000010000401166bf0a0100020a0200099c400035000c000064617461
//! ```
//! The hex digits begin with the IP header; spaces and colons are ignored.
use keepstate_wire::icmp::IcmpMessage;
use keepstate_wire::tcp::TcpSegment;
use keepstate_wire::udp::UdpHeader;
use keepstate_wire::{Packet, ParseError, protocol};
use std::process::ExitCode;

/// A UDP packet without a checksum, from 10.1.0.2:40000 to 10.2.0.9:53.
const SAMPLE: &str = "4500 0020 0001 0000 4011 66bf 0a01 0002 0a02 0009 9c40 0035 000c 0000 6461 7461";

fn main() -> ExitCode {
    let arguments: String = std::env::args().skip(1).collect();
    let hex = if arguments.is_empty() { SAMPLE } else { &arguments };
    let Some(bytes) = parse_hex(hex) else {
        eprintln!("not an even number of hex digits: {hex:?}");
        return ExitCode::from(2);
    };
    match print_packet(&bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error} Linux: {}.", error.name(), error.linux_action());
            ExitCode::FAILURE
        }
    }
}

fn print_packet(bytes: &[u8]) -> Result<(), ParseError> {
    let packet = Packet::parse(bytes)?;
    println!("{packet}");
    println!("source {} destination {}", packet.addresses().source(), packet.addresses().destination());
    println!("hop limit {}", packet.hop_limit());
    for option in packet.options() {
        println!("IPv4 option {} of {} bytes", option.kind, option.value.len() + 2);
    }
    if packet.fragment().is_some_and(|fragment| fragment.offset > 0) {
        println!("a later fragment: no transport header");
        return Ok(());
    }
    let (transport, len) = (packet.transport(), packet.transport_len());
    match packet.protocol() {
        protocol::TCP => {
            let segment = TcpSegment::parse(transport, len)?;
            println!("TCP flags {} seq {} ack {} window {}", segment.flags, segment.seq, segment.ack, segment.window);
            segment.options().for_each(|option| println!("TCP option {option:?}"));
        }
        protocol::UDP => println!("UDP length {}", UdpHeader::parse(transport, len)?.length),
        protocol::ICMP | protocol::ICMPV6 => {
            let message = IcmpMessage::parse(transport)?;
            println!("ICMP type {} code {} id {}", message.kind, message.code, message.id);
        }
        other => println!("protocol {other}: {len} bytes"),
    }
    println!("transport checksum {}", if packet.transport_checksum_ok() { "ok" } else { "wrong" });
    Ok(())
}

/// Hex digits to bytes.
fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().filter(|c| !c.is_whitespace() && *c != ':').map(|c| c.to_digit(16));
    let digits: Vec<u8> =
        digits.map(|digit| digit.and_then(|digit| u8::try_from(digit).ok())).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
