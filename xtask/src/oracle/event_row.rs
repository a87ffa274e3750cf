//! One conntrack event in one form, from the kernel or from the engine.
use super::row::{ConnRow, ProtoRow};
use keepstate_engine::{Event, EventKind, Tuple};
use std::fmt;

/// What an event says.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    pub kind: EventKind,
    pub original: Tuple,
    pub reply: Tuple,
    pub status: u32,
    /// In an update without a change of protocol state: nothing.
    pub detail: ProtoRow,
    pub helper: String,
    pub master: Option<Tuple>,
}

impl EventRow {
    pub fn new(kind: EventKind, connection: ConnRow) -> EventRow {
        let ConnRow { original, reply, status, detail, helper, master, .. } = connection;
        // The kernel names the helper only when it is set, and the master only of a new connection; of a connection that ends, it tells the state alone.
        let (helper, master) = match kind {
            EventKind::New => (helper, master),
            EventKind::Update | EventKind::Destroy => (String::new(), None),
        };
        let detail = match (kind, detail) {
            (EventKind::Destroy, ProtoRow::Tcp { state, .. }) => ProtoRow::Tcp { state, scales: [0; 2], flags: [0; 2] },
            (EventKind::Destroy, ProtoRow::Sctp { state, .. }) => ProtoRow::Sctp { state, tags: [0; 2] },
            (_, detail) => detail,
        };
        EventRow { kind, original, reply, status, detail, helper, master }
    }
}

impl From<&Event> for EventRow {
    fn from(event: &Event) -> EventRow {
        EventRow::new(event.kind, ConnRow::from(&event.entry))
    }
}

impl fmt::Display for EventRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tuple { source, source_key, destination, destination_key, protocol } = self.original;
        write!(
            f,
            "{:?} protocol {protocol} {source}:{source_key} → {destination}:{destination_key} status {:#x} {:?}",
            self.kind, self.status, self.detail
        )?;
        if !self.helper.is_empty() {
            write!(f, " helper {}", self.helper)?;
        }
        match self.master {
            Some(master) => write!(f, " master {}:{} → {}", master.source, master.source_key, master.destination),
            None => Ok(()),
        }
    }
}
