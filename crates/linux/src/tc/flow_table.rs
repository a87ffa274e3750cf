//! Known flows: the table in memory that the programs at tc's hooks share with user space, one line for each direction of a connection (`struct flow`, `struct flow_v6`).
//!
//! A line's life: free; entered ([`FlowTable::insert`]): the content first, `live` last; taken out ([`FlowTable::remove`]): from then on no packet finds it, but a program may still be reading it; given back
//! with its last counts ([`FlowTable::poll_removed`]) once every program that began before has ended. Only then is it used again, so no packet sees half of one flow and half of another.
//! A line may be parked instead ([`FlowTable::park`]): no packet finds it, but the next gateway does, together with its record (`flow_record.rs`).
//! User space is the only writer but for the counters, and for how far a connection's handshake or end is. Segments of those are told ([`FlowTable::next_note`]).
use super::carrier::TcHook;
use super::flow_line::{EncodedLine, FlowLine, LineLayout, TcFlow};
use super::flow_record::{AdoptedFlow, FlowRecord, LeftRecord, RECORD_LEN, RECORD_LEN_V6, RecordMemory, room_of};
use super::flow_table_size::FlowTableSize;
use super::line_memory::{FlowCounts, LineMemory, LineState};
use super::segment_note::{SIDE_LEN, SegmentNote, SegmentNotes};
use crate::mapped_memory::MappedMemory;
use crate::privileges;
use aya::maps::{MapData, RingBuf};
use siphasher::sip::SipHasher13;
use std::collections::VecDeque;
use std::hash::Hasher;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::mpsc::{Receiver, Sender, channel};

/// The table.
#[derive(Debug)]
pub struct FlowTable {
    v4: LineMemory,
    v6: LineMemory,
    /// Of IPv4, of IPv6.
    records: [RecordMemory; 2],
    notes: SegmentNotes,
    /// Notes that were read before their turn.
    read: VecDeque<SegmentNote>,
    key: [u64; 2],
    generation: u32,
    live: usize,
    /// Taken out or parked since the last grace period began.
    leaving: Vec<LeavingLine>,
    /// To the thread that waits for grace periods, and back from it; `None` if one is being waited for.
    grace: Option<Sender<Vec<LeavingLine>>>,
    after_grace: Receiver<Vec<LeavingLine>>,
    waiting: bool,
}

/// A line that programs may still be reading.
#[derive(Clone, Copy, Debug)]
struct LeavingLine {
    line: FlowLine,
    /// Is it free afterwards, not parked?
    frees: bool,
}

impl FlowTable {
    /// The table in this memory, lines and records of each family, whose hash has this key.
    pub(super) fn new(
        [v4, v6]: [MappedMemory; 2],
        [records_v4, records_v6]: [MappedMemory; 2],
        notes: SegmentNotes,
        key: [u64; 2],
        generation: u32,
    ) -> io::Result<FlowTable> {
        let (grace, begun) = channel::<Vec<LeavingLine>>();
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
            records: [RecordMemory::new(records_v4, RECORD_LEN), RecordMemory::new(records_v6, RECORD_LEN_V6)],
            notes,
            read: VecDeque::new(),
            key,
            generation,
            live: 0,
            leaving: Vec::new(),
            grace: Some(grace),
            after_grace,
            waiting: false,
        })
    }

    /// Maps a table of this size out of its BPF maps: of IPv4 and of IPv6 the lines, the records, and the sides; and the ring that notes come by.
    pub(super) fn of_maps(
        size: FlowTableSize,
        [v4, v6, records_v4, records_v6, sides, sides_v6]: [BorrowedFd<'_>; 6],
        ring: RingBuf<MapData>,
        key: [u64; 2],
        generation: u32,
    ) -> io::Result<FlowTable> {
        let connections = [false, true].map(|is_v6| size.connections_of(is_v6) as usize);
        let [lines, lines_v6] = connections.map(|connections| connections * 2);
        let v4 = MappedMemory::bpf_map(v4, lines * LineLayout::V4.line_len)?;
        let v6 = MappedMemory::bpf_map(v6, lines_v6 * LineLayout::V6.line_len)?;
        let records_v4 = MappedMemory::bpf_map(records_v4, connections[0] * RECORD_LEN)?;
        let records_v6 = MappedMemory::bpf_map(records_v6, connections[1] * RECORD_LEN_V6)?;
        let sides = MappedMemory::bpf_map(sides, lines * SIDE_LEN)?;
        let sides_v6 = MappedMemory::bpf_map(sides_v6, lines_v6 * SIDE_LEN)?;
        let notes = SegmentNotes::new([sides, sides_v6], Some(ring));
        FlowTable::new([v4, v6], [records_v4, records_v6], notes, key, generation)
    }

    /// The connections that an earlier gateway has left in this memory, each once. Lines that belong to none are taken out.
    pub fn take_left(&mut self) -> Vec<AdoptedFlow> {
        let mut left = Vec::new();
        // Connections that the programs have opened, and of which nobody has read.
        self.read.extend(std::iter::from_fn(|| self.notes.next()));
        let opened = self.read.iter().filter_map(|note| Some([note.line, note.opens?]));
        for line in opened.flatten().collect::<Vec<_>>() {
            if let Some(state) = self.of_family(line.is_v6).lines.get_mut(line.number as usize) {
                *state = LineState::Free;
            }
        }
        for is_v6 in [false, true] {
            let lines_of = |table: &mut FlowTable| table.of_family(is_v6).lines.clone();
            let mut orphans = lines_of(self);
            let records = &mut self.records[usize::from(is_v6)];
            left.extend(records.take_left(|LeftRecord { lines: numbers, number: record, snapshot, written_ms }| {
                let mut take = |number: u32| {
                    let state = orphans.get_mut(number as usize).filter(|state| **state == LineState::Live);
                    state.map(|state| *state = LineState::Free).is_some()
                };
                let [original, reply] = numbers;
                let is_there = take(original) && take(reply);
                let lines = numbers.map(|number| FlowLine { is_v6, number });
                let record = FlowRecord { is_v6, number: record };
                is_there.then_some(AdoptedFlow { lines, record, snapshot, written_ms })
            }));
            let in_use = lines_of(self).iter().filter(|state| **state == LineState::Live).count();
            self.live += in_use;
            for (number, state) in orphans.iter().enumerate() {
                if let (LineState::Live, Ok(number)) = (state, u32::try_from(number)) {
                    self.remove(FlowLine { is_v6, number });
                }
            }
        }
        left
    }

    /// Is a line that of packets with these ends?
    pub fn has_ends(&self, line: FlowLine, source: (IpAddr, u16), destination: (IpAddr, u16)) -> bool {
        let ends = EncodedLine::ends(source, destination);
        let of_family = if line.is_v6 { &self.v6 } else { &self.v4 };
        source.0.is_ipv6() == line.is_v6 && of_family.has_key(line.number, ends.bytes())
    }

    /// Writes down what the next gateway has to know of a connection, whose lines these are: original, reply. `None` if it is too much.
    pub fn add_record(&mut self, lines: [FlowLine; 2], snapshot: &[u8]) -> Option<FlowRecord> {
        let is_v6 = lines[0].is_v6;
        let number = self.records[usize::from(is_v6)].add(lines.map(|line| line.number), snapshot)?;
        Some(FlowRecord { is_v6, number })
    }

    /// The longest snapshot that a record has room for.
    pub fn record_room(is_v6: bool) -> usize {
        room_of(if is_v6 { RECORD_LEN_V6 } else { RECORD_LEN })
    }

    /// Writes it down anew, as of now: what its lines have counted is in it.
    pub fn renew_record(&mut self, record: &FlowRecord, lines: [FlowLine; 2], snapshot: &[u8]) {
        let records = &mut self.records[usize::from(record.is_v6)];
        records.write(record.number, lines.map(|line| line.number), snapshot);
        for line in lines {
            self.of_family(line.is_v6).restart_counts(line.number);
        }
    }

    /// Writes it down anew, while its lines count on: what they have counted is not in it.
    pub fn update_record(&mut self, record: &FlowRecord, lines: [FlowLine; 2], snapshot: &[u8]) {
        self.records[usize::from(record.is_v6)].write(record.number, lines.map(|line| line.number), snapshot);
    }

    /// The next gateway need not know of it.
    pub fn remove_record(&mut self, record: FlowRecord) {
        self.records[usize::from(record.is_v6)].remove(record.number);
    }

    /// How many lines there are, of IPv4 and of IPv6.
    pub fn line_counts(&self) -> [usize; 2] {
        [self.v4.lines.len(), self.v6.lines.len()]
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

    /// Enters the flows of a connection, original and reply; `None` if there is no place for both, their addresses are not of one family, or an interface's index has more than 16 bits. With `opening`, its
    /// handshake goes on: the sequence number of the client's next segment.
    pub fn insert(&mut self, flows: [&TcFlow; 2], opening: Option<u32>) -> Option<[FlowLine; 2]> {
        let [Some(original), Some(reply)] = flows.map(EncodedLine::new) else { return None };
        let is_v6 = flows[0].source.0.is_ipv6();
        if flows[1].source.0.is_ipv6() != is_v6 {
            return None;
        }
        let first = self.write(is_v6, &original)?;
        let Some(second) = self.write(is_v6, &reply) else {
            // No packet has found it.
            self.of_family(is_v6).free(first);
            return None;
        };
        let numbers = [first, second];
        self.notes.pair(is_v6, numbers, opening);
        self.live += numbers.len();
        for (number, flow) in numbers.into_iter().zip(flows) {
            self.of_family(is_v6).go_live(number, opening.is_some(), flow.without_fin);
        }
        Some(numbers.map(|number| FlowLine { is_v6, number }))
    }

    fn write(&mut self, is_v6: bool, line: &EncodedLine) -> Option<u32> {
        let (hash, generation) = (self.hash(line), self.generation);
        self.of_family(is_v6).write(line, hash, generation)
    }

    fn hash(&self, line: &EncodedLine) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key[0], self.key[1]);
        hasher.write(line.key());
        hasher.finish()
    }

    /// The next segment that the programs have let go on and that belongs to a connection's handshake or end, in the order that they came.
    pub fn next_note(&mut self) -> Option<SegmentNote> {
        self.read.pop_front().or_else(|| self.notes.next())
    }

    /// Readable when notes are to be read at once; [`FlowTable::hear`] ends that.
    pub fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.notes.bell()
    }

    /// The bell is silent until a program asks for it again.
    pub fn hear(&self) {
        self.notes.hear();
    }

    /// Takes over the lines of a connection that the programs have opened, original and reply. Tells where its packets have come from: in by this interface, or from the machine itself, out by it. `None` if there
    /// are none such.
    pub fn take_over(&mut self, lines: [FlowLine; 2]) -> Option<(TcHook, u16)> {
        let taken = lines.map(|line| self.of_family(line.is_v6).take_over(line.number));
        self.live += taken.iter().filter(|taken| **taken).count();
        if taken != [true; 2] {
            lines.into_iter().zip(taken).filter(|(_, taken)| *taken).for_each(|(line, _)| self.remove(line));
        }
        (taken == [true; 2]).then(|| self.of_family(lines[0].is_v6).source(lines[0].number))
    }

    /// Are these lines as the flows, original and reply, would be entered?
    pub fn are_lines_of(&self, lines: [FlowLine; 2], flows: [&TcFlow; 2]) -> bool {
        lines.into_iter().zip(flows).all(|(line, flow)| {
            let of_family = if line.is_v6 { &self.v6 } else { &self.v4 };
            let encoded = EncodedLine::new(flow).filter(|_| flow.source.0.is_ipv6() == line.is_v6);
            encoded.is_some_and(|encoded| of_family.is_line(line.number, &encoded, flow.without_fin))
        })
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
        let before = self.of_family(line.is_v6).remove(line.number);
        self.live -= usize::from(before == Some(LineState::Live));
        if before.is_some() {
            self.leaving.push(LeavingLine { line, frees: true });
        }
    }

    /// Keeps a line for the next gateway alone: no packet that comes from now on finds it. Do not remove it before [`FlowTable::poll_removed`] has given it out.
    pub fn park(&mut self, line: FlowLine) {
        if self.of_family(line.is_v6).park(line.number) {
            self.live -= 1;
            self.leaving.push(LeavingLine { line, frees: false });
        }
    }

    /// The lines taken out or parked that no program reads any more, with their last counts. Call it now and then.
    pub fn poll_removed(&mut self) -> Vec<(FlowLine, FlowCounts)> {
        let mut removed = Vec::new();
        while let Ok(lines) = self.after_grace.try_recv() {
            self.waiting = false;
            for LeavingLine { line, frees } in lines {
                removed.push((line, self.counts(line)));
                if frees {
                    self.of_family(line.is_v6).free(line.number);
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

/// Waits until every BPF program that runs now has ended: `MEMBARRIER_CMD_GLOBAL` waits for a grace period of RCU, under which they run.
#[allow(unsafe_code, reason = "membarrier(2) has no safe wrapper")]
pub(super) fn wait_for_grace_period() {
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
    use crate::tc::flow_line::LINES_PER_BUCKET;
    use crate::tc::line_memory::now_ms;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::sync::atomic::Ordering;

    fn table() -> FlowTable {
        let lines = [false, true].map(|is_v6| FlowTableSize::default().connections_of(is_v6) as usize * 2);
        let anonymous = |length| MappedMemory::anonymous(length).unwrap();
        let memory = [lines[0] * LineLayout::V4.line_len, lines[1] * LineLayout::V6.line_len].map(anonymous);
        let records = [RECORD_LEN, RECORD_LEN_V6].map(|record_len| anonymous(1024 * record_len));
        let notes = SegmentNotes::new(lines.map(|lines| anonymous(lines * SIDE_LEN)), None);
        FlowTable::new(memory, records, notes, [1, 2], 7).unwrap()
    }

    /// Both directions of a connection.
    fn insert(table: &mut FlowTable, source: IpAddr, port: u16) -> Option<[FlowLine; 2]> {
        let original = flow(source, port);
        let reply = TcFlow {
            source: original.new_destination,
            destination: original.new_source,
            new_source: original.destination,
            new_destination: original.source,
            ifindex: 4,
            target: TcFlowTarget::Forward(3, source),
            ..original
        };
        table.insert([&original, &reply], None)
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
            plain_tos_only: false,
            without_fin: false,
        }
    }

    const CLIENTS: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2))];

    #[test]
    fn a_line_is_used_again_only_after_a_grace_period() {
        for client in CLIENTS {
            let mut table = table();
            let [line, reply] = insert(&mut table, client, 1).unwrap();
            let seen_ms = table.counts(line).seen_ms;
            assert_eq!(table.counts(line), FlowCounts { seen_ms, ..FlowCounts::default() });
            assert!(table.counts(line).age_ms_at(now_ms()) < 60_000, "as if a packet had come");
            let of_family = table.of_family(line.is_v6);
            let at = of_family.at(line.number);
            of_family.memory.atomic_u64(at + of_family.layout.packets()).store(9, Ordering::Relaxed);
            table.remove(line);
            table.remove(line);
            assert_eq!((table.len(), table.has_leaving()), (1, true));
            // The program that counts on is still at it.
            let of_family = table.of_family(line.is_v6);
            of_family.memory.atomic_u64(at + of_family.layout.bytes()).store(90, Ordering::Relaxed);
            assert!(!insert(&mut table, client, 1).unwrap().contains(&line) && reply != line);
            let removed = loop {
                let removed = table.poll_removed();
                if !removed.is_empty() {
                    break removed;
                }
                std::thread::yield_now();
            };
            assert_eq!(removed, [(line, FlowCounts { packets: 9, bytes: 90, seen_ms })]);
            let state = table.of_family(line.is_v6).lines[line.number as usize];
            assert_eq!((state, table.has_leaving()), (LineState::Free, false));
        }
    }

    /// Three choices of buckets: up to half of it every flow finds a place, up to four fifths all but a few.
    #[test]
    fn flows_spread_over_the_table() {
        let mut table = table();
        let v4 = |number: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + number / 60_000));
        let v6 = |number: u32| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, (number / 60_000) as u16));
        let mut enter = |client: &dyn Fn(u32) -> IpAddr, numbers: std::ops::Range<u32>| {
            numbers.filter(|n| insert(&mut table, client(*n), (n % 60_000) as u16).is_none()).count()
        };
        assert_eq!((enter(&v4, 0..66_000), enter(&v6, 0..33_000)), (0, 0));
        let refused = (enter(&v4, 66_000..104_800), enter(&v6, 33_000..52_400));
        assert!(refused.0 < 1048 && refused.1 < 524, "{refused:?} of 104,800 and 52,400");
        assert_eq!(table.len(), 2 * (104_800 + 52_400 - refused.0 - refused.1));
    }

    /// Of 50,000 in a table that is not half full: each further bucket or pair of lines is a further wait for memory.
    #[test]
    fn most_flows_are_where_the_programs_look_first() {
        let mut table = table();
        let entered: Vec<FlowLine> =
            (0..50_000).filter_map(|port| insert(&mut table, CLIENTS[0], port)).flatten().collect();
        let mask = table.of_family(false).lines.len() / LINES_PER_BUCKET - 1;
        let hash = |port: u16| table.hash(&EncodedLine::new(&flow(CLIENTS[0], port)).unwrap());
        let first = |port: u16| ((hash(port) as usize & mask) * LINES_PER_BUCKET, (hash(port) >> 62) as usize);
        let originals = || entered.iter().step_by(2).map(|line| line.number as usize).zip(0..);
        let in_bucket = |(line, port): &(usize, u16)| line & !(LINES_PER_BUCKET - 1) == first(*port).0;
        let in_pair = |(line, port): &(usize, u16)| line & !1 == (first(*port).0 + first(*port).1) & !1;
        let in_line = |(line, port): &(usize, u16)| *line == first(*port).0 + first(*port).1;
        assert!(originals().filter(in_bucket).count() > 42_000);
        assert!(originals().filter(in_pair).count() > 36_000);
        assert!(originals().filter(in_line).count() > 34_000);
    }

    /// What an earlier gateway has left is found once, known or parked; lines without a record are taken out.
    #[test]
    fn lines_are_left_for_the_next_gateway() {
        for client in CLIENTS {
            let mut table = table();
            let [[a, b], [c, d], [orphan, gone]] = [1, 2, 3].map(|port| insert(&mut table, client, port).unwrap());
            table.add_record([a, b], b"known").unwrap();
            table.add_record([c, d], b"parked").unwrap();
            table.add_record([gone, orphan], b"half of it").unwrap();
            table.remove(gone);
            [c, d].into_iter().for_each(|line| table.park(line));
            assert_eq!(table.len(), 3);
            let no_memory = || MappedMemory::anonymous(4096).unwrap();
            let lines = std::mem::replace(&mut table.of_family(a.is_v6).memory, no_memory());
            let records =
                std::mem::replace(&mut table.records[usize::from(a.is_v6)], RecordMemory::new(no_memory(), 4096));
            let (mut next, records) = (self::table(), records.into_memory());
            let layout = next.of_family(a.is_v6).layout;
            *next.of_family(a.is_v6) = LineMemory::new(lines, layout);
            let record_len = if a.is_v6 { RECORD_LEN_V6 } else { RECORD_LEN };
            next.records[usize::from(a.is_v6)] = RecordMemory::new(records, record_len);
            let left = next.take_left();
            let mut shown: Vec<_> = left.iter().map(|left| (left.lines, left.snapshot.as_slice())).collect();
            shown.sort_by_key(|(_, snapshot)| snapshot.to_vec());
            assert_eq!(shown, [([a, b], &b"known"[..]), ([c, d], b"parked")]);
            let server = flow(client, 1).destination;
            assert!(next.has_ends(a, (client, 1), server) && !next.has_ends(a, (client, 2), server));
            assert_eq!((next.len(), next.has_leaving()), (4, true));
            assert_eq!(next.of_family(a.is_v6).lines[orphan.number as usize], LineState::Leaving);
            assert!(next.take_left().is_empty());
        }
    }
}
