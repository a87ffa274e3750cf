//! A packet in one line, and what happened to it in a few.
use keepstate_conntrack::format::protocol_name;
use keepstate_engine::ipproto;
use keepstate_router::{DropReason, Egress, TappedPacket};
use keepstate_wire::{Addresses, Packet};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// Names of TCP's flags, from the lowest bit on.
const TCP_FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

/// The lines of a trace. A whole one says what came, its connection, what rules did, and what left; one that a rule has asked for begins at that rule.
pub(super) fn trace_lines(id: u32, packet: &TappedPacket<'_>, whole: bool) -> String {
    let mut out = String::new();
    let mut line = |text: &str| _ = writeln!(out, "trace id {id} {text}");
    let name = |index: u32| packet.fib.interface(index).map_or("?", |interface| interface.name.as_str());
    let came = match (packet.iif, packet.sent_by) {
        (Some(iif), _) => format!("in {}", name(iif)),
        (None, Some(oif)) => format!("from this machine, by {}", name(oif)),
        (None, None) => "in".to_owned(),
    };
    line(&format!("packet {came}: {}", describe_packet(packet.received)));
    if let Some(rules) = packet.rules {
        packet.program.describe_trace(rules, whole).iter().for_each(|step| line(step));
    }
    if let Some(entry) = &packet.entry {
        let ends = |tuple: &keepstate_engine::Tuple| {
            format!(
                "{} > {}",
                describe_end(tuple.source, tuple.source_key, tuple.protocol),
                describe_end(tuple.destination, tuple.destination_key, tuple.protocol)
            )
        };
        line(&format!("connection {}: {}, reply {}", entry.id, ends(&entry.original), ends(&entry.reply)));
    }
    for output in packet.outputs() {
        let to = match output {
            Egress::Forward { oif, next_hop, .. } => format!("out {} to {next_hop}", name(*oif)),
            Egress::LocalDeliver(_) | Egress::Loop { .. } => "delivered to this machine".to_owned(),
            Egress::ToProxy { listens_at, .. } => format!("delivered to the proxy at {listens_at}"),
            Egress::LetOut(_) => format!("out {}", packet.sent_by.map_or("?", name)),
        };
        line(&format!("{to}: {}", describe_packet(output.packet())));
    }
    if let Some(reason) = packet.dropped {
        line(&describe_drop(reason));
    }
    out
}

/// Why it was dropped, by the names of `keepstate control drops`.
pub(super) fn describe_drop(reason: DropReason) -> String {
    match reason {
        DropReason::Conntrack(why) => format!("dropped: {} ({})", reason.name(), why.name()),
        _ => format!("dropped: {}", reason.name()),
    }
}

/// `10.0.0.1:4000 > 192.0.2.1:443 tcp SYN, length 60`.
fn describe_packet(bytes: &[u8]) -> String {
    let Ok(packet) = Packet::parse(bytes) else { return format!("malformed, length {}", bytes.len()) };
    let (source, destination) = match packet.addresses() {
        Addresses::V4 { source, destination } => (IpAddr::from(source), IpAddr::from(destination)),
        Addresses::V6 { source, destination } => (IpAddr::from(source), IpAddr::from(destination)),
    };
    let protocol = packet.protocol();
    let transport =
        if packet.fragment().is_some_and(|fragment| fragment.offset > 0) { &[] } else { packet.transport() };
    let ports = match *transport {
        [a, b, c, d, ..] if has_ports(protocol) => [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])],
        _ => [0; 2],
    };
    let mut text = format!(
        "{} > {} {}",
        describe_end(source, ports[0], protocol),
        describe_end(destination, ports[1], protocol),
        protocol_name(protocol).map_or_else(|| format!("protocol {protocol}"), str::to_owned)
    );
    match (protocol, transport) {
        (ipproto::TCP, transport) => {
            let flags = transport.get(13).copied().unwrap_or_default();
            let set = TCP_FLAGS.iter().enumerate().filter(|(bit, _)| flags >> bit & 1 != 0);
            set.for_each(|(_, name)| _ = write!(text, " {name}"));
        }
        (ipproto::ICMP | ipproto::ICMPV6, [kind, code, ..]) => _ = write!(text, " type {kind} code {code}"),
        _ => (),
    }
    if packet.fragment().is_some() {
        text.push_str(" fragment");
    }
    let _ = write!(text, ", length {}", bytes.len());
    text
}

fn has_ports(protocol: u8) -> bool {
    matches!(protocol, ipproto::TCP | ipproto::UDP | ipproto::SCTP | ipproto::UDPLITE | ipproto::DCCP)
}

fn describe_end(address: IpAddr, port: u16, protocol: u8) -> String {
    if has_ports(protocol) { SocketAddr::new(address, port).to_string() } else { address.to_string() }
}
