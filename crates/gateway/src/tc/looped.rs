//! What the machine sends to itself, as far as rules translate it (redirect and DNAT in the output hook).
use keepstate_linux::tc::{LoopedEnds, TcHooks};
use keepstate_wire::{Addresses, Packet};
use std::net::IpAddr;

/// The loopback interface has it in every network namespace.
pub(super) const LOOPBACK_INDEX: u32 = 1;

/// The ends of a packet.
pub(super) fn ends_of(packet: &[u8]) -> Option<LoopedEnds> {
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

/// What becomes of a flow by the loopback interface, when the rules have seen a packet of it.
pub(super) enum LoopedFlow {
    /// Its packets come here.
    Taken,
    /// It goes on by itself, and so do answers to it.
    LetOn,
}

/// Says so to the programs. What cannot be said is logged once.
pub(super) fn tell_programs(hooks: &mut TcHooks, flow: LoopedFlow, ends: &LoopedEnds, warned: &mut bool) {
    let told = match flow {
        LoopedFlow::Taken => hooks.take_looped(ends),
        LoopedFlow::LetOn => hooks.let_looped_on(ends),
    };
    if let Err(error) = told
        && !std::mem::replace(warned, true)
    {
        tracing::error!(
            "packets that rules lead from this machine to itself get no answers: {:#}",
            anyhow::Error::new(error)
        );
    }
}
