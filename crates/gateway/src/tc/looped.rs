//! What rules lead from the machine back to itself (redirect and DNAT in the output hook).
use keepstate_linux::tc::{LoopedEnds, TcHooks};
use keepstate_wire::{Addresses, Packet};
use std::net::IpAddr;

/// The loopback interface has it in every network namespace.
pub(super) const LOOPBACK_INDEX: u32 = 1;

/// The ends of a packet.
fn ends_of(packet: &[u8]) -> Option<LoopedEnds> {
    let packet = Packet::parse(packet).ok()?;
    let (source, destination) = match packet.addresses() {
        Addresses::V4 { source, destination } => (IpAddr::from(source), IpAddr::from(destination)),
        Addresses::V6 { source, destination } => (IpAddr::from(source), IpAddr::from(destination)),
    };
    let protocol = packet.protocol();
    let [p0, p1, p2, p3, i0, i1, ..] = *packet.transport() else { return None };
    let [source_port, destination_port] = match protocol {
        // Question and answer have the same identifier.
        1 | 58 => [u16::from_be_bytes([i0, i1]); 2],
        _ => [[p0, p1], [p2, p3]].map(u16::from_be_bytes),
    };
    Some(LoopedEnds { source: (source, source_port), destination: (destination, destination_port), protocol })
}

/// Answers to this packet are taken from the loopback interface from now on.
pub(super) fn expect_answers(hooks: &mut TcHooks, packet: &[u8], warned: &mut bool) {
    let Some(ends) = ends_of(packet) else { return };
    if let Err(error) = hooks.expect_answers(&ends)
        && !std::mem::replace(warned, true)
    {
        tracing::error!(
            "packets that rules lead from this machine to itself get no answers: {:#}",
            anyhow::Error::new(error)
        );
    }
}
