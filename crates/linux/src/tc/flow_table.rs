//! Known flows: the table in memory that the programs at tc's hooks share with user space, one line for each direction of a connection (`struct flow`, `struct flow_v6`).
//!
//! A line's life: free; entered ([`FlowTable::insert`]): the content first, `live` last; taken out ([`FlowTable::remove`]): from then on no packet finds it, but a program may still be reading it; given back
//! with its last counts ([`FlowTable::poll_removed`]) once every program that began before has ended. Only then is it used again, so no packet sees half of one flow and half of another.
//! User space is the only writer but for the counters.
use super::flow_line::{EncodedLine, LINES_PER_BUCKET, LIVE, LineLayout, TcFlow};
use crate::mapped_memory::MappedMemory;
use crate::privileges;
use rustix::time::{ClockId, clock_gettime};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};

/// A line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowLine {
    is_v6: bool,
    number: u32,
}

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
    v4: LineMemory,
    v6: LineMemory,
    key: [u64; 2],
    generation: u32,
    live: usize,
    /// Taken out since the last grace period began.
    leaving: Vec<FlowLine>,
    /// To the thread that waits for grace periods, and back from it; `None` if one is being waited for.
    grace: Option<Sender<Vec<FlowLine>>>,
    after_grace: Receiver<Vec<FlowLine>>,
    waiting: bool,
}

/// The lines of one family.
#[derive(Debug)]
struct LineMemory {
    memory: MappedMemory,
    layout: &'static LineLayout,
    lines: Vec<LineState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineState {
    Free,
    Live,
    Leaving,
}

impl LineMemory {
    fn new(memory: MappedMemory, layout: &'static LineLayout) -> LineMemory {
        LineMemory { memory, layout, lines: vec![LineState::Free; layout.buckets * LINES_PER_BUCKET] }
    }

    /// Enters a line; `None` if both its buckets are full.
    fn insert(&mut self, line: &EncodedLine, hash: u64, generation: u32) -> Option<u32> {
        let buckets = [hash as usize, (hash >> 32) as usize].map(|at| at % self.layout.buckets * LINES_PER_BUCKET);
        let free = |from: &usize| {
            let lines = self.lines.get(*from..*from + LINES_PER_BUCKET).unwrap_or_default();
            lines.iter().filter(|line| **line == LineState::Free).count()
        };
        // The emptier of the two.
        let from = if free(&buckets[0]) >= free(&buckets[1]) { buckets[0] } else { buckets[1] };
        let index = (from..from + LINES_PER_BUCKET).find(|at| self.lines.get(*at) == Some(&LineState::Free))?;
        let at = index * self.layout.line_len;
        for (number, word) in line.bytes().as_chunks().0.iter().enumerate() {
            self.memory.atomic_u32(at + number * 4).store(u32::from_ne_bytes(*word), Ordering::Relaxed);
        }
        self.memory.atomic_u32(at + self.layout.generation()).store(generation, Ordering::Relaxed);
        // Whoever sees that it is live sees all of the above.
        self.set_live(at, true);
        *self.lines.get_mut(index)? = LineState::Live;
        u32::try_from(index).ok()
    }

    /// Takes a line out; false if it is not live.
    fn remove(&mut self, number: u32) -> bool {
        let Some(state) = self.lines.get_mut(number as usize).filter(|state| **state == LineState::Live) else {
            return false;
        };
        *state = LineState::Leaving;
        self.set_live(self.at(number), false);
        true
    }

    /// Only this byte changes: a program may still be reading the others.
    fn set_live(&self, at: usize, is_live: bool) {
        let state = self.memory.atomic_u32(at + self.layout.state());
        let mut bytes = state.load(Ordering::Relaxed).to_ne_bytes();
        bytes[LIVE] = u8::from(is_live);
        state.store(u32::from_ne_bytes(bytes), Ordering::Release);
    }

    fn counts(&self, number: u32) -> FlowCounts {
        let at = self.at(number);
        FlowCounts {
            packets: self.memory.atomic_u64(at + self.layout.packets()).load(Ordering::Relaxed),
            bytes: self.memory.atomic_u64(at + self.layout.bytes()).load(Ordering::Relaxed),
            seen_ms: self.memory.atomic_u32(at + self.layout.seen()).load(Ordering::Relaxed),
        }
    }

    fn free(&mut self, number: u32) {
        if let Some(state) = self.lines.get_mut(number as usize) {
            *state = LineState::Free;
        }
    }

    fn at(&self, number: u32) -> usize {
        number as usize * self.layout.line_len
    }
}

impl FlowTable {
    /// The table in this memory, one for each family, whose hash has this key.
    pub(super) fn new([v4, v6]: [MappedMemory; 2], key: [u64; 2], generation: u32) -> io::Result<FlowTable> {
        let (grace, begun) = channel::<Vec<FlowLine>>();
        let (ended, after_grace) = channel();
        std::thread::Builder::new().name("grace period".to_owned()).spawn(move || {
            // It begins before its process has dropped what it does not need. Without that it works too.
            let _ = privileges::drop_thread_privileges();
            for lines in begun {
                wait_for_grace_period();
                if ended.send(lines).is_err() {
                    return;
                }
            }
        })?;
        Ok(FlowTable {
            v4: LineMemory::new(v4, &LineLayout::V4),
            v6: LineMemory::new(v6, &LineLayout::V6),
            key,
            generation,
            live: 0,
            leaving: Vec::new(),
            grace: Some(grace),
            after_grace,
            waiting: false,
        })
    }

    /// Maps a table out of its BPF maps.
    pub(super) fn of_maps([v4, v6]: [BorrowedFd<'_>; 2], key: [u64; 2], generation: u32) -> io::Result<FlowTable> {
        let v4 = MappedMemory::bpf_map(v4, LineLayout::V4.table_len())?;
        let v6 = MappedMemory::bpf_map(v6, LineLayout::V6.table_len())?;
        FlowTable::new([v4, v6], key, generation)
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

    /// Enters a flow; `None` if both its buckets are full, its addresses are not of one family, or the interface's index has more than 16 bits.
    pub fn insert(&mut self, flow: &TcFlow) -> Option<FlowLine> {
        let line = EncodedLine::new(flow)?;
        let mut hasher = SipHasher13::new_with_keys(self.key[0], self.key[1]);
        hasher.write(line.key());
        let is_v6 = flow.source.0.is_ipv6();
        let (hash, generation) = (hasher.finish(), self.generation);
        let number = self.of_family(is_v6).insert(&line, hash, generation)?;
        self.live += 1;
        Some(FlowLine { is_v6, number })
    }

    fn of_family(&mut self, is_v6: bool) -> &mut LineMemory {
        if is_v6 { &mut self.v6 } else { &mut self.v4 }
    }

    /// What a line has counted so far.
    pub fn counts(&self, line: FlowLine) -> FlowCounts {
        if line.is_v6 { self.v6.counts(line.number) } else { self.v4.counts(line.number) }
    }

    /// Takes a line out: no packet that comes from now on finds it.
    pub fn remove(&mut self, line: FlowLine) {
        if self.of_family(line.is_v6).remove(line.number) {
            self.live -= 1;
            self.leaving.push(line);
        }
    }

    /// The lines taken out that no program reads any more, with their last counts. Call it now and then.
    pub fn poll_removed(&mut self) -> Vec<(FlowLine, FlowCounts)> {
        let mut removed = Vec::new();
        while let Ok(lines) = self.after_grace.try_recv() {
            self.waiting = false;
            for line in lines {
                removed.push((line, self.counts(line)));
                self.of_family(line.is_v6).free(line.number);
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
    use crate::tc::TcFlowTarget;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn table() -> FlowTable {
        let memory = |layout: &LineLayout| MappedMemory::anonymous(layout.table_len()).unwrap();
        FlowTable::new([memory(&LineLayout::V4), memory(&LineLayout::V6)], [1, 2], 7).unwrap()
    }

    fn flow(source: IpAddr, port: u16) -> TcFlow {
        let (server, outside): (IpAddr, IpAddr) = match source {
            IpAddr::V4(_) => (Ipv4Addr::new(192, 0, 2, 9).into(), Ipv4Addr::new(198, 51, 100, 1).into()),
            IpAddr::V6(_) => ("2001:db8::9".parse().unwrap(), "2001:db8:1::1".parse().unwrap()),
        };
        TcFlow {
            source: (source, port),
            destination: (server, 80),
            new_source: (outside, port),
            new_destination: (server, 80),
            protocol: 6,
            is_egress: false,
            ifindex: 3,
            target: TcFlowTarget::Forward(4, server),
            set_mark: None,
            unmarked_only: true,
        }
    }

    const CLIENTS: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2))];

    #[test]
    fn a_line_is_used_again_only_after_a_grace_period() {
        for client in CLIENTS {
            let mut table = table();
            let line = table.insert(&flow(client, 1)).unwrap();
            assert_eq!(table.counts(line), FlowCounts::default());
            let of_family = table.of_family(line.is_v6);
            let at = of_family.at(line.number);
            of_family.memory.atomic_u64(at + of_family.layout.packets()).store(9, Ordering::Relaxed);
            table.remove(line);
            table.remove(line);
            assert_eq!((table.len(), table.has_leaving()), (0, true));
            // The program that counts on is still at it.
            let of_family = table.of_family(line.is_v6);
            of_family.memory.atomic_u64(at + of_family.layout.bytes()).store(90, Ordering::Relaxed);
            assert_ne!(table.insert(&flow(client, 1)), Some(line));
            let removed = loop {
                let removed = table.poll_removed();
                if !removed.is_empty() {
                    break removed;
                }
                std::thread::yield_now();
            };
            assert_eq!(removed, [(line, FlowCounts { packets: 9, bytes: 90, seen_ms: 0 })]);
            let state = table.of_family(line.is_v6).lines[line.number as usize];
            assert_eq!((state, table.has_leaving()), (LineState::Free, false));
        }
    }

    /// Two choices of buckets: half full, nearly every flow finds a place.
    #[test]
    fn flows_spread_over_the_table() {
        let mut table = table();
        let mut refused = 0;
        for number in 0..131_072_u32 {
            let client = Ipv4Addr::from_bits(0x0a00_0000 + number / 60_000);
            refused += usize::from(table.insert(&flow(client.into(), (number % 60_000) as u16)).is_none());
        }
        for number in 0..65_536_u32 {
            let client = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, (number / 60_000) as u16);
            refused += usize::from(table.insert(&flow(client.into(), (number % 60_000) as u16)).is_none());
        }
        assert!(refused < 20, "{refused} of 196608");
        assert_eq!(table.len(), 196_608 - refused);
    }
}
