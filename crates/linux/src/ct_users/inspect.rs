//! The users of connection tracking in the calling thread's network namespace: rules, virtual servers, traffic control.
use super::finding::{Confidence, CtUser, CtUserKind, NotChecked};
use super::listed_ruleset::{ListedChain, ListedTable, RulesetFormat};
use super::rule_users::table_ct_users;
use super::{iptables, ipvs, nftables, tc};
use crate::command::{self, CommandError};
use crate::netns::Netns;
use crate::sysctl;
use crate::sysroot::SysRoot;

/// What was found in one network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetnsInspection {
    /// Its name, or a process in it.
    pub name: String,
    /// Its inode.
    pub inode: u64,
    /// The connections tracked there now; `None` if that cannot be read.
    pub connections: Option<u64>,
    /// Its rules.
    pub tables: Vec<ListedTable>,
    /// The users of connection tracking.
    pub ct_users: Vec<CtUser>,
    /// What could not be checked.
    pub not_checked: Vec<NotChecked>,
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

/// Inspects a namespace; one that cannot be entered is reported as not checked.
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

/// Inspects this thread's network namespace.
pub fn inspect() -> NetnsInspection {
    let root = SysRoot::live();
    let mut seen = NetnsInspection::empty();
    seen.connections = sysctl::read_u64(&root, "net.netfilter.nf_conntrack_count").ok().flatten();
    list_nft_rules(&root, &mut seen);
    list_iptables_rules(&root, &mut seen);
    for table in &seen.tables {
        seen.ct_users.extend(table_ct_users(table));
    }
    list_ipvs_services(&root, &mut seen);
    list_tc_users(&mut seen);
    if let (Some(1..), true) = (seen.connections, seen.ct_users.is_empty() && seen.not_checked.is_empty()) {
        seen.not_checked.push(NotChecked {
            what: "the reason why connections are tracked here".into(),
            why: "no rule needs them; they may remain from deleted rules: `conntrack -L` lists them".into(),
        });
    }
    seen
}

/// nftables' rules, and with them those of `iptables-nft`, which its own program prints whole.
fn list_nft_rules(root: &SysRoot, seen: &mut NetnsInspection) {
    let listed = command::listing(&["nft", "-j", "list", "ruleset"]);
    let json = match listed {
        Ok(json) => json,
        Err(CommandError::NotInstalled(_)) if !kernel_may_have_module(root, "nf_tables") => return,
        Err(why) => return seen.not_checked.push(NotChecked::command("nftables' rules", &why)),
    };
    // Only what people read is missing where this fails.
    let listing = command::listing(&["nft", "-s", "-a", "list", "ruleset"]).unwrap_or_default();
    let tables = match nftables::parse(&json, &listing) {
        Ok(tables) => tables,
        Err(why) => {
            return seen.not_checked.push(NotChecked { what: "nftables' rules".into(), why: format!("nft -j: {why}") });
        }
    };
    let mut translated: Vec<ListedTable> = Vec::new();
    for (program, family) in [("iptables-nft-save", "ip"), ("ip6tables-nft-save", "ip6")] {
        let has = tables.iter().any(|table| table.family == family && IPTABLES_TABLES.contains(&table.name.as_str()));
        if !has {
            continue;
        }
        // Where that program is not there, or finds rules that are not its own, nft's listing of the table stands.
        if let Ok(saved) = command::listing(&[program]) {
            translated.extend(iptables::parse(&saved, RulesetFormat::IptablesNft, family).unwrap_or_default());
        }
    }
    for table in tables {
        let whole = translated.iter().position(|other| covers_table(other, &table));
        seen.tables.push(whole.map_or(table, |at| translated.swap_remove(at)));
    }
}

/// Does iptables' listing of a table tell all that nft's does? It leaves out chains that are not its own.
fn covers_table(listing: &ListedTable, table: &ListedTable) -> bool {
    let has = |chain: &ListedChain| {
        listing.chains.iter().any(|other| other.name == chain.name && other.rules.len() == chain.rules.len())
    };
    listing.family == table.family
        && listing.name == table.name
        && table.objects.is_empty()
        && table.chains.iter().all(has)
}

/// The tables that iptables knows.
const IPTABLES_TABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

/// The rules of the older iptables. Its programs load tables when asked; so they are asked only where there are tables.
fn list_iptables_rules(root: &SysRoot, seen: &mut NetnsInspection) {
    for (family, names, programs) in [
        ("ip", "ip_tables_names", ["iptables-legacy-save", "iptables-save"]),
        ("ip6", "ip6_tables_names", ["ip6tables-legacy-save", "ip6tables-save"]),
    ] {
        let what = format!("the rules of {}", programs[0].trim_end_matches("-save"));
        let tables = match root.read(format!("/proc/thread-self/net/{names}")) {
            Ok(tables) if tables.trim().is_empty() => continue,
            Ok(tables) => tables.split_whitespace().collect::<Vec<_>>().join(", "),
            Err(error) if error.is_not_found() => continue,
            Err(error) => {
                seen.not_checked.push(NotChecked { what, why: format!("{error}; run as root (CAP_NET_ADMIN)") });
                continue;
            }
        };
        match iptables_legacy_save(programs, family) {
            Ok(found) => seen.tables.extend(found),
            Err(why) => {
                let mut unseen = NotChecked::command(&what, &why);
                unseen.why.push_str(&format!(" (its tables: {tables})"));
                seen.not_checked.push(unseen);
            }
        }
    }
}

fn iptables_legacy_save(programs: [&str; 2], family: &str) -> Result<Vec<ListedTable>, CommandError> {
    let saved = match command::listing(&[programs[0]]) {
        Err(CommandError::NotInstalled(name)) => match command::listing(&[programs[1]]) {
            // That is the other iptables under the plain name.
            Ok(saved) if saved.contains("(nf_tables)") || saved.trim().is_empty() => {
                return Err(CommandError::NotInstalled(name));
            }
            other => other,
        },
        other => other,
    }?;
    iptables::parse(&saved, RulesetFormat::IptablesLegacy, family)
        .map_err(|error| CommandError::unreadable(&programs[..1], error))
}

/// May the kernel have this part, as a module or built in? Where that cannot be told, it may.
fn kernel_may_have_module(root: &SysRoot, module: &str) -> bool {
    let Ok(modules) = root.read("/proc/modules") else { return true };
    let release = root.read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let Ok(built_in) = root.read(format!("/lib/modules/{}/modules.builtin", release.trim())) else { return true };
    let loaded = modules.lines().any(|line| line.split(' ').next() == Some(module));
    loaded || built_in.lines().any(|line| line.ends_with(&format!("/{module}.ko")))
}

fn list_ipvs_services(root: &SysRoot, seen: &mut NetnsInspection) {
    // Without the file there is no IPVS; it is readable to everybody but in a hardened container.
    let text = match root.read("/proc/thread-self/net/ip_vs") {
        Ok(text) => text,
        Err(error) if error.is_not_found() => return,
        Err(error) => {
            return seen.not_checked.push(NotChecked { what: "IPVS' virtual servers".into(), why: error.to_string() });
        }
    };
    let tracked = sysctl::read_u64(root, "net.ipv4.vs.conntrack").ok().flatten();
    for server in ipvs::parse(&text) {
        let (sure, tracking) = match tracked {
            Some(0) => (Confidence::Possible, "net.ipv4.vs.conntrack=0: IPVS itself does without"),
            _ => (Confidence::Certain, "net.ipv4.vs.conntrack=1"),
        };
        seen.ct_users.push(CtUser {
            kind: CtUserKind::Ipvs,
            listed_by: "ipvs",
            location: "/proc/net/ip_vs".into(),
            number: None,
            description: format!("{} {} {} ({tracking})", server.protocol, server.address, server.forwarding.join(",")),
            owner: None,
            confidence: sure,
        });
    }
}

fn list_tc_users(seen: &mut NetnsInspection) {
    let listed = command::listing(&["tc", "-j", "qdisc", "show"]);
    let disciplines = listed
        .and_then(|json| tc::parse_qdiscs(&json).map_err(|error| CommandError::unreadable(&["tc", "qdisc"], error)));
    let disciplines = match disciplines {
        Ok(disciplines) => disciplines,
        Err(why) => return seen.not_checked.push(NotChecked::command("traffic control", &why)),
    };
    let dependent = |place: String, what: String| CtUser {
        kind: CtUserKind::TrafficControl,
        listed_by: "tc",
        location: place,
        number: None,
        description: what,
        owner: None,
        confidence: Confidence::Certain,
    };
    for discipline in disciplines {
        if discipline.nat {
            let what = format!("{} nat", discipline.kind);
            seen.ct_users.push(dependent(format!("dev {}", discipline.interface), what));
        }
        for place in discipline.filter_attach_points() {
            let device = discipline.interface.as_str();
            let listed = command::listing(&["tc", "-j", "filter", "show", "dev", device, place]);
            match listed.and_then(|json| {
                tc::parse_ct_actions(&json).map_err(|error| CommandError::unreadable(&["tc", "filter"], error))
            }) {
                Ok(actions) => seen.ct_users.extend(
                    actions
                        .into_iter()
                        .map(|action| dependent(format!("dev {device} {place}"), format!("action {action}"))),
                ),
                Err(why) => seen.not_checked.push(NotChecked::command(&format!("traffic control of {device}"), &why)),
            }
        }
    }
}
