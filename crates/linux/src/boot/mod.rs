//! What will stand after the next boot, from the files alone.
//!
//! A [`Boot`] is read once, from a [`Root`] and possibly from files that are not written yet, and is never changed after: it
//! says which value each knob of connection tracking would have, who wins, who loses, and who else may write. The story is
//! told in the order of a boot: the module comes (or not), systemd-sysctl or sysctl reads `sysctl.d`, rules of udev run sysctl
//! again, programs such as kube-proxy write last. It must never write anything, and never ask the running kernel what it
//! knows only now: the same files give the same answer on any machine.
mod effective;
mod file_line;
mod glob;
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
pub use module_load::{Hashsize, ModuleLoad};
pub use other_writers::OtherWriter;
pub use sysctl_loader::SysctlLoader;
pub use udev_rule::{UdevRule, UdevSysctlRun};

use crate::sysroot::{FileError, SysRoot};
use overlay::Overlay;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// What the next boot makes of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootConfig {
    /// Each conntrack key that `sysctl.d`, or a rule, sets, by the name `net.netfilter.nf_conntrack_…`; `net.nf_conntrack_max`
    /// is the same value as `net.netfilter.nf_conntrack_max`, and is found there. Ask by either name with [`Boot::standing`].
    pub sysctls: BTreeMap<String, EffectiveSysctl>,
    /// When the tracking module comes.
    pub module: ModuleLoad,
    /// The buckets it is given at its start.
    pub hashsize: Option<Hashsize>,
    /// Who reads `sysctl.d` at boot.
    pub loader: SysctlLoader,
    /// Rules of udev that run sysctl when the module comes.
    pub udev_rules: Vec<UdevRule>,
    /// Programs and scripts that write conntrack's knobs after all this.
    pub other_writers: Vec<OtherWriter>,
    /// What else a person should know: files that could not be read, lines without effect.
    pub notes: Vec<String>,
}

impl BootConfig {
    /// What stands after the next boot of the machine whose files these are.
    ///
    /// Single files that cannot be read become notes; files that are not there are no errors.
    ///
    /// ```
    /// use keepstate_linux::{Root, boot::{Boot, Effect, Module}};
    /// let image = tempfile::tempdir()?;
    /// let write = |path: &str, text: &str| {
    ///     let path = image.path().join(path);
    ///     std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
    ///     std::fs::write(path, text)
    /// };
    /// write("usr/lib/systemd/systemd", "")?;
    /// write("etc/sysctl.d/90-conntrack.conf", "net.netfilter.nf_conntrack_max = 1048576\n")?;
    /// let boot = Boot::read(&Root::at(image.path()))?;
    /// let max = boot.standing("net.nf_conntrack_max").ok_or("nothing sets it")?;
    /// assert_eq!((max.value.as_str(), max.winner.to_string().as_str()), ("1048576", "/etc/sysctl.d/90-conntrack.conf:1"));
    /// // The usual disappointment: nothing loads the module before systemd-sysctl looks for its knobs.
    /// assert_eq!(boot.module, Module::OnFirstUse);
    /// assert!(matches!(max.effect, Effect::Never(_)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The root itself cannot be read.
    pub fn read(root: &SysRoot) -> Result<BootConfig, FileError> {
        BootConfig::read_with_overlay(root, &BTreeMap::new())
    }

    /// What would stand if these files (by the path they have on a running machine) were added, or replaced what is there.
    /// Nothing is written.
    ///
    /// ```
    /// use keepstate_linux::{Root, boot::{Boot, Effect}};
    /// use std::collections::BTreeMap;
    /// let image = tempfile::tempdir()?;
    /// std::fs::create_dir_all(image.path().join("usr/lib/systemd"))?;
    /// std::fs::write(image.path().join("usr/lib/systemd/systemd"), "")?;
    /// let plan = BTreeMap::from([
    ///     ("/etc/sysctl.d/90-conntrack.conf".into(), "net.netfilter.nf_conntrack_max = 1048576\n".to_owned()),
    ///     ("/etc/modules-load.d/conntrack.conf".into(), "nf_conntrack\n".to_owned()),
    /// ]);
    /// let boot = Boot::with(&Root::at(image.path()), &plan)?;
    /// let max = boot.standing("net.netfilter.nf_conntrack_max").ok_or("nothing sets it")?;
    /// assert_eq!((max.value.as_str(), &max.effect), ("1048576", &Effect::Always));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The root itself cannot be read.
    pub fn read_with_overlay(root: &SysRoot, files: &BTreeMap<PathBuf, String>) -> Result<BootConfig, FileError> {
        let top = root.path("/");
        if let Err(source) = fs::read_dir(&top) {
            return Err(FileError { path: top, operation: "read", source });
        }
        let tree = Overlay::new(root, files);
        let reader = SysctlLoader::detect(&tree);
        let module = ModuleLoad::find(&tree, reader == SysctlLoader::SystemdSysctl);
        let hashsize = Hashsize::find(&tree, &module);
        let rules = UdevRule::find(&tree);
        let standings = effective::effective_sysctls(&tree, &reader, &module, &rules);
        let writers = other_writers::find_other_writers(&tree);
        Ok(BootConfig {
            sysctls: standings,
            module,
            hashsize,
            loader: reader,
            udev_rules: rules,
            other_writers: writers,
            notes: tree.into_notes(),
        })
    }

    /// How a key stands, by either name and with dots or slashes; none where no file sets it.
    pub fn effective(&self, key: &str) -> Option<&EffectiveSysctl> {
        self.sysctls.get(&setting::canonical_key(key)?)
    }
}
