//! Parses conntrack sysctls in the syntax of sysctl.conf(5): `net.netfilter.nf_conntrack_max = 65536`, one per line, `#` and `;` for comments.
use crate::{Sysctl, Sysctls};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

/// An error in a line of a sysctl file, or in one `--set`.
#[derive(Debug, PartialEq, Eq)]
pub struct SysctlFileError {
    /// Line number from 1; `None` on the command line.
    pub line: Option<usize>,
    /// The invalid text.
    pub text: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for SysctlFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "`{}`: {}", self.text.escape_debug(), self.message)
    }
}

impl core::error::Error for SysctlFileError {}

/// The number of lines of a file that set nothing, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SkippedLines {
    /// Keys of other subsystems.
    pub not_conntrack: usize,
    /// Read-only sysctls, which `sysctl -a` also prints.
    pub read_only: usize,
    /// Sysctls that recent kernels no longer have.
    pub removed: usize,
}

/// Prefixes of sysctls that only older kernels have: DCCP, and automatic helpers.
const REMOVED_SYSCTLS: [&str; 2] = ["nf_conntrack_dccp_", "nf_conntrack_helper"];

/// Applies `text`, the contents of a sysctl file, to `sysctls`. Returns the number of lines that set nothing.
///
/// # Errors
/// The first line with an unknown conntrack sysctl or an invalid value. Errors of lines that begin with `-` are ignored.
/// The lines before the error stay applied.
pub fn apply_file(text: &str, sysctls: &mut Sysctls) -> Result<SkippedLines, SysctlFileError> {
    let mut skipped = SkippedLines::default();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let (optional, setting) = line.strip_prefix('-').map_or((false, line), |rest| (true, rest));
        match apply_setting(setting, sysctls) {
            Ok(SetOutcome::Applied) => (),
            Ok(SetOutcome::NotConntrack) => skipped.not_conntrack += 1,
            Err(_) if optional => (),
            Err(_) if is_read_only(setting) => skipped.read_only += 1,
            Err(_) if is_removed(setting) => skipped.removed += 1,
            Err(file_error) => return Err(SysctlFileError { line: Some(at + 1), ..file_error }),
        }
    }
    Ok(skipped)
}

/// What [`apply_setting`] did.
#[derive(Debug, PartialEq, Eq)]
pub enum SetOutcome {
    /// The sysctl was set.
    Applied,
    /// The key belongs to another subsystem; nothing was set.
    NotConntrack,
}

/// Sets one sysctl: `KEY=VALUE` or `KEY = VALUE`, with dots or slashes in the key.
///
/// # Errors
/// An unknown conntrack sysctl, or an invalid value. Then nothing has changed.
pub fn apply_setting(setting: &str, sysctls: &mut Sysctls) -> Result<SetOutcome, SysctlFileError> {
    let file_error = |what: String| SysctlFileError { line: None, text: setting.to_owned(), message: what };
    let Some((key, value)) = setting.split_once('=') else {
        return Err(file_error("write it as KEY=VALUE, for example nf_conntrack_max=65536".into()));
    };
    let (key, value) = (key.trim(), value.trim());
    let Some(sysctl) = Sysctl::from_name(key) else {
        if key.contains("nf_conntrack") {
            return Err(file_error(format!("there is no sysctl {}{}", key.escape_debug(), suggest_name(key))));
        }
        return Ok(SetOutcome::NotConntrack);
    };
    let number = parse_number(value)
        .ok_or_else(|| file_error(format!("{} takes a whole number, not {value:?}", sysctl.name())))?;
    sysctls.set(sysctl, number).map_err(|error| file_error(error.to_string()))?;
    Ok(SetOutcome::Applied)
}

/// Checks one setting of a command line and returns it unchanged.
///
/// # Errors
/// As [`apply_setting`]; also a key of another subsystem.
pub fn parse_setting(text: &str) -> Result<String, String> {
    match apply_setting(text, &mut Sysctls::default()) {
        Ok(SetOutcome::Applied) => Ok(text.to_owned()),
        Ok(SetOutcome::NotConntrack) => {
            Err("this is no sysctl of connection tracking; they begin with nf_conntrack_".into())
        }
        Err(file_error) => Err(file_error.message),
    }
}

fn is_read_only(setting: &str) -> bool {
    Sysctl::from_name(key(setting)).is_some_and(|sysctl| sysctl.range().is_none())
}

fn is_removed(setting: &str) -> bool {
    let name = key(setting).rsplit(['.', '/']).next().unwrap_or_default();
    REMOVED_SYSCTLS.iter().any(|gone| name.starts_with(gone))
}

fn key(setting: &str) -> &str {
    setting.split_once('=').map_or(setting, |(key, _)| key).trim()
}

/// Parses a number as the kernel does: prefix 0x for hexadecimal, 0 for octal.
fn parse_number(text: &str) -> Option<u64> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok();
    }
    match text.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => u64::from_str_radix(octal, 8).ok(),
        _ => text.parse().ok(),
    }
}

/// A suggestion for the error message: the sysctl whose name is most similar to `key`.
fn suggest_name(key: &str) -> String {
    let name = key.rsplit(['.', '/']).next().unwrap_or(key);
    let likeness = |sysctl: &&Sysctl| {
        let same = sysctl.name().bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
        let tail = sysctl.name().bytes().rev().zip(name.bytes().rev()).take_while(|(a, b)| a == b).count();
        same + tail
    };
    Sysctl::ALL.iter().max_by_key(likeness).map_or(String::new(), |sysctl| format!("; did you mean {}?", sysctl.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_file_with_comments_and_foreign_keys() {
        let text = "# limits\n; and more\n\nnet.netfilter.nf_conntrack_max = 1000\nnet/netfilter/nf_conntrack_tcp_loose=0\n\
                    net.ipv4.ip_forward = 1\nnet.netfilter.nf_conntrack_count = 7\n\
                    net.netfilter.nf_conntrack_dccp_loose = 1\nnet.netfilter.nf_conntrack_helper = 0\n-net.netfilter.nf_conntrack_nonsense = 1\n  net.nf_conntrack_max=0x800  \n";
        let mut sysctls = Sysctls::default();
        assert_eq!(apply_file(text, &mut sysctls), Ok(SkippedLines { not_conntrack: 1, read_only: 1, removed: 2 }));
        assert_eq!(sysctls[Sysctl::Max], 2048);
        assert_eq!(sysctls[Sysctl::TcpLoose], 0);
    }

    #[test]
    fn errors_name_the_line() {
        let mut sysctls = Sysctls::default();
        let file_error = |text: &str, sysctls: &mut Sysctls| apply_file(text, sysctls).unwrap_err().to_string();
        assert_eq!(
            file_error("\nnet.netfilter.nf_conntrack_tcp_looze=1", &mut sysctls),
            "line 2: `net.netfilter.nf_conntrack_tcp_looze=1`: there is no sysctl net.netfilter.nf_conntrack_tcp_looze; \
             did you mean nf_conntrack_tcp_loose?"
        );
        assert!(file_error("nf_conntrack_tcp_loose=2", &mut sysctls).contains("takes 0 to 1, not 2"));
        assert!(file_error("nf_conntrack_max=many", &mut sysctls).contains("whole number"));
        assert!(file_error("nf_conntrack_max", &mut sysctls).contains("KEY=VALUE"));
        assert!(parse_setting("nf_conntrack_count=1").unwrap_err().contains("only be read"));
        assert!(parse_setting("net.ipv4.ip_forward=1").unwrap_err().contains("no sysctl of connection tracking"));
        assert_eq!(parse_setting("nf_conntrack_max = 5").as_deref(), Ok("nf_conntrack_max = 5"));
    }
}
