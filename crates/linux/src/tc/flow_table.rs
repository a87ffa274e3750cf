//! Known flows: the table in memory that the programs at tc's hooks share with user space, one line for each direction of a connection (`struct flow`).
//!
//! A line's life: free; entered ([`FlowTable::insert`]): the content first, `live` last; taken out ([`FlowTable::remove`]): from then on no packet finds it, but a program may still be reading it; given back
//! with its last counts ([`FlowTable::poll_removed`]) once every program that began before has ended. Only then is it used again, so no packet sees half of one flow and half of another.
//! User space is the only writer but for the counters.
use crate::mapped_memory::MappedMemory;
use rustix::time::{ClockId, clock_gettime};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Where packets of a flow go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcFlowTarget {
    /// Out by the interface of this index, to this neighbour.
    Forward(u32, Ipv4Addr),
    /// To the machine itself.
    Host,
    /// Out, as they were about to leave.
    LetOut,
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcFlow {
    /// The source as it comes.
    pub source: (Ipv4Addr, u16),
    /// The destination as it comes.
    pub destination: (Ipv4Addr, u16),
    /// The source as it leaves.
    pub new_source: (Ipv4Addr, u16),
    /// The destination as it leaves.
    pub new_destination: (Ipv4Addr, u16),
    /// TCP or UDP.
    pub protocol: u8,
    /// Does the machine itself send its packets?
    pub is_egress: bool,
    /// The index of the interface that they come in by, or are sent by.
    pub ifindex: u16,
    /// Where they go.
    pub target: TcFlowTarget,
}

/// A line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowLine(u32);

/// What a line has counted since it was entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Packets; a GSO packet is one, as for netfilter.
    pub packets: u64,
    /// Bytes from the IP header on.
    pub bytes: u64,
    /// When the last packet came, in milliseconds of the monotonic clock, modulo 2³².
    pub seen_ms: u32,
}

impl FlowCounts {
    /// Milliseconds since the last packet came.
    pub fn age_ms(&self) -> u32 {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        let now = (now.tv_sec as u64).wrapping_mul(1000).wrapping_add(now.tv_nsec as u64 / 1_000_000);
        (now as u32).wrapping_sub(self.seen_ms)
    }
}

/// The table.
#[derive(Debug)]
pub struct FlowTable {
    memory: MappedMemory,
    key: [u64; 2],
    generation: u32,
    lines: Vec<LineState>,
    live: usize,
    /// Taken out since the last grace period began.
    leaving: Vec<FlowLine>,
    /// To the thread that waits for grace periods, and back from it; `None` if one is being waited for.
    grace: Option<Sender<Vec<FlowLine>>>,
    after_grace: Receiver<Vec<FlowLine>>,
    waiting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineState {
    Free,
    Live,
    Leaving,
}

/// `LINES` and `BUCKETS` of the programs.
const LINES_PER_BUCKET: usize = 4;
const BUCKETS: usize = 65_536;
const LINE_LEN: usize = 64;
/// Bytes of the table.
pub(super) const TABLE_LEN: usize = BUCKETS * LINES_PER_BUCKET * LINE_LEN;

/// Offsets in `struct flow`.
mod offset {
    pub(super) const NEW_ADDRESSES: usize = 16;
    pub(super) const NEW_PORTS: usize = 24;
    pub(super) const NEXT_HOP: usize = 28;
    pub(super) const GENERATION: usize = 32;
    pub(super) const OIF: usize = 36;
    /// Target and `live`.
    pub(super) const STATE: usize = 40;
    pub(super) const SEEN: usize = 44;
    pub(super) const PACKETS: usize = 48;
    pub(super) const BYTES: usize = 56;
}

impl FlowTable {
    /// The table in this memory, whose hash has this key.
    pub(super) fn new(memory: MappedMemory, key: [u64; 2], generation: u32) -> io::Result<FlowTable> {
        let (grace, begun) = channel::<Vec<FlowLine>>();
        let (ended, after_grace) = channel();
        std::thread::Builder::new().name("grace period".to_owned()).spawn(move || {
            for lines in begun {
                wait_for_grace_period();
                if ended.send(lines).is_err() {
                    return;
                }
            }
        })?;
        Ok(FlowTable {
            memory,
            key,
            generation,
            lines: vec![LineState::Free; BUCKETS * LINES_PER_BUCKET],
            live: 0,
            leaving: Vec::new(),
            grace: Some(grace),
            after_grace,
            waiting: false,
        })
    }

    /// Maps a table out of a BPF map.
    pub(super) fn of_map(map: BorrowedFd<'_>, key: [u64; 2], generation: u32) -> io::Result<FlowTable> {
        FlowTable::new(MappedMemory::bpf_map(map, TABLE_LEN)?, key, generation)
    }

    /// How many lines are live.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Is no line live?
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Lines entered from now on have this generation; those of another one are stale for the programs as soon as they know it.
    pub(super) fn set_generation(&mut self, generation: u32) {
        self.generation = generation;
    }

    /// Enters a flow; `None` if both its buckets are full.
    pub fn insert(&mut self, flow: &TcFlow) -> Option<FlowLine> {
        let key = encode_key(flow);
        let mut hasher = SipHasher13::new_with_keys(self.key[0], self.key[1]);
        hasher.write(&key);
        let hash = hasher.finish();
        let buckets = [hash as usize, (hash >> 32) as usize].map(|at| at % BUCKETS * LINES_PER_BUCKET);
        let free = |from: &usize| {
            let lines = self.lines.get(*from..*from + LINES_PER_BUCKET).unwrap_or_default();
            lines.iter().filter(|line| **line == LineState::Free).count()
        };
        // The emptier of the two.
        let from = if free(&buckets[0]) >= free(&buckets[1]) { buckets[0] } else { buckets[1] };
        let index = (from..from + LINES_PER_BUCKET).find(|at| self.lines.get(*at) == Some(&LineState::Free))?;
        self.write_line(index * LINE_LEN, &key, flow);
        *self.lines.get_mut(index)? = LineState::Live;
        self.live += 1;
        u32::try_from(index).ok().map(FlowLine)
    }

    fn write_line(&self, at: usize, key: &[u8; 16], flow: &TcFlow) {
        let word = |offset: usize, bytes: [u8; 4]| {
            self.memory.atomic_u32(at + offset).store(u32::from_ne_bytes(bytes), Ordering::Relaxed);
        };
        for (number, bytes) in key.as_chunks().0.iter().enumerate() {
            word(number * 4, *bytes);
        }
        word(offset::NEW_ADDRESSES, flow.new_source.0.octets());
        word(offset::NEW_ADDRESSES + 4, flow.new_destination.0.octets());
        let ([s0, s1], [d0, d1]) = (flow.new_source.1.to_be_bytes(), flow.new_destination.1.to_be_bytes());
        word(offset::NEW_PORTS, [s0, s1, d0, d1]);
        let (target, oif, next_hop) = match flow.target {
            TcFlowTarget::Forward(oif, next_hop) => (0, oif, next_hop),
            TcFlowTarget::Host => (1, 0, Ipv4Addr::UNSPECIFIED),
            TcFlowTarget::LetOut => (2, 0, Ipv4Addr::UNSPECIFIED),
        };
        word(offset::NEXT_HOP, next_hop.octets());
        word(offset::GENERATION, self.generation.to_ne_bytes());
        word(offset::OIF, oif.to_ne_bytes());
        word(offset::SEEN, [0; 4]);
        self.memory.atomic_u64(at + offset::PACKETS).store(0, Ordering::Relaxed);
        self.memory.atomic_u64(at + offset::BYTES).store(0, Ordering::Relaxed);
        // Whoever sees that it is live sees all of the above.
        self.memory.atomic_u32(at + offset::STATE).store(u32::from_ne_bytes([target, 1, 0, 0]), Ordering::Release);
    }

    /// What a line has counted so far.
    pub fn counts(&self, line: FlowLine) -> FlowCounts {
        let at = line.0 as usize * LINE_LEN;
        FlowCounts {
            packets: self.memory.atomic_u64(at + offset::PACKETS).load(Ordering::Relaxed),
            bytes: self.memory.atomic_u64(at + offset::BYTES).load(Ordering::Relaxed),
            seen_ms: self.memory.atomic_u32(at + offset::SEEN).load(Ordering::Relaxed),
        }
    }

    /// Takes a line out: no packet that comes from now on finds it.
    pub fn remove(&mut self, line: FlowLine) {
        let Some(state) = self.lines.get_mut(line.0 as usize).filter(|state| **state == LineState::Live) else {
            return;
        };
        *state = LineState::Leaving;
        self.live -= 1;
        self.memory.atomic_u32(line.0 as usize * LINE_LEN + offset::STATE).store(0, Ordering::Release);
        self.leaving.push(line);
    }

    /// The lines taken out that no program reads any more, with their last counts. Call it now and then.
    pub fn poll_removed(&mut self) -> Vec<(FlowLine, FlowCounts)> {
        let mut removed = Vec::new();
        while let Ok(lines) = self.after_grace.try_recv() {
            self.waiting = false;
            for line in lines {
                removed.push((line, self.counts(line)));
                if let Some(state) = self.lines.get_mut(line.0 as usize) {
                    *state = LineState::Free;
                }
            }
        }
        if !self.waiting
            && !self.leaving.is_empty()
            && let Some(grace) = &self.grace
        {
            self.waiting = grace.send(std::mem::take(&mut self.leaving)).is_ok();
        }
        removed
    }

    /// Whether lines are on their way out.
    pub fn has_leaving(&self) -> bool {
        self.waiting || !self.leaving.is_empty()
    }
}

impl Drop for FlowTable {
    fn drop(&mut self) {
        // The thread ends.
        self.grace = None;
    }
}

/// `struct flow_key`.
fn encode_key(flow: &TcFlow) -> [u8; 16] {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&flow.source.0.octets());
    key[4..8].copy_from_slice(&flow.destination.0.octets());
    key[8..10].copy_from_slice(&flow.source.1.to_be_bytes());
    key[10..12].copy_from_slice(&flow.destination.1.to_be_bytes());
    key[12] = flow.protocol;
    key[13] = u8::from(flow.is_egress);
    key[14..].copy_from_slice(&flow.ifindex.to_ne_bytes());
    key
}

/// Waits until every BPF program that runs now has ended: `MEMBARRIER_CMD_GLOBAL` waits for a grace period of RCU, under which they run.
#[allow(unsafe_code, reason = "membarrier(2) has no safe wrapper")]
fn wait_for_grace_period() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_long = 1;
    // SAFETY: the call has no pointers.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } == 0;
    if !done {
        // A kernel without it: no program runs for so long.
        std::thread::sleep(std::time::Duration::from_secs(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> FlowTable {
        FlowTable::new(MappedMemory::anonymous(TABLE_LEN).unwrap(), [1, 2], 7).unwrap()
    }

    fn flow(port: u16) -> TcFlow {
        let (client, server) = (Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(192, 0, 2, 9));
        TcFlow {
            source: (client, port),
            destination: (server, 80),
            new_source: (Ipv4Addr::new(198, 51, 100, 1), port),
            new_destination: (server, 80),
            protocol: 6,
            is_egress: false,
            ifindex: 3,
            target: TcFlowTarget::Forward(4, server),
        }
    }

    #[test]
    fn a_line_is_used_again_only_after_a_grace_period() {
        let mut table = table();
        let line = table.insert(&flow(1)).unwrap();
        assert_eq!(table.counts(line), FlowCounts::default());
        table.memory.atomic_u64(line.0 as usize * LINE_LEN + offset::PACKETS).store(9, Ordering::Relaxed);
        table.remove(line);
        table.remove(line);
        assert_eq!((table.len(), table.has_leaving()), (0, true));
        // The program that counts on is still at it.
        table.memory.atomic_u64(line.0 as usize * LINE_LEN + offset::BYTES).store(90, Ordering::Relaxed);
        assert_ne!(table.insert(&flow(1)), Some(line));
        let removed = loop {
            let removed = table.poll_removed();
            if !removed.is_empty() {
                break removed;
            }
            std::thread::yield_now();
        };
        assert_eq!(removed, [(line, FlowCounts { packets: 9, bytes: 90, seen_ms: 0 })]);
        assert_eq!((table.lines[line.0 as usize], table.has_leaving()), (LineState::Free, false));
    }

    /// Two choices of buckets: half full, nearly every flow finds a place.
    #[test]
    fn flows_spread_over_the_table() {
        let mut table = table();
        let mut refused = 0;
        for number in 0..131_072_u32 {
            let mut flow = flow((number % 60_000) as u16);
            flow.source.0 = Ipv4Addr::from_bits(0x0a00_0000 + number / 60_000);
            refused += usize::from(table.insert(&flow).is_none());
        }
        assert!(refused < 20, "{refused} of 131072");
        assert_eq!(table.len(), 131_072 - refused);
    }
}
