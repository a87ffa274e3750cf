//! Comparing the machine with the journal: sysctls, files, and what the next boot would make of them.
use crate::journal::{FileContent, Journal, JournalStage};
use crate::{persistent_files, sysctl_file};
use anyhow::Result;
use keepstate_linux::SysRoot;
use keepstate_linux::boot::{BootConfig, SysctlEffect};
use std::collections::BTreeMap;

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyCheck {
    /// The sysctl or file.
    pub name: String,
    /// Is it as applied?
    pub ok: bool,
    /// What was found.
    pub found: String,
}

/// Compares everything the journal lists with the machine.
///
/// # Errors
/// If the machine's files cannot be read.
pub fn verify(root: &SysRoot, journal: &Journal) -> Result<Vec<VerifyCheck>> {
    let mut checks = Vec::new();
    if journal.stage != JournalStage::Applied {
        checks.push(VerifyCheck {
            name: "journal".to_owned(),
            ok: false,
            found: format!("interrupted ({}): keepstate tune rollback, or apply again", journal.stage.name()),
        });
    }
    for changed in &journal.knobs {
        let value = sysctl_file::read(root, &changed.key).unwrap_or_else(|error| error.to_string());
        let ok = value == changed.after;
        let found = if ok { format!("is {value}") } else { format!("is {value}, not {}", changed.after) };
        checks.push(VerifyCheck { name: changed.key.clone(), ok, found });
    }
    for file in &journal.files {
        let ok = FileContent::read(root, &file.path)?.as_ref() == Some(&file.after);
        let found = if ok { "is as written" } else { "was changed or removed after apply" };
        checks.push(VerifyCheck { name: file.path.display().to_string(), ok, found: found.to_owned() });
    }
    if journal.files.iter().any(|file| file.path.starts_with("/etc/sysctl.d")) {
        let boot = BootConfig::read(root)?;
        checks.extend(persisted_values(journal).into_iter().map(|(key, value)| check_boot(&boot, key, &value)));
    }
    Ok(checks)
}

/// What the next boot makes of one persisted value.
fn check_boot(boot: &BootConfig, name: String, value: &str) -> VerifyCheck {
    let Some(effective) = boot.effective(&name) else {
        return VerifyCheck { name, ok: false, found: "no file sets it at boot".to_owned() };
    };
    let source = &effective.source;
    let same = effective.value.trim() == value;
    let (ok, found) = match &effective.effect {
        SysctlEffect::Always if same => (true, format!("{value} after the next boot, by {source}")),
        SysctlEffect::OnlyIfModuleLoaded if same => {
            (true, format!("{value} as soon as the module is loaded, by {source}"))
        }
        SysctlEffect::Never(reason) => (false, format!("not set at boot: {source} has no effect: {reason}")),
        SysctlEffect::Always | SysctlEffect::OnlyIfModuleLoaded => {
            (false, format!("{} after the next boot, by {source}", effective.value))
        }
    };
    VerifyCheck { name, ok, found }
}

/// The settings in our own sysctl files.
fn persisted_values(journal: &Journal) -> BTreeMap<String, String> {
    let ours = journal.files.iter().filter(|file| file.path.starts_with("/etc/sysctl.d"));
    ours.flat_map(|file| persistent_files::parse_settings(&String::from_utf8_lossy(&file.after.bytes))).collect()
}
