//! A look into the network namespace of the calling thread: its rules, its virtual servers, its traffic control.
use super::program::{self, Failed};
use super::rules::{Chain, Language, Table};
use super::{Dependent, Inspection, Kind, Sure, Unseen, iptables, ipvs, nftables, of_table, openvswitch, service, tc};
use crate::root::Root;
use crate::sysctl;

/// What is to be seen from the network namespace that this thread is in.
pub fn inspect() -> Inspection {
    let root = Root::live();
    let mut seen = Inspection::empty();
    seen.connections = sysctl::number(&root, "net.netfilter.nf_conntrack_count").ok().flatten();
    nft_rules(&root, &mut seen);
    iptables_rules(&root, &mut seen);
    for table in &seen.tables {
        seen.dependents.extend(of_table(table));
    }
    virtual_servers(&root, &mut seen);
    traffic_control(&mut seen);
    if let (Some(1..), true) = (seen.connections, seen.dependents.is_empty() && seen.unseen.is_empty()) {
        seen.unseen.push(Unseen {
            what: "what asks for the connections that are tracked here".into(),
            why: "no rule was found that does; they may be left from rules that are gone: `conntrack -L` shows them"
                .into(),
        });
    }
    seen
}

fn unseen(what: &str, why: &Failed) -> Unseen {
    let why = match why {
        Failed::Absent(program) => format!("{program} is not installed: install it, and ask again"),
        Failed::Refused(said) if said.contains("ermission denied") || said.contains("ermitted") => {
            format!("{said}; run as root (CAP_NET_ADMIN)")
        }
        other => other.to_string(),
    };
    Unseen { what: what.to_owned(), why }
}

/// nftables' rules, and with them those of `iptables-nft`, which its own program prints whole.
fn nft_rules(root: &Root, seen: &mut Inspection) {
    let listed = program::output("nft", &["-j", "list", "ruleset"]);
    let json = match listed {
        Ok(json) => json,
        Err(Failed::Absent(_)) if !may_have(root, "nf_tables") => return,
        Err(why) => return seen.unseen.push(unseen("nftables' rules", &why)),
    };
    // Only what people read is missing where this fails.
    let listing = program::output("nft", &["-s", "-a", "list", "ruleset"]).unwrap_or_default();
    let tables = match nftables::parse(&json, &listing) {
        Ok(tables) => tables,
        Err(why) => return seen.unseen.push(Unseen { what: "nftables' rules".into(), why: format!("nft -j: {why}") }),
    };
    let mut translated: Vec<Table> = Vec::new();
    for (program, family) in [("iptables-nft-save", "ip"), ("ip6tables-nft-save", "ip6")] {
        let has = tables.iter().any(|table| table.family == family && OF_IPTABLES.contains(&table.name.as_str()));
        if !has {
            continue;
        }
        // Where that program is not there, or finds rules that are not its own, nft's listing of the table stands.
        if let Ok(saved) = program::output(program, &[]) {
            translated.extend(iptables::parse(&saved, Language::IptablesNft, family).unwrap_or_default());
        }
    }
    for table in tables {
        let whole = translated.iter().position(|other| tells_all(other, &table));
        seen.tables.push(whole.map_or(table, |at| translated.swap_remove(at)));
    }
}

/// Does iptables' listing of a table tell all that nft's does? It leaves out chains that are not its own.
fn tells_all(listing: &Table, table: &Table) -> bool {
    let has = |chain: &Chain| {
        listing.chains.iter().any(|other| other.name == chain.name && other.rules.len() == chain.rules.len())
    };
    listing.family == table.family
        && listing.name == table.name
        && table.objects.is_empty()
        && table.chains.iter().all(has)
}

/// The tables that iptables knows.
const OF_IPTABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

/// The rules of the older iptables. Its programs load tables when asked; so they are asked only where there are tables.
fn iptables_rules(root: &Root, seen: &mut Inspection) {
    for (family, names, programs) in [
        ("ip", "ip_tables_names", ["iptables-legacy-save", "iptables-save"]),
        ("ip6", "ip6_tables_names", ["ip6tables-legacy-save", "ip6tables-save"]),
    ] {
        let what = format!("the rules of {}", programs[0].trim_end_matches("-save"));
        let tables = match root.read(format!("/proc/thread-self/net/{names}")) {
            Ok(tables) if tables.trim().is_empty() => continue,
            Ok(tables) => tables.split_whitespace().collect::<Vec<_>>().join(", "),
            Err(error) if error.is_absent() => continue,
            Err(error) => {
                seen.unseen.push(Unseen { what, why: format!("{error}; run as root (CAP_NET_ADMIN)") });
                continue;
            }
        };
        match legacy(programs, family) {
            Ok(found) => seen.tables.extend(found),
            Err(why) => {
                let mut unseen = unseen(&what, &why);
                unseen.why.push_str(&format!(" (its tables: {tables})"));
                seen.unseen.push(unseen);
            }
        }
    }
}

fn legacy(programs: [&str; 2], family: &str) -> Result<Vec<Table>, Failed> {
    let saved = match program::output(programs[0], &[]) {
        Err(Failed::Absent(name)) => match program::output(programs[1], &[]) {
            // That is the other iptables under the plain name.
            Ok(saved) if saved.contains("(nf_tables)") || saved.trim().is_empty() => return Err(Failed::Absent(name)),
            other => other,
        },
        other => other,
    }?;
    iptables::parse(&saved, Language::IptablesLegacy, family).map_err(Failed::Refused)
}

/// May the kernel have this part, as a module or built in? Where that cannot be told, it may.
fn may_have(root: &Root, module: &str) -> bool {
    let Ok(modules) = root.read("/proc/modules") else { return true };
    let release = root.read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let Ok(built_in) = root.read(format!("/lib/modules/{}/modules.builtin", release.trim())) else { return true };
    let loaded = modules.lines().any(|line| line.split(' ').next() == Some(module));
    loaded || built_in.lines().any(|line| line.ends_with(&format!("/{module}.ko")))
}

fn virtual_servers(root: &Root, seen: &mut Inspection) {
    // Without the file there is no IPVS; it is readable to everybody but in a hardened container.
    let text = match root.read("/proc/thread-self/net/ip_vs") {
        Ok(text) => text,
        Err(error) if error.is_absent() => return,
        Err(error) => return seen.unseen.push(Unseen { what: "IPVS' virtual servers".into(), why: error.to_string() }),
    };
    let tracked = sysctl::number(root, "net.ipv4.vs.conntrack").ok().flatten();
    for server in ipvs::parse(&text) {
        let (sure, tracking) = match tracked {
            Some(0) => (Sure::Possible, "net.ipv4.vs.conntrack=0: IPVS itself does without"),
            _ => (Sure::Certain, "net.ipv4.vs.conntrack=1"),
        };
        seen.dependents.push(Dependent {
            need: Kind::Ipvs,
            by: "ipvs",
            place: "/proc/net/ip_vs".into(),
            number: None,
            what: format!("{} {} {} ({tracking})", server.protocol, server.address, server.forwarding.join(",")),
            owner: None,
            sure,
        });
    }
}

fn traffic_control(seen: &mut Inspection) {
    let listed = program::output("tc", &["-j", "qdisc", "show"]);
    let disciplines = listed.and_then(|json| tc::disciplines(&json).map_err(Failed::Refused));
    let disciplines = match disciplines {
        Ok(disciplines) => disciplines,
        Err(why) => return seen.unseen.push(unseen("traffic control", &why)),
    };
    let dependent = |place: String, what: String| Dependent {
        need: Kind::TrafficControl,
        by: "tc",
        place,
        number: None,
        what,
        owner: None,
        sure: Sure::Certain,
    };
    for discipline in disciplines {
        if discipline.unmasks {
            let what = format!("{} nat", discipline.kind);
            seen.dependents.push(dependent(format!("dev {}", discipline.device), what));
        }
        for place in discipline.places() {
            let device = discipline.device.as_str();
            let listed = program::output("tc", &["-j", "filter", "show", "dev", device, place]);
            match listed.and_then(|json| tc::actions(&json).map_err(Failed::Refused)) {
                Ok(actions) => seen.dependents.extend(
                    actions
                        .into_iter()
                        .map(|action| dependent(format!("dev {device} {place}"), format!("action {action}"))),
                ),
                Err(why) => seen.unseen.push(unseen(&format!("traffic control of {device}"), &why)),
            }
        }
    }
}

/// The flows of Open vSwitch, on every bridge.
pub(super) fn open_vswitch(root: &Root, found: &mut Vec<Dependent>, unseen_list: &mut Vec<Unseen>) {
    let Some(process) = service::runs(root, "ovs-vswitchd") else { return };
    let dependent = |place: String, what: String, sure| Dependent {
        need: Kind::OpenVswitch,
        by: "openvswitch",
        place,
        number: None,
        what,
        owner: Some("Open vSwitch"),
        sure,
    };
    let bridges = match program::output("ovs-vsctl", &["--timeout=10", "list-br"]) {
        Ok(bridges) => bridges,
        Err(why) => {
            found.push(dependent(format!("process {process}"), "ovs-vswitchd runs".into(), Sure::Possible));
            return unseen_list.push(unseen("Open vSwitch's flows", &why));
        }
    };
    for bridge in bridges.lines().map(str::trim).filter(|bridge| !bridge.is_empty()) {
        let versions = "OpenFlow10,OpenFlow11,OpenFlow12,OpenFlow13,OpenFlow14,OpenFlow15";
        match program::output("ovs-ofctl", &["--timeout=10", "-O", versions, "dump-flows", bridge]) {
            Ok(flows) => {
                let flows = openvswitch::flows(&flows).into_iter();
                found.extend(flows.map(|flow| dependent(format!("bridge {bridge}"), flow, Sure::Certain)));
            }
            Err(why) => unseen_list.push(unseen(&format!("the flows of bridge {bridge}"), &why)),
        }
    }
}
