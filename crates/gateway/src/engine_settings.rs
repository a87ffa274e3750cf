//! What an engine is started with, as a user gives it: sysctls, the kernel whose defaults are used, the memory, helpers.
use anyhow::{Context, Result};
use keepstate_engine::{Helper, KernelVersion, Sysctls, sysctl_conf};
use keepstate_linux::{SysRoot, meminfo};
use std::path::PathBuf;
use std::str::FromStr;

/// Which sysctls an engine has.
#[derive(Clone, Debug)]
pub struct SysctlSettings {
    /// The kernel version whose defaults are used.
    pub version: KernelVersion,
    /// The memory that the defaults are computed from.
    pub memory: u64,
    /// Files in sysctl.conf syntax.
    pub files: Vec<PathBuf>,
    /// `KEY=VALUE`, each over what the files say.
    pub settings: Vec<String>,
}

impl SysctlSettings {
    /// The sysctls asked for; notes for the user go to `note`.
    ///
    /// # Errors
    /// An unreadable file, an unknown sysctl, a value out of range: where and what.
    pub fn sysctls(&self, note: impl FnMut(String)) -> Result<Sysctls> {
        self.sysctls_over(Sysctls::kernel_defaults(self.version, self.memory), note)
    }

    /// What differs from `sysctls`, applied to it.
    ///
    /// # Errors
    /// As [`SysctlSettings::sysctls`].
    pub fn sysctls_over(&self, mut sysctls: Sysctls, mut note: impl FnMut(String)) -> Result<Sysctls> {
        for path in &self.files {
            let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
            let skipped =
                sysctl_conf::apply_file(&text, &mut sysctls).with_context(|| format!("in {}", path.display()))?;
            for (count, reason) in [
                (skipped.not_conntrack, "not about connection tracking"),
                (skipped.read_only, "read-only"),
                (skipped.removed, "removed in Linux 6.18"),
            ] {
                if count > 0 {
                    let keys = if count == 1 { "key was" } else { "keys were" };
                    note(format!("{}: {count} {keys} ignored: {reason}", path.display()));
                }
            }
        }
        for setting in &self.settings {
            sysctl_conf::apply_setting(setting, &mut sysctls).context("in --set")?;
        }
        Ok(sysctls)
    }
}

/// A helper and the port of its protocol; from text as `ftp` or `ftp:2121`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelperPort {
    /// The helper.
    pub helper: Helper,
    /// The port.
    pub port: u16,
}

impl FromStr for HelperPort {
    type Err = String;

    fn from_str(text: &str) -> Result<HelperPort, String> {
        let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
        let Some(helper) = Helper::from_name(name) else {
            let known: Vec<&str> = Helper::ALL.iter().map(|helper| helper.name()).collect();
            return Err(format!("there is no helper {name:?}; known: {}", known.join(", ")));
        };
        let port = match port.map(str::parse::<u16>) {
            None => helper.default_port(),
            Some(Ok(port)) if port != 0 => port,
            Some(_) => {
                let usual = helper.default_port();
                return Err(format!("write the port as a number from 1 to 65535, like {name}:{usual}"));
            }
        };
        Ok(HelperPort { helper, port })
    }
}

/// A size in bytes; from text with an optional K, M, G or T, powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize(pub u64);

impl MemorySize {
    /// The memory of this machine as the kernel counts it; 8 GiB where that cannot be read.
    pub fn of_this_machine() -> MemorySize {
        MemorySize(meminfo::read(&SysRoot::live()).ok().and_then(|memory| memory.total).unwrap_or(8 << 30))
    }
}

impl FromStr for MemorySize {
    type Err = String;

    fn from_str(text: &str) -> Result<MemorySize, String> {
        let usage = || String::from("write a size like 4G or 512M");
        let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let shift = match text[digits.len()..].to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return Err(usage()),
        };
        let number: u64 = digits.parse().map_err(|_| usage())?;
        number.checked_mul(1 << shift).map(MemorySize).ok_or_else(|| "the size is too large".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_sizes() {
        assert_eq!("4G".parse(), Ok(MemorySize(4 << 30)));
        assert_eq!("512MiB".parse(), Ok(MemorySize(512 << 20)));
        assert_eq!("1000".parse(), Ok(MemorySize(1000)));
        assert!("many".parse::<MemorySize>().is_err());
        assert!("99999999999T".parse::<MemorySize>().is_err());
    }

    #[test]
    fn parses_helpers_with_ports() {
        assert_eq!("ftp".parse(), Ok(HelperPort { helper: Helper::Ftp, port: 21 }));
        assert_eq!("ftp:2121".parse(), Ok(HelperPort { helper: Helper::Ftp, port: 2121 }));
        let refused = |text: &str| text.parse::<HelperPort>().unwrap_err();
        assert_eq!(refused("irc:6667"), "there is no helper \"irc\"; known: ftp, tftp");
        for port in ["", "0", "65536", "x", "21:22", "-1"] {
            let error = refused(&format!("ftp:{port}"));
            assert_eq!(error, "write the port as a number from 1 to 65535, like ftp:21", "{port}");
        }
    }
}
