//! What a gateway reads at its start and again at SIGHUP: a ruleset, and services. Both are read and judged before either is put to work.
use crate::notes;
use crate::ruleset::RulesetArgs;
use crate::services_file;
use anyhow::{Result, bail};
use keepstate_engine::{Instant, Sysctl};
use keepstate_router::Router;
use keepstate_router::service::ServiceConfig;
use keepstate_rules::Program;
use std::path::Path;

/// A ruleset and services, good to be put to work together.
pub struct LoadedConfig {
    program: Program,
    services: Vec<ServiceConfig>,
}

impl LoadedConfig {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be read, or is refused.
    pub fn read(reading: &RulesetArgs, ruleset: &Path, services: Option<&Path>) -> Result<LoadedConfig> {
        let program = reading.load_program(ruleset)?;
        let services = match services.map(services_file::load).transpose()? {
            None => Vec::new(),
            Some(Ok(services)) => services,
            Some(Err(refused)) => bail!("the services are refused\n{refused}"),
        };
        Ok(LoadedConfig { program, services })
    }

    /// Exchanges both between two packets; connections live on.
    pub fn apply(self, router: &mut Router, now: Instant) {
        router.replace_program(self.program);
        router.replace_services(self.services, now);
        if router.program().has_synproxy() && router.engine().sysctls()[Sysctl::TcpLoose] != 0 {
            notes::note(
                "synproxy answers nobody while nf_conntrack_tcp_loose is 1: acknowledgements then begin connections by themselves. \
                 Say --set nf_conntrack_tcp_loose=0, or keepstate control set nf_conntrack_tcp_loose=0",
            );
        }
    }
}
