//! What a running gateway can be asked and told of its services.
use crate::services_file::parse_backend_address;
use anyhow::{Result, bail};
use keepstate_engine::Instant;
use keepstate_router::Router;
use keepstate_router::service::{BackendConfig, BackendStatus, HashInput, Masquerade, Scheduler, ServiceState};
use std::io::Write;
use std::net::IpAddr;

/// Words about services.
#[cfg_attr(feature = "clap", derive(clap::Subcommand))]
#[derive(Clone, Debug)]
pub enum ServiceCommand {
    /// The services and their backends: state, weight, connections now and ever
    Services,
    /// A backend keeps its connections and gets no new ones, until undrain or the gateway's end
    Drain(BackendSelector),
    /// A drained backend gets connections again
    Undrain(BackendSelector),
}

/// Which backend is meant.
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[derive(Clone, Debug)]
pub struct BackendSelector {
    /// ADDRESS:PORT as in the services' file; without a port, every backend of that address
    #[cfg_attr(feature = "clap", arg(value_name = "BACKEND", value_parser = parse_backend_address))]
    backend: (IpAddr, Option<u16>),
    /// Only in this service
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    service: Option<String>,
}

impl BackendSelector {
    fn drain(&self, router: &mut Router, drained: bool) -> Result<usize> {
        let (address, port) = self.backend;
        let is_meant = |backend: &BackendConfig| backend.address == address && (port.is_none() || backend.port == port);
        let count = router.drain(drained, |service, backend| {
            self.service.as_ref().is_none_or(|name| *name == service.name) && is_meant(backend)
        });
        if count == 0 {
            let shown = BackendConfig { address, port, weight: 1 };
            bail!("no service has a backend {shown}: keepstate control services lists them");
        }
        Ok(count)
    }
}

impl ServiceCommand {
    /// Answers.
    pub(super) fn execute(&self, router: &mut Router, now: Instant, out: &mut impl Write) -> Result<()> {
        match self {
            ServiceCommand::Services => {
                router.services_with_fresh_counts(now).iter().try_for_each(|running| write_service(running, out))
            }
            ServiceCommand::Drain(which) => {
                let count = which.drain(router, true)?;
                Ok(writeln!(out, "{count} drained: connections live on, new ones go elsewhere")?)
            }
            ServiceCommand::Undrain(which) => {
                let count = which.drain(router, false)?;
                Ok(writeln!(out, "{count} drained no longer")?)
            }
        }
    }
}

fn write_service(running: &ServiceState, out: &mut impl Write) -> Result<()> {
    let service = running.config();
    write!(out, "{} {} {service} scheduler={}", service.name, service.transport.name(), service.scheduler.name())?;
    if matches!(service.scheduler, Scheduler::SourceHash | Scheduler::Maglev)
        && service.hash_input == HashInput::AddressAndPort
    {
        write!(out, " hash=address-and-port")?;
    }
    if let Some(seconds) = service.affinity {
        write!(out, " affinity={seconds}s sources={}", running.affinity_sources())?;
    }
    match service.masquerade {
        Masquerade::Hairpin => (),
        Masquerade::Never => write!(out, " masquerade=never")?,
        Masquerade::Always => write!(out, " masquerade=always")?,
    }
    writeln!(
        out,
        " refused={}{}",
        running.refused(),
        if running.is_removed() { " (no longer in the file)" } else { "" }
    )?;
    for member in running.backends() {
        let checked = member.status() != BackendStatus::Down && service.check.is_some() && member.is_up().is_none();
        let note = if member.status_note().is_empty() && checked { "not checked yet" } else { member.status_note() };
        let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
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
