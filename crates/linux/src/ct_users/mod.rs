//! Who depends on connection tracking: rules, services, programs in the kernel, modules; in every network namespace.
//!
//! An [`Audit`] is taken once. It lists what was found and, no less, what could not be looked at: whoever judges must not take the
//! unseen for nothing. Looking changes nothing: programs are run that list, never one that sets, and no table is made or loaded.
mod bpf;
mod inspect;
pub mod iptables;
pub mod ipvs;
pub mod kernel_module;
pub mod known_service;
pub mod list_command;
pub mod listed_ruleset;
pub mod nftables;
pub mod openvswitch;
pub mod tc;

use crate::netns::{self, Netns};
use crate::sysroot::{FileError, SysRoot};
pub use inspect::inspect;
use kernel_module::{CtModuleState, LoadedModule};
use known_service::ServiceEvidence;
use listed_ruleset::{CtFeature, ListedRule, ListedTable, RuleMatch};

/// All that was found, and all that could not be seen.
#[derive(Clone, Debug)]
pub struct CtUserAudit {
    /// Is there connection tracking, and can it go?
    pub module_state: CtModuleState,
    /// The loaded modules; none where the kernel has no list of them.
    pub modules: Vec<LoadedModule>,
    /// The files that have its module loaded at boot.
    pub modules_load_files: Vec<String>,
    /// The namespaces that were looked into.
    pub namespaces: Vec<NetnsInspection>,
    /// What depends on tracking on the whole machine, in no namespace of its own.
    pub host_wide: Vec<CtUser>,
    /// What could not be looked at, on the whole machine.
    pub not_checked: Vec<NotChecked>,
}

/// What was found in one network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetnsInspection {
    /// Its name, or a process in it.
    pub name: String,
    /// Its inode.
    pub inode: u64,
    /// The connections that are tracked there now; `None` where that cannot be read.
    pub connections: Option<u64>,
    /// Its rules.
    pub tables: Vec<ListedTable>,
    /// Who depends on tracking.
    pub ct_users: Vec<CtUser>,
    /// What could not be looked at.
    pub not_checked: Vec<NotChecked>,
}

/// Something that depends on connection tracking, or holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CtUser {
    /// What it needs tracking for.
    pub kind: CtUserKind,
    /// Who lists it: `nftables`, `iptables-legacy`, `tc`, …
    pub listed_by: &'static str,
    /// Where: table and chain, device, process.
    pub location: String,
    /// Handle in nftables, number in its chain in iptables.
    pub number: Option<u64>,
    /// The rule, or whatever it is, as its own program prints it.
    pub description: String,
    /// The service whose it is, by the name of its chain or table.
    pub owner: Option<&'static str>,
    /// How sure that is.
    pub confidence: Confidence,
}

/// What a dependent needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CtUserKind {
    /// A rule, or an object of a table.
    Rule(CtFeature),
    /// A service of IPVS.
    Ipvs,
    /// A flow of Open vSwitch, or its process.
    OpenVswitch,
    /// An action or a discipline of traffic control.
    TrafficControl,
    /// A BPF program that looks into the table.
    Bpf,
    /// A service that writes such rules.
    Service,
    /// A table of the type `nat` without a rule that translates: it only keeps tracking switched on.
    IdleNat,
    /// A rule that looks for untracked packets only, or asks for no tracking: it only keeps the module.
    UntrackedOnly,
}

/// How sure something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// It cannot be told from here.
    Possible,
    /// By what it is known to do.
    Likely,
    /// It was seen.
    Certain,
}

/// Something that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotChecked {
    /// What.
    pub what: String,
    /// Why not, and what to do.
    pub why: String,
}

impl CtUserKind {
    /// A stable name, for programs.
    pub fn name(self) -> &'static str {
        match self {
            CtUserKind::Rule(CtFeature::State) => "state",
            CtUserKind::Rule(CtFeature::Match) => "match",
            CtUserKind::Rule(CtFeature::Mark) => "mark",
            CtUserKind::Rule(CtFeature::Label) => "label",
            CtUserKind::Rule(CtFeature::Helper) => "helper",
            CtUserKind::Rule(CtFeature::Timeout) => "timeout",
            CtUserKind::Rule(CtFeature::Expectation) => "expectation",
            CtUserKind::Rule(CtFeature::Zone) => "zone",
            CtUserKind::Rule(CtFeature::Limit) => "limit",
            CtUserKind::Rule(CtFeature::Nat) => "nat",
            CtUserKind::Rule(CtFeature::Synproxy) => "synproxy",
            CtUserKind::Rule(CtFeature::Flowtable) => "flowtable",
            CtUserKind::Rule(CtFeature::Unknown) => "unknown",
            CtUserKind::Rule(CtFeature::Notrack) => "notrack",
            CtUserKind::Ipvs => "ipvs",
            CtUserKind::OpenVswitch => "openvswitch",
            CtUserKind::TrafficControl => "tc",
            CtUserKind::Bpf => "bpf",
            CtUserKind::Service => "service",
            CtUserKind::IdleNat => "idle-nat",
            CtUserKind::UntrackedOnly => "harmless",
        }
    }

    /// What happens to it without tracking.
    pub fn impact(self) -> &'static str {
        match self {
            CtUserKind::Rule(CtFeature::State) => {
                "no packet has a state: what is let in as established is no longer let in"
            }
            CtUserKind::Rule(CtFeature::Match) => "the condition never holds",
            CtUserKind::Rule(CtFeature::Mark) => {
                "connections keep no mark: what is routed, shaped or accepted by it is not"
            }
            CtUserKind::Rule(CtFeature::Label) => "connections keep no label",
            CtUserKind::Rule(CtFeature::Helper) => "the data connections of FTP, SIP and the like are not recognised",
            CtUserKind::Rule(CtFeature::Timeout) => "there is nothing left to time out",
            CtUserKind::Rule(CtFeature::Expectation) => "no connection is expected",
            CtUserKind::Rule(CtFeature::Zone) => "overlapping addresses can no longer be told apart",
            CtUserKind::Rule(CtFeature::Limit) => "connections are not counted, and not limited",
            CtUserKind::Rule(CtFeature::Nat) => "addresses are not translated: connections through it end",
            CtUserKind::Rule(CtFeature::Synproxy) => "the server behind it cannot be reached",
            CtUserKind::Rule(CtFeature::Flowtable) => "the fast path is not used",
            CtUserKind::Rule(CtFeature::Unknown) => "its program must tell: the listing at hand does not",
            CtUserKind::Ipvs => "virtual servers that masquerade, or are filtered by state, do not answer",
            CtUserKind::OpenVswitch => "flows that match ct_state or translate addresses drop packets",
            CtUserKind::TrafficControl => "what is classified or marked by connection is not",
            CtUserKind::Bpf => "the program finds no connection, and does what it does then",
            CtUserKind::Service => "it writes rules that need tracking, at any time",
            CtUserKind::IdleNat => "nothing; but it keeps tracking switched on in this namespace",
            CtUserKind::UntrackedOnly | CtUserKind::Rule(CtFeature::Notrack) => {
                "nothing; but it keeps the module loaded"
            }
        }
    }

    /// Does nothing break without tracking, though it be held?
    pub fn is_idle(self) -> bool {
        matches!(self, CtUserKind::IdleNat | CtUserKind::UntrackedOnly | CtUserKind::Rule(CtFeature::Notrack))
    }
}

impl Confidence {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Confidence::Possible => "possible",
            Confidence::Likely => "likely",
            Confidence::Certain => "certain",
        }
    }
}

impl CtUserAudit {
    /// Looks around on this machine: in `only`, or in every namespace that can be found, `bound` at most.
    ///
    /// # Errors
    /// If not even this process' own namespace can be found.
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
        inspect::list_ovs_flows(&root, &mut machine, &mut unseen);
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

/// Looks into a namespace; one that may not be entered is unseen. Our own needs no entering.
pub fn inspect_netns(namespace: &Netns) -> NetnsInspection {
    let seen = if namespace.is_current { Ok(inspect()) } else { namespace.enter(inspect) };
    let mut inspection = seen.unwrap_or_else(|error| NetnsInspection {
        not_checked: vec![NotChecked {
            what: "the whole namespace".into(),
            why: format!("{error}; run as root (CAP_SYS_ADMIN)"),
        }],
        ..NetnsInspection::empty()
    });
    inspection.name.clone_from(&namespace.name);
    inspection.inode = namespace.inode;
    inspection
}

impl NetnsInspection {
    fn empty() -> NetnsInspection {
        NetnsInspection {
            name: String::new(),
            inode: 0,
            connections: None,
            tables: Vec::new(),
            ct_users: Vec::new(),
            not_checked: Vec::new(),
        }
    }
}

/// The namespaces that could not be found.
fn netns_not_listed(root: &SysRoot, found: &netns::NetnsList, bound: usize) -> Vec<NotChecked> {
    let mut unseen = Vec::new();
    if let Some(hidden) = found.hidden() {
        let why = format!("{}; run {}", hidden.why, hidden.hint);
        unseen.push(NotChecked { what: "some processes' network namespaces".into(), why });
    }
    if found.over_limit > 0 {
        let what = format!("{} more network namespaces", found.over_limit);
        unseen
            .push(NotChecked { what, why: format!("no more than {bound} are looked into; --namespaces raises that") });
    }
    let processes = root.path("/proc/self/ns/pid");
    if std::fs::read_link(processes).is_ok_and(|link| link.as_os_str() != INITIAL_PID_NS) {
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
            ServiceEvidence::Socket(socket) => (format!("socket {socket}"), "starts when asked", Confidence::Possible),
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

/// What the rules of a table need.
pub fn table_ct_users(table: &ListedTable) -> Vec<CtUser> {
    let dependent = |place: String, number, what: String, owner: Option<&'static str>, need| CtUser {
        kind: need,
        listed_by: table.format.name(),
        location: place,
        number,
        description: what,
        owner: owner.or_else(|| known_service::owner_of_chain(&table.name)),
        confidence: if need == CtUserKind::Rule(CtFeature::Unknown) {
            Confidence::Possible
        } else {
            Confidence::Certain
        },
    };
    let place = format!("{} {}", table.family, table.name);
    let objects = table.objects.iter();
    let objects = objects
        .map(|object| dependent(place.clone(), None, object.text.clone(), None, CtUserKind::Rule(object.ct_feature)));
    let mut found: Vec<CtUser> = objects.collect();
    for chain in &table.chains {
        for rule in &chain.rules {
            if let Some(need) = rule_ct_user_kind(rule) {
                let place = format!("{place} {}", chain.name);
                found.push(dependent(
                    place,
                    Some(rule.number),
                    rule.text.clone(),
                    known_service::owner_of_chain(&chain.name),
                    need,
                ));
            }
        }
    }
    let nat = table.chains.iter().any(|chain| chain.base.as_ref().is_some_and(|base| base.is_nat));
    if nat && !found.iter().any(|dependent| dependent.kind == CtUserKind::Rule(CtFeature::Nat)) {
        let what = "chains of type nat, without a rule that translates".into();
        found.push(dependent(place, None, what, None, CtUserKind::IdleNat));
    }
    found
}

/// The weightiest need of a rule. One that only looks for untracked packets, or asks for no tracking, breaks nothing.
fn rule_ct_user_kind(rule: &ListedRule) -> Option<CtUserKind> {
    let untracked_only = rule.ct_features == [CtFeature::State]
        && rule.matches.iter().all(|test| match test {
            RuleMatch::CtState { states, not } => !not && states.iter().all(|state| state == "untracked"),
            _ => true,
        })
        && rule.branches.iter().all(|branch| branch.condition.is_none());
    if untracked_only {
        return Some(CtUserKind::UntrackedOnly);
    }
    rule.ct_features.iter().max().map(|need| CtUserKind::Rule(*need))
}

#[cfg(test)]
mod tests {
    use super::*;
    use listed_ruleset::RulesetFormat;
    use proptest::prelude::*;

    /// Words of the programs that are read here, in any order, and any text between them.
    fn texts() -> impl Strategy<Value = String> {
        let words = [
            "*nat\n",
            ":INPUT ACCEPT [0:0]\n",
            "-A INPUT ",
            "-m ",
            "--dport ",
            "80:",
            ",",
            "-j DNAT ",
            "--to-destination ",
            "[::1]:9-",
            "! ",
            "\"",
            "\\",
            "{\"nftables\":[",
            "{\"rule\":{\"expr\":[",
            "{\"match\":{\"left\":",
            "]}",
            "}",
            "\"set\":[",
            "actions=ct(",
            "TCP ",
            "-> ",
            "\n",
            " ",
        ];
        let piece = prop_oneof![4 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => ".{0,8}"];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        /// Whatever a program prints, reading it ends, and in no panic.
        #[test]
        fn arbitrary_command_output_does_not_panic(text in texts(), listing in texts()) {
            if let Ok(tables) = iptables::parse(&format!("*t\n:INPUT DROP [0:0]\n-A INPUT {text}"), RulesetFormat::IptablesLegacy, "ip") {
                prop_assert!(tables[0].chains.len() == 1 || text.contains('\n'));
                tables.iter().for_each(|table| drop(table_ct_users(table)));
            }
            let _ = iptables::parse(&text, RulesetFormat::IptablesNft, "ip6");
            let _ = nftables::parse(&text, &listing);
            let _ = (tc::parse_qdiscs(&text), tc::parse_ct_actions(&text));
            let (servers, flows) = (ipvs::parse(&text), openvswitch::parse_ct_flows(&text));
            prop_assert!(servers.len() <= text.lines().count() && flows.len() <= text.lines().count());
        }
    }
}
