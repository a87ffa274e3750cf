//! Options that commands share: kernel version, sysctls and helpers of an engine.
use anyhow::Result;
use clap::{Args, ValueEnum};
use keepstate_engine::{Engine, Helper, KernelVersion, Sysctl, Sysctls, sysctl_conf as sysctl};
use keepstate_gateway::engine_settings::{MemorySize, SysctlSettings};
use keepstate_gateway::gateway_file::{
    GatewaySettings, Given, HelperText, KernelVersionSetting, MemoryText, SysctlValue,
};
use std::path::PathBuf;
use std::str::FromStr;

/// The sysctls: which kernel's defaults, and what differs from them.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sysctls")]
pub struct EngineArgs {
    /// Set a sysctl: nf_conntrack_tcp_loose=0 (may be given several times, the last wins)
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = sysctl::parse_setting)]
    settings: Vec<String>,
    /// Set the sysctls of a file in sysctl.conf syntax; unrelated keys are ignored
    #[arg(long = "sysctl", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Use the defaults of this kernel version, with max and buckets computed from the memory as it does [default: 6.18]
    #[arg(long, value_name = "VERSION")]
    as_linux: Option<KernelVersionArg>,
    /// Memory to compute those defaults from, like 4G or 512M [default: this machine's]
    #[arg(long, value_name = "SIZE", value_parser = MemoryText::from_str)]
    memory: Option<MemoryText>,
    /// Attach a helper to new connections to its port or to PORT: ftp, ftp:2121 (may be given several times) [default: none]
    #[arg(long = "helper", value_name = "NAME[:PORT]", value_parser = HelperText::from_str)]
    helpers: Vec<HelperText>,
    /// Derive secrets from this number instead of random ones, for reproducible ids
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

/// Kernel versions whose defaults are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KernelVersionArg {
    /// Up to 3.19: as 4.19, but never more than 16,384 buckets
    #[value(name = "3.10")]
    V3_10,
    /// 4.0 to 5.14: four connections a bucket
    #[value(name = "4.19")]
    V4_19,
    /// 5.15 to 6.17: one connection a bucket
    #[value(name = "5.15")]
    V5_15,
    /// 6.18
    #[value(name = "6.18")]
    V6_18,
}

impl KernelVersionArg {
    /// The engine's value.
    pub fn kernel_version(self) -> KernelVersion {
        match self {
            KernelVersionArg::V3_10 => KernelVersion::V3_10,
            KernelVersionArg::V4_19 => KernelVersion::V4_19,
            KernelVersionArg::V5_15 => KernelVersion::V5_15,
            KernelVersionArg::V6_18 => KernelVersion::V6_18,
        }
    }
}

impl From<KernelVersionArg> for KernelVersionSetting {
    fn from(version: KernelVersionArg) -> KernelVersionSetting {
        match version {
            KernelVersionArg::V3_10 => KernelVersionSetting::V3_10,
            KernelVersionArg::V4_19 => KernelVersionSetting::V4_19,
            KernelVersionArg::V5_15 => KernelVersionSetting::V5_15,
            KernelVersionArg::V6_18 => KernelVersionSetting::V6_18,
        }
    }
}

impl EngineArgs {
    /// The kernel version whose defaults are used.
    pub fn kernel_version(&self) -> KernelVersion {
        self.as_linux.unwrap_or(KernelVersionArg::V6_18).kernel_version()
    }

    /// The memory that the defaults are computed from.
    pub fn memory(&self) -> u64 {
        self.memory.as_ref().map_or_else(MemorySize::of_this_machine, |text| text.value).0
    }

    /// The sysctls asked for; notes for the user go to `note`.
    ///
    /// # Errors
    /// An unreadable file, an unknown sysctl, a value out of range: where and what.
    pub fn sysctls(&self, note: impl FnMut(String)) -> Result<Sysctls> {
        self.sysctl_settings().sysctls(note)
    }

    fn sysctl_settings(&self) -> SysctlSettings {
        SysctlSettings {
            version: self.kernel_version(),
            memory: self.memory(),
            files: self.files.clone(),
            settings: self.settings.clone(),
        }
    }

    /// Those of a gateway's settings that stand here.
    pub fn gateway_settings(&self) -> GatewaySettings {
        let mut settings = GatewaySettings {
            as_linux: self.as_linux.map(|version| Given::flag(version.into(), "--as-linux")),
            memory: self.memory.clone().map(|memory| Given::flag(memory, "--memory")),
            helper: (!self.helpers.is_empty()).then(|| Given::flag(self.helpers.clone(), "--helper")),
            sysctl_files: (!self.files.is_empty()).then(|| Given::flag(self.files.clone(), "--sysctl")),
            ..GatewaySettings::default()
        };
        for (name, value) in self.settings.iter().filter_map(|setting| setting.split_once('=')) {
            let name = Sysctl::from_name(name.trim())
                .map_or_else(|| name.trim().to_owned(), |sysctl| sysctl.name().to_owned());
            settings.sysctl.set_by_flag(name, SysctlValue::Text(value.trim().to_owned()), "--set");
        }
        settings
    }

    /// The value of a switch (0 or 1), if it was asked for.
    ///
    /// # Errors
    /// As [`EngineArgs::sysctls`].
    pub fn explicit(&self, switch: Sysctl) -> Result<Option<u32>> {
        let mut values = [0, 1];
        for value in &mut values {
            let mut base = Sysctls::default();
            base.set(switch, u64::from(*value))?;
            *value = self.sysctl_settings().sysctls_over(base, drop)?[switch];
        }
        let [first, second] = values;
        Ok((first == second).then_some(first))
    }

    /// Attaches the helpers asked for to connections created from now on.
    pub fn attach_helpers(&self, engine: &mut Engine) {
        for (helper, port) in self.helpers() {
            engine.set_auto_helper(helper.protocol(), port, helper);
        }
    }

    /// The helpers asked for, and their ports.
    pub fn helpers(&self) -> Vec<(Helper, u16)> {
        self.helpers.iter().map(|text| (text.value.helper, text.value.port)).collect()
    }

    /// Was a helper asked for?
    pub fn has_helpers(&self) -> bool {
        !self.helpers.is_empty()
    }

    /// 16 bytes that key hashes and ids.
    ///
    /// # Errors
    /// If the system's random number generator fails.
    pub fn hash_secret(&self) -> Result<[u8; 16]> {
        let mut secret = [0; 16];
        match self.seed {
            Some(seed) => secret[..8].copy_from_slice(&seed.to_le_bytes()),
            None => {
                getrandom::fill(&mut secret).map_err(|error| anyhow::anyhow!("cannot get random numbers: {error}"))?
            }
        }
        Ok(secret)
    }
}

/// A size with an optional K, M, G or T, powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    text.parse().map(|MemorySize(bytes)| bytes)
}
