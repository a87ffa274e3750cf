//! The module `nf_conntrack`: whether it is loaded, whether it can be unloaded, and which modules use it.
use crate::sysroot::SysRoot;

/// How the kernel has connection tracking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CtModuleState {
    /// It has none: not built, or the module is not loaded.
    Absent,
    /// Built into the kernel; it cannot be unloaded.
    BuiltIn,
    /// A loaded module.
    Module {
        /// Its reference count; `None` if that cannot be read.
        references: Option<u64>,
        /// The modules that use it, directly.
        holders: Vec<String>,
    },
}

/// A line of `/proc/modules`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedModule {
    /// Its name.
    pub name: String,
    /// Its reference count.
    pub references: u64,
    /// The modules that use it.
    pub users: Vec<String>,
}

/// Finds out how this kernel has connection tracking.
pub fn ct_module_state(root: &SysRoot) -> CtModuleState {
    let directory = "/sys/module/nf_conntrack";
    // Only a loadable module has this file.
    if root.exists(format!("{directory}/initstate")) {
        let references = root.read(format!("{directory}/refcnt")).ok().and_then(|text| text.trim().parse().ok());
        let holders = root.list_dir(format!("{directory}/holders")).unwrap_or_default();
        return CtModuleState::Module { references, holders };
    }
    if root.exists(directory) || root.exists("/proc/sys/net/netfilter/nf_conntrack_max") {
        return CtModuleState::BuiltIn;
    }
    CtModuleState::Absent
}

/// Parses the text of `/proc/modules`.
///
/// ```
/// use keepstate_linux::ct_users::kernel_module::{LoadedModule, parse_proc_modules};
/// let modules = parse_proc_modules("nf_conntrack 188416 3 nf_nat,nft_ct, Live 0x0\n");
/// assert_eq!(modules, [LoadedModule { name: "nf_conntrack".into(), references: 3, users: vec!["nf_nat".into(), "nft_ct".into()] }]);
/// ```
pub fn parse_proc_modules(text: &str) -> Vec<LoadedModule> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, _size, references, users) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let users = users.split(',').filter(|user| !user.is_empty() && *user != "-").map(str::to_owned).collect();
        Some(LoadedModule { name: name.to_owned(), references: references.parse().ok()?, users })
    };
    text.lines().filter_map(line).collect()
}

/// The files that load a module at boot.
pub fn modules_load_files(root: &SysRoot, module: &str) -> Vec<String> {
    let mut files = vec!["/etc/modules".to_owned()];
    for directory in
        ["/etc/modules-load.d", "/run/modules-load.d", "/usr/local/lib/modules-load.d", "/usr/lib/modules-load.d"]
    {
        let names = root.list_dir(directory).unwrap_or_default().into_iter().filter(|name| name.ends_with(".conf"));
        files.extend(names.map(|name| format!("{directory}/{name}")));
    }
    let lists = |file: &String| root.read(file).is_ok_and(|text| text.lines().any(|line| line.trim() == module));
    files.retain(lists);
    files
}

/// The order in which modules must be removed so that `last` can be removed: its users first, itself at the end.
pub fn removal_order(modules: &[LoadedModule], last: &str) -> Vec<String> {
    fn visit(modules: &[LoadedModule], name: &str, order: &mut Vec<String>, path: &mut Vec<String>) {
        if order.iter().chain(path.iter()).any(|known| known == name) {
            return;
        }
        path.push(name.to_owned());
        if let Some(module) = modules.iter().find(|module| module.name == name) {
            for user in &module.users {
                visit(modules, user, order, path);
            }
        }
        path.pop();
        order.push(name.to_owned());
    }
    let mut order = Vec::new();
    visit(modules, last, &mut order, &mut Vec::new());
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const MODULES: &str = "\
xt_conntrack 16384 1 - Live 0x0000000000000000
nft_chain_nat 16384 0 - Live 0x0000000000000000
nf_nat 61440 1 nft_chain_nat, Live 0x0000000000000000
nf_conntrack_netlink 57344 0 - Live 0x0000000000000000
nf_conntrack 188416 3 xt_conntrack,nf_nat,nf_conntrack_netlink, Live 0x0000000000000000
nf_defrag_ipv4 12288 1 nf_conntrack, Live 0x0000000000000000
";

    #[test]
    fn users_are_removed_first() {
        let order = removal_order(&parse_proc_modules(MODULES), "nf_conntrack");
        assert_eq!(order, ["xt_conntrack", "nft_chain_nat", "nf_nat", "nf_conntrack_netlink", "nf_conntrack"]);
        assert_eq!(removal_order(&[], "nf_conntrack"), ["nf_conntrack"]);
        let loop_of_two = parse_proc_modules("a 1 1 b, Live\nb 1 1 a, Live\n");
        assert_eq!(removal_order(&loop_of_two, "a"), ["b", "a"]);
    }

    #[test]
    fn finds_modules_load_files() {
        let there = tempfile::tempdir().unwrap();
        let directory = there.path().join("etc/modules-load.d");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("a.conf"), "# nf_conntrack\nnf_conntrack_ftp\n").unwrap();
        fs::write(directory.join("b.conf"), "x\n nf_conntrack\n").unwrap();
        fs::write(directory.join("c.off"), "nf_conntrack\n").unwrap();
        fs::write(there.path().join("etc/modules"), "nf_conntrack").unwrap();
        let files = modules_load_files(&SysRoot::at(there.path()), "nf_conntrack");
        assert_eq!(files, ["/etc/modules", "/etc/modules-load.d/b.conf"]);
    }

    #[test]
    fn module_state_loaded_built_in_and_absent() {
        let there = tempfile::tempdir().unwrap();
        let root = SysRoot::at(there.path());
        assert_eq!(ct_module_state(&root), CtModuleState::Absent);
        let directory = there.path().join("sys/module/nf_conntrack");
        fs::create_dir_all(directory.join("parameters")).unwrap();
        assert_eq!(ct_module_state(&root), CtModuleState::BuiltIn);
        fs::create_dir_all(directory.join("holders/nf_nat")).unwrap();
        fs::write(directory.join("initstate"), "live\n").unwrap();
        fs::write(directory.join("refcnt"), "1\n").unwrap();
        assert_eq!(
            ct_module_state(&root),
            CtModuleState::Module { references: Some(1), holders: vec!["nf_nat".into()] }
        );
    }
}
