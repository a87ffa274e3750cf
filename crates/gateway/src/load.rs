//! What a gateway reads at its start and again at SIGHUP: a ruleset and services. Both are read and checked before either is used.
use crate::ruleset::RulesetOptions;
use crate::services_file;
use anyhow::{Result, bail};
use keepstate_engine::{Instant, Sysctl};
use keepstate_router::Router;
use keepstate_router::service::ServiceConfig;
use keepstate_rules::Program;
use std::path::Path;

/// A ruleset and services that were checked.
pub struct LoadedConfig {
    program: Program,
    services: Vec<ServiceConfig>,
}

impl LoadedConfig {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be read, or is refused.
    pub fn read(options: &RulesetOptions, ruleset: &Path, services: Option<&Path>) -> Result<LoadedConfig> {
        let program = options.load_program(ruleset)?;
        let services = match services.map(services_file::load).transpose()? {
            None => Vec::new(),
            Some(Ok(services)) => services,
            Some(Err(refused)) => bail!("the services file has errors\n{refused}"),
        };
        Ok(LoadedConfig { program, services })
    }

    /// Replaces both between two packets; connections are kept.
    pub fn apply(self, router: &mut Router, now: Instant) {
        router.replace_program(self.program);
        router.replace_services(self.services, now);
        if router.program().has_synproxy() && router.engine().sysctls()[Sysctl::TcpLoose] != 0 {
            tracing::warn!(
                "synproxy answers no client while nf_conntrack_tcp_loose is 1 (an ACK then creates a connection by itself): \
                 --set nf_conntrack_tcp_loose=0, or keepstate control set nf_conntrack_tcp_loose=0"
            );
        }
    }
}
