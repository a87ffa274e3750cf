//! Options that commands share: kernel version, sysctls and helpers of an engine.
use crate::stderr::was_or_were;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use keepstate_engine::{Engine, Helper, KernelVersion, Sysctl, Sysctls, sysctl_conf as sysctl};
use std::path::PathBuf;

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
    /// Use the defaults of this kernel version, with max and buckets computed from the memory as it does
    #[arg(long, value_name = "VERSION", default_value = "6.18")]
    as_linux: KernelVersionArg,
    /// Memory to compute those defaults from, like 4G or 512M [default: this machine's]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<u64>,
    /// Attach a helper to new connections to its port or to PORT: ftp, ftp:2121 (may be given several times) [default: none]
    #[arg(long = "helper", value_name = "NAME[:PORT]", value_parser = parse_helper)]
    helpers: Vec<HelperAttachment>,
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

/// A helper and the port of its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HelperAttachment {
    helper: Helper,
    port: u16,
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

impl EngineArgs {
    /// The kernel version whose defaults are used.
    pub fn kernel_version(&self) -> KernelVersion {
        self.as_linux.kernel_version()
    }

    /// The memory that the defaults are computed from.
    pub fn memory(&self) -> u64 {
        self.memory.unwrap_or_else(total_memory)
    }

    /// The sysctls asked for; notes for the user go to `note`.
    ///
    /// # Errors
    /// An unreadable file, an unknown sysctl, a value out of range: where and what.
    pub fn sysctls(&self, note: impl FnMut(String)) -> Result<Sysctls> {
        self.sysctls_over(Sysctls::kernel_defaults(self.as_linux.kernel_version(), self.memory()), note)
    }

    /// What differs from `sysctls`, applied to it.
    fn sysctls_over(&self, mut sysctls: Sysctls, mut note: impl FnMut(String)) -> Result<Sysctls> {
        for path in &self.files {
            let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
            let skipped = sysctl::apply_file(&text, &mut sysctls).with_context(|| format!("in {}", path.display()))?;
            for (count, reason) in [
                (skipped.not_conntrack, "not about connection tracking"),
                (skipped.read_only, "read-only"),
                (skipped.removed, "removed in Linux 6.18"),
            ] {
                if count > 0 {
                    note(format!("{}: {} ignored: {reason}", path.display(), was_or_were(count as u64, "key")));
                }
            }
        }
        for setting in &self.settings {
            sysctl::apply_setting(setting, &mut sysctls).context("in --set")?;
        }
        Ok(sysctls)
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
            *value = self.sysctls_over(base, drop)?[switch];
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
        self.helpers.iter().map(|attachment| (attachment.helper, attachment.port)).collect()
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

/// The memory of this machine as the kernel counts it; 8 GiB where that cannot be read.
fn total_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
    kibibytes.map_or(8 << 30, |kibibytes: u64| kibibytes << 10)
}

/// A helper's name, with an optional port after a colon.
fn parse_helper(text: &str) -> Result<HelperAttachment, String> {
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    let Some(helper) = Helper::from_name(name) else {
        let known: Vec<&str> = Helper::ALL.iter().map(|helper| helper.name()).collect();
        return Err(format!("there is no helper {name:?}; known: {}", known.join(", ")));
    };
    let port = match port.map(str::parse::<u16>) {
        None => helper.default_port(),
        Some(Ok(port)) if port != 0 => port,
        Some(_) => {
            return Err(format!("write the port as a number from 1 to 65535, like {name}:{}", helper.default_port()));
        }
    };
    Ok(HelperAttachment { helper, port })
}

/// A size with an optional K, M, G or T, powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err("write a size like 4G or 512M".into()),
    };
    let number: u64 = digits.parse().map_err(|_| String::from("write a size like 4G or 512M"))?;
    number.checked_mul(1 << shift).ok_or_else(|| "the size is too large".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_sizes() {
        assert_eq!(parse_size("4G"), Ok(4 << 30));
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        assert_eq!(parse_size("1000"), Ok(1000));
        assert!(parse_size("many").is_err());
        assert!(parse_size("99999999999T").is_err());
    }

    #[test]
    fn parses_helpers_with_ports() {
        assert_eq!(parse_helper("ftp"), Ok(HelperAttachment { helper: Helper::Ftp, port: 21 }));
        assert_eq!(parse_helper("ftp:2121"), Ok(HelperAttachment { helper: Helper::Ftp, port: 2121 }));
        assert_eq!(parse_helper("irc:6667").unwrap_err(), "there is no helper \"irc\"; known: ftp");
        for port in ["", "0", "65536", "x", "21:22", "-1"] {
            let error = parse_helper(&format!("ftp:{port}")).unwrap_err();
            assert_eq!(error, "write the port as a number from 1 to 65535, like ftp:21", "{port}");
        }
    }
}
