//! A look into the network namespace of the calling thread: its rules, its virtual servers, its traffic control.
use super::list_command::{self, ListCommandError};
use super::listed_ruleset::{ListedChain, ListedTable, RulesetFormat};
use super::{
    Confidence, CtUser, CtUserKind, NetnsInspection, NotChecked, iptables, ipvs, known_service, nftables, openvswitch,
    table_ct_users, tc,
};
use crate::sysctl;
use crate::sysroot::SysRoot;

/// What is to be seen from the network namespace that this thread is in.
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
            what: "what asks for the connections that are tracked here".into(),
            why: "no rule was found that does; they may be left from rules that are gone: `conntrack -L` shows them"
                .into(),
        });
    }
    seen
}

fn not_checked(what: &str, why: &ListCommandError) -> NotChecked {
    let why = match why {
        ListCommandError::NotInstalled(program) => format!("{program} is not installed: install it, and ask again"),
        ListCommandError::Failed(said) if said.contains("ermission denied") || said.contains("ermitted") => {
            format!("{said}; run as root (CAP_NET_ADMIN)")
        }
        other => other.to_string(),
    };
    NotChecked { what: what.to_owned(), why }
}

/// nftables' rules, and with them those of `iptables-nft`, which its own program prints whole.
fn list_nft_rules(root: &SysRoot, seen: &mut NetnsInspection) {
    let listed = list_command::output("nft", &["-j", "list", "ruleset"]);
    let json = match listed {
        Ok(json) => json,
        Err(ListCommandError::NotInstalled(_)) if !kernel_may_have_module(root, "nf_tables") => return,
        Err(why) => return seen.not_checked.push(not_checked("nftables' rules", &why)),
    };
    // Only what people read is missing where this fails.
    let listing = list_command::output("nft", &["-s", "-a", "list", "ruleset"]).unwrap_or_default();
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
        if let Ok(saved) = list_command::output(program, &[]) {
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
                let mut unseen = not_checked(&what, &why);
                unseen.why.push_str(&format!(" (its tables: {tables})"));
                seen.not_checked.push(unseen);
            }
        }
    }
}

fn iptables_legacy_save(programs: [&str; 2], family: &str) -> Result<Vec<ListedTable>, ListCommandError> {
    let saved = match list_command::output(programs[0], &[]) {
        Err(ListCommandError::NotInstalled(name)) => match list_command::output(programs[1], &[]) {
            // That is the other iptables under the plain name.
            Ok(saved) if saved.contains("(nf_tables)") || saved.trim().is_empty() => {
                return Err(ListCommandError::NotInstalled(name));
            }
            other => other,
        },
        other => other,
    }?;
    iptables::parse(&saved, RulesetFormat::IptablesLegacy, family).map_err(ListCommandError::Failed)
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
    let listed = list_command::output("tc", &["-j", "qdisc", "show"]);
    let disciplines = listed.and_then(|json| tc::parse_qdiscs(&json).map_err(ListCommandError::Failed));
    let disciplines = match disciplines {
        Ok(disciplines) => disciplines,
        Err(why) => return seen.not_checked.push(not_checked("traffic control", &why)),
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
            let listed = list_command::output("tc", &["-j", "filter", "show", "dev", device, place]);
            match listed.and_then(|json| tc::parse_ct_actions(&json).map_err(ListCommandError::Failed)) {
                Ok(actions) => seen.ct_users.extend(
                    actions
                        .into_iter()
                        .map(|action| dependent(format!("dev {device} {place}"), format!("action {action}"))),
                ),
                Err(why) => seen.not_checked.push(not_checked(&format!("traffic control of {device}"), &why)),
            }
        }
    }
}

/// The flows of Open vSwitch, on every bridge.
pub(super) fn list_ovs_flows(root: &SysRoot, found: &mut Vec<CtUser>, unseen_list: &mut Vec<NotChecked>) {
    let Some(process) = known_service::pid_of(root, "ovs-vswitchd") else { return };
    let dependent = |place: String, what: String, sure| CtUser {
        kind: CtUserKind::OpenVswitch,
        listed_by: "openvswitch",
        location: place,
        number: None,
        description: what,
        owner: Some("Open vSwitch"),
        confidence: sure,
    };
    let bridges = match list_command::output("ovs-vsctl", &["--timeout=10", "list-br"]) {
        Ok(bridges) => bridges,
        Err(why) => {
            found.push(dependent(format!("process {process}"), "ovs-vswitchd runs".into(), Confidence::Possible));
            return unseen_list.push(not_checked("Open vSwitch's flows", &why));
        }
    };
    for bridge in bridges.lines().map(str::trim).filter(|bridge| !bridge.is_empty()) {
        let versions = "OpenFlow10,OpenFlow11,OpenFlow12,OpenFlow13,OpenFlow14,OpenFlow15";
        match list_command::output("ovs-ofctl", &["--timeout=10", "-O", versions, "dump-flows", bridge]) {
            Ok(flows) => {
                let flows = openvswitch::parse_ct_flows(&flows).into_iter();
                found.extend(flows.map(|flow| dependent(format!("bridge {bridge}"), flow, Confidence::Certain)));
            }
            Err(why) => unseen_list.push(not_checked(&format!("the flows of bridge {bridge}"), &why)),
        }
    }
}
