//! What a gateway reads at its start and again at SIGHUP: a ruleset and services. Both are read and checked before either is used.
use crate::ruleset::{LoadedRuleset, RulesetOptions};
use crate::services_file;
use anyhow::{Result, anyhow, bail};
use keepstate_cluster::ConfigDigest;
use keepstate_engine::{Instant, Sysctl, Sysctls};
use keepstate_router::Router;
use keepstate_router::service::ServiceConfig;
use keepstate_rules::{Program, RulesetUpdate, RunningRuleset, Sources};
use std::path::Path;

/// A ruleset and services that were checked.
pub struct LoadedConfig {
    ruleset: LoadedRuleset,
    services: Vec<ServiceConfig>,
    definitions: Vec<(String, String)>,
    /// What the configuration says of them; those that it has changed are set.
    sysctls: Option<Sysctls>,
}

impl LoadedConfig {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be read, or is refused.
    pub fn read(options: &RulesetOptions, ruleset: &Path, services: Option<&Path>) -> Result<LoadedConfig> {
        let ruleset = options.load_checked(ruleset)?;
        let services = match services.map(services_file::load).transpose()? {
            None => Vec::new(),
            Some(Ok(services)) => services,
            Some(Err(refused)) => bail!("the services file has errors\n{refused}"),
        };
        Ok(LoadedConfig { ruleset, services, definitions: options.definitions.clone(), sysctls: None })
    }

    /// With the sysctls that the configuration says now.
    #[must_use]
    pub(crate) fn with_sysctls(self, sysctls: Sysctls) -> LoadedConfig {
        LoadedConfig { sysctls: Some(sysctls), ..self }
    }

    /// What two gateways of a cluster must have alike: the ruleset's texts with what they define, the services.
    pub(crate) fn digests(&self) -> [ConfigDigest; 2] {
        let mut text = Vec::new();
        for (name, value) in &self.definitions {
            text.extend_from_slice(format!("define {name} = {value}\n").as_bytes());
        }
        self.ruleset.sources.texts().for_each(|(_, source)| text.extend_from_slice(source.as_bytes()));
        [ConfigDigest::of(&text), ConfigDigest::of(format!("{:?}", self.services).as_bytes())]
    }

    /// The texts of the ruleset.
    pub(crate) fn sources(&self) -> &Sources {
        &self.ruleset.sources
    }

    /// Uses both in a router that has none yet.
    pub(crate) fn apply(self, router: &mut Router, now: Instant) -> AppliedConfig {
        let left_out = self.ruleset.describe_left_out();
        router.replace_program(self.ruleset.program);
        router.replace_services(self.services, now);
        AppliedConfig::of(router, left_out)
    }

    /// Prepares to replace `running`: what packets and scripts have added to sets, counters, quotas and limits goes on in those of the same name.
    ///
    /// # Errors
    /// The ruleset does not fit together with the tables of scripts that it keeps.
    pub fn prepare_reload(self, running: &RunningRuleset, now: Instant) -> Result<PreparedConfig> {
        let left_out = self.ruleset.describe_left_out();
        let digests = self.digests();
        let LoadedRuleset { tree, sources, .. } = self.ruleset;
        let update = running.prepare_reload(tree, &sources, now);
        let update = update.map_err(|refused| anyhow!("the ruleset has errors\n{refused}"))?;
        Ok(PreparedConfig { update, services: self.services, sysctls: self.sysctls, left_out, digests })
    }
}

/// A ruleset and services that are ready to replace those in use.
pub struct PreparedConfig {
    update: RulesetUpdate,
    services: Vec<ServiceConfig>,
    sysctls: Option<Sysctls>,
    left_out: Vec<String>,
    digests: [ConfigDigest; 2],
}

impl PreparedConfig {
    /// Replaces both between two packets; connections are kept. The rest is for when packets go on.
    ///
    /// `configured` are the sysctls that the configuration said before: what is set at run time (`keepstate control set`) stays, unless the configuration has changed it.
    ///
    /// `None`: the ruleset was changed after this was prepared, and nothing is changed.
    pub(crate) fn apply(
        self,
        router: &mut Router,
        now: Instant,
        configured: &mut Option<Sysctls>,
    ) -> Option<AppliedConfig> {
        let replaced = router.update_program(self.update, now).ok()?;
        router.replace_services(self.services, now);
        let mut changed = Vec::new();
        if let Some(sysctls) = self.sysctls {
            let before = configured.replace(sysctls.clone());
            changed = set_changed(router, before.as_ref().unwrap_or(&sysctls), &sysctls);
        }
        let digests = Some(self.digests);
        Some(AppliedConfig { replaced, changed, digests, ..AppliedConfig::of(router, self.left_out) })
    }
}

/// Sets what differs between two configurations; a line for each.
fn set_changed(router: &mut Router, before: &Sysctls, sysctls: &Sysctls) -> Vec<String> {
    let differing = Sysctl::ALL.iter().filter(|sysctl| before[**sysctl] != sysctls[**sysctl]);
    differing
        .map(|sysctl| match router.engine_mut().set_sysctl(*sysctl, u64::from(sysctls[*sysctl])) {
            Ok(()) => format!("{} = {}", sysctl.name(), sysctls[*sysctl]),
            Err(error) => format!("{} stays {}: {error}", sysctl.name(), router.engine().sysctls()[*sysctl]),
        })
        .collect()
}

/// What a load leaves to do once packets go on: to log.
pub(crate) struct AppliedConfig {
    /// Chains, rules and elements.
    size: (usize, usize, usize),
    /// A line for each part of the ruleset that is not in force.
    left_out: Vec<String>,
    /// A line for each sysctl that was set.
    changed: Vec<String>,
    warns_of_loose_synproxy: bool,
    /// Rules ask for sockets, and the driver has none.
    warns_of_sockets: bool,
    /// Rules give packets to proxies.
    tells_of_tproxy: bool,
    /// Rules match the Ethernet header, and the driver gives none.
    warns_of_link_header: bool,
    /// The ruleset of before: a large one takes a while to drop.
    replaced: Option<Box<Program>>,
    /// Of a reload: ruleset and services as gateways of a cluster compare them.
    digests: Option<[ConfigDigest; 2]>,
}

impl AppliedConfig {
    /// Takes what is to be dropped away from the packets.
    pub(crate) fn take_replaced(&mut self) -> Option<Box<Program>> {
        self.replaced.take()
    }

    /// Ruleset and services, as gateways of a cluster compare them.
    pub(crate) fn digests(&self) -> Option<[ConfigDigest; 2]> {
        self.digests
    }

    fn of(router: &Router, left_out: Vec<String>) -> AppliedConfig {
        let warns = router.program().has_synproxy() && router.engine().sysctls()[Sysctl::TcpLoose] != 0;
        AppliedConfig {
            size: router.program().size(),
            left_out,
            changed: Vec::new(),
            warns_of_loose_synproxy: warns,
            warns_of_sockets: router.program().asks_for_sockets() && !router.has_socket_lookup(),
            tells_of_tproxy: router.program().has_tproxy() && router.has_socket_lookup(),
            warns_of_link_header: router.program().reads_link_header() && !router.has_link_headers(),
            replaced: None,
            digests: None,
        }
    }

    /// Logs what the user should know.
    pub(crate) fn log(&self) {
        self.changed.iter().for_each(|line| tracing::info!("{line}"));
        if self.warns_of_link_header {
            tracing::warn!(
                "rules match ether or @ll, but packets come without an Ethernet header here (TUN, NFQUEUE): these rules never match. \
                 Use --interface, or match interfaces and addresses"
            );
        }
        if self.warns_of_sockets {
            tracing::warn!(
                "rules use tproxy or socket, but packets are given to no socket here (TUN, NFQUEUE): these rules never match. \
                 Use --interface, or redirect: a proxy can ask for the original destination (SO_ORIGINAL_DST)"
            );
        }
        if self.tells_of_tproxy {
            tracing::info!(
                "tproxy finds proxies that listen without SO_BINDTODEVICE; one that is bound to an interface or VRF gets no packets, \
                 and the rule does not match: bind it to an address instead"
            );
        }
        if self.warns_of_loose_synproxy {
            tracing::warn!(
                "synproxy answers no client while nf_conntrack_tcp_loose is 1 (an ACK then creates a connection by itself): \
                 --set nf_conntrack_tcp_loose=0, or keepstate control set nf_conntrack_tcp_loose=0"
            );
        }
    }

    /// The answer to a client.
    pub(crate) fn summary(&self) -> String {
        let (chains, rules, elements) = self.size;
        let left_out: String = self.left_out.iter().map(|line| format!("left out, not in force: {line}\n")).collect();
        let changed: String = self.changed.iter().map(|line| format!("{line}\n")).collect();
        format!("loaded: {chains} chains, {rules} rules, {elements} elements; connections kept\n{changed}{left_out}")
    }
}
