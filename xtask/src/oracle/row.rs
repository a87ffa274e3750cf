//! One connection in one form, from the kernel or from the engine, as a dump shows it.
use keepstate_engine::{Entry, ProtocolInfo, SctpState, TcpState, Tuple};
use std::fmt;

/// A row of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnRow {
    pub original: Tuple,
    pub reply: Tuple,
    pub status: u32,
    pub timeout: u32,
    pub detail: ProtoRow,
    /// Packets and bytes, original then reply.
    pub counters: Option<[(u64, u64); 2]>,
    /// The helper's name; empty without one.
    pub helper: String,
    /// The original tuple of its master, if it was expected.
    pub master: Option<Tuple>,
    pub uses: u32,
}

/// Protocol-specific columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtoRow {
    Tcp { state: u8, scales: [u8; 2], flags: [u8; 2] },
    Sctp { state: u8, tags: [u32; 2] },
    None,
}

impl From<&Entry> for ConnRow {
    fn from(entry: &Entry) -> ConnRow {
        let detail = match entry.protocol {
            ProtocolInfo::Tcp { state, sides } => ProtoRow::Tcp {
                state: state as u8,
                scales: sides.map(|side| side.scale),
                flags: sides.map(|side| side.flags),
            },
            ProtocolInfo::Sctp { state, tags } => ProtoRow::Sctp { state: state as u8, tags },
            ProtocolInfo::Stateless => ProtoRow::None,
        };
        ConnRow {
            original: entry.original,
            reply: entry.reply,
            status: entry.status.bits(),
            timeout: entry.timeout,
            detail,
            counters: entry.accounting.map(|sides| sides.map(|side| (side.packets, side.bytes))),
            helper: entry.helper.unwrap_or_default().to_owned(),
            master: entry.master,
            uses: entry.uses,
        }
    }
}

/// Seconds by which two remaining times may differ: both are rounded down, a moment apart.
const TIMEOUT_TOLERANCE: u32 = 1;

impl ConnRow {
    /// Name of the state, or `-`.
    pub fn state_name(&self) -> &'static str {
        let at = |names: &[&'static str], state: u8| names.get(usize::from(state)).copied().unwrap_or("?");
        match self.detail {
            ProtoRow::Tcp { state, .. } => {
                at(&TcpState::ALL.iter().map(|state| state.name()).collect::<Vec<_>>(), state)
            }
            ProtoRow::Sctp { state, .. } => {
                at(&SctpState::ALL.iter().map(|state| state.name()).collect::<Vec<_>>(), state)
            }
            ProtoRow::None => "-",
        }
    }

    /// The first column in which `self` (the kernel's) and `other` (the engine's) differ.
    pub fn difference(&self, other: &ConnRow) -> Option<&'static str> {
        let state = |row: &ConnRow| match row.detail {
            ProtoRow::Tcp { state, .. } | ProtoRow::Sctp { state, .. } => state,
            ProtoRow::None => u8::MAX,
        };
        match () {
            () if self.reply != other.reply => Some("reply tuple"),
            () if state(self) != state(other) => Some("state"),
            () if self.status != other.status => Some("status"),
            () if self.timeout.abs_diff(other.timeout) > TIMEOUT_TOLERANCE => Some("timeout"),
            () if self.detail != other.detail => Some("detail"),
            () if self.counters != other.counters => Some("counters"),
            () if self.helper != other.helper => Some("helper"),
            () if self.master != other.master => Some("master"),
            // While a dump is at an entry, it holds a reference of its own.
            () if self.uses != other.uses && self.uses != other.uses + 1 => Some("uses"),
            () => None,
        }
    }
}

impl fmt::Display for ConnRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} status {:#x} timeout {}", self.state_name(), self.status, self.timeout)?;
        match self.detail {
            ProtoRow::Tcp { scales, flags, .. } => {
                write!(f, " scale {}/{} flags {:#04x}/{:#04x}", scales[0], scales[1], flags[0], flags[1])?;
            }
            ProtoRow::Sctp { tags, .. } => write!(f, " tags {:#x}/{:#x}", tags[0], tags[1])?,
            ProtoRow::None => {}
        }
        if let Some([original, reply]) = self.counters {
            write!(f, " packets {}/{} bytes {}/{}", original.0, reply.0, original.1, reply.1)?;
        }
        if !self.helper.is_empty() {
            write!(f, " helper {} uses {}", self.helper, self.uses)?;
        }
        if let Some(master) = &self.master {
            write!(f, " master {}:{} → {}", master.source, master.source_key, master.destination)?;
        }
        Ok(())
    }
}
