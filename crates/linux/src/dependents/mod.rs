//! Who depends on connection tracking: rules, services, programs in the kernel, modules; in every network namespace.
//!
//! An [`Audit`] is taken once. It lists what was found and, no less, what could not be looked at: whoever judges must not take the
//! unseen for nothing. Looking changes nothing: programs are run that list, never one that sets, and no table is made or loaded.
mod bpf;
mod inspect;
pub mod iptables;
pub mod ipvs;
pub mod module;
pub mod nftables;
pub mod openvswitch;
pub mod program;
pub mod rules;
pub mod service;
pub mod tc;

use crate::namespace::{self, Namespace};
use crate::root::{Root, Unreadable};
pub use inspect::inspect;
use module::{Module, Tracking};
use rules::{Need, Rule, Table, Test};
use service::Sign;

/// All that was found, and all that could not be seen.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Is there connection tracking, and can it go?
    pub tracking: Tracking,
    /// The loaded modules; none where the kernel has no list of them.
    pub modules: Vec<Module>,
    /// The files that have its module loaded at boot.
    pub loaded_by: Vec<String>,
    /// The namespaces that were looked into.
    pub namespaces: Vec<Inspection>,
    /// What depends on tracking on the whole machine, in no namespace of its own.
    pub machine: Vec<Dependent>,
    /// What could not be looked at, on the whole machine.
    pub unseen: Vec<Unseen>,
}

/// What was found in one network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Its name, or a process in it.
    pub name: String,
    /// Its inode.
    pub inode: u64,
    /// The connections that are tracked there now; `None` where that cannot be read.
    pub connections: Option<u64>,
    /// Its rules.
    pub tables: Vec<Table>,
    /// Who depends on tracking.
    pub dependents: Vec<Dependent>,
    /// What could not be looked at.
    pub unseen: Vec<Unseen>,
}

/// Something that depends on connection tracking, or holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependent {
    /// What it needs tracking for.
    pub need: Kind,
    /// Who lists it: `nftables`, `iptables-legacy`, `tc`, …
    pub by: &'static str,
    /// Where: table and chain, device, process.
    pub place: String,
    /// Handle in nftables, number in its chain in iptables.
    pub number: Option<u64>,
    /// The rule, or whatever it is, as its own program prints it.
    pub what: String,
    /// The service whose it is, by the name of its chain or table.
    pub owner: Option<&'static str>,
    /// How sure that is.
    pub sure: Sure,
}

/// What a dependent needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A rule, or an object of a table.
    Rule(Need),
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
    Harmless,
}

/// How sure something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sure {
    /// It cannot be told from here.
    Possible,
    /// By what it is known to do.
    Likely,
    /// It was seen.
    Certain,
}

/// Something that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// What.
    pub what: String,
    /// Why not, and what to do.
    pub why: String,
}

impl Kind {
    /// A stable name, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Rule(Need::State) => "state",
            Kind::Rule(Need::Match) => "match",
            Kind::Rule(Need::Mark) => "mark",
            Kind::Rule(Need::Label) => "label",
            Kind::Rule(Need::Helper) => "helper",
            Kind::Rule(Need::Timeout) => "timeout",
            Kind::Rule(Need::Expectation) => "expectation",
            Kind::Rule(Need::Zone) => "zone",
            Kind::Rule(Need::Limit) => "limit",
            Kind::Rule(Need::Nat) => "nat",
            Kind::Rule(Need::Synproxy) => "synproxy",
            Kind::Rule(Need::Flowtable) => "flowtable",
            Kind::Rule(Need::Unknown) => "unknown",
            Kind::Rule(Need::Notrack) => "notrack",
            Kind::Ipvs => "ipvs",
            Kind::OpenVswitch => "openvswitch",
            Kind::TrafficControl => "tc",
            Kind::Bpf => "bpf",
            Kind::Service => "service",
            Kind::IdleNat => "idle-nat",
            Kind::Harmless => "harmless",
        }
    }

    /// What happens to it without tracking.
    pub fn breaks(self) -> &'static str {
        match self {
            Kind::Rule(Need::State) => "no packet has a state: what is let in as established is no longer let in",
            Kind::Rule(Need::Match) => "the condition never holds",
            Kind::Rule(Need::Mark) => "connections keep no mark: what is routed, shaped or accepted by it is not",
            Kind::Rule(Need::Label) => "connections keep no label",
            Kind::Rule(Need::Helper) => "the data connections of FTP, SIP and the like are not recognised",
            Kind::Rule(Need::Timeout) => "there is nothing left to time out",
            Kind::Rule(Need::Expectation) => "no connection is expected",
            Kind::Rule(Need::Zone) => "overlapping addresses can no longer be told apart",
            Kind::Rule(Need::Limit) => "connections are not counted, and not limited",
            Kind::Rule(Need::Nat) => "addresses are not translated: connections through it end",
            Kind::Rule(Need::Synproxy) => "the server behind it cannot be reached",
            Kind::Rule(Need::Flowtable) => "the fast path is not used",
            Kind::Rule(Need::Unknown) => "its program must tell: the listing at hand does not",
            Kind::Ipvs => "virtual servers that masquerade, or are filtered by state, do not answer",
            Kind::OpenVswitch => "flows that match ct_state or translate addresses drop packets",
            Kind::TrafficControl => "what is classified or marked by connection is not",
            Kind::Bpf => "the program finds no connection, and does what it does then",
            Kind::Service => "it writes rules that need tracking, at any time",
            Kind::IdleNat => "nothing; but it keeps tracking switched on in this namespace",
            Kind::Harmless | Kind::Rule(Need::Notrack) => "nothing; but it keeps the module loaded",
        }
    }

    /// Does nothing break without tracking, though it be held?
    pub fn is_idle(self) -> bool {
        matches!(self, Kind::IdleNat | Kind::Harmless | Kind::Rule(Need::Notrack))
    }
}

impl Sure {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Sure::Possible => "possible",
            Sure::Likely => "likely",
            Sure::Certain => "certain",
        }
    }
}

impl Audit {
    /// Looks around on this machine: in `only`, or in every namespace that can be found, `bound` at most.
    ///
    /// # Errors
    /// If not even this process' own namespace can be found.
    pub fn take(only: Option<&Namespace>, bound: usize) -> Result<Audit, Unreadable> {
        let root = Root::live();
        let mut unseen = Vec::new();
        let namespaces = match only {
            Some(only) => vec![only.clone()],
            None => {
                let found = namespace::all(bound)?;
                unseen.extend(not_found(&root, &found, bound));
                found.namespaces
            }
        };
        // One that ended meanwhile with its last process holds nothing any more.
        let is_gone = |namespace: &Namespace| only.is_none() && !namespace.handle.exists();
        let looked = namespaces.iter().map(|namespace| (namespace, entered(namespace)));
        let namespaces =
            looked.filter(|(namespace, _)| !is_gone(namespace)).map(|(_, inspection)| inspection).collect();
        let mut machine = Vec::new();
        services(&root, &mut machine);
        inspect::open_vswitch(&root, &mut machine, &mut unseen);
        bpf::programs(&mut machine, &mut unseen);
        let modules = root.read("/proc/modules").map(|text| module::loaded(&text)).unwrap_or_default();
        let (tracking, loaded_by) = (module::tracking(&root), module::loaded_at_boot_by(&root, "nf_conntrack"));
        Ok(Audit { tracking, modules, loaded_by, namespaces, machine, unseen })
    }

    /// Every dependent with the name of its namespace, where it has one.
    pub fn dependents(&self) -> impl Iterator<Item = (Option<&str>, &Dependent)> {
        let inside = self.namespaces.iter();
        let inside = inside.flat_map(|one| one.dependents.iter().map(|dependent| (Some(one.name.as_str()), dependent)));
        inside.chain(self.machine.iter().map(|dependent| (None, dependent)))
    }

    /// All that could not be looked at, with the name of its namespace.
    pub fn unseen(&self) -> impl Iterator<Item = (Option<&str>, &Unseen)> {
        let inside = self.namespaces.iter();
        let inside = inside.flat_map(|one| one.unseen.iter().map(|unseen| (Some(one.name.as_str()), unseen)));
        inside.chain(self.unseen.iter().map(|unseen| (None, unseen)))
    }
}

/// Looks into a namespace; one that may not be entered is unseen. Our own needs no entering.
pub fn entered(namespace: &Namespace) -> Inspection {
    let seen = if namespace.is_ours { Ok(inspect()) } else { namespace.enter(inspect) };
    let mut inspection = seen.unwrap_or_else(|error| Inspection {
        unseen: vec![Unseen {
            what: "the whole namespace".into(),
            why: format!("{error}; run as root (CAP_SYS_ADMIN)"),
        }],
        ..Inspection::empty()
    });
    inspection.name.clone_from(&namespace.name);
    inspection.inode = namespace.inode;
    inspection
}

impl Inspection {
    fn empty() -> Inspection {
        Inspection {
            name: String::new(),
            inode: 0,
            connections: None,
            tables: Vec::new(),
            dependents: Vec::new(),
            unseen: Vec::new(),
        }
    }
}

/// The namespaces that could not be found.
fn not_found(root: &Root, found: &namespace::Found, bound: usize) -> Vec<Unseen> {
    let mut unseen = Vec::new();
    if let Some(hidden) = found.hidden() {
        let why = format!("{}; run {}", hidden.why, hidden.how);
        unseen.push(Unseen { what: "some processes' network namespaces".into(), why });
    }
    if found.beyond > 0 {
        let what = format!("{} more network namespaces", found.beyond);
        unseen.push(Unseen { what, why: format!("no more than {bound} are looked into; --namespaces raises that") });
    }
    let processes = root.path("/proc/self/ns/pid");
    if std::fs::read_link(processes).is_ok_and(|link| link.as_os_str() != INITIAL_PROCESSES) {
        let what = "the host's network namespaces, and those of its other containers".into();
        unseen.push(Unseen { what, why: "this is a container; run on the host".into() });
    }
    unseen
}

/// What `/proc/self/ns/pid` is where all processes of the machine are seen: this number is fixed.
const INITIAL_PROCESSES: &str = "pid:[4026531836]";

fn services(root: &Root, found: &mut Vec<Dependent>) {
    for (service, sign) in service::running(root) {
        let (place, what, sure) = match sign {
            Sign::Process(process) => (format!("process {process}"), "runs", Sure::Likely),
            Sign::Socket(socket) => (format!("socket {socket}"), "starts when asked", Sure::Possible),
        };
        found.push(Dependent {
            need: Kind::Service,
            by: "processes",
            place,
            number: None,
            what: format!("{} {what}: {}", service.name, service.purpose),
            owner: Some(service.name),
            sure,
        });
    }
}

/// What the rules of a table need.
pub fn of_table(table: &Table) -> Vec<Dependent> {
    let dependent = |place: String, number, what: String, owner: Option<&'static str>, need| Dependent {
        need,
        by: table.language.name(),
        place,
        number,
        what,
        owner: owner.or_else(|| service::owner(&table.name)),
        sure: if need == Kind::Rule(Need::Unknown) { Sure::Possible } else { Sure::Certain },
    };
    let place = format!("{} {}", table.family, table.name);
    let objects = table.objects.iter();
    let objects =
        objects.map(|object| dependent(place.clone(), None, object.text.clone(), None, Kind::Rule(object.needs)));
    let mut found: Vec<Dependent> = objects.collect();
    for chain in &table.chains {
        for rule in &chain.rules {
            if let Some(need) = of_rule(rule) {
                let place = format!("{place} {}", chain.name);
                found.push(dependent(place, Some(rule.number), rule.text.clone(), service::owner(&chain.name), need));
            }
        }
    }
    let nat = table.chains.iter().any(|chain| chain.base.as_ref().is_some_and(|base| base.nat));
    if nat && !found.iter().any(|dependent| dependent.need == Kind::Rule(Need::Nat)) {
        let what = "chains of type nat, without a rule that translates".into();
        found.push(dependent(place, None, what, None, Kind::IdleNat));
    }
    found
}

/// The weightiest need of a rule. One that only looks for untracked packets, or asks for no tracking, breaks nothing.
fn of_rule(rule: &Rule) -> Option<Kind> {
    let untracked_only = rule.needs == [Need::State]
        && rule.tests.iter().all(|test| match test {
            Test::State { states, not } => !not && states.iter().all(|state| state == "untracked"),
            _ => true,
        })
        && rule.branches.iter().all(|branch| branch.test.is_none());
    if untracked_only {
        return Some(Kind::Harmless);
    }
    rule.needs.iter().max().map(|need| Kind::Rule(*need))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rules::Language;

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
        fn any_text_is_read_or_refused(text in texts(), listing in texts()) {
            if let Ok(tables) = iptables::parse(&format!("*t\n:INPUT DROP [0:0]\n-A INPUT {text}"), Language::IptablesLegacy, "ip") {
                prop_assert!(tables[0].chains.len() == 1 || text.contains('\n'));
                tables.iter().for_each(|table| drop(of_table(table)));
            }
            let _ = iptables::parse(&text, Language::IptablesNft, "ip6");
            let _ = nftables::parse(&text, &listing);
            let _ = (tc::disciplines(&text), tc::actions(&text));
            let (servers, flows) = (ipvs::parse(&text), openvswitch::flows(&text));
            prop_assert!(servers.len() <= text.lines().count() && flows.len() <= text.lines().count());
        }
    }
}
