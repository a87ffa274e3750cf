//! Answers to words that may be longer than a turn: the table, events, its end. They are made on the visitor's own thread, from pieces that the
//! router's thread gives out.
use super::control::Asked;
use super::desk::{Access, At, Ear};
use super::door::tell_head;
use super::{procfs, session, tally};
use anyhow::Result;
use keepstate_conntrack::format::Writer;
use keepstate_conntrack::show::Show;
use keepstate_engine::{EventKind, Knob};
use keepstate_linux::peer::Peer;
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

/// How often the gateway's connections are counted for who waits until there are none.
const COUNTING: Duration = Duration::from_millis(200);
/// How often it is looked whether a listener to whom nothing happens is still there.
const PATIENCE: Duration = Duration::from_millis(500);
/// Octets that are written at once.
const PIECE: usize = 64 * 1024;

/// Answers, if these words are for this module.
pub(super) fn attend(words: &[String], stream: &UnixStream, access: &Access, peer: Peer) -> Option<Result<()>> {
    // Words that mean nothing are refused where all others are answered.
    let asked = Asked::read(words).ok()?;
    let done = match &asked {
        Asked::List(show) => list(show, stream, access),
        Asked::Events(show) => events(show, stream, access),
        Asked::Proc => proc(stream, access),
        Asked::Flush => flush(stream, access, peer),
        Asked::Stats { json } => stats(*json, stream, access),
        Asked::DrainAll { off, wait } => drain(!off, *wait, stream, access),
        _ => return None,
    };
    Some(done)
}

fn answer(stream: &UnixStream) -> Result<BufWriter<&UnixStream>> {
    tell_head(stream, None)?;
    Ok(BufWriter::with_capacity(PIECE, stream))
}

fn list(show: &Show, stream: &UnixStream, access: &Access) -> Result<()> {
    let now = access.ask(|at: &mut At<'_>| at.now)?;
    let mut writer = Writer::new(answer(stream)?, show.output()).at(now);
    session::pieces(access, None, |entries| {
        Ok(entries.iter().filter(|entry| show.filter.matches(entry)).try_for_each(|entry| writer.entry(entry))?)
    })?;
    writer.finish()?;
    Ok(writer.beneath().flush()?)
}

fn proc(stream: &UnixStream, access: &Access) -> Result<()> {
    let (now, gre) = access.ask(|at: &mut At<'_>| {
        let knobs = at.router.engine().knobs();
        (at.now, [Knob::GreTimeout, Knob::GreTimeoutStream].map(|knob| knobs[knob]))
    })?;
    let mut out = answer(stream)?;
    session::pieces(access, None, |entries| {
        Ok(entries.iter().try_for_each(|entry| procfs::line(&mut out, entry, gre, now))?)
    })?;
    Ok(out.flush()?)
}

fn flush(stream: &UnixStream, access: &Access, peer: Peer) -> Result<()> {
    let count = access.ask(|at: &mut At<'_>| at.router.engine().count())?;
    session::flush(access, None, peer.process)?;
    let mut out = answer(stream)?;
    writeln!(out, "{count} connections were removed")?;
    Ok(out.flush()?)
}

fn stats(json: bool, stream: &UnixStream, access: &Access) -> Result<()> {
    let counted = access.ask(|at: &mut At<'_>| tally::count(at))?;
    let mut out = answer(stream)?;
    if json { counted.json(&mut out) } else { counted.text(&mut out) }?;
    Ok(out.flush()?)
}

fn drain(on: bool, wait: bool, mut stream: &UnixStream, access: &Access) -> Result<()> {
    let count = move |at: &mut At<'_>| {
        at.router.close(on);
        at.router.engine().count()
    };
    let mut left = access.ask(count)?;
    tell_head(stream, None)?;
    if !on {
        return Ok(writeln!(stream, "new connections are taken again")?);
    }
    writeln!(stream, "no new connections are taken; {left} live on. keepstate control drain-all --off ends it")?;
    while wait && left > 0 && !has_left(stream)? {
        std::thread::sleep(COUNTING);
        let now = access.ask(|at: &mut At<'_>| at.router.engine().count())?;
        if now != left {
            writeln!(stream, "{now} live on")?;
        }
        left = now;
    }
    Ok(())
}

fn events(show: &Show, stream: &UnixStream, access: &Access) -> Result<()> {
    let ear = Arc::new(Ear::default());
    [EventKind::New, EventKind::Update, EventKind::Destroy].into_iter().for_each(|kind| ear.want(kind));
    let admitted = Arc::clone(&ear);
    let chunks = access.ask(move |at: &mut At<'_>| at.desk.admit(admitted, at.router.engine()))?;
    let leaving = Leaving(&ear);
    let mut writer = Writer::new(answer(stream)?, show.output()).of_events();
    loop {
        let chunk = match chunks.recv_timeout(PATIENCE) {
            Ok(chunk) => Some(chunk),
            Err(RecvTimeoutError::Timeout) if has_left(stream)? => break,
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
            writer.event(event)?;
        }
        chunk.iter().for_each(|chunk| ear.took(chunk));
        writer.flush()?;
        writer.beneath().flush()?;
    }
    drop(leaving);
    writer.finish()?;
    Ok(writer.beneath().flush()?)
}

/// Wants nothing more once it is dropped.
struct Leaving<'a>(&'a Ear);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Has the visitor hung up? He says nothing more, so that whatever there is to be read is his end.
fn has_left(mut stream: &UnixStream) -> Result<bool> {
    stream.set_read_timeout(Some(Duration::from_millis(1)))?;
    match stream.read(&mut [0]) {
        Ok(0) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) => Ok(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)),
    }
}
