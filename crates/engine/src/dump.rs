//! Copies a connection out of the table into an [`Entry`], for listings and events.
use crate::offload::visible_status;
use crate::protocol::Tcp;
use crate::protocol::sctp::Sctp;
use crate::table::TupleRef;
use crate::table::record::{HotRecord, RecordKind};
use crate::time::{TICKS_PER_SECOND, Ticks};
use crate::{Accounting, Direction, Engine, Entry, Instant, ProtocolInfo, UnixTime};
use keepstate_types::ipproto;

impl Engine {
    /// The connection in `slot`, if the slot exists.
    pub(crate) fn dump_entry(&self, slot: u32, now: Instant) -> Option<Entry> {
        let records = &self.table.records;
        let hot = records.hot(slot)?;
        let remaining = (self.remaining_ticks(slot, hot.deadline, now.tick()) as i32).max(0);
        let start = records.start(slot);
        let id = self.id_keys.hash([u64::from(slot) << 32 | u64::from(records.generation(slot))]);
        let extension = if hot.kind.has(RecordKind::HAS_EXTENSION) { self.extensions.find(slot) } else { None };
        let counts = if hot.kind.has(RecordKind::COUNTED) { records.counts(slot) } else { None };
        Some(Entry {
            conn_id: self.conn_id(slot),
            id: (id >> 32) as u32,
            original: records.key(TupleRef::new(slot, Direction::Original))?.tuple(),
            reply: records.key(TupleRef::new(slot, Direction::Reply))?.tuple(),
            zone: records.zone(slot),
            status: visible_status(hot),
            timeout: (remaining as u64 / TICKS_PER_SECOND) as u32,
            mark: records.mark(slot),
            labels: extension.and_then(|extension| extension.labels),
            protocol: protocol_info(hot),
            accounting: counts.map(|counts| [0, 2].map(|at| Accounting { packets: counts[at], bytes: counts[at + 1] })),
            start: (start != 0).then_some(UnixTime(start)),
            stop: None,
            helper: extension
                .and_then(|extension| extension.helper_state)
                .map(|helper_state| helper_state.helper().name()),
            master: extension.and_then(|extension| extension.master).map(|master| master.tuple),
            uses: 1 + extension.map_or(0, |extension| extension.children),
        })
    }
}

fn protocol_info(hot: &HotRecord) -> ProtocolInfo {
    match hot.protocol() {
        ipproto::TCP => {
            let tcp = Tcp::load(hot);
            ProtocolInfo::Tcp {
                state: tcp.state(),
                sides: [Direction::Original, Direction::Reply].map(|side| tcp.tcp_side(side)),
            }
        }
        ipproto::SCTP => {
            let sctp = Sctp::load(hot);
            ProtocolInfo::Sctp { state: sctp.state, tags: sctp.vtags }
        }
        _ => ProtocolInfo::Stateless,
    }
}
