//! When the tracking module comes: before, with or after the run that writes the knobs.
use super::place::{Place, lines};
use super::tree::Tree;

/// When the connection tracking code is there. Without it its knobs do not exist, and cannot be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Module {
    /// Part of the kernel: there before anything runs.
    BuiltIn,
    /// Loaded early by name, before the knobs are written; the place names it.
    AtBoot(Place),
    /// Loaded by the first rule that needs it, at no set time.
    OnFirstUse,
}

/// The number of buckets that the module, or the kernel, is given at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashsize {
    /// The number asked for; the kernel may round it up.
    pub buckets: u64,
    /// The limit that follows from it until a knob says otherwise: 8 × buckets.
    pub max: u64,
    /// Who says so.
    pub place: Place,
}

impl Module {
    pub(super) fn find(tree: &Tree<'_>, systemd: bool) -> Module {
        let kernel = Kernel::find(tree);
        if kernel.is_built_in(tree) {
            return Module::BuiltIn;
        }
        let mut named = Vec::new();
        let masked = systemd && tree.is_masked(LOADER);
        if masked {
            tree.note(format!("{LOADER} is a link to /dev/null: nobody reads modules-load.d at boot"));
        }
        for file in if masked { Vec::new() } else { tree.drop_ins("modules-load.d", ".conf") } {
            named.extend(lines(&file.text).map(|(line, name)| (name.to_owned(), Place::new(&file.path, line))));
        }
        // systemd reads this file only through the link that Debian puts into modules-load.d.
        if !systemd && let Some(text) = tree.read("/etc/modules") {
            named.extend(lines(&text).map(|(line, name)| (name.to_owned(), Place::new("/etc/modules", line))));
        }
        for list in if masked { Vec::new() } else { options(tree, |key| key == "modules_load") } {
            named.extend(list.split(',').map(|name| (name.to_owned(), Place::new("/proc/cmdline", 1))));
        }
        let brings = named.into_iter().find(|(name, _)| kernel.brings_tracking(tree, name));
        brings.map_or(Module::OnFirstUse, |(_, place)| Module::AtBoot(place))
    }
}

impl Hashsize {
    pub(super) fn find(tree: &Tree<'_>, module: &Module) -> Option<Hashsize> {
        let command_line = options(tree, |key| key.replace('-', "_") == "nf_conntrack.hashsize");
        let mut found = Vec::new();
        for file in tree.drop_ins("modprobe.d", ".conf") {
            for (number, line) in lines(&file.text) {
                let mut words = line.split_whitespace();
                let (verb, name) = (words.next(), words.next().map(underscored));
                if name.as_deref() != Some("nf_conntrack") {
                    continue;
                }
                let place = Place::new(&file.path, number);
                match verb {
                    Some("install") => tree.note(format!("{place} replaces the module's loading by a command: {line}")),
                    Some("options") => {
                        let sizes = words.filter_map(|word| word.strip_prefix("hashsize=")).map(str::to_owned);
                        found.extend(sizes.map(|size| (size, place.clone())));
                    }
                    _ => {}
                }
            }
        }
        if *module == Module::BuiltIn {
            for (_, place) in found.drain(..) {
                tree.note(format!("{place} has no effect: the module is built in; use nf_conntrack.hashsize= on the kernel's command line"));
            }
        }
        // modprobe appends what the kernel's command line says, and of two the later counts.
        found.extend(command_line.into_iter().map(|size| (size, Place::new("/proc/cmdline", 1))));
        let (size, place) = found.pop()?;
        let Some(buckets) = number(&size) else {
            tree.note(format!("{place}: hashsize={size} is no number"));
            return None;
        };
        Some(Hashsize { buckets, max: buckets.saturating_mul(8), place })
    }
}

/// Which kernel will run, and its directory of modules.
struct Kernel {
    directory: Option<String>,
}

impl Kernel {
    fn find(tree: &Tree<'_>) -> Kernel {
        let bases = ["/lib/modules", "/usr/lib/modules"];
        let running = tree.read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned());
        for base in bases {
            if let Some(version) = running.as_deref().filter(|version| !version.is_empty()) {
                let directory = format!("{base}/{version}");
                if tree.exists(&directory) {
                    return Kernel { directory: Some(directory) };
                }
            }
        }
        if running.is_some() {
            return Kernel { directory: None };
        }
        for base in bases {
            let versions = tree.names(base);
            if versions.len() > 1 {
                tree.note(format!("{base} holds several kernels; the module was looked for in the last by name"));
            }
            if let Some(version) = versions.last() {
                return Kernel { directory: Some(format!("{base}/{version}")) };
            }
        }
        Kernel { directory: None }
    }

    fn is_built_in(&self, tree: &Tree<'_>) -> bool {
        match &self.directory {
            Some(directory) => {
                let list = tree.read(format!("{directory}/modules.builtin")).unwrap_or_default();
                list.lines().any(|line| module_name(line) == "nf_conntrack")
            }
            // Only what was loaded as a module has a state.
            None => tree.exists("/sys/module/nf_conntrack") && !tree.exists("/sys/module/nf_conntrack/initstate"),
        }
    }

    /// Does loading this module load tracking too?
    fn brings_tracking(&self, tree: &Tree<'_>, name: &str) -> bool {
        let name = underscored(name);
        if name == "nf_conntrack" || name == "ip_conntrack" {
            return true;
        }
        let needs = self.directory.as_deref().and_then(|directory| tree.read(format!("{directory}/modules.dep")));
        match needs {
            Some(needs) => needs.lines().filter_map(|line| line.split_once(':')).any(|(module, needed)| {
                module_name(module) == name
                    && needed.split_whitespace().any(|other| module_name(other) == "nf_conntrack")
            }),
            None => NEED_TRACKING.contains(&name.as_str()),
        }
    }
}

/// The values of the options on the kernel's command line whose key is wanted.
fn options(tree: &Tree<'_>, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let line = tree.read("/proc/cmdline").unwrap_or_default();
    let pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
    pairs.filter(|(key, _)| wanted(key)).map(|(_, value)| value.to_owned()).collect()
}

/// `kernel/net/netfilter/nf_conntrack.ko.xz` is `nf_conntrack`.
fn module_name(path: &str) -> String {
    let file = path.trim().rsplit('/').next().unwrap_or_default();
    underscored(file.split('.').next().unwrap_or_default())
}

fn underscored(name: &str) -> String {
    name.replace('-', "_")
}

/// A number as the kernel reads it: decimal, or `0x` and hexadecimal, or octal after a 0.
pub(super) fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u64::from_str_radix(text, 8).ok(),
        None => text.parse().ok(),
    }
}

/// Who reads `modules-load.d`; masked where it is a link to `/dev/null`.
const LOADER: &str = "/etc/systemd/system/systemd-modules-load.service";

/// Modules that load tracking, for a tree without the list of dependencies.
const NEED_TRACKING: [&str; 12] = [
    "iptable_nat",
    "ip6table_nat",
    "nf_conntrack_ftp",
    "nf_conntrack_netlink",
    "nf_conntrack_sip",
    "nf_flow_table",
    "nf_nat",
    "nft_ct",
    "nft_nat",
    "xt_CT",
    "xt_conntrack",
    "xt_state",
];
