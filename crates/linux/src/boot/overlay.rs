//! The files of the next boot: those below a [`SysRoot`], with others laid over them.
//!
//! It lives as long as one reading. It resolves symbolic links itself, below the root, because an image's `/etc` points
//! to the image's `/usr`, not to this machine's. It must never write anything.
use super::ineffective_line::IneffectiveLine;
use crate::sysroot::SysRoot;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

pub(super) struct Overlay<'a> {
    root: &'a SysRoot,
    overlaid: BTreeMap<PathBuf, &'a str>,
    notes: RefCell<Vec<String>>,
    ineffective: RefCell<Vec<IneffectiveLine>>,
}

/// A drop-in that counts: no earlier directory has its name.
pub(super) struct DropIn {
    pub(super) path: String,
    pub(super) text: String,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(root: &'a SysRoot, files: &'a BTreeMap<PathBuf, String>) -> Overlay<'a> {
        let mut tree =
            Overlay { root, overlaid: BTreeMap::new(), notes: RefCell::default(), ineffective: RefCell::default() };
        // A new file replaces a link of its name, but lies in the directory its own directory is a link to.
        let over = files.iter().filter_map(|(path, text)| {
            let directory = tree.resolve(path.parent()?);
            Some((directory.join(path.file_name()?), text.as_str()))
        });
        tree.overlaid = over.collect();
        tree
    }

    pub(super) fn add_note(&self, text: impl Into<String>) {
        let (text, mut notes) = (text.into(), self.notes.borrow_mut());
        if !notes.contains(&text) {
            notes.push(text);
        }
    }

    /// A line that does nothing: also a note.
    pub(super) fn add_ineffective(&self, line: IneffectiveLine) {
        self.add_note(line.to_string());
        let mut lines = self.ineffective.borrow_mut();
        if !lines.contains(&line) {
            lines.push(line);
        }
    }

    /// The notes, and the lines that do nothing.
    pub(super) fn into_notes(self) -> (Vec<String>, Vec<IneffectiveLine>) {
        (self.notes.into_inner(), self.ineffective.into_inner())
    }

    /// A file's text; none where it is not there, and none with a note where it cannot be read.
    pub(super) fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        let path = path.as_ref();
        let resolved = self.resolve(path);
        if let Some(text) = self.overlaid.get(&resolved) {
            return Some((*text).to_owned());
        }
        match self.root.read(resolved) {
            Ok(text) => Some(text),
            Err(error) if error.is_not_found() => None,
            Err(error) => {
                self.add_note(format!(
                    "{} cannot be read ({}): what it says is not known",
                    path.display(),
                    error.source
                ));
                None
            }
        }
    }

    /// A file of `/proc/PID`: a process may end, or hide, while it is read, and that says nothing.
    pub(super) fn read_proc(&self, path: &str) -> Option<String> {
        self.root.read(path).ok()
    }

    /// The names in a directory, sorted; none where there is no such directory.
    pub(super) fn list_dir(&self, path: &str) -> Vec<String> {
        let directory = self.resolve(Path::new(path));
        let mut names = match self.root.list_dir(&directory) {
            Ok(names) => names.into_iter().collect::<BTreeSet<String>>(),
            Err(error) => {
                if !error.is_not_found() {
                    self.add_note(format!("{path} cannot be read ({}): its contents are unknown", error.source));
                }
                BTreeSet::new()
            }
        };
        let added =
            self.overlaid.keys().filter(|file| file.parent() == Some(&directory)).filter_map(|file| file.file_name());
        names.extend(added.map(|name| name.to_string_lossy().into_owned()));
        names.into_iter().collect()
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        let resolved = self.resolve(Path::new(path));
        self.overlaid.contains_key(&resolved) || self.root.exists(resolved)
    }

    pub(super) fn is_dir(&self, path: &str) -> bool {
        self.root.is_dir(self.resolve(Path::new(path)))
    }

    /// Is it a link to `/dev/null`, which hides what would have its name?
    pub(super) fn is_masked(&self, path: &str) -> bool {
        self.resolve(Path::new(path)) == Path::new("/dev/null")
    }

    /// Are both the same file, or directory?
    pub(super) fn is_same_file(&self, one: &str, other: &str) -> bool {
        self.resolve(Path::new(one)) == self.resolve(Path::new(other))
    }

    /// The drop-ins of all directories of this name, in the order they are read: by name, the earlier directory hiding the later.
    pub(super) fn drop_ins(&self, directory: &str, suffix: &str) -> Vec<DropIn> {
        let mut seen = BTreeSet::new();
        let mut first = BTreeMap::<String, String>::new();
        for base in DROP_IN_BASES {
            let place = format!("{base}/{directory}");
            if !seen.insert(self.resolve(Path::new(&place))) {
                continue;
            }
            for name in self.list_dir(&place) {
                let path = format!("{place}/{name}");
                if !name.ends_with(suffix) || name.starts_with('.') || !self.is_masked(&path) && !self.exists(&path) {
                    continue;
                }
                match first.get(&name) {
                    None => {
                        first.insert(name, path);
                    }
                    Some(earlier) if self.read(&path).is_some_and(|text| text.contains("conntrack")) => {
                        self.add_note(format!("{path} is not read: {earlier} has the same name and precedence"));
                    }
                    Some(_) => {}
                }
            }
        }
        let counting = first.into_values().filter(|path| !self.is_masked(path));
        counting.filter_map(|path| self.read(&path).map(|text| DropIn { path, text })).collect()
    }

    /// The path without links, below the root. A loop of links ends where it stands, and then no such file is found.
    fn resolve(&self, path: &Path) -> PathBuf {
        let mut left = path_components_reversed(path);
        let mut done = PathBuf::from("/");
        let mut links = 0_u32;
        while let Some(name) = left.pop() {
            if name == ".." {
                done.pop();
                continue;
            }
            done.push(name);
            if self.overlaid.contains_key(&done) {
                continue;
            }
            let Some(target) = self.root.read_link(&done) else { continue };
            links = links.saturating_add(1);
            if links > MAX_SYMLINKS {
                break;
            }
            done.pop();
            if target.is_absolute() {
                done = PathBuf::from("/");
            }
            left.extend(path_components_reversed(&target));
        }
        done
    }
}

/// The names of a path, the first last.
fn path_components_reversed(path: &Path) -> Vec<OsString> {
    let named = path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    named.collect()
}

/// Where drop-ins lie, the strongest first. The last is the one before it where `/usr` is merged.
const DROP_IN_BASES: [&str; 5] = ["/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"];
/// As many links as Linux follows in one path.
const MAX_SYMLINKS: u32 = 40;
