//! Coverage of the traffic: verdicts, protocols, and the cells of the TCP and SCTP transition tables.
use super::verdict::ObservedVerdict;
use keepstate_engine::{ConnId, Direction, Entry, Outcome, ProtocolInfo, TcpState};
use keepstate_wire::Packet;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Flag classes in the kernel's order of precedence, and two without a class in the kernel.
const FLAG_CLASSES: [&str; 6] = ["syn", "syn-ack", "fin", "ack", "rst", "other"];

/// The counts.
#[derive(Default)]
pub struct Coverage {
    pub packets: u64,
    pub connections_compared: u64,
    pub events_compared: u64,
    verdicts: BTreeMap<ObservedVerdict, u64>,
    protocols: BTreeMap<u8, u64>,
    /// By (state before, direction, flag class): number of packets, and number of state changes.
    tcp_segments: BTreeMap<(u8, u8, usize), u64>,
    tcp_state_changes: BTreeMap<(u8, u8), u64>,
    sctp_state_changes: BTreeMap<(u8, u8), u64>,
    states: HashMap<ConnId, u8>,
}

impl Coverage {
    pub fn count_verdict(&mut self, kernel: ObservedVerdict) {
        self.packets += 1;
        *self.verdicts.entry(kernel).or_default() += 1;
    }

    /// Counts a packet, and the state change of its connection.
    pub fn count_packet(&mut self, packet: &Packet<'_>, outcome: &Outcome, after: Option<&Entry>) {
        *self.protocols.entry(packet.protocol()).or_default() += 1;
        let (Some(handle), Some(entry)) = (outcome.connection, after) else { return };
        if packet.protocol() != entry.original.protocol {
            return;
        }
        match entry.protocol {
            ProtocolInfo::Tcp { state, .. } => {
                let before = self.states.insert(handle, state as u8).unwrap_or(0);
                let flags = packet.transport().get(13).copied().unwrap_or(0);
                let direction = outcome.direction.unwrap_or(Direction::Original) as u8;
                *self.tcp_segments.entry((before, direction, flag_class(flags))).or_default() += 1;
                *self.tcp_state_changes.entry((before, state as u8)).or_default() += 1;
            }
            ProtocolInfo::Sctp { state, .. } => {
                let before = self.states.insert(handle, state as u8).unwrap_or(0);
                *self.sctp_state_changes.entry((before, state as u8)).or_default() += 1;
            }
            ProtocolInfo::Stateless => {}
        }
    }

    /// Forgets the states: a new engine assigns connection ids anew.
    pub fn reset_states(&mut self) {
        self.states.clear();
    }
}

fn flag_class(flags: u8) -> usize {
    match flags {
        _ if flags & 4 != 0 => 4,
        _ if flags & 0x12 == 0x12 => 1,
        _ if flags & 2 != 0 => 0,
        _ if flags & 1 != 0 => 2,
        _ if flags & 0x10 != 0 => 3,
        _ => 5,
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdicts: Vec<_> = self.verdicts.iter().map(|(verdict, count)| format!("{verdict} {count}")).collect();
        writeln!(f, "verdicts: {}", verdicts.join(", "))?;
        let protocols: Vec<_> = self.protocols.iter().map(|(number, count)| format!("{number}: {count}")).collect();
        writeln!(f, "protocols: {}", protocols.join(", "))?;
        writeln!(f, "connections compared: {}, events: {}", self.connections_compared, self.events_compared)?;
        if !self.tcp_segments.is_empty() {
            writeln!(f, "TCP, packets by state before, direction and flags (original / reply):")?;
            write!(f, "{:12}", "")?;
            FLAG_CLASSES.iter().try_for_each(|class| write!(f, "{class:>16}"))?;
            writeln!(f)?;
            for state in TcpState::ALL {
                write!(f, "{:12}", state.name())?;
                for class in 0..FLAG_CLASSES.len() {
                    let cell =
                        |direction| self.tcp_segments.get(&(*state as u8, direction, class)).copied().unwrap_or(0);
                    write!(f, "{:>16}", format!("{}/{}", cell(0), cell(1)))?;
                }
                writeln!(f)?;
            }
            writeln!(f, "TCP, {} different changes of state", self.tcp_state_changes.len())?;
        }
        if !self.sctp_state_changes.is_empty() {
            writeln!(f, "SCTP, {} different changes of state", self.sctp_state_changes.len())?;
        }
        Ok(())
    }
}
