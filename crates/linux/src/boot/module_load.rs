//! When the module nf_conntrack is loaded: before, with or after the run that writes the sysctls.
use super::file_line::{FileLine, config_lines};
use super::ineffective_line::{IneffectiveLine, number_without_separators};
use super::overlay::Overlay;

/// When connection tracking is available. Before that its sysctls do not exist and cannot be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleLoad {
    /// Built into the kernel.
    BuiltIn,
    /// Loaded at boot before the sysctls are written, by this line.
    AtBoot(FileLine),
    /// Loaded by the first rule that needs it, at any time.
    OnFirstUse,
}

/// The parameter `hashsize` of the module or the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashsize {
    /// The number requested; the kernel may round it up.
    pub buckets: u64,
    /// The resulting default of nf_conntrack_max: 8 × buckets.
    pub max: u64,
    /// The line that sets it.
    pub location: FileLine,
}

impl ModuleLoad {
    pub(super) fn find(tree: &Overlay<'_>, systemd: bool) -> ModuleLoad {
        let kernel = KernelModules::find(tree);
        if kernel.is_built_in(tree) {
            return ModuleLoad::BuiltIn;
        }
        let mut named = Vec::new();
        let masked = systemd && tree.is_masked(MODULES_LOAD_SERVICE);
        if masked {
            tree.add_note(format!(
                "{MODULES_LOAD_SERVICE} is a link to /dev/null: nobody reads modules-load.d at boot"
            ));
        }
        for file in if masked { Vec::new() } else { tree.drop_ins("modules-load.d", ".conf") } {
            named.extend(
                config_lines(&file.text).map(|(line, name)| (name.to_owned(), FileLine::new(&file.path, line))),
            );
        }
        // systemd reads this file only through the link that Debian puts into modules-load.d.
        if !systemd && let Some(text) = tree.read("/etc/modules") {
            named
                .extend(config_lines(&text).map(|(line, name)| (name.to_owned(), FileLine::new("/etc/modules", line))));
        }
        for list in if masked { Vec::new() } else { cmdline_options(tree, |key| key == "modules_load") } {
            named.extend(list.split(',').map(|name| (name.to_owned(), FileLine::new("/proc/cmdline", 1))));
        }
        let brings = named.into_iter().find(|(name, _)| kernel.loads_conntrack(tree, name));
        brings.map_or(ModuleLoad::OnFirstUse, |(_, place)| ModuleLoad::AtBoot(place))
    }
}

impl Hashsize {
    pub(super) fn find(tree: &Overlay<'_>, module: &ModuleLoad) -> Option<Hashsize> {
        let command_line = cmdline_options(tree, |key| key.replace('-', "_") == "nf_conntrack.hashsize");
        let mut found = Vec::new();
        for file in tree.drop_ins("modprobe.d", ".conf") {
            for (number, line) in config_lines(&file.text) {
                let mut words = line.split_whitespace();
                let (verb, name) = (words.next(), words.next().map(normalize_module_name));
                if name.as_deref() != Some("nf_conntrack") {
                    continue;
                }
                let place = FileLine::new(&file.path, number);
                match verb {
                    Some("install") => {
                        tree.add_note(format!("{place}: an install command replaces the loading of the module: {line}"))
                    }
                    Some("options") => {
                        let words: Vec<&str> = words.collect();
                        if let Some(value) = separated_hashsize(&words) {
                            note_separated_hashsize(tree, place, line, value);
                            continue;
                        }
                        let sizes = words.iter().filter_map(|word| word.strip_prefix("hashsize="));
                        found.extend(sizes.map(|size| ((*size).to_owned(), place.clone())));
                    }
                    _ => {}
                }
            }
        }
        if *module == ModuleLoad::BuiltIn {
            for (_, place) in found.drain(..) {
                tree.add_note(format!("{place} has no effect: the module is built in; use nf_conntrack.hashsize= on the kernel command line"));
            }
        }
        // modprobe appends what the kernel's command line says, and of two the later counts.
        found.extend(command_line.into_iter().map(|size| (size, FileLine::new("/proc/cmdline", 1))));
        let (size, place) = found.pop()?;
        let Some(buckets) = parse_kernel_number(&size) else {
            tree.add_note(format!("{place}: hashsize={size} is not a number"));
            return None;
        };
        Some(Hashsize { buckets, max: buckets.saturating_mul(8), location: place })
    }
}

/// The value of `hashsize = N`, `hashsize= N` or `hashsize =N`: three words to modprobe, and a parameter without a value to the kernel.
fn separated_hashsize(words: &[&str]) -> Option<String> {
    let rest = words.join(" ");
    let at = rest.find("hashsize")?;
    let behind = rest.get(at + "hashsize".len()..)?;
    let value = behind.trim_start().strip_prefix('=')?.trim_start();
    let is_separated = !behind.starts_with('=') || behind.starts_with("= ");
    is_separated.then(|| value.split(' ').next().unwrap_or_default().to_owned())
}

fn note_separated_hashsize(tree: &Overlay<'_>, location: FileLine, line: &str, value: String) {
    tree.add_ineffective(IneffectiveLine {
        location,
        setting: line.split_whitespace().collect::<Vec<_>>().join(" "),
        reason: "has no effect, or keeps the module from being loaded: an option has no blanks around its `=`"
            .to_owned(),
        key: None,
        value: number_without_separators(&value),
    });
}

/// Which kernel will run, and its directory of modules.
struct KernelModules {
    directory: Option<String>,
}

impl KernelModules {
    fn find(tree: &Overlay<'_>) -> KernelModules {
        let bases = ["/lib/modules", "/usr/lib/modules"];
        let running = tree.read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned());
        for base in bases {
            if let Some(version) = running.as_deref().filter(|version| !version.is_empty()) {
                let directory = format!("{base}/{version}");
                if tree.exists(&directory) {
                    return KernelModules { directory: Some(directory) };
                }
            }
        }
        if running.is_some() {
            return KernelModules { directory: None };
        }
        for base in bases {
            let versions = tree.list_dir(base);
            if versions.len() > 1 {
                tree.add_note(format!("{base} contains several kernels; the last by name was used to find the module"));
            }
            if let Some(version) = versions.last() {
                return KernelModules { directory: Some(format!("{base}/{version}")) };
            }
        }
        KernelModules { directory: None }
    }

    fn is_built_in(&self, tree: &Overlay<'_>) -> bool {
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
    fn loads_conntrack(&self, tree: &Overlay<'_>, name: &str) -> bool {
        let name = normalize_module_name(name);
        if name == "nf_conntrack" || name == "ip_conntrack" {
            return true;
        }
        let needs = self.directory.as_deref().and_then(|directory| tree.read(format!("{directory}/modules.dep")));
        match needs {
            Some(needs) => needs.lines().filter_map(|line| line.split_once(':')).any(|(module, needed)| {
                module_name(module) == name
                    && needed.split_whitespace().any(|other| module_name(other) == "nf_conntrack")
            }),
            None => MODULES_USING_CONNTRACK.contains(&name.as_str()),
        }
    }
}

/// The values of the options on the kernel's command line whose key is wanted.
fn cmdline_options(tree: &Overlay<'_>, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let line = tree.read("/proc/cmdline").unwrap_or_default();
    let pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
    pairs.filter(|(key, _)| wanted(key)).map(|(_, value)| value.to_owned()).collect()
}

/// `kernel/net/netfilter/nf_conntrack.ko.xz` is `nf_conntrack`.
fn module_name(path: &str) -> String {
    let file = path.trim().rsplit('/').next().unwrap_or_default();
    normalize_module_name(file.split('.').next().unwrap_or_default())
}

fn normalize_module_name(name: &str) -> String {
    name.replace('-', "_")
}

/// A number as the kernel reads it: decimal, or `0x` and hexadecimal, or octal after a 0.
pub(super) fn parse_kernel_number(text: &str) -> Option<u64> {
    let text = text.trim();
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u64::from_str_radix(text, 8).ok(),
        None => text.parse().ok(),
    }
}

/// Who reads `modules-load.d`; masked where it is a link to `/dev/null`.
const MODULES_LOAD_SERVICE: &str = "/etc/systemd/system/systemd-modules-load.service";

/// Modules that load tracking, for a tree without the list of dependencies.
const MODULES_USING_CONNTRACK: [&str; 12] = [
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
