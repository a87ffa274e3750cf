//! One visitor who speaks the kernel's messages: pieces of ctnetlink requests in, pieces of answers out.
//!
//! It lives on a thread of its own from the visitor's first line to his hanging up. Everything is decoded and encoded here; the router's thread is
//! asked for what only it knows, a bounded piece at a time. Once a group of events is joined, a second thread hands on what
//! happens, so that a request is answered meanwhile.
use super::desk::{Access, At, Chunk, Ear, PLACES};
use super::meaning::{counters, expectation_counters, expectation_of, fits, parts, tell};
use super::wish::{self, Edit};
use anyhow::{Result, bail};
use keepstate_conntrack::format::tracked;
use keepstate_engine::{Counters, Entry, EventKind, Family, Knob};
use keepstate_linux::ctnetlink::number::{group, message, stats_global};
use keepstate_linux::ctnetlink::{Expectation, Flow, decode};
use keepstate_linux::netlink::message::{Body, done, end, flag, overrun};
use keepstate_linux::netlink::socket::{JOIN, JOIN_GROUP};
use keepstate_linux::netlink::{Message, Messages, Request, frame};
use keepstate_linux::peer::Peer;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Changes that one errand carries out.
const BATCH: usize = 64;
/// Octets of answers that are sent at once.
const PIECE: usize = 32 * 1024;
/// How often a listener is told of losses while nothing happens.
const PATIENCE: Duration = Duration::from_millis(500);

/// The end where answers go in; two threads write there.
type Out = Arc<Mutex<UnixStream>>;

struct Session<'a> {
    out: Out,
    access: &'a Access,
    peer: Peer,
    ear: Option<Arc<Ear>>,
}

/// Answers until the visitor hangs up.
///
/// # Errors
/// He said what cannot be understood, or does not read; the router has ended.
pub(super) fn attend(stream: &UnixStream, access: &Access, peer: Peer) -> Result<()> {
    let out = Arc::new(Mutex::new(stream.try_clone()?));
    let mut session = Session { out, access, peer, ear: None };
    let mut piece = Vec::new();
    let mut from = stream;
    let attended = loop {
        match frame::read(&mut from, &mut piece) {
            Ok(true) => (),
            Ok(false) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
        if let Err(error) = session.piece(&piece) {
            break Err(error);
        }
    };
    session.ear.iter().for_each(|ear| ear.leave());
    attended
}

/// What a message asks for.
enum Asked {
    Edit(Box<Edit>),
    Other,
}

impl Session<'_> {
    /// Answers every request in a piece, changes several at a time.
    fn piece(&mut self, piece: &[u8]) -> Result<()> {
        let mut edits = Vec::new();
        for message in Messages::new(piece) {
            let message = message?;
            if !matches!(message.body, Body::Data { .. }) {
                continue;
            }
            match asked(&message) {
                Ok(Asked::Edit(edit)) => edits.push((message.sequence, *edit)),
                Ok(Asked::Other) => {
                    self.edit(&mut edits)?;
                    self.other(&message)?;
                }
                Err(number) => {
                    self.edit(&mut edits)?;
                    self.end(message.sequence, number)?;
                }
            }
            if edits.len() >= BATCH {
                self.edit(&mut edits)?;
            }
        }
        self.edit(&mut edits)
    }

    /// Carries out changes, and says of each how it ended.
    fn edit(&self, edits: &mut Vec<(u32, Edit)>) -> Result<()> {
        if edits.is_empty() {
            return Ok(());
        }
        let port = self.peer.process;
        let edits = std::mem::take(edits);
        let ends = self.access.ask(move |at: &mut At<'_>| {
            at.desk.spread(at.router.engine(), 0);
            let carried = |(sequence, edit): &(u32, Edit)| (*sequence, edit.carry_out(at.router.engine(), at.now));
            let ends: Vec<(u32, i32)> = edits.iter().map(carried).collect();
            at.desk.spread(at.router.engine(), port);
            ends
        })?;
        let mut octets = Vec::new();
        ends.iter().for_each(|(sequence, number)| end(&mut octets, *sequence, *number));
        self.send(&octets)
    }

    fn other(&mut self, message: &Message<'_>) -> Result<()> {
        let sequence = message.sequence;
        let dump = message.flags & flag::DUMP == flag::DUMP;
        match message.kind {
            message::CT_GET if !dump => self.find(message),
            message::CT_GET | message::CT_GET_CTRZERO => self.list(message),
            message::CT_GET_DYING | message::CT_GET_UNCONFIRMED => self.done(sequence),
            message::CT_DELETE => self.flush(message),
            message::CT_GET_STATS => self.count(sequence),
            message::CT_GET_STATS_CPU => self.statistics(sequence, message::CT_GET_STATS_CPU, counters),
            message::EXP_GET_STATS_CPU => self.statistics(sequence, message::EXP_GET_STATS_CPU, expectation_counters),
            message::EXP_GET => self.expectations(message, dump),
            message::EXP_DELETE => self.forget(message),
            message::EXP_NEW => self.announce(message),
            JOIN => self.join(message),
            _ => self.end(sequence, libc::EOPNOTSUPP),
        }
    }

    fn find(&self, message: &Message<'_>) -> Result<()> {
        let Ok(Some(flow)) = decode::flow(message) else { return self.end(message.sequence, libc::EINVAL) };
        let found = self.access.ask(move |at: &mut At<'_>| {
            let engine = at.router.engine();
            let handle = wish::find(engine, &flow, at.now)?.ok_or(libc::ENOENT)?;
            engine.entry(handle, at.now).ok_or(libc::ENOENT)
        })?;
        match found {
            Ok(entry) => {
                let mut octets = Vec::new();
                // Whoever shows it holds it, as in the kernel.
                let flow = Flow { uses: Some(entry.uses + 1), ..tracked::flow(&entry) };
                tell(&mut octets, &flow, message::CT_NEW, 0, 0, message.sequence);
                end(&mut octets, message.sequence, 0);
                self.send(&octets)
            }
            Err(number) => self.end(message.sequence, number),
        }
    }

    /// A dump: the next piece is fetched while one is written.
    fn list(&self, message: &Message<'_>) -> Result<()> {
        let family = family(message);
        let wanted = decode::flow(message).ok().flatten().unwrap_or_default();
        let zero = message.kind == message::CT_GET_CTRZERO;
        let mut octets = Vec::new();
        pieces(self.access, zero.then_some(family), |entries| {
            for entry in entries {
                let flow = tracked::flow(&entry);
                if family.is_none_or(|family| is_of(&entry, family)) && fits(&wanted, &flow) {
                    tell(&mut octets, &flow, message::CT_NEW, flag::MULTI, 0, message.sequence);
                }
                if octets.len() >= PIECE {
                    self.send(&octets)?;
                    octets.clear();
                }
            }
            Ok(())
        })?;
        done(&mut octets, message.sequence);
        self.send(&octets)
    }

    fn flush(&self, message: &Message<'_>) -> Result<()> {
        flush(self.access, family(message), self.peer.process)?;
        self.end(message.sequence, 0)
    }

    fn count(&self, sequence: u32) -> Result<()> {
        let (count, limit) = self.access.ask(|at: &mut At<'_>| {
            let engine = at.router.engine();
            (engine.count(), engine.knobs()[Knob::Max])
        })?;
        let mut told = Request::told(message::CT_GET_STATS, 0, 0, 0);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        told.push(stats_global::ENTRIES, &count.to_be_bytes()).push(stats_global::MAX_ENTRIES, &limit.to_be_bytes());
        let mut octets = told.octets(sequence).to_vec();
        end(&mut octets, sequence, 0);
        self.send(&octets)
    }

    fn statistics(&self, sequence: u32, kind: u16, of: impl Fn(&Counters) -> Vec<(u16, u64)>) -> Result<()> {
        let counters = self.access.ask(|at: &mut At<'_>| *at.router.engine().counters())?;
        let mut told = Request::told(kind, flag::MULTI, 0, 0);
        for (attribute, value) in of(&counters) {
            // The kernel's wrap likewise.
            let [.., a, b, c, d] = value.to_be_bytes();
            told.push(attribute, &[a, b, c, d]);
        }
        let mut octets = told.octets(sequence).to_vec();
        done(&mut octets, sequence);
        self.send(&octets)
    }

    /// All expectations, or (without `dump`) the one that is named.
    fn expectations(&self, message: &Message<'_>, dump: bool) -> Result<()> {
        let family = family(message);
        let named = Expectation::decode(message).ok().flatten().map(|named| named.expected);
        let told = self.access.ask(|at: &mut At<'_>| {
            let now = at.now;
            at.router.engine().expectations(now).map(|expected| expectation_of(&expected)).collect::<Vec<_>>()
        })?;
        let mut octets = Vec::new();
        let mut count = 0;
        for expectation in &told {
            let meant = if dump {
                family.is_none_or(|family| expectation.master.source.is_some_and(|source| of(source) == family))
            } else {
                named.is_some_and(|named| parts(&named, &expectation.expected))
            };
            if meant {
                let number = expectation.family.map_or(0, keepstate_linux::ctnetlink::Family::number);
                let mut one = Request::told(message::EXP_NEW, if dump { flag::MULTI } else { 0 }, number, 0);
                expectation.encode(&mut one);
                octets.extend_from_slice(one.octets(message.sequence));
                count += 1;
            }
        }
        match (dump, count) {
            (true, _) => done(&mut octets, message.sequence),
            (false, 0) => end(&mut octets, message.sequence, libc::ENOENT),
            (false, _) => end(&mut octets, message.sequence, 0),
        }
        self.send(&octets)
    }

    /// Nobody but a helper announces connections here: what would be announced is refused, as where there is no such helper.
    fn announce(&self, message: &Message<'_>) -> Result<()> {
        let Ok(Some(expectation)) = Expectation::decode(message) else {
            return self.end(message.sequence, libc::EINVAL);
        };
        let number = self.access.ask(move |at: &mut At<'_>| {
            match wish::find(at.router.engine(), &expectation.announcer(), at.now) {
                Ok(Some(_)) => libc::EOPNOTSUPP,
                Ok(None) => libc::ENOENT,
                Err(number) => number,
            }
        })?;
        self.end(message.sequence, number)
    }

    /// Takes announcements back: the one that is named, or all.
    fn forget(&self, message: &Message<'_>) -> Result<()> {
        let named = Expectation::decode(message).ok().flatten().map(|named| (named.expected, named.zone.unwrap_or(0)));
        let number = self.access.ask(move |at: &mut At<'_>| match named {
            Some((expected, zone)) => {
                let Some(tuple) = wish::tuple(&expected) else { return libc::EINVAL };
                if at.router.engine().forget_expected(&tuple, zone, at.now) { 0 } else { libc::ENOENT }
            }
            None => {
                at.router.engine().forget_all_expected();
                0
            }
        })?;
        self.end(message.sequence, number)
    }

    /// Joins groups of events.
    fn join(&mut self, message: &Message<'_>) -> Result<()> {
        let mut kinds = Vec::new();
        for attribute in message.attributes().filter_map(Result::ok).filter(|attribute| attribute.kind == JOIN_GROUP) {
            match attribute.be32("JOIN_GROUP").ok() {
                Some(group::CT_NEW) => kinds.push(EventKind::New),
                Some(group::CT_UPDATE) => kinds.push(EventKind::Update),
                Some(group::CT_DESTROY) => kinds.push(EventKind::Destroy),
                // The engine tells nothing of expectations as they come and go: who listens to them hears nothing.
                Some(group::EXP_NEW | group::EXP_UPDATE | group::EXP_DESTROY) => {}
                _ => return self.end(message.sequence, libc::EINVAL),
            }
        }
        match &self.ear {
            Some(ear) => {
                kinds.into_iter().for_each(|kind| ear.want(kind));
                self.access.ask(|at: &mut At<'_>| at.desk.tune(at.router.engine()))?;
            }
            None => self.listen(&kinds)?,
        }
        self.end(message.sequence, 0)
    }

    fn listen(&mut self, kinds: &[EventKind]) -> Result<()> {
        let ear = Arc::new(Ear::default());
        kinds.iter().for_each(|&kind| ear.want(kind));
        let admitted = Arc::clone(&ear);
        let chunks = self.access.ask(move |at: &mut At<'_>| at.desk.admit(admitted, at.router.engine()))?;
        self.ear = Some(Arc::clone(&ear));
        let out = Arc::clone(&self.out);
        std::thread::Builder::new().name("listener".into()).spawn(move || {
            // He has hung up, which the other thread sees too.
            if let Err(error) = hand_on(&ear, &chunks, &out) {
                tracing::trace!("control: {error:#}");
            }
            ear.leave();
        })?;
        Ok(())
    }

    fn end(&self, sequence: u32, number: i32) -> Result<()> {
        let mut octets = Vec::new();
        end(&mut octets, sequence, number);
        self.send(&octets)
    }

    fn done(&self, sequence: u32) -> Result<()> {
        let mut octets = Vec::new();
        done(&mut octets, sequence);
        self.send(&octets)
    }

    fn send(&self, octets: &[u8]) -> Result<()> {
        send(&self.out, octets)
    }
}

fn send(out: &Out, octets: &[u8]) -> Result<()> {
    let mut stream = out.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(frame::write(&mut *stream, octets)?)
}

/// Writes what happens to one listener, until he is gone or the router has ended.
fn hand_on(ear: &Ear, chunks: &Receiver<Arc<Chunk>>, out: &Out) -> Result<()> {
    let mut octets = Vec::new();
    loop {
        let chunk = match chunks.recv_timeout(PATIENCE) {
            Ok(chunk) => Some(chunk),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        if ear.take_lost() > 0 {
            octets.clear();
            overrun(&mut octets);
            send(out, &octets)?;
        }
        let Some(chunk) = chunk else { continue };
        octets.clear();
        for event in chunk.events.iter().filter(|event| ear.wants(event.kind)) {
            let mut flow = tracked::told(event);
            flow.happened = Some(event.at.0);
            if chunk.port != 0 && event.kind != EventKind::Destroy {
                // Of what a program makes or changes, mark and labels are told whatever they are.
                flow.mark = Some(event.entry.mark);
                flow.labels = event.entry.labels;
            }
            let (kind, flags) = match event.kind {
                EventKind::New => (message::CT_NEW, flag::CREATE | flag::EXCLUSIVE),
                EventKind::Update => (message::CT_NEW, 0),
                EventKind::Destroy => (message::CT_DELETE, 0),
            };
            tell(&mut octets, &flow, kind, flags, chunk.port, 0);
            if octets.len() >= PIECE {
                send(out, &octets)?;
                octets.clear();
            }
        }
        if !octets.is_empty() {
            send(out, &octets)?;
        }
        ear.took(&chunk);
    }
}

/// Hands over the whole table, piece by piece; with `zero`, the counts of one family, or of all, are set to zero.
pub(super) fn pieces(
    access: &Access,
    zero: Option<Option<Family>>,
    mut each: impl FnMut(Vec<Entry>) -> Result<()>,
) -> Result<()> {
    let piece = move |from: u32| {
        access.begin(move |at: &mut At<'_>| {
            let engine = at.router.engine();
            let mut entries = Vec::new();
            let next = engine.piece(from, PLACES, at.now, |entry| entries.push(entry));
            if let Some(family) = zero {
                let meant = |entry: &&Entry| family.is_none_or(|family| is_of(entry, family));
                entries.iter().filter(meant).for_each(|entry| engine.zero(entry.handle, at.now));
            }
            (entries, next)
        })
    };
    let mut waits = Some(piece(0)?);
    while let Some(waiting) = waits {
        let Ok((entries, next)) = waiting.recv() else { bail!("the gateway has ended") };
        waits = next.map(piece).transpose()?;
        each(entries)?;
    }
    Ok(())
}

/// Empties the table, of one family or of all, piece by piece.
pub(super) fn flush(access: &Access, family: Option<Family>, port: u32) -> Result<()> {
    let mut next = Some(0);
    while let Some(from) = next {
        next = access.ask(move |at: &mut At<'_>| {
            at.desk.spread(at.router.engine(), 0);
            let next = at.router.engine().flush_piece(from, PLACES, family, at.now);
            at.desk.spread(at.router.engine(), port);
            next
        })?;
    }
    Ok(())
}

/// What a message asks for; or the number of errno(3) that answers it.
fn asked(message: &Message<'_>) -> Result<Asked, i32> {
    if !matches!(message.kind, message::CT_NEW | message::CT_DELETE) {
        return Ok(Asked::Other);
    }
    let flow = decode::flow(message).map_err(|_| libc::EINVAL)?;
    let named = flow.as_ref().is_some_and(|flow| !flow.original.is_empty() || !flow.reply.is_empty());
    match flow {
        Some(flow) if named => Ok(Asked::Edit(Box::new(Edit { kind: message.kind, flags: message.flags, flow }))),
        _ if message.kind == message::CT_DELETE => Ok(Asked::Other),
        _ => Err(libc::EINVAL),
    }
}

fn family(message: &Message<'_>) -> Option<Family> {
    match message.body {
        Body::Data { family: 2, .. } => Some(Family::V4),
        Body::Data { family: 10, .. } => Some(Family::V6),
        _ => None,
    }
}

fn of(address: IpAddr) -> Family {
    if address.is_ipv6() { Family::V6 } else { Family::V4 }
}

fn is_of(entry: &Entry, family: Family) -> bool {
    of(entry.original.source) == family
}
