//! The audit of a whole machine: every network namespace, services, BPF programs, modules.
use super::finding::{Confidence, CtUser, CtUserKind, NotChecked};
use super::inspect::{NetnsInspection, inspect_netns};
use super::kernel_module::{self, CtModuleState, LoadedModule};
use super::known_service::{self, ServiceEvidence};
use super::{bpf, openvswitch};
use crate::netns::{self, Netns, NetnsList};
use crate::sysroot::{FileError, SysRoot};

/// All that was found, and all that could not be checked.
#[derive(Clone, Debug)]
pub struct CtUserAudit {
    /// Is there connection tracking, and can it be unloaded?
    pub module_state: CtModuleState,
    /// The loaded modules; none where the kernel has no list of them.
    pub modules: Vec<LoadedModule>,
    /// The files that load its module at boot.
    pub modules_load_files: Vec<String>,
    /// The inspected namespaces.
    pub namespaces: Vec<NetnsInspection>,
    /// Users of connection tracking that belong to no single namespace.
    pub host_wide: Vec<CtUser>,
    /// What could not be checked, on the whole machine.
    pub not_checked: Vec<NotChecked>,
}

impl CtUserAudit {
    /// Inspects this machine: the namespace `only`, or every namespace, `bound` at most.
    ///
    /// # Errors
    /// Not even this process's own namespace can be read.
    pub fn run(only: Option<&Netns>, bound: usize) -> Result<CtUserAudit, FileError> {
        let root = SysRoot::live();
        let mut unseen = Vec::new();
        let namespaces = match only {
            Some(only) => vec![only.clone()],
            None => {
                let found = netns::list(bound)?;
                unseen.extend(netns_not_listed(&root, &found, bound));
                found.namespaces
            }
        };
        // One that ended meanwhile with its last process holds nothing any more.
        let is_gone = |namespace: &Netns| only.is_none() && !namespace.path.exists();
        let looked = namespaces.iter().map(|namespace| (namespace, inspect_netns(namespace)));
        let namespaces =
            looked.filter(|(namespace, _)| !is_gone(namespace)).map(|(_, inspection)| inspection).collect();
        let mut machine = Vec::new();
        find_services(&root, &mut machine);
        openvswitch::list_flows(&root, &mut machine, &mut unseen);
        bpf::find_ct_programs(&mut machine, &mut unseen);
        let modules =
            root.read("/proc/modules").map(|text| kernel_module::parse_proc_modules(&text)).unwrap_or_default();
        let (tracking, loaded_by) =
            (kernel_module::ct_module_state(&root), kernel_module::modules_load_files(&root, "nf_conntrack"));
        Ok(CtUserAudit {
            module_state: tracking,
            modules,
            modules_load_files: loaded_by,
            namespaces,
            host_wide: machine,
            not_checked: unseen,
        })
    }

    /// Every dependent with the name of its namespace, where it has one.
    pub fn ct_users(&self) -> impl Iterator<Item = (Option<&str>, &CtUser)> {
        let inside = self.namespaces.iter();
        let inside = inside.flat_map(|one| one.ct_users.iter().map(|dependent| (Some(one.name.as_str()), dependent)));
        inside.chain(self.host_wide.iter().map(|dependent| (None, dependent)))
    }

    /// All that could not be looked at, with the name of its namespace.
    pub fn not_checked(&self) -> impl Iterator<Item = (Option<&str>, &NotChecked)> {
        let inside = self.namespaces.iter();
        let inside = inside.flat_map(|one| one.not_checked.iter().map(|unseen| (Some(one.name.as_str()), unseen)));
        inside.chain(self.not_checked.iter().map(|unseen| (None, unseen)))
    }
}

/// The namespaces that could not be found.
fn netns_not_listed(root: &SysRoot, found: &NetnsList, bound: usize) -> Vec<NotChecked> {
    let mut unseen = Vec::new();
    if let Some(hidden) = found.hidden() {
        let why = format!("{}; run {}", hidden.reason, hidden.hint);
        unseen.push(NotChecked { what: "some processes' network namespaces".into(), why });
    }
    if found.over_limit > 0 {
        let what = format!("{} more network namespaces", found.over_limit);
        unseen.push(NotChecked { what, why: format!("limit {bound}; raise it with --namespaces") });
    }
    if root.read_link("/proc/self/ns/pid").is_some_and(|link| link.as_os_str() != INITIAL_PID_NS) {
        let what = "the host's network namespaces, and those of its other containers".into();
        unseen.push(NotChecked { what, why: "this is a container; run on the host".into() });
    }
    unseen
}

/// What `/proc/self/ns/pid` is where all processes of the machine are seen: this number is fixed.
const INITIAL_PID_NS: &str = "pid:[4026531836]";

fn find_services(root: &SysRoot, found: &mut Vec<CtUser>) {
    for (service, sign) in known_service::running_services(root) {
        let (place, what, sure) = match sign {
            ServiceEvidence::Process(process) => (format!("process {process}"), "runs", Confidence::Likely),
            ServiceEvidence::Socket(socket) => {
                (format!("socket {socket}"), "is started on demand", Confidence::Possible)
            }
        };
        found.push(CtUser {
            kind: CtUserKind::Service,
            listed_by: "processes",
            location: place,
            number: None,
            description: format!("{} {what}: {}", service.name, service.purpose),
            owner: Some(service.name),
            confidence: sure,
        });
    }
}
