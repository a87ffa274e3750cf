//! The services of a running gateway: listed, and their backends drained.
use super::control_protocol::{BackendSelector, write_reply_line};
use super::jobs::{JobCtx, JobSender};
use anyhow::{Result, bail};
use keepstate_engine::Instant;
use keepstate_router::Router;
use keepstate_router::service::{
    BackendConfig, BackendState, BackendStatus, HashInput, Masquerade, Scheduler, ServiceState,
};
use std::io::Write;
use std::os::unix::net::UnixStream;

/// Drains the selected backends, or ends that; returns how many.
pub(super) fn drain(router: &mut Router, selector: &BackendSelector, drained: bool) -> Result<usize> {
    let BackendSelector { address, port, service: name } = selector;
    let count = router.drain(drained, |service, backend| {
        name.as_ref().is_none_or(|name| *name == service.name)
            && backend.address == *address
            && (port.is_none() || backend.port == *port)
    });
    if count == 0 {
        let shown = BackendConfig { address: *address, port: *port, weight: 1 };
        bail!("no service has a backend {shown}: keepstate control services lists them");
    }
    Ok(count)
}

/// Writes a line for each service, and one for each of its backends, with connection counts as of now.
pub(super) fn list(mut stream: &UnixStream, jobs: &JobSender) -> Result<()> {
    let mut left = jobs.run(|at: &mut JobCtx<'_>| at.router.service_connections())?;
    while left > 0 {
        match jobs.run(|at: &mut JobCtx<'_>| at.router.count_service_connections(CONNECTIONS_PER_JOB, at.now))? {
            0 => break,
            counted => left = left.saturating_sub(counted),
        }
    }
    write_reply_line(&mut stream, None)?;
    let mut next = Some(0);
    while let Some(from) = next {
        let (text, more) = jobs.run(move |at: &mut JobCtx<'_>| list_part(at.router, from, at.now))?;
        stream.write_all(&text?)?;
        next = more;
    }
    Ok(())
}

/// The lines of some services, and the number of those of before; services may come and go between two calls.
fn list_part(router: &Router, from: usize, now: Instant) -> (Result<Vec<u8>>, Option<usize>) {
    let (services, mut out, mut shown) = (router.services(), Vec::new(), from);
    for state in services.iter().skip(from) {
        if let Err(error) = write_service(state, |backend| services.removed_in(state, backend, now), &mut out) {
            return (Err(error), None);
        }
        shown += 1;
        if out.len() >= TEXT_PER_JOB {
            return (Ok(out), Some(shown));
        }
    }
    (Ok(out), None)
}

/// Connections that one job counts.
const CONNECTIONS_PER_JOB: usize = 2048;
/// Bytes that one job writes, or one service more.
const TEXT_PER_JOB: usize = 8192;

/// `removed_in` gives the seconds until the connections of a removed backend end.
fn write_service(
    state: &ServiceState,
    removed_in: impl Fn(&BackendState) -> Option<u64>,
    out: &mut impl Write,
) -> Result<()> {
    let service = state.config();
    write!(out, "{} {} {service} scheduler={}", service.name, service.transport.name(), service.scheduler.name())?;
    if matches!(service.scheduler, Scheduler::SourceHash | Scheduler::Maglev)
        && service.hash_input == HashInput::AddressAndPort
    {
        write!(out, " hash=address-and-port")?;
    }
    if let Some(seconds) = service.affinity {
        write!(out, " affinity={seconds}s sources={}", state.affinity_sources())?;
    }
    match service.masquerade {
        Masquerade::Hairpin => (),
        Masquerade::Never => write!(out, " masquerade=never")?,
        Masquerade::Always => write!(out, " masquerade=always")?,
    }
    writeln!(out, " refused={}{}", state.refused(), if state.is_removed() { " (no longer in the file)" } else { "" })?;
    for member in state.backends() {
        let unchecked = member.status() != BackendStatus::Down && service.check.is_some() && member.is_up().is_none();
        let note = if member.status_note().is_empty() && unchecked { "not checked yet" } else { member.status_note() };
        let ending = match removed_in(member) {
            Some(0) => ", its connections end".into(),
            Some(seconds) => format!(", its connections end in {seconds} s"),
            None => String::new(),
        };
        let note = if note.is_empty() { String::new() } else { format!(" ({note}{ending})") };
        let backend = member.config();
        writeln!(
            out,
            "  {backend} {} weight={} connections={} picked={}{note}",
            member.status().name(),
            backend.weight,
            member.active(),
            member.total()
        )?;
    }
    Ok(())
}
