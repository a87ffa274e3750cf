//! The conntrack sysctls after the next boot, from the files alone.
//!
//! A [`BootConfig`] is read once, from a [`SysRoot`] and possibly from files that are not written yet, and does not change: it
//! has the value of each conntrack sysctl, the line that sets it, the lines that lose, and the other programs that write it. The order is
//! that of a boot: the module is loaded (or not), systemd-sysctl or sysctl reads `sysctl.d`, udev rules run sysctl
//! again, programs such as kube-proxy write last. It must never write anything, and never use the state of the running kernel:
//! the same files give the same answer on any machine.
mod effective;
mod file_line;
mod glob;
mod ineffective_line;
mod module_load;
mod other_writers;
mod overlay;
mod setting;
mod sysctl_loader;
mod udev_rule;

#[cfg(test)]
mod tests;

pub use effective::{EffectiveSysctl, SysctlAssignment, SysctlEffect};
pub use file_line::FileLine;
pub use ineffective_line::IneffectiveLine;
pub use module_load::{Hashsize, ModuleLoad};
pub use other_writers::OtherWriter;
pub use sysctl_loader::SysctlLoader;
pub use udev_rule::{UdevRule, UdevSysctlRun};

use crate::sysroot::{FileError, SysRoot};
use overlay::Overlay;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The result of the next boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootConfig {
    /// Each conntrack key that `sysctl.d` or a udev rule sets, by the name `net.netfilter.nf_conntrack_…`; `net.nf_conntrack_max`
    /// is listed as `net.netfilter.nf_conntrack_max`. Look up by either name with [`effective`](BootConfig::effective).
    pub sysctls: BTreeMap<String, EffectiveSysctl>,
    /// When the module is loaded.
    pub module: ModuleLoad,
    /// Its `hashsize` parameter.
    pub hashsize: Option<Hashsize>,
    /// The program that reads `sysctl.d` at boot.
    pub loader: SysctlLoader,
    /// udev rules that run sysctl when the module is loaded.
    pub udev_rules: Vec<UdevRule>,
    /// Programs and scripts that write conntrack sysctls after that.
    pub other_writers: Vec<OtherWriter>,
    /// Notes: files that could not be read, lines without effect.
    pub notes: Vec<String>,
    /// Lines without effect whose meaning is clear; each is a note too, except rejected values, which are among the sysctls.
    pub ineffective_lines: Vec<IneffectiveLine>,
}

impl BootConfig {
    /// The result of the next boot of the machine with these files.
    ///
    /// A file that cannot be read becomes a note; a missing file is no error.
    ///
    /// ```
    /// use keepstate_linux::{SysRoot, boot::{BootConfig, ModuleLoad, SysctlEffect}};
    /// let image = tempfile::tempdir()?;
    /// let write = |path: &str, text: &str| {
    ///     let path = image.path().join(path);
    ///     std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
    ///     std::fs::write(path, text)
    /// };
    /// write("usr/lib/systemd/systemd", "")?;
    /// write("etc/sysctl.d/90-conntrack.conf", "net.netfilter.nf_conntrack_max = 1048576\n")?;
    /// let boot = BootConfig::read(&SysRoot::at(image.path()))?;
    /// let max = boot.effective("net.nf_conntrack_max").ok_or("nothing sets it")?;
    /// assert_eq!((max.value.as_str(), max.source.to_string().as_str()), ("1048576", "/etc/sysctl.d/90-conntrack.conf:1"));
    /// // The usual mistake: nothing loads the module before systemd-sysctl runs.
    /// assert_eq!(boot.module, ModuleLoad::OnFirstUse);
    /// assert!(matches!(max.effect, SysctlEffect::Never(_)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The root itself cannot be read.
    pub fn read(root: &SysRoot) -> Result<BootConfig, FileError> {
        BootConfig::read_with_overlay(root, &BTreeMap::new())
    }

    /// The same, as if these files (by their paths on a running machine) were added or replaced.
    /// Nothing is written.
    ///
    /// ```
    /// use keepstate_linux::{SysRoot, boot::{BootConfig, SysctlEffect}};
    /// use std::collections::BTreeMap;
    /// let image = tempfile::tempdir()?;
    /// std::fs::create_dir_all(image.path().join("usr/lib/systemd"))?;
    /// std::fs::write(image.path().join("usr/lib/systemd/systemd"), "")?;
    /// let plan = BTreeMap::from([
    ///     ("/etc/sysctl.d/90-conntrack.conf".into(), "net.netfilter.nf_conntrack_max = 1048576\n".to_owned()),
    ///     ("/etc/modules-load.d/conntrack.conf".into(), "nf_conntrack\n".to_owned()),
    /// ]);
    /// let boot = BootConfig::read_with_overlay(&SysRoot::at(image.path()), &plan)?;
    /// let max = boot.effective("net.netfilter.nf_conntrack_max").ok_or("nothing sets it")?;
    /// assert_eq!((max.value.as_str(), &max.effect), ("1048576", &SysctlEffect::Always));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The root itself cannot be read.
    pub fn read_with_overlay(root: &SysRoot, files: &BTreeMap<PathBuf, String>) -> Result<BootConfig, FileError> {
        root.below("/")?;
        let tree = Overlay::new(root, files);
        let reader = SysctlLoader::detect(&tree);
        let module = ModuleLoad::find(&tree, reader == SysctlLoader::SystemdSysctl);
        let hashsize = Hashsize::find(&tree, &module);
        let rules = UdevRule::find(&tree);
        let standings = effective::effective_sysctls(&tree, &reader, &module, &rules);
        let writers = other_writers::find_other_writers(&tree);
        let (notes, mut ineffective_lines) = tree.into_notes();
        ineffective_lines.extend(effective::rejected_lines(&standings));
        Ok(BootConfig {
            sysctls: standings,
            module,
            hashsize,
            loader: reader,
            udev_rules: rules,
            other_writers: writers,
            notes,
            ineffective_lines,
        })
    }

    /// The result for a key, by either name, with dots or slashes; `None` if no file sets it.
    pub fn effective(&self, key: &str) -> Option<&EffectiveSysctl> {
        self.sysctls.get(&setting::canonical_key(key)?)
    }
}
