//! Requests whose answer may take longer than one turn of the main loop: the table, events, a drain. Each is answered by the client's own thread, from pieces
//! that it fetches from the main loop.
use super::client_stream::{HANGUP_CHECK_INTERVAL, peer_closed, start_reply};
use super::cluster::ClusterHandle;
use super::control_protocol::{ControlRequest, ShowOptions, write_reply_line};
use super::jobs::{JobCtx, JobSender, Subscriber};
use super::{control_network, control_nft, control_services, ctnl_session, procfs, stats, watch};
use anyhow::Result;
use keepstate_conntrack::format::FlowWriter;
use keepstate_engine::{EventKind, ExhaustionKey, ExhaustionStats, Sysctl};
use keepstate_linux::peercred::PeerCred;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

/// How often connections are counted for a client that waits until there are none.
const COUNT_INTERVAL: Duration = Duration::from_millis(200);

/// Answers the requests of this module; `None` for all others.
pub(super) fn serve_streaming(
    request: &ControlRequest,
    stream: &UnixStream,
    jobs: &JobSender,
    peer: PeerCred,
    cluster: Option<&ClusterHandle>,
) -> Option<Result<()>> {
    Some(match request {
        ControlRequest::List(show) => list(show, stream, jobs),
        ControlRequest::Events(show) => events(show, stream, jobs),
        ControlRequest::Proc => proc_conntrack(stream, jobs),
        ControlRequest::Nft(nft) => control_nft::serve(nft, stream, jobs, cluster),
        ControlRequest::Rules => control_nft::list_ruleset(stream, jobs),
        ControlRequest::Services => control_services::list(stream, jobs),
        ControlRequest::Shortages => shortages(stream, jobs),
        ControlRequest::Drops { json } => control_network::drops(*json, stream, jobs),
        ControlRequest::Interfaces { json } => control_network::interfaces(*json, stream, jobs),
        ControlRequest::Routes => control_network::routes(stream, jobs),
        ControlRequest::Neighbours => control_network::neighbours(stream, jobs),
        ControlRequest::Capture(request) => watch::capture(request, stream, jobs, peer),
        ControlRequest::Trace(request) => watch::trace(request, stream, jobs),
        ControlRequest::Flush => flush(stream, jobs, peer),
        ControlRequest::Stats { json } => stats(*json, stream, jobs),
        ControlRequest::DrainAll { off, wait } => drain_all(!off, *wait, stream, jobs),
        _ => return None,
    })
}

fn list(show: &ShowOptions, stream: &UnixStream, jobs: &JobSender) -> Result<()> {
    let now = jobs.run(|at: &mut JobCtx<'_>| at.router.unix_time(at.now))?;
    let mut writer = FlowWriter::new(start_reply(stream)?, show.output).at_time(now);
    ctnl_session::dump_table(jobs, None, |entries| {
        Ok(entries.iter().filter(|entry| show.filter.matches(entry)).try_for_each(|entry| writer.write_entry(entry))?)
    })?;
    writer.finish()?;
    Ok(writer.beneath().flush()?)
}

fn proc_conntrack(stream: &UnixStream, jobs: &JobSender) -> Result<()> {
    let (now, gre) = jobs.run(|at: &mut JobCtx<'_>| {
        let sysctls = at.router.engine().sysctls();
        (at.router.unix_time(at.now), [Sysctl::GreTimeout, Sysctl::GreTimeoutStream].map(|sysctl| sysctls[sysctl]))
    })?;
    let mut out = start_reply(stream)?;
    ctnl_session::dump_table(jobs, None, |entries| {
        Ok(entries.iter().try_for_each(|entry| procfs::write_line(&mut out, entry, gre, now))?)
    })?;
    Ok(out.flush()?)
}

fn flush(stream: &UnixStream, jobs: &JobSender, peer: PeerCred) -> Result<()> {
    let count = jobs.run(|at: &mut JobCtx<'_>| at.router.engine().count())?;
    ctnl_session::flush_table(jobs, None, peer.pid)?;
    let mut out = start_reply(stream)?;
    writeln!(out, "removed {count}")?;
    Ok(out.flush()?)
}

fn stats(json: bool, stream: &UnixStream, jobs: &JobSender) -> Result<()> {
    let counted = jobs.run(|at: &mut JobCtx<'_>| stats::collect(at))?;
    let mut out = start_reply(stream)?;
    if json { counted.write_json(&mut out) } else { counted.write_text(&mut out) }?;
    Ok(out.flush()?)
}

fn shortages(stream: &UnixStream, jobs: &JobSender) -> Result<()> {
    let counted: Vec<(ExhaustionKey, ExhaustionStats)> = jobs.run(|at: &mut JobCtx<'_>| {
        at.router.engine().exhaustion_stats().map(|(key, stats)| (*key, *stats)).collect()
    })?;
    let mut out = start_reply(stream)?;
    for (key, stats) in counted {
        let ExhaustionKey { address, peer, peer_port, protocol, .. } = key;
        writeln!(out, "address={address} peer={peer} port={peer_port} protocol={protocol} refused={}", stats.failures)?;
    }
    Ok(out.flush()?)
}

fn drain_all(on: bool, wait: bool, mut stream: &UnixStream, jobs: &JobSender) -> Result<()> {
    let count = move |at: &mut JobCtx<'_>| {
        at.router.set_draining(on);
        at.router.engine().count()
    };
    let mut left = jobs.run(count)?;
    write_reply_line(&mut stream, None)?;
    if !on {
        return Ok(writeln!(stream, "draining off: new connections accepted")?);
    }
    writeln!(
        stream,
        "draining: new connections refused; {left} left. keepstate control drain-all --off accepts them again"
    )?;
    while wait && left > 0 && !peer_closed(stream)? {
        std::thread::sleep(COUNT_INTERVAL);
        let now = jobs.run(|at: &mut JobCtx<'_>| at.router.engine().count())?;
        if now != left {
            writeln!(stream, "{now} left")?;
        }
        left = now;
    }
    Ok(())
}

fn events(show: &ShowOptions, stream: &UnixStream, jobs: &JobSender) -> Result<()> {
    let subscriber = Arc::new(Subscriber::default());
    [EventKind::New, EventKind::Update, EventKind::Destroy].into_iter().for_each(|kind| subscriber.subscribe_to(kind));
    let admitted = Arc::clone(&subscriber);
    let batches = jobs.run(move |at: &mut JobCtx<'_>| at.hub.subscribe(admitted, at.router.engine_mut()))?;
    let subscribed = UnsubscribeOnDrop(&subscriber);
    let mut writer = FlowWriter::new(start_reply(stream)?, show.output).for_events();
    loop {
        let batch = match batches.recv_timeout(HANGUP_CHECK_INTERVAL) {
            Ok(batch) => Some(batch),
            Err(RecvTimeoutError::Timeout) if peer_closed(stream)? => break,
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let lost = subscriber.take_lost();
        if lost > 0 {
            // A document has no place for it, and must not look complete.
            if show.output.is_document() {
                break;
            }
            writer.flush()?;
            writeln!(writer.beneath(), "# {lost} events lost: they came faster than they were read")?;
        }
        for event in batch.iter().flat_map(|batch| &batch.events).filter(|event| show.filter.matches(&event.entry)) {
            writer.write_event(event)?;
        }
        batch.iter().for_each(|batch| subscriber.consumed(batch));
        writer.flush()?;
        writer.beneath().flush()?;
    }
    drop(subscribed);
    writer.finish()?;
    Ok(writer.beneath().flush()?)
}

/// Ends the subscription when it is dropped.
struct UnsubscribeOnDrop<'a>(&'a Subscriber);

impl Drop for UnsubscribeOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
