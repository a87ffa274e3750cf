//! What will stand after the next boot, from the files alone.
//!
//! A [`Boot`] is read once, from a [`Root`] and possibly from files that are not written yet, and is never changed after: it
//! says which value each knob of connection tracking would have, who wins, who loses, and who else may write. The story is
//! told in the order of a boot: the module comes (or not), systemd-sysctl or sysctl reads `sysctl.d`, rules of udev run sysctl
//! again, programs such as kube-proxy write last. It must never write anything, and never ask the running kernel what it
//! knows only now: the same files give the same answer on any machine.
mod module;
mod pattern;
mod place;
mod reader;
mod rule;
mod setting;
mod standing;
mod tree;
mod writer;

#[cfg(test)]
mod tests;

pub use module::{Hashsize, Module};
pub use place::Place;
pub use reader::Reader;
pub use rule::{Rerun, Rule};
pub use standing::{Effect, Said, Standing};
pub use writer::Writer;

use crate::root::{Root, Unreadable};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use tree::Tree;

/// What the next boot makes of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Each conntrack key that `sysctl.d`, or a rule, sets, by the name `net.netfilter.nf_conntrack_…`; `net.nf_conntrack_max`
    /// is the same value as `net.netfilter.nf_conntrack_max`, and is found there. Ask by either name with [`Boot::standing`].
    pub standings: BTreeMap<String, Standing>,
    /// When the tracking module comes.
    pub module: Module,
    /// The buckets it is given at its start.
    pub hashsize: Option<Hashsize>,
    /// Who reads `sysctl.d` at boot.
    pub reader: Reader,
    /// Rules of udev that run sysctl when the module comes.
    pub rules: Vec<Rule>,
    /// Programs and scripts that write conntrack's knobs after all this.
    pub writers: Vec<Writer>,
    /// What else a person should know: files that could not be read, lines without effect.
    pub notes: Vec<String>,
}

impl Boot {
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
    pub fn read(root: &Root) -> Result<Boot, Unreadable> {
        Boot::with(root, &BTreeMap::new())
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
    pub fn with(root: &Root, files: &BTreeMap<PathBuf, String>) -> Result<Boot, Unreadable> {
        let top = root.path("/");
        if let Err(source) = fs::read_dir(&top) {
            return Err(Unreadable { path: top, doing: "read", source });
        }
        let tree = Tree::new(root, files);
        let reader = Reader::find(&tree);
        let module = Module::find(&tree, reader == Reader::Systemd);
        let hashsize = Hashsize::find(&tree, &module);
        let rules = Rule::find(&tree);
        let standings = standing::standings(&tree, &reader, &module, &rules);
        let writers = writer::find(&tree);
        Ok(Boot { standings, module, hashsize, reader, rules, writers, notes: tree.into_notes() })
    }

    /// How a key stands, by either name and with dots or slashes; none where no file sets it.
    pub fn standing(&self, key: &str) -> Option<&Standing> {
        self.standings.get(&setting::canonical(key)?)
    }
}
