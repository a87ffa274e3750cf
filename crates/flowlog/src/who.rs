//! Who had an outside address and port at a time, by the records of a log, and what of the log makes the answer uncertain.
//!
//! A search lives for one question. It is given the records of one or several logs, those of each in their order and all of them in the order of time, keeps those of the port asked for, notes every gap,
//! and answers at the end. Several logs are those of gateways that take over from each other: a session that one has begun may end in another one's log, and its gateway's end is not its own.
use crate::record::{LogEvent, LogRecord, LogSession, LogTime, LoggedPortBlock, SocketAddress};
use std::net::IpAddr;

/// Who had this port at this time?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WhoQuestion {
    /// The outside address and port.
    pub outside: SocketAddress,
    /// Of this protocol only.
    pub protocol: Option<u8>,
    /// When.
    pub at: LogTime,
    /// Towards this peer only; without a port, towards all of its ports.
    pub peer: Option<(IpAddr, Option<u16>)>,
}

/// Who had it, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortHolder {
    /// The address inside; `None` if the log hides it.
    pub inside: Option<IpAddr>,
    /// The port inside; `None` if it is hidden, or a block was given.
    pub inside_port: Option<u16>,
    /// The protocol; `None` for a block, which serves all.
    pub protocol: Option<u8>,
    /// The other end, if it is logged.
    pub peer: Option<SocketAddress>,
    /// The whole block, if a block was given.
    pub block: Option<(u16, u16)>,
    /// Since when; `None` if that is not in the log.
    pub from: Option<LogTime>,
    /// Until when; `None` if no end is in the log.
    pub until: Option<LogTime>,
}

/// A time from which records are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogGap {
    /// The last record before it.
    pub from: LogTime,
    /// The first record behind it.
    pub to: LogTime,
    /// How many are missing, if that is known.
    pub lost: Option<u64>,
}

/// What makes an answer uncertain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhoDoubt {
    /// There are no records.
    NoRecords,
    /// The log begins after the time asked for.
    BeginsLater(LogTime),
    /// The log ends before the time asked for.
    EndsBefore(LogTime),
    /// The log begins in the middle: a session that began before, and whose end is not in it, is not known.
    BeginsInTheMiddle(LogTime),
    /// Records are missing around the time asked for.
    InGap(LogGap),
    /// Records are missing before: a session that began then, and whose end is not in the log, is not known.
    GapBefore(LogGap),
    /// Someone had it at last, but the end may be among missing records.
    EndMayBeLost(LogGap),
    /// An end without a begin, and without the time of it.
    BeginUnknown,
    /// The log hides peers, so it cannot be said who talked to the one asked for.
    PeersNotLogged,
    /// The log hides the addresses inside.
    InsideNotLogged,
}

/// Who it was, and how certain that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhoAnswer {
    /// Everyone who had it: Linux's NAT gives one port to several, towards different peers.
    pub holders: Vec<PortHolder>,
    /// What makes this uncertain.
    pub doubts: Vec<WhoDoubt>,
}

/// A question on its way through a log.
#[derive(Clone, Debug)]
pub struct WhoSearch {
    question: WhoQuestion,
    closed: Vec<PortHolder>,
    open: Vec<(OpenKey, PortHolder)>,
    gaps: Vec<LogGap>,
    /// By log.
    logs: Vec<LogProgress>,
    /// The starts of gateways that were seen.
    instances: Vec<u64>,
}

/// How far a log was read.
#[derive(Clone, Copy, Debug, Default)]
struct LogProgress {
    first: Option<LogTime>,
    /// Time and sequence number of the last record.
    last: Option<(LogTime, u64)>,
    /// Did the log begin with the gateway, without older connections?
    begins_fresh: bool,
    /// When the gateway was stopped, if the last record says so.
    stopped: Option<LogTime>,
    /// There are no more records.
    is_read: bool,
}

/// What an end is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OpenKey {
    Session(LogSession),
    Block(LoggedPortBlock),
}

impl WhoSearch {
    /// A search for this question.
    pub fn new(question: WhoQuestion) -> WhoSearch {
        WhoSearch {
            question,
            closed: Vec::new(),
            open: Vec::new(),
            gaps: Vec::new(),
            logs: Vec::new(),
            instances: Vec::new(),
        }
    }

    /// The next record of the only log, with its sequence number. Those that were there already, from a file given twice, change nothing.
    pub fn push(&mut self, seq: u64, record: &LogRecord) {
        self.push_of(0, seq, record);
    }

    /// As [`WhoSearch::push`], of one of several logs, by its number. No record of another log that comes later is older.
    pub fn push_of(&mut self, log: usize, seq: u64, record: &LogRecord) {
        let at = record.at;
        if self.logs.len() <= log {
            self.logs.resize(log + 1, LogProgress::default());
        }
        if self.is_repeated(log, seq, record) {
            return;
        }
        let is_start = matches!(record.event, LogEvent::LogStart { .. });
        let mut progress = self.progress(log);
        if progress.first.is_none() {
            progress = self.continued(log, seq, is_start).unwrap_or(LogProgress {
                first: Some(at),
                begins_fresh: matches!(record.event, LogEvent::LogStart { connections: 0, .. }),
                ..LogProgress::default()
            });
        }
        let is_alone = self.is_alone(log);
        self.note_gap(&progress, is_alone, seq, record);
        progress.last = Some((at, seq));
        match &record.event {
            LogEvent::LogStart { connections, .. } => {
                let stopped = progress.stopped.take();
                // Where others' logs go on, they may have the connections.
                if *connections == 0 && is_alone {
                    self.restart(stopped.unwrap_or(at));
                }
            }
            LogEvent::LogEnd => progress.stopped = Some(at),
            LogEvent::SessionBegin(session) if self.is_asked_for(session) => {
                self.close(&OpenKey::Session(*session), at);
                self.open.push((OpenKey::Session(*session), PortHolder { from: Some(at), ..PortHolder::of(session) }));
            }
            LogEvent::SessionEnd(end) if self.is_asked_for(&end.session) => {
                let unknown = PortHolder { from: end.start, ..PortHolder::of(&end.session) };
                self.end(OpenKey::Session(end.session), unknown, at);
            }
            LogEvent::PortBlockTaken(block) if self.is_in_block(block) => {
                self.close(&OpenKey::Block(*block), at);
                self.open.push((OpenKey::Block(*block), PortHolder { from: Some(at), ..PortHolder::of_block(block) }));
            }
            LogEvent::PortBlockReturned(block) if self.is_in_block(block) => {
                self.end(OpenKey::Block(*block), PortHolder::of_block(block), at);
            }
            _ => (),
        }
        if let Some(known) = self.logs.get_mut(log) {
            *known = progress;
        }
    }

    /// A log has no more records.
    pub fn end_log(&mut self, log: usize) {
        if let Some(progress) = self.logs.get_mut(log) {
            progress.is_read = true;
        }
    }

    fn progress(&self, log: usize) -> LogProgress {
        self.logs.get(log).copied().unwrap_or_default()
    }

    /// Is no other log in the middle?
    fn is_alone(&self, log: usize) -> bool {
        let others = self.logs.iter().enumerate().filter(|(other, _)| *other != log);
        others.into_iter().all(|(_, other)| other.is_read || other.first.is_none())
    }

    /// A log that begins where another one has ended, and goes on with it: files of one gateway, whatever their names. What is known of that one is then this one's.
    fn continued(&mut self, log: usize, seq: u64, is_start: bool) -> Option<LogProgress> {
        let is_alone = self.is_alone(log);
        let fits = |other: &&mut LogProgress| {
            let before = other.last.filter(|_| other.is_read);
            before.is_some_and(|(_, last)| {
                if is_start { is_alone } else { last < seq && (is_alone || last.saturating_add(1) == seq) }
            })
        };
        let latest = self.logs.iter_mut().filter(fits).max_by_key(|other| other.last)?;
        let known = std::mem::take(latest);
        latest.is_read = true;
        Some(LogProgress { is_read: false, ..known })
    }

    /// The answer, by all records so far.
    pub fn answer(&self) -> WhoAnswer {
        let at = self.question.at;
        let all = self.closed.iter().chain(self.open.iter().map(|(_, holder)| holder));
        let mut holders: Vec<PortHolder> = Vec::new();
        for holder in all.filter(|holder| holder.covers(at)) {
            // From a file given twice, under another name.
            if !holders.contains(holder) {
                holders.push(*holder);
            }
        }
        WhoAnswer { doubts: self.doubts(&holders), holders }
    }

    fn doubts(&self, holders: &[PortHolder]) -> Vec<WhoDoubt> {
        let first = self.logs.iter().filter_map(|log| log.first).min();
        let last = self.logs.iter().filter_map(|log| log.last).map(|(last, _)| last).max();
        let (Some(first), Some(last)) = (first, last) else { return vec![WhoDoubt::NoRecords] };
        let at = self.question.at;
        let mut doubts = Vec::new();
        if at < first {
            doubts.push(WhoDoubt::BeginsLater(first));
        }
        if at > last {
            doubts.push(WhoDoubt::EndsBefore(last));
        }
        let in_gap = self.gaps.iter().find(|gap| gap.from <= at && at <= gap.to);
        doubts.extend(in_gap.map(|gap| WhoDoubt::InGap(*gap)));
        if holders.is_empty() {
            let in_the_middle = self.logs.iter().filter(|log| !log.begins_fresh).filter_map(|log| log.first);
            doubts.extend(in_the_middle.filter(|first| at >= *first).map(WhoDoubt::BeginsInTheMiddle));
            doubts.extend(self.gaps.iter().rfind(|gap| gap.to < at).map(|gap| WhoDoubt::GapBefore(*gap)));
        }
        for holder in holders.iter().filter(|holder| holder.until.is_none()) {
            let behind = |gap: &&LogGap| holder.from.is_none_or(|from| from <= gap.to) && gap.from <= at;
            doubts.extend(self.gaps.iter().find(behind).map(|gap| WhoDoubt::EndMayBeLost(*gap)));
        }
        if holders.iter().any(|holder| holder.from.is_none()) {
            doubts.push(WhoDoubt::BeginUnknown);
        }
        if self.question.peer.is_some() && holders.iter().any(|holder| holder.peer.is_none()) {
            doubts.push(WhoDoubt::PeersNotLogged);
        }
        if holders.iter().any(|holder| holder.inside.is_none()) {
            doubts.push(WhoDoubt::InsideNotLogged);
        }
        doubts.dedup();
        doubts
    }

    /// Was this record there before? The wall clock may have been set back, so its time alone does not say it.
    fn is_repeated(&mut self, log: usize, seq: u64, record: &LogRecord) -> bool {
        if let LogEvent::LogStart { instance, .. } = record.event {
            let is_known = self.instances.contains(&instance);
            if !is_known {
                self.instances.push(instance);
            }
            return is_known;
        }
        self.progress(log).last.is_some_and(|(last, last_seq)| record.at <= last && seq <= last_seq)
    }

    /// Is something missing between the last record and this one, or does it say so?
    fn note_gap(&mut self, progress: &LogProgress, is_alone: bool, seq: u64, record: &LogRecord) {
        let Some((last, last_seq)) = progress.last else {
            if let LogEvent::RecordsLost { lost, .. } = record.event {
                self.gaps.push(LogGap { from: LogTime(0), to: record.at, lost: Some(lost) });
            }
            return;
        };
        let missing = |lost| Some(LogGap { from: last.min(record.at), to: record.at, lost });
        let gap = match record.event {
            // Stopped in order: nothing is missing, unless others may have taken its connections over.
            LogEvent::LogStart { .. } if progress.stopped.is_some() && is_alone => None,
            LogEvent::LogStart { .. } => missing(None),
            LogEvent::RecordsLost { lost, .. } => missing(Some(lost)),
            _ if seq == last_seq.saturating_add(1) => None,
            _ if seq > last_seq => missing(Some(seq - last_seq - 1)),
            // Another start, whose beginning is not there.
            _ => missing(None),
        };
        self.gaps.extend(gap);
    }

    /// The gateway was started again, without connections of before.
    fn restart(&mut self, until: LogTime) {
        let ended = self.open.drain(..).map(|(_, holder)| PortHolder { until: Some(until), ..holder });
        self.closed.extend(ended);
    }

    /// Ends what is open under this key; was there something?
    fn close(&mut self, key: &OpenKey, at: LogTime) -> bool {
        let Some(place) = self.open.iter().position(|(open, _)| open == key) else { return false };
        let (_, holder) = self.open.swap_remove(place);
        self.closed.push(PortHolder { until: Some(at), ..holder });
        true
    }

    /// Notes an end; if nothing is open under this key, it is that of `unknown`.
    fn end(&mut self, key: OpenKey, unknown: PortHolder, at: LogTime) {
        if !self.close(&key, at) {
            self.closed.push(PortHolder { until: Some(at), ..unknown });
        }
    }

    fn is_asked_for(&self, session: &LogSession) -> bool {
        let WhoQuestion { outside, protocol, peer, .. } = self.question;
        let is_peer = |(address, port): (IpAddr, Option<u16>)| {
            // A hidden peer may be the one.
            session.peer().is_none_or(|found| found.address == address && port.is_none_or(|port| port == found.port))
        };
        session.outside() == Some(outside)
            && protocol.is_none_or(|protocol| protocol == session.protocol)
            && peer.is_none_or(is_peer)
    }

    fn is_in_block(&self, block: &LoggedPortBlock) -> bool {
        let SocketAddress { address, port } = self.question.outside;
        block.outside == address && (block.first_port..=block.last_port).contains(&port)
    }
}

impl PortHolder {
    /// Who has the port of a session, without its times.
    pub fn of(session: &LogSession) -> PortHolder {
        let inside = session.inside();
        PortHolder {
            inside: inside.map(|inside| inside.address),
            inside_port: inside.map(|inside| inside.port),
            protocol: Some(session.protocol),
            peer: session.peer(),
            block: None,
            from: None,
            until: None,
        }
    }

    fn of_block(block: &LoggedPortBlock) -> PortHolder {
        PortHolder {
            inside: block.inside,
            inside_port: None,
            protocol: None,
            peer: None,
            block: Some((block.first_port, block.last_port)),
            from: None,
            until: None,
        }
    }

    fn covers(&self, at: LogTime) -> bool {
        self.from.is_none_or(|from| from <= at) && self.until.is_none_or(|until| at <= until)
    }
}
