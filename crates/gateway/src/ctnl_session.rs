//! One client that speaks ctnetlink: frames of requests in, frames of answers out.
//!
//! It lives on a thread of its own from the client's first line until the client hangs up. Everything is decoded and encoded here; the main loop is
//! asked for what only it has, in bounded jobs. Once an event group is joined, a second thread writes the events, so that requests are answered meanwhile.
use super::ctnl_convert::{
    encode_flow, exp_stats_cpu_attributes, flow_matches, stats_cpu_attributes, to_ctnl_expectation,
};
use super::ctnl_edit::{self, CtnlEdit};
use super::jobs::{EventBatch, JobCtx, JobSender, SLOTS_PER_JOB, Subscriber};
use anyhow::{Result, bail};
use keepstate_conntrack::format::engine_flow;
use keepstate_engine::{Counters, Entry, EventKind, Family, Sysctl};
use keepstate_linux::ctnetlink::consts::{group, message, stats_global};
use keepstate_linux::ctnetlink::{CtExpectation, CtFlow, decode};
use keepstate_linux::netlink::message::{NlBody, flag, push_done, push_error, push_overrun};
use keepstate_linux::netlink::socket::{JOIN_GROUPS, JOIN_GROUPS_GROUP};
use keepstate_linux::netlink::{NlMessage, NlMessages, NlRequest, stream_frame};
use keepstate_linux::peercred::PeerCred;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Changes that one job carries out.
const EDIT_BATCH: usize = 64;
/// Bytes of answers sent at once.
const SEND_BUFFER: usize = 32 * 1024;
/// How often a subscriber is told of lost events while there are no others.
const LOSS_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Where answers are written, by two threads.
type ReplyStream = Arc<Mutex<UnixStream>>;

struct CtnlSession<'a> {
    out: ReplyStream,
    jobs: &'a JobSender,
    peer: PeerCred,
    subscriber: Option<Arc<Subscriber>>,
}

/// Answers until the client hangs up.
///
/// # Errors
/// A malformed message, a client that does not read, a gateway that has ended.
pub(super) fn serve(stream: &UnixStream, jobs: &JobSender, peer: PeerCred) -> Result<()> {
    let out = Arc::new(Mutex::new(stream.try_clone()?));
    let mut session = CtnlSession { out, jobs, peer, subscriber: None };
    let mut frame = Vec::new();
    let mut from = stream;
    let result = loop {
        match stream_frame::read_frame(&mut from, &mut frame) {
            Ok(true) => (),
            Ok(false) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
        if let Err(error) = session.handle_messages(&frame) {
            break Err(error);
        }
    };
    session.subscriber.iter().for_each(|subscriber| subscriber.close());
    result
}

/// A parsed request.
enum ParsedRequest {
    Edit(Box<CtnlEdit>),
    Other,
}

impl CtnlSession<'_> {
    /// Answers every request of a frame, changes several at a time.
    fn handle_messages(&mut self, frame: &[u8]) -> Result<()> {
        let mut edits = Vec::new();
        for message in NlMessages::new(frame) {
            let message = message?;
            if !matches!(message.body, NlBody::Data { .. }) {
                continue;
            }
            match parse_request(&message) {
                Ok(ParsedRequest::Edit(edit)) => edits.push((message.sequence, *edit)),
                Ok(ParsedRequest::Other) => {
                    self.apply_edits(&mut edits)?;
                    self.handle_request(&message)?;
                }
                Err(errno) => {
                    self.apply_edits(&mut edits)?;
                    self.send_ack(message.sequence, errno)?;
                }
            }
            if edits.len() >= EDIT_BATCH {
                self.apply_edits(&mut edits)?;
            }
        }
        self.apply_edits(&mut edits)
    }

    /// Carries out changes, and acknowledges each with its result.
    fn apply_edits(&self, edits: &mut Vec<(u32, CtnlEdit)>) -> Result<()> {
        if edits.is_empty() {
            return Ok(());
        }
        let portid = self.peer.pid;
        let edits = std::mem::take(edits);
        let results = self.jobs.run(move |at: &mut JobCtx<'_>| {
            at.hub.publish(at.router.engine_mut(), 0);
            let apply = |(sequence, edit): &(u32, CtnlEdit)| (*sequence, edit.apply(at.router.engine_mut(), at.now));
            let results: Vec<(u32, i32)> = edits.iter().map(apply).collect();
            at.hub.publish(at.router.engine_mut(), portid);
            results
        })?;
        let mut out = Vec::new();
        results.iter().for_each(|(sequence, errno)| push_error(&mut out, *sequence, *errno));
        self.send_messages(&out)
    }

    fn handle_request(&mut self, message: &NlMessage<'_>) -> Result<()> {
        let sequence = message.sequence;
        let dump = message.flags & flag::DUMP == flag::DUMP;
        match message.kind {
            message::CT_GET if !dump => self.get_connection(message),
            message::CT_GET | message::CT_GET_CTRZERO => self.dump(message),
            message::CT_GET_DYING | message::CT_GET_UNCONFIRMED => self.send_done(sequence),
            message::CT_DELETE => self.flush_table(message),
            message::CT_GET_STATS => self.get_stats(sequence),
            message::CT_GET_STATS_CPU => self.get_stats_cpu(sequence, message::CT_GET_STATS_CPU, stats_cpu_attributes),
            message::EXP_GET_STATS_CPU => {
                self.get_stats_cpu(sequence, message::EXP_GET_STATS_CPU, exp_stats_cpu_attributes)
            }
            message::EXP_GET => self.get_expectations(message, dump),
            message::EXP_DELETE => self.delete_expectations(message),
            message::EXP_NEW => self.new_expectation(message),
            JOIN_GROUPS => self.join_groups(message),
            _ => self.send_ack(sequence, libc::EOPNOTSUPP),
        }
    }

    fn get_connection(&self, message: &NlMessage<'_>) -> Result<()> {
        let Ok(Some(flow)) = decode::flow(message) else { return self.send_ack(message.sequence, libc::EINVAL) };
        let found = self.jobs.run(move |at: &mut JobCtx<'_>| {
            let engine = at.router.engine();
            let handle = ctnl_edit::find_connection(engine, &flow, at.now)?.ok_or(libc::ENOENT)?;
            engine.entry(handle, at.now).ok_or(libc::ENOENT)
        })?;
        match found {
            Ok(entry) => {
                let mut out = Vec::new();
                // The dump itself counts as a use, as in the kernel.
                let flow = CtFlow { use_count: Some(entry.uses + 1), ..engine_flow::from_entry(&entry) };
                encode_flow(&mut out, &flow, message::CT_NEW, 0, 0, message.sequence);
                push_error(&mut out, message.sequence, 0);
                self.send_messages(&out)
            }
            Err(errno) => self.send_ack(message.sequence, errno),
        }
    }

    /// A dump: the next part is fetched while one is written.
    fn dump(&self, message: &NlMessage<'_>) -> Result<()> {
        let family = request_family(message);
        let wanted = decode::flow(message).ok().flatten().unwrap_or_default();
        let zero = message.kind == message::CT_GET_CTRZERO;
        let mut out = Vec::new();
        dump_table(self.jobs, zero.then_some(family), |entries| {
            for entry in entries {
                let flow = engine_flow::from_entry(&entry);
                if family.is_none_or(|family| is_family(&entry, family)) && flow_matches(&wanted, &flow) {
                    encode_flow(&mut out, &flow, message::CT_NEW, flag::MULTI, 0, message.sequence);
                }
                if out.len() >= SEND_BUFFER {
                    self.send_messages(&out)?;
                    out.clear();
                }
            }
            Ok(())
        })?;
        push_done(&mut out, message.sequence);
        self.send_messages(&out)
    }

    fn flush_table(&self, message: &NlMessage<'_>) -> Result<()> {
        flush_table(self.jobs, request_family(message), self.peer.pid)?;
        self.send_ack(message.sequence, 0)
    }

    fn get_stats(&self, sequence: u32) -> Result<()> {
        let (count, limit) = self.jobs.run(|at: &mut JobCtx<'_>| {
            let engine = at.router.engine();
            (engine.count(), engine.sysctls()[Sysctl::Max])
        })?;
        let mut message = NlRequest::notification(message::CT_GET_STATS, 0, 0, 0);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        message.push(stats_global::ENTRIES, &count.to_be_bytes()).push(stats_global::MAX_ENTRIES, &limit.to_be_bytes());
        let mut out = message.finish(sequence).to_vec();
        push_error(&mut out, sequence, 0);
        self.send_messages(&out)
    }

    fn get_stats_cpu(&self, sequence: u32, kind: u16, of: impl Fn(&Counters) -> Vec<(u16, u64)>) -> Result<()> {
        let counters = self.jobs.run(|at: &mut JobCtx<'_>| *at.router.engine().counters())?;
        let mut message = NlRequest::notification(kind, flag::MULTI, 0, 0);
        for (attribute, value) in of(&counters) {
            // The kernel's are of 32 bits too, and wrap.
            let [.., a, b, c, d] = value.to_be_bytes();
            message.push(attribute, &[a, b, c, d]);
        }
        let mut out = message.finish(sequence).to_vec();
        push_done(&mut out, sequence);
        self.send_messages(&out)
    }

    /// All expectations, or (without `dump`) the one that the request names.
    fn get_expectations(&self, message: &NlMessage<'_>, dump: bool) -> Result<()> {
        let family = request_family(message);
        let named = CtExpectation::decode(message).ok().flatten().map(|named| named.expected);
        let expectations = self.jobs.run(|at: &mut JobCtx<'_>| {
            let now = at.now;
            at.router.engine().expectations(now).map(|expected| to_ctnl_expectation(&expected)).collect::<Vec<_>>()
        })?;
        let mut out = Vec::new();
        let mut count = 0;
        for expectation in &expectations {
            let matches = if dump {
                family.is_none_or(|family| expectation.master.source.is_some_and(|source| family_of(source) == family))
            } else {
                named.is_some_and(|named| named.matches(&expectation.expected))
            };
            if matches {
                let number = expectation.family.map_or(0, keepstate_linux::ctnetlink::CtFamily::number);
                let mut one = NlRequest::notification(message::EXP_NEW, if dump { flag::MULTI } else { 0 }, number, 0);
                expectation.encode(&mut one);
                out.extend_from_slice(one.finish(message.sequence));
                count += 1;
            }
        }
        match (dump, count) {
            (true, _) => push_done(&mut out, message.sequence),
            (false, 0) => push_error(&mut out, message.sequence, libc::ENOENT),
            (false, _) => push_error(&mut out, message.sequence, 0),
        }
        self.send_messages(&out)
    }

    /// Only helpers create expectations here: a request is refused, as by a kernel without that helper.
    fn new_expectation(&self, message: &NlMessage<'_>) -> Result<()> {
        let Ok(Some(expectation)) = CtExpectation::decode(message) else {
            return self.send_ack(message.sequence, libc::EINVAL);
        };
        let errno = self.jobs.run(move |at: &mut JobCtx<'_>| {
            match ctnl_edit::find_connection(at.router.engine(), &expectation.master_flow(), at.now) {
                Ok(Some(_)) => libc::EOPNOTSUPP,
                Ok(None) => libc::ENOENT,
                Err(errno) => errno,
            }
        })?;
        self.send_ack(message.sequence, errno)
    }

    /// Deletes the expectation that the request names, or all.
    fn delete_expectations(&self, message: &NlMessage<'_>) -> Result<()> {
        let named =
            CtExpectation::decode(message).ok().flatten().map(|named| (named.expected, named.zone.unwrap_or(0)));
        let errno = self.jobs.run(move |at: &mut JobCtx<'_>| match named {
            Some((expected, zone)) => {
                let Some(tuple) = ctnl_edit::to_engine_tuple(&expected) else { return libc::EINVAL };
                if at.router.engine_mut().delete_expectation(&tuple, zone, at.now) { 0 } else { libc::ENOENT }
            }
            None => {
                at.router.engine_mut().flush_expectations();
                0
            }
        })?;
        self.send_ack(message.sequence, errno)
    }

    /// Joins event groups.
    fn join_groups(&mut self, message: &NlMessage<'_>) -> Result<()> {
        let mut kinds = Vec::new();
        for attribute in
            message.attributes().filter_map(Result::ok).filter(|attribute| attribute.kind == JOIN_GROUPS_GROUP)
        {
            match attribute.be32("JOIN_GROUP").ok() {
                Some(group::CT_NEW) => kinds.push(EventKind::New),
                Some(group::CT_UPDATE) => kinds.push(EventKind::Update),
                Some(group::CT_DESTROY) => kinds.push(EventKind::Destroy),
                // The engine has no events for expectations: these groups stay silent.
                Some(group::EXP_NEW | group::EXP_UPDATE | group::EXP_DESTROY) => {}
                _ => return self.send_ack(message.sequence, libc::EINVAL),
            }
        }
        match &self.subscriber {
            Some(subscriber) => {
                kinds.into_iter().for_each(|kind| subscriber.subscribe_to(kind));
                self.jobs.run(|at: &mut JobCtx<'_>| at.hub.update_event_mask(at.router.engine_mut()))?;
            }
            None => self.subscribe(&kinds)?,
        }
        self.send_ack(message.sequence, 0)
    }

    fn subscribe(&mut self, kinds: &[EventKind]) -> Result<()> {
        let subscriber = Arc::new(Subscriber::default());
        kinds.iter().for_each(|&kind| subscriber.subscribe_to(kind));
        let admitted = Arc::clone(&subscriber);
        let batches = self.jobs.run(move |at: &mut JobCtx<'_>| at.hub.subscribe(admitted, at.router.engine_mut()))?;
        self.subscriber = Some(Arc::clone(&subscriber));
        let out = Arc::clone(&self.out);
        std::thread::Builder::new().name("control-events".into()).spawn(move || {
            // The client has hung up, which the other thread sees too.
            if let Err(error) = forward_events(&subscriber, &batches, &out) {
                tracing::trace!("control: {error:#}");
            }
            subscriber.close();
        })?;
        Ok(())
    }

    fn send_ack(&self, sequence: u32, errno: i32) -> Result<()> {
        let mut out = Vec::new();
        push_error(&mut out, sequence, errno);
        self.send_messages(&out)
    }

    fn send_done(&self, sequence: u32) -> Result<()> {
        let mut out = Vec::new();
        push_done(&mut out, sequence);
        self.send_messages(&out)
    }

    fn send_messages(&self, bytes: &[u8]) -> Result<()> {
        write_messages(&self.out, bytes)
    }
}

fn write_messages(out: &ReplyStream, bytes: &[u8]) -> Result<()> {
    let mut stream = out.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(stream_frame::write_frame(&mut *stream, bytes)?)
}

/// Writes events to one subscriber, until it hangs up or the gateway ends.
fn forward_events(subscriber: &Subscriber, batches: &Receiver<Arc<EventBatch>>, out: &ReplyStream) -> Result<()> {
    let mut bytes = Vec::new();
    loop {
        let batch = match batches.recv_timeout(LOSS_CHECK_INTERVAL) {
            Ok(batch) => Some(batch),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        if subscriber.take_lost() > 0 {
            bytes.clear();
            push_overrun(&mut bytes);
            write_messages(out, &bytes)?;
        }
        let Some(batch) = batch else { continue };
        bytes.clear();
        for event in batch.events.iter().filter(|event| subscriber.is_subscribed_to(event.kind)) {
            let mut flow = engine_flow::from_event(event);
            flow.event_timestamp = Some(event.at.0);
            if batch.portid != 0 && event.kind != EventKind::Destroy {
                // Events of a request carry mark and labels even if they are zero.
                flow.mark = Some(event.entry.mark);
                flow.labels = event.entry.labels;
            }
            let (kind, flags) = match event.kind {
                EventKind::New => (message::CT_NEW, flag::CREATE | flag::EXCLUSIVE),
                EventKind::Update => (message::CT_NEW, 0),
                EventKind::Destroy => (message::CT_DELETE, 0),
            };
            encode_flow(&mut bytes, &flow, kind, flags, batch.portid, 0);
            if bytes.len() >= SEND_BUFFER {
                write_messages(out, &bytes)?;
                bytes.clear();
            }
        }
        if !bytes.is_empty() {
            write_messages(out, &bytes)?;
        }
        subscriber.consumed(&batch);
    }
}

/// Passes the whole table to `each`, part by part; with `zero`, the counters of one family, or of all, are set to zero.
pub(super) fn dump_table(
    jobs: &JobSender,
    zero: Option<Option<Family>>,
    mut each: impl FnMut(Vec<Entry>) -> Result<()>,
) -> Result<()> {
    let fetch = move |from: u32| {
        jobs.submit(move |at: &mut JobCtx<'_>| {
            let engine = at.router.engine_mut();
            let mut entries = Vec::new();
            let next = engine.dump_range(from, SLOTS_PER_JOB, at.now, |entry| entries.push(entry));
            if let Some(family) = zero {
                let in_family = |entry: &&Entry| family.is_none_or(|family| is_family(entry, family));
                entries.iter().filter(in_family).for_each(|entry| engine.zero_counters(entry.conn_id, at.now));
            }
            (entries, next)
        })
    };
    let mut pending = Some(fetch(0)?);
    while let Some(result) = pending {
        let Ok((entries, next)) = result.recv() else { bail!("the gateway has ended") };
        pending = next.map(fetch).transpose()?;
        each(entries)?;
    }
    Ok(())
}

/// Removes the connections of one family, or of all, part by part.
pub(super) fn flush_table(jobs: &JobSender, family: Option<Family>, portid: u32) -> Result<()> {
    let mut next = Some(0);
    while let Some(from) = next {
        next = jobs.run(move |at: &mut JobCtx<'_>| {
            at.hub.publish(at.router.engine_mut(), 0);
            let next = at.router.engine_mut().flush_range(from, SLOTS_PER_JOB, family, at.now);
            at.hub.publish(at.router.engine_mut(), portid);
            next
        })?;
    }
    Ok(())
}

/// Parses a message; the error is an errno(3).
fn parse_request(message: &NlMessage<'_>) -> Result<ParsedRequest, i32> {
    if !matches!(message.kind, message::CT_NEW | message::CT_DELETE) {
        return Ok(ParsedRequest::Other);
    }
    let flow = decode::flow(message).map_err(|_| libc::EINVAL)?;
    let named = flow.as_ref().is_some_and(|flow| !flow.original.is_empty() || !flow.reply.is_empty());
    match flow {
        Some(flow) if named => {
            Ok(ParsedRequest::Edit(Box::new(CtnlEdit { kind: message.kind, flags: message.flags, flow })))
        }
        _ if message.kind == message::CT_DELETE => Ok(ParsedRequest::Other),
        _ => Err(libc::EINVAL),
    }
}

fn request_family(message: &NlMessage<'_>) -> Option<Family> {
    match message.body {
        NlBody::Data { family: 2, .. } => Some(Family::V4),
        NlBody::Data { family: 10, .. } => Some(Family::V6),
        _ => None,
    }
}

fn family_of(address: IpAddr) -> Family {
    if address.is_ipv6() { Family::V6 } else { Family::V4 }
}

fn is_family(entry: &Entry, family: Family) -> bool {
    family_of(entry.original.source) == family
}
