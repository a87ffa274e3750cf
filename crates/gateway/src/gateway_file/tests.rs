use super::*;
use crate::config::{ControlConfig, DriverConfig};
use crate::control_protocol::DEFAULT_SOCKET;
use crate::tc::OnExit;
use keepstate_engine::{KernelVersion, MappingBehaviour, Sysctl, Sysctls};

mod docs;

fn file(text: &str) -> GatewayFile {
    GatewayFile::parse(Path::new("/etc/keepstate/gateway.toml"), text.to_owned())
}

fn resolved(text: &str) -> ResolvedGateway {
    let file = file(text);
    assert_eq!(file.faults, [], "{text}");
    ResolvedGateway::new(Some(file), GatewaySettings::default())
}

fn config(resolved: &ResolvedGateway) -> GatewayConfig {
    resolved.check().unwrap();
    resolved.config([0; 16], drop).unwrap()
}

const ROUTER: &str = r#"version = 1
ruleset = "router.nft"
interface = ["eth*", "!eth3"]
on-exit = "open"
lifeline = "eth0:2222"
offload = false
services = "/srv/services.toml"
includepath = ["nft.d"]
control = "/run/keepstate/gateway.sock"
state = "/var/lib/keepstate"
helper = ["ftp:2121"]
as-linux = "5.15"
memory = "4G"
log = "debug"
spin = 50

[define]
wan = "eth0"

[sysctl]
nf_conntrack_max = 1000000
"net.netfilter.nf_conntrack_tcp_loose" = "0"

[nat]
mapping = "endpoint-independent"
filtering = "address-dependent"
parity = true
port-block = 512

[table]
reserve = ["1000 for tcp 22 from 10.0.0.0/8"]
source-limit = ["for from 10.0.0.0/8", "100 connections 20 new/s burst 40 per 24,56"]
adaptive-timeouts = "900000-1100000"
grow-to = 4000000
"#;

const TUN: &str = r#"version = 1
ruleset = "router.nft"
mtu = 1400
device = [{ name = "lan0", addresses = ["10.1.0.1/24", "fd00:1::1/64"] }]

[[route]]
to = "0.0.0.0/0"
interface = "lan0"

[nat]
deterministic = ["100.64.0.0/16=192.0.2.0/28"]
"#;

#[test]
fn a_key_may_be_written_by_habit() {
    let by_habit = ROUTER
        .replace("interface =", "interfaces =")
        .replace("on-exit", "on_exit")
        .replace("as-linux", "as_linux")
        .replace("port-block", "port_block")
        .replace("source-limit", "source_limit")
        .replace("adaptive-timeouts", "adaptive_timeouts")
        .replace("grow-to", "grow_to");
    let options = |text: &str| format!("{:?}", config(&resolved(text)));
    assert_ne!(by_habit, ROUTER);
    assert_eq!(options(&by_habit), options(ROUTER));
    let twice = file(&format!("{by_habit}on-exit = \"open\"\n").replace("[define]", "on-exit = \"closed\"\n[define]"));
    assert!(!twice.faults.is_empty(), "one key by two names");
}

#[test]
fn every_key_reaches_the_gateway() {
    let resolved = resolved(ROUTER);
    let config = config(&resolved);
    assert_eq!(config.ruleset, Path::new("/etc/keepstate/router.nft"), "relative to the file");
    assert_eq!(config.services.as_deref(), Some(Path::new("/srv/services.toml")));
    assert_eq!(config.ruleset_options.include_dirs, [Path::new("/etc/keepstate/nft.d")]);
    assert_eq!(config.ruleset_options.definitions, [("wan".to_owned(), "eth0".to_owned())]);
    let DriverConfig::Tc { interfaces, options } = &config.driver else { panic!("{:?}", config.driver) };
    assert_eq!(*interfaces, ["eth*".parse().unwrap(), "!eth3".parse().unwrap()]);
    assert_eq!((options.on_exit, options.offload), (OnExit::Open, false));
    assert_eq!(options.offload_size.connections(), 131_072);
    assert_eq!(options.lifeline, Some("eth0:2222".parse().unwrap()));
    let control = ControlConfig { path: "/run/keepstate/gateway.sock".into(), is_needed: true };
    assert_eq!(config.control, Some(control));
    assert_eq!(config.state_file.as_deref(), Some(Path::new("/var/lib/keepstate")));
    assert_eq!(config.helpers.first().map(|(_, port)| *port), Some(2121));
    assert_eq!(config.busy_poll.as_micros(), 50);
    assert_eq!((config.nat.mapping, config.nat.parity), (MappingBehaviour::EndpointIndependent, true));
    assert_eq!(config.nat.port_block_size, Some(512));
    assert_eq!(config.admission.reserves, ["1000 for tcp 22 from 10.0.0.0/8".parse().unwrap()]);
    assert_eq!(config.admission.source_limits.len(), 2);
    assert_eq!(config.admission.adaptive_timeouts, Some("900000-1100000".parse().unwrap()));
    assert_eq!(config.admission.grow_to, Some(4_000_000));
    let mut sysctls = Sysctls::kernel_defaults(KernelVersion::V5_15, 4 << 30);
    sysctls.set(Sysctl::Max, 1_000_000).unwrap();
    sysctls.set(Sysctl::TcpLoose, 0).unwrap();
    assert_eq!(config.sysctls, sysctls);
    assert_eq!(resolved.settings().log.as_ref().map(|log| log.value), Some(LogSetting::Debug));
}

#[test]
fn a_gateway_that_governs_interfaces_can_be_asked() {
    const GOVERNS: &str = "version = 1\nruleset = \"router.nft\"\ninterface = [\"eth0\"]\n";
    let of = |text: &str| config(&resolved(text)).control;
    let usual = ControlConfig { path: DEFAULT_SOCKET.into(), is_needed: false };
    assert_eq!(of(GOVERNS), Some(usual));
    assert_eq!(of(&format!("{GOVERNS}control = \"off\"\n")), None);
    let own = ControlConfig { path: "/etc/keepstate/own.sock".into(), is_needed: true };
    assert_eq!(of(&format!("{GOVERNS}control = \"own.sock\"\n")), Some(own));
    assert_eq!(of(TUN), None);
}

#[test]
fn devices_and_routes_reach_the_gateway() {
    let config = config(&resolved(TUN));
    assert!(matches!(config.driver, DriverConfig::Tun));
    assert_eq!((config.fib.mtu, config.fib.interfaces.len()), (1400, 1));
    assert_eq!(config.fib.interfaces, ["lan0=10.1.0.1/24,fd00:1::1/64".parse().unwrap()]);
    assert_eq!(config.fib.routes, ["0.0.0.0/0=lan0".parse().unwrap()]);
    assert_eq!(config.nat.deterministic.len(), 1);
}

#[test]
fn what_is_printed_is_a_file_that_says_the_same() {
    for text in [ROUTER, TUN] {
        let once = resolved(text);
        let printed = once.print();
        let again = resolved(&printed);
        let same = |a: &ResolvedGateway, b: &ResolvedGateway| {
            let values = |of: &ResolvedGateway| -> Vec<_> {
                key_entries(&of.settings).into_iter().map(|entry| (entry.table, entry.name, entry.value)).collect()
            };
            assert_eq!(values(a), values(b), "{printed}");
        };
        same(&once, &again);
    }
}

#[test]
fn print_names_the_origin_of_each_value() {
    let mut flags =
        GatewaySettings { on_exit: Some(Given::flag(OnExitSetting::Closed, "--on-exit")), ..Default::default() };
    flags.sysctl.set_by_flag("nf_conntrack_max".into(), SysctlValue::Text("5".into()), "--set");
    let printed = ResolvedGateway::new(Some(file(ROUTER)), flags).print();
    let line = |start: &str| {
        let line = printed.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {printed}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("ruleset"), "ruleset = \"/etc/keepstate/router.nft\" # /etc/keepstate/gateway.toml:2");
    assert_eq!(line("on-exit"), "on-exit = \"closed\" # --on-exit");
    assert_eq!(line("skip-unsupported"), "skip-unsupported = false # default");
    assert_eq!(line("nf_conntrack_max"), "nf_conntrack_max = \"5\" # --set");
    assert_eq!(line("mapping"), "mapping = \"endpoint-independent\" # /etc/keepstate/gateway.toml:25");
    assert!(!printed.contains("mtu"), "{printed}");
}

#[test]
fn a_flag_that_chooses_the_driver_replaces_all_of_the_file_about_it() {
    let flags = GatewaySettings { queue: Some(Given::flag(3, "--queue")), ..Default::default() };
    let resolved = ResolvedGateway::new(Some(file(ROUTER)), flags);
    assert!(matches!(config(&resolved).driver, DriverConfig::Nfqueue(3)));
    assert!(resolved.settings().lifeline.is_none());
    // The same way with other interfaces keeps the rest.
    let flags = GatewaySettings {
        interface: Some(Given::flag(vec!["eth9".parse().unwrap()], "--interface")),
        ..Default::default()
    };
    let DriverConfig::Tc { interfaces, options } = config(&ResolvedGateway::new(Some(file(ROUTER)), flags)).driver
    else {
        panic!("not governed")
    };
    assert_eq!((interfaces.len(), options.offload), (1, false));
}

/// Of a file whose `right` is replaced by `wrong`: the place of its fault and words of it.
#[test]
fn faults_name_line_column_and_the_nearest_key() {
    let mut otherwise = Vec::new();
    for (wrong, right, place, words) in [
        ("rulset = \"a\"", "ruleset = \"router.nft\"", "2:1", "unknown key `rulset`; did you mean `ruleset`?"),
        ("onexit = \"open\"", "on-exit = \"open\"", "4:1", "did you mean `on-exit`?"),
        ("on-exit = \"opened\"", "on-exit = \"open\"", "4:11", "unknown value `opened`; did you mean `open`?"),
        ("offload = \"on\"", "offload = false", "6:11", "write true or false"),
        ("interface = \"eth0\"", "interface = [\"eth*\", \"!eth3\"]", "3:13", "write a list in brackets"),
        ("interface = [\"eth0\", \"lo\"]", "interface = [\"eth*\", \"!eth3\"]", "3:22", "not governed"),
        ("interface = []", "interface = [\"eth*\", \"!eth3\"]", "3:13", "interface is empty"),
        ("lifeline = \"eth0:x\"", "lifeline = \"eth0:2222\"", "5:12", "like eth0:22"),
        ("helper = [\"irc\"]", "helper = [\"ftp:2121\"]", "11:11", "there is no helper"),
        ("as-linux = \"7\"", "as-linux = \"5.15\"", "12:12", "Known: 3.10, 4.19"),
        ("memory = \"much\"", "memory = \"4G\"", "13:10", "write a size"),
        ("spin = 1000001", "spin = 50", "15:8", "0 to 1000000"),
        ("offload-size = 1023\nspin = 50", "spin = 50", "15:16", "1024 to 4194304 connections"),
        ("spin = -1", "spin = 50", "15:8", "a whole number from 0 on"),
        ("wan = 3", "wan = \"eth0\"", "18:7", "write a text in quotes"),
        ("nf_conntrack_maxx = 5", "nf_conntrack_max = 1000000", "21:1", "did you mean nf_conntrack_max?"),
        ("nf_conntrack_max = -5", "nf_conntrack_max = 1000000", "21:20", "whole number"),
        ("kernel.panic = 5", "nf_conntrack_max = 1000000", "21:1", ""),
        ("\"kernel.panic\" = 5", "nf_conntrack_max = 1000000", "21:1", "no sysctl of connection tracking"),
        ("mapping = \"per-connection\"", "mapping = \"endpoint-independent\"", "26:13", "filtering needs"),
        ("parrity = true", "parity = true", "27:1", "did you mean `parity`?"),
        ("port-block = 70000", "port-block = 512", "28:14", "from 0 to 65535"),
        ("port-block = 0", "port-block = 512", "28:14", "1 to 64512"),
        ("queue = 3\nspin = 50", "spin = 50", "15:9", "leave the other out"),
        ("mtu = 1500", "spin = 50", "15:7", "only with device"),
        ("xdp = [\"eth0\"]", "spin = 50", "15:1", "write interface"),
        ("[[service]]", "[define]", "17:3", "keepstate check --services"),
        ("version = 2", "version = 1", "1:11", "reads version 1"),
        ("# version", "version = 1", "1:1", "write version = 1"),
        ("version =", "version = 1", "1:10", ""),
    ] {
        let text = ROUTER.replacen(right, wrong, 1);
        assert_ne!(text, ROUTER, "{right}");
        let said = ResolvedGateway::new(Some(file(&text)), GatewaySettings::default()).check().unwrap_err().to_string();
        if !said.contains(&format!("gateway.toml:{place}: ")) || !said.contains(words) || !said.contains('^') {
            otherwise.push(format!("{wrong}: not at {place}, or without {words:?}:\n{said}"));
        }
    }
    assert!(otherwise.is_empty(), "{}", otherwise.join("\n"));
}

#[test]
fn all_faults_are_found_at_once() {
    let text = ROUTER.replace("offload", "ofload").replace("spin = 50", "spin = \"x\"").replace("parity", "parrity");
    let text = text.replace("\"ftp:2121\"", "\"ftp:2121\", \"irc\", \"sip\"");
    let faults = file(&text).faults;
    assert_eq!(faults.len(), 5, "{faults:?}");
    let device =
        "version = 1\ndevice = [{ name = \"a/b\", addresses = [\"10.0.0.1/8\"] }, { name = \"c\", adresses = [] }]\n";
    let faults = file(device).faults;
    // That `addresses` is missing then is not said.
    assert_eq!(faults.len(), 2, "{faults:?}");
    // Each address has its place.
    let device = "version = 1\ndevice = [{ name = \"a\", addresses = [\"10.0.0.1/99\", \"x\", \"10.0.0.1/8\"] }, { name = \"b\", addresses = [\"fd00::1/200\"] }]\n";
    let faults = file(device).faults;
    let at: Vec<&str> = faults.iter().filter_map(|fault| device.get(fault.span.clone())).collect();
    assert_eq!(at, ["\"10.0.0.1/99\"", "\"x\"", "\"fd00::1/200\""], "{faults:?}");
    // And what does not fit together is said of each.
    let text = "version = 1\nruleset = \"r\"\ndevice = [{ name = \"a\", addresses = [\"10.0.0.1/8\"] }, { name = \"a\", addresses = [] }]\n\
                route = [{ to = \"0.0.0.0/0\", interface = \"b\" }, { to = \"::/0\", interface = \"c\" }]\n";
    let said: Vec<String> = ResolvedGateway::new(Some(file(text)), GatewaySettings::default())
        .faults()
        .into_iter()
        .map(|fault| fault.message)
        .collect();
    let wanted = [
        "device a has no address",
        "--device a: given 2 times",
        "--route 0.0.0.0/0=b: there is no --device b",
        "--route ::/0=c: there is no --device c",
    ];
    assert_eq!(said, wanted);
    for text in ["[x", "x = ", "\u{0}", "version = 1\nversion = 1", "[nat]\n[nat]", "nat = 3", "[[nat]]", "sysctl = []"]
    {
        assert!(!file(text).faults.is_empty(), "{text:?}");
    }
}

#[test]
fn a_missing_part_is_named_without_a_place() {
    let said = |text: &str| {
        ResolvedGateway::new(Some(file(text)), GatewaySettings::default()).check().unwrap_err().to_string()
    };
    assert_eq!(said("version = 1\nqueue = 0\n"), "no ruleset: add ruleset = \"FILE\" to the file, or --ruleset FILE");
    assert!(said("version = 1\nruleset = \"a\"\n").starts_with("no source of packets"));
    let flags = GatewaySettings {
        ruleset: Some(Given::flag("a".into(), "--ruleset")),
        queue: Some(Given::flag(0, "--queue")),
        mtu: Some(Given::flag(1500, "--mtu")),
        ..Default::default()
    };
    let said = ResolvedGateway::new(None, flags).check().unwrap_err().to_string();
    assert_eq!(said, "--mtu: mtu has a meaning only with device; add that, or leave mtu out");
}

#[test]
fn reload_takes_what_can_change_and_names_what_cannot() {
    let running = resolved(ROUTER);
    let live = ROUTER.replace("router.nft", "other.nft").replace("1000000", "5").replace("wan = ", "lan = ");
    let live = live
        .replace("services = \"/srv/services.toml\"\n", "")
        .replace("includepath", "skip-unsupported = true\nincludepath");
    running.check_reload(&resolved(&live)).unwrap();
    let restart =
        ROUTER.replace("offload = false\n", "").replace("512", "1024").replace("log = \"debug\"", "log = \"info\"");
    let said = running.check_reload(&resolved(&restart)).unwrap_err().to_string();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "default: offload: true needs a restart; running with false",
            "/etc/keepstate/gateway.toml:13: log: \"info\" needs a restart; running with \"debug\"",
            "/etc/keepstate/gateway.toml:27: nat.port-block: 1024 needs a restart; running with 512",
            "nothing is changed: restart the gateway, or take these changes back",
        ]
    );
}

#[test]
fn the_shipped_schema_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/gateway.schema.json");
    let made = schema::gateway_schema();
    if std::env::var_os("KEEPSTATE_WRITE_SCHEMA").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let shipped = fs::read_to_string(&path).unwrap();
    assert!(
        shipped == made,
        "packaging/gateway.schema.json is old: KEEPSTATE_WRITE_SCHEMA=1 cargo test -p keepstate-gateway --lib schema"
    );
}

#[test]
fn the_schema_has_every_key_and_a_sentence_for_each() {
    let schema: serde_json::Value = serde_json::from_str(&schema::gateway_schema()).unwrap();
    let of = |table: &str| schema["$defs"][table]["properties"].clone();
    let (nat, full_table, cluster) = (of("NatSettings"), of("TableSettings"), of("ClusterSettings"));
    for entry in key_entries(&resolved(ROUTER).settings) {
        let property = match entry.table {
            "" => &schema["properties"][&entry.name],
            "nat" => &nat[&entry.name],
            "table" => &full_table[&entry.name],
            "cluster" => &cluster[&entry.name],
            _ => &schema["properties"][entry.table],
        };
        assert!(property["description"].is_string(), "{} {}: {property}", entry.table, entry.name);
    }
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn the_shipped_example_is_valid_and_its_comments_too() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/gateway.toml");
    let text = fs::read_to_string(&path).unwrap();
    resolved(&text).check().unwrap();
    // A line `#key = value` is a setting that is off: each is valid when it is on, alone.
    let off: Vec<&str> = text.lines().filter(|line| line.starts_with('#') && !line.starts_with("# ")).collect();
    let mut table = "";
    for line in text.lines() {
        let on = line.trim_start_matches('#');
        if line.starts_with('#') && !line.starts_with("# ") && !line.starts_with("#[") && line != "#" {
            let on = format!("version = 1\n{table}\n{on}\n");
            assert_eq!(file(&on).faults, [], "{on}");
        } else if on.starts_with('[') {
            table = on;
        }
    }
    assert!(off.len() > 20, "{off:?}");
    // It shows every key.
    for entry in key_entries(&resolved(ROUTER).settings).iter().filter(|entry| ["", "nat"].contains(&entry.table)) {
        let shown = |line: &str| {
            line.trim_start_matches('#').starts_with(&format!("{} =", entry.name))
                || line == format!("#[[{}]]", entry.name)
        };
        assert!(text.lines().any(shown), "{} is not shown", entry.name);
    }
}

#[test]
fn a_full_table_by_choice_is_checked_with_its_place() {
    let with = |table: &str| {
        let text =
            format!("version = 1\nruleset = \"a\"\nqueue = 1\n[sysctl]\nnf_conntrack_max = 100\n[table]\n{table}\n");
        let file = file(&text);
        let faults = file.faults.iter().map(|fault| fault.message.clone()).collect::<Vec<_>>().join("\n");
        let resolved = ResolvedGateway::new(Some(file), GatewaySettings::default());
        let checked = resolved.check().and_then(|()| resolved.check_sysctl_files());
        (faults, checked.map_err(|error| format!("{error:#}")))
    };
    assert_eq!(with("reserve = [\"50 for tcp 22\"]\ngrow-to = 200"), (String::new(), Ok(())));
    assert!(with("reserve = [\"50 tcp 22\"]").0.contains("ENTRIES for CONNECTIONS"));
    assert!(with("adaptive-timeouts = \"9-5\"").0.contains("START-END"));
    assert!(with("grow-to = 0").1.unwrap_err().contains("gateway.toml:7:"), "{:?}", with("grow-to = 0").1);
    let error = with("reserve = [\"100 for tcp 22\"]").1.unwrap_err();
    assert_eq!(
        error,
        "in [table]: the reserves take 100 entries of a table of 100 (nf_conntrack_max); leave some for the others"
    );
    let before = resolved(ROUTER);
    let after = resolved(&ROUTER.replace("grow-to = 4000000", "grow-to = 5000000"));
    let refused = format!("{:#}", before.check_reload(&after).unwrap_err());
    assert!(refused.contains("table.grow-to: 5000000 needs a restart; running with 4000000"), "{refused}");
}
