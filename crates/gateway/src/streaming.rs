//! Answers to words that may be longer than a turn: the table, events, its end. They are made on the visitor's own thread, from pieces that the
//! router's thread gives out.
use super::control_command::ControlCommand;
use super::control_server::write_reply_header;
use super::jobs::{JobCtx, JobSender, Subscriber};
use super::{ctnl_session, procfs, stats};
use anyhow::Result;
use keepstate_conntrack::OutputArgs;
use keepstate_conntrack::format::FlowWriter;
use keepstate_engine::{EventKind, Sysctl};
use keepstate_linux::peercred::PeerCred;
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

/// How often the gateway's connections are counted for who waits until there are none.
const COUNT_INTERVAL: Duration = Duration::from_millis(200);
/// How often it is looked whether a listener to whom nothing happens is still there.
const HANGUP_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Octets that are written at once.
const WRITE_BUFFER: usize = 64 * 1024;

/// Answers, if these words are for this module.
pub(super) fn serve_streaming(
    words: &[String],
    stream: &UnixStream,
    access: &JobSender,
    peer: PeerCred,
) -> Option<Result<()>> {
    // Words that mean nothing are refused where all others are answered.
    let asked = ControlCommand::parse(words).ok()?;
    let done = match &asked {
        ControlCommand::List(show) => list(show, stream, access),
        ControlCommand::Events(show) => events(show, stream, access),
        ControlCommand::Proc => proc_conntrack(stream, access),
        ControlCommand::Flush => flush(stream, access, peer),
        ControlCommand::Stats { json } => stats(*json, stream, access),
        ControlCommand::DrainAll { off, wait } => drain_all(!off, *wait, stream, access),
        _ => return None,
    };
    Some(done)
}

fn start_reply(stream: &UnixStream) -> Result<BufWriter<&UnixStream>> {
    write_reply_header(stream, None)?;
    Ok(BufWriter::with_capacity(WRITE_BUFFER, stream))
}

fn list(show: &OutputArgs, stream: &UnixStream, access: &JobSender) -> Result<()> {
    let now = access.run(|at: &mut JobCtx<'_>| at.now)?;
    let mut writer = FlowWriter::new(start_reply(stream)?, show.output()).at_time(now);
    ctnl_session::dump_table(access, None, |entries| {
        Ok(entries.iter().filter(|entry| show.filter.matches(entry)).try_for_each(|entry| writer.write_entry(entry))?)
    })?;
    writer.finish()?;
    Ok(writer.beneath().flush()?)
}

fn proc_conntrack(stream: &UnixStream, access: &JobSender) -> Result<()> {
    let (now, gre) = access.run(|at: &mut JobCtx<'_>| {
        let knobs = at.router.engine().sysctls();
        (at.now, [Sysctl::GreTimeout, Sysctl::GreTimeoutStream].map(|knob| knobs[knob]))
    })?;
    let mut out = start_reply(stream)?;
    ctnl_session::dump_table(access, None, |entries| {
        Ok(entries.iter().try_for_each(|entry| procfs::write_line(&mut out, entry, gre, now))?)
    })?;
    Ok(out.flush()?)
}

fn flush(stream: &UnixStream, access: &JobSender, peer: PeerCred) -> Result<()> {
    let count = access.run(|at: &mut JobCtx<'_>| at.router.engine().count())?;
    ctnl_session::flush_table(access, None, peer.pid)?;
    let mut out = start_reply(stream)?;
    writeln!(out, "{count} connections were removed")?;
    Ok(out.flush()?)
}

fn stats(json: bool, stream: &UnixStream, access: &JobSender) -> Result<()> {
    let counted = access.run(|at: &mut JobCtx<'_>| stats::collect(at))?;
    let mut out = start_reply(stream)?;
    if json { counted.write_json(&mut out) } else { counted.write_text(&mut out) }?;
    Ok(out.flush()?)
}

fn drain_all(on: bool, wait: bool, mut stream: &UnixStream, access: &JobSender) -> Result<()> {
    let count = move |at: &mut JobCtx<'_>| {
        at.router.set_draining(on);
        at.router.engine().count()
    };
    let mut left = access.run(count)?;
    write_reply_header(stream, None)?;
    if !on {
        return Ok(writeln!(stream, "new connections are taken again")?);
    }
    writeln!(stream, "no new connections are taken; {left} live on. keepstate control drain-all --off ends it")?;
    while wait && left > 0 && !peer_closed(stream)? {
        std::thread::sleep(COUNT_INTERVAL);
        let now = access.run(|at: &mut JobCtx<'_>| at.router.engine().count())?;
        if now != left {
            writeln!(stream, "{now} live on")?;
        }
        left = now;
    }
    Ok(())
}

fn events(show: &OutputArgs, stream: &UnixStream, access: &JobSender) -> Result<()> {
    let ear = Arc::new(Subscriber::default());
    [EventKind::New, EventKind::Update, EventKind::Destroy].into_iter().for_each(|kind| ear.subscribe_to(kind));
    let admitted = Arc::clone(&ear);
    let chunks = access.run(move |at: &mut JobCtx<'_>| at.hub.subscribe(admitted, at.router.engine_mut()))?;
    let leaving = UnsubscribeOnDrop(&ear);
    let mut writer = FlowWriter::new(start_reply(stream)?, show.output()).for_events();
    loop {
        let chunk = match chunks.recv_timeout(HANGUP_CHECK_INTERVAL) {
            Ok(chunk) => Some(chunk),
            Err(RecvTimeoutError::Timeout) if peer_closed(stream)? => break,
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let lost = ear.take_lost();
        if lost > 0 {
            // A document has no place to say it, and must not pretend to be whole.
            if show.is_document() {
                break;
            }
            writer.flush()?;
            writeln!(writer.beneath(), "# {lost} events were lost: they came faster than they were read")?;
        }
        for event in chunk.iter().flat_map(|chunk| &chunk.events).filter(|event| show.filter.matches(&event.entry)) {
            writer.write_event(event)?;
        }
        chunk.iter().for_each(|chunk| ear.consumed(chunk));
        writer.flush()?;
        writer.beneath().flush()?;
    }
    drop(leaving);
    writer.finish()?;
    Ok(writer.beneath().flush()?)
}

/// Wants nothing more once it is dropped.
struct UnsubscribeOnDrop<'a>(&'a Subscriber);

impl Drop for UnsubscribeOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Has the visitor hung up? He says nothing more, so that whatever there is to be read is his end.
fn peer_closed(mut stream: &UnixStream) -> Result<bool> {
    stream.set_read_timeout(Some(Duration::from_millis(1)))?;
    match stream.read(&mut [0]) {
        Ok(0) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) => Ok(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)),
    }
}
