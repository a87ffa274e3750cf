//! `gateway.toml`: one file for a gateway, with a key for each flag of `keepstate gateway`.
//!
//! A [`GatewayFile`] is read whole: its settings, and all its faults. With the settings of a command line over it, it becomes a [`ResolvedGateway`], which knows of each value
//! where it comes from, can print itself, and becomes a [`GatewayConfig`]. A reload resolves both again and compares: what needs a restart refuses it.
mod cluster;
mod environment;
mod flow_log;
mod given;
mod keys;
mod named;
mod print;
mod resolve;
#[cfg(test)]
mod schema;
mod settings;
mod shard_address;
mod values;

pub use cluster::{BalanceText, ClusterSettings, LeaseText, ShardEntry};
pub use flow_log::{FlowLogEntry, FlowLogFormat, FlowLogSessions};
pub use given::{Given, SettingOrigin};
pub use named::NamedValues;
pub use resolve::SettingFault;
pub use settings::{GatewaySettings, NatSettings, TableSettings};
pub use shard_address::{ShardAddressSetting, ShardAddressText, TakeoverSetting, TakeoverText};
pub use values::{
    AdaptiveTimeoutsText, DeterministicMapping, DeterministicText, DeviceEntry, HelperText, InterfaceText,
    KernelVersionSetting, LifelineText, LogSetting, MemoryText, NatFilteringSetting, NatMappingSetting,
    OffloadXdpSetting, OnExitSetting, RouteEntry, SourceLimitText, SysctlValue, TableReserveText, TextValue,
    UnattendedText,
};

use crate::cluster::ClusterConfig;
use crate::config::GatewayConfig;
use crate::engine_settings::MemorySize;
use crate::sandbox;
use crate::toml_file::{self, TomlDiagnostic, TomlFileError};
use anyhow::{Context, Result, anyhow, bail};
use keys::{KeyChange, key_entries};
use resolve::FORMAT_VERSION;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the file of this machine's gateway is.
pub const DEFAULT_GATEWAY_FILE: &str = "/etc/keepstate/gateway.toml";

/// A file that was read.
#[derive(Clone, Debug)]
pub struct GatewayFile {
    /// Its path.
    pub path: PathBuf,
    text: String,
    /// What it says; without its faulty parts.
    pub settings: GatewaySettings,
    /// What is wrong with it by itself.
    pub faults: Vec<TomlDiagnostic>,
}

impl GatewayFile {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read. What is wrong with its text is in its faults.
    pub fn read(path: &Path) -> Result<GatewayFile> {
        let text = fs::read_to_string(path).map_err(|error| {
            let hint = sandbox::denied_hint(&error);
            anyhow!("cannot read {}: {error}{hint}", path.display())
        })?;
        Ok(GatewayFile::parse(path, text))
    }

    /// Parses the text of the file at `path`.
    pub fn parse(path: &Path, text: String) -> GatewayFile {
        let (settings, mut faults) = toml_file::parse_all::<GatewaySettings>(&text);
        let mut settings = settings.unwrap_or_default();
        let wrong_version = match &settings.version {
            None if faults.is_empty() => {
                Some((0..0, "the version of the format is missing: write version = 1 first".to_owned()))
            }
            Some(Given { value, origin: SettingOrigin::File(span) }) if *value != FORMAT_VERSION => Some((
                span.clone(),
                format!(
                    "this keepstate reads version {FORMAT_VERSION} of the format, not {value}; install the keepstate that the file is for"
                ),
            )),
            _ => None,
        };
        // Another version has other keys.
        if let Some((span, message)) = wrong_version {
            faults = vec![TomlDiagnostic { span, message }];
        }
        for fault in faults.iter_mut().filter(|fault| fault.message.starts_with("unknown key `service`;")) {
            fault.message += ". A services file is checked with keepstate check --services FILE";
        }
        for fault in faults.iter_mut().filter(|fault| fault.message.starts_with("unknown key `xdp")) {
            fault.message = "AF_XDP is no way to get packets any more; write interface = [\"eth0\"], with all that xdp had, and leave xdp, xdp-mode and xdp-send out".to_owned();
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        settings.resolve_paths(folder.unwrap_or(Path::new(".")));
        GatewayFile { path: path.to_owned(), text, settings, faults }
    }

    /// Faults of the text, to be shown.
    pub fn error(&self, faults: Vec<TomlDiagnostic>) -> TomlFileError {
        TomlFileError::new(&self.path.to_string_lossy(), &self.text, faults)
    }

    /// What a fault is about, in the text: where it stands, or the beginning.
    pub fn diagnostic(&self, fault: SettingFault) -> TomlDiagnostic {
        match fault.origin {
            SettingOrigin::File(span) => TomlDiagnostic { span, message: fault.message },
            SettingOrigin::Default => TomlDiagnostic { span: 0..0, message: fault.message },
            SettingOrigin::Flag(flag) => TomlDiagnostic { span: 0..0, message: format!("{flag}: {}", fault.message) },
        }
    }

    /// `gateway.toml:7`
    fn line(&self, span: &std::ops::Range<usize>) -> String {
        format!("{}:{}", self.path.display(), toml_file::position(&self.text, span.start).0)
    }
}

/// The sum of a file, a command line and the defaults.
#[derive(Clone, Debug)]
pub struct ResolvedGateway {
    file: Option<GatewayFile>,
    settings: GatewaySettings,
    /// What `memory` is if nobody says it.
    machine_memory: MemorySize,
}

impl ResolvedGateway {
    /// Adds the flags to the file. A flag that says where packets come from replaces all that the file says of that.
    pub fn new(file: Option<GatewayFile>, flags: GatewaySettings) -> ResolvedGateway {
        ResolvedGateway::on_machine(file, flags, MemorySize::of_this_machine())
    }

    /// The same later, on the same machine: a running gateway may not read its memory again.
    #[must_use]
    pub fn again(&self, file: Option<GatewayFile>, flags: GatewaySettings) -> ResolvedGateway {
        ResolvedGateway::on_machine(file, flags, self.machine_memory)
    }

    fn on_machine(file: Option<GatewayFile>, flags: GatewaySettings, machine_memory: MemorySize) -> ResolvedGateway {
        let mut below = file.as_ref().map(|file| file.settings.clone()).unwrap_or_default();
        if !flags.drivers().is_empty() && flags.drivers() != below.drivers() {
            below = below.without_driver();
        }
        let given = flags.over(below);
        let defaults = resolve::defaults(&given);
        let mut settings = given.over(defaults);
        settings.cluster.iter_mut().for_each(|given| given.value.add_defaults());
        ResolvedGateway { file, settings, machine_memory }
    }

    /// The settings.
    pub fn settings(&self) -> &GatewaySettings {
        &self.settings
    }

    /// How many settings stand in the file.
    pub fn count_of_file(&self) -> usize {
        let entries = key_entries(&self.settings);
        entries.iter().filter(|entry| matches!(entry.origin, SettingOrigin::File(_))).count()
    }

    /// What does not fit together; what is wrong with the file by itself is in [`GatewayFile::faults`].
    pub fn faults(&self) -> Vec<SettingFault> {
        resolve::faults(&self.settings)
    }

    /// What is not right with this machine: interfaces, capabilities, directories.
    pub fn environment_faults(&self) -> Vec<SettingFault> {
        environment::faults(&self.settings)
    }

    /// Refuses settings with faults: all of them, with their places.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<()> {
        let own = self.file.as_ref().map(|file| file.faults.clone()).unwrap_or_default();
        let found = if own.is_empty() { self.faults() } else { Vec::new() };
        let (in_file, others): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|fault| matches!(fault.origin, SettingOrigin::File(_)));
        let mut text = String::new();
        if let Some(file) = &self.file {
            let in_file: Vec<_> =
                own.into_iter().chain(in_file.into_iter().map(|fault| file.diagnostic(fault))).collect();
            if !in_file.is_empty() {
                text += &format!("{} has errors\n{}", file.path.display(), file.error(in_file));
            }
        }
        for SettingFault { origin, message } in others {
            match origin {
                SettingOrigin::Flag(flag) => text += &format!("{flag}: {message}\n"),
                _ => text += &format!("{message}\n"),
            }
        }
        if text.is_empty() { Ok(()) } else { bail!("{}", text.trim_end()) }
    }

    /// As the gateway takes it. `secret` keys hashes and ids; notes for the user go to `note`.
    ///
    /// # Errors
    /// A sysctl file cannot be read, or is refused.
    pub fn config(&self, secret: [u8; 16], note: impl FnMut(String)) -> Result<GatewayConfig> {
        let mut config = resolve::config(&self.settings, self.machine_memory, secret, note)?;
        config.other_files.extend(self.file.iter().map(|file| file.path.clone()));
        Ok(config)
    }

    /// The cluster, if this gateway is one of several.
    ///
    /// # Errors
    /// A name that is none.
    pub fn cluster(&self) -> Result<Option<ClusterConfig>> {
        self.settings.cluster.as_ref().map(|given| given.value.config()).transpose()
    }

    /// The sysctls of the settings, without an engine, and whether what is said of a full table fits them.
    ///
    /// # Errors
    /// A sysctl file cannot be read, or is refused; or the table is too small.
    pub fn check_sysctl_files(&self) -> Result<()> {
        let sysctls = resolve::sysctl_settings(&self.settings, self.machine_memory).sysctls(drop)?;
        self.settings.table.policy(&sysctls).context("in [table]").map(drop)
    }

    /// The settings as a file again, each with its origin behind it.
    pub fn print(&self) -> String {
        print::print(&key_entries(&self.settings), |origin| self.describe(origin))
    }

    /// Refuses `next` if a running gateway cannot become it without a restart.
    ///
    /// # Errors
    /// The keys that need a restart, with their places.
    pub fn check_reload(&self, next: &ResolvedGateway) -> Result<()> {
        let (old, new) = (key_entries(&self.settings), key_entries(&next.settings));
        let text = |value: &Option<_>| value.as_ref().map_or_else(|| "not set".to_owned(), print::toml_value);
        let of_restart = new.iter().filter(|entry| entry.change == KeyChange::Restart);
        let changed = of_restart.filter_map(|entry| {
            let before = old.iter().find(|old| (old.table, &old.name) == (entry.table, &entry.name))?;
            (before.value != entry.value).then(|| {
                let name = [entry.table, &entry.name].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
                let (was, is) = (text(&before.value), text(&entry.value));
                format!(
                    "{}: {}: {is} needs a restart; running with {was}",
                    next.describe(&entry.origin),
                    name.join(".")
                )
            })
        });
        let changed: Vec<String> = changed.collect();
        if changed.is_empty() {
            Ok(())
        } else {
            bail!("{}\nnothing is changed: restart the gateway, or take these changes back", changed.join("\n"))
        }
    }

    fn describe(&self, origin: &SettingOrigin) -> String {
        match (origin, &self.file) {
            (SettingOrigin::File(span), Some(file)) => file.line(span),
            (SettingOrigin::Flag(flag), _) => (*flag).to_owned(),
            _ => "default".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
