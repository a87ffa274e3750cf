//! Control requests that the main loop answers between two batches of packets, all of them short; `streaming` answers those that may be long.
use super::control_protocol::ControlRequest;
use super::control_services;
use anyhow::{Context, Result, bail};
use keepstate_engine::sysctl_conf;
use keepstate_engine::{Sysctl, Sysctls};
use keepstate_router::Router;
use std::io::Write;

/// Carries out a request: the answer's text, or an error for the client.
pub(super) fn handle_request(request: &ControlRequest, router: &mut Router) -> Result<Vec<u8>, String> {
    execute(request, router).map_err(|error| format!("{error:#}"))
}

fn execute(request: &ControlRequest, router: &mut Router) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    match request {
        ControlRequest::List(_)
        | ControlRequest::Events(_)
        | ControlRequest::Proc
        | ControlRequest::Stats { .. }
        | ControlRequest::Flush
        | ControlRequest::Rules
        | ControlRequest::Shortages
        | ControlRequest::Drops { .. }
        | ControlRequest::Interfaces { .. }
        | ControlRequest::Routes
        | ControlRequest::Neighbours
        | ControlRequest::Capture(_)
        | ControlRequest::Trace(_)
        | ControlRequest::Services
        | ControlRequest::Nft(_)
        | ControlRequest::DrainAll { .. }
        | ControlRequest::Cluster { .. }
        | ControlRequest::Rebalance
        | ControlRequest::Promote { .. }
        | ControlRequest::Demote { .. } => bail!("this request is answered by a client thread"),
        ControlRequest::Reload => bail!("this gateway has no files to read"),
        ControlRequest::Count => writeln!(out, "{}", router.engine().count())?,
        ControlRequest::Get { sysctl } => {
            let sysctl = find_sysctl(sysctl)?;
            writeln!(out, "{}", router.engine().sysctls()[sysctl])?;
        }
        ControlRequest::Set { sysctl, value } => {
            // Name, syntax and range are checked on a copy.
            let mut parsed = Sysctls::default();
            sysctl_conf::apply_setting(&format!("{sysctl}={value}"), &mut parsed)?;
            let sysctl = find_sysctl(sysctl)?;
            router.engine_mut().set_sysctl(sysctl, u64::from(parsed[sysctl]))?;
            writeln!(out, "{} = {}", sysctl.name(), router.engine().sysctls()[sysctl])?;
        }
        ControlRequest::Drain(backend) => {
            let count = control_services::drain(router, backend, true)?;
            writeln!(out, "drained {count}: connections are kept, new ones go to other backends")?;
        }
        ControlRequest::Undrain(backend) => {
            let count = control_services::drain(router, backend, false)?;
            writeln!(out, "undrained {count}")?;
        }
    }
    Ok(out)
}

/// `nf_conntrack_max`, `net.netfilter.nf_conntrack_max` or with slashes.
fn find_sysctl(name: &str) -> Result<Sysctl> {
    let last = name.trim().rsplit(['.', '/']).next().unwrap_or_default();
    Sysctl::from_name(last).with_context(|| format!("unknown sysctl {name}"))
}
