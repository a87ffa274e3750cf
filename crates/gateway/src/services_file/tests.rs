use super::*;
use keepstate_router::service::{Masquerade, Probe, Scheduler, Transport, WhenDown};
use std::time::Duration;

const FULL_EXAMPLE: &str = r#"
[[service]]
name = "web"
listen = "192.0.2.80:80"
scheduler = "maglev"
hash = "address-and-port"
seed = 7
affinity = "3h"
masquerade = "always"
when-down = "reset"
check = { interval = "5s", timeout = 1, rise = 1, fall = 2, port = 81, source = "10.0.0.1" }
backends = ["10.0.0.11:8080", { address = "10.0.0.12:8080", weight = 2 }, { address = "10.0.0.13" }]

[[service]]
name = "dns"
listen = "[2001:db8::80]:53-54"
protocol = "udp"
backends = ["[fd00::11]:5353", "[fd00::13]"]
check.command = ["/bin/true", "now"]
"#;

#[test]
fn every_setting_is_parsed() {
    let services = parse("all.toml", FULL_EXAMPLE).unwrap_or_else(|refused| panic!("{refused}"));
    let [web, dns] = &services[..] else { panic!("{services:?}") };
    assert_eq!((web.name.as_str(), web.to_string()), ("web", "192.0.2.80:80".into()));
    assert_eq!((web.scheduler, web.seed, web.affinity), (Scheduler::Maglev, 7, Some(10_800)));
    assert_eq!((web.masquerade, web.when_down), (Masquerade::Always, WhenDown::Reset));
    let check = web.check.as_ref().unwrap();
    assert_eq!((check.interval, check.timeout), (Duration::from_secs(5), Duration::from_secs(1)));
    assert_eq!((check.rise, check.fall), (1, 2));
    assert_eq!(check.probe, Probe::Connect { port: Some(81), source: Some([10, 0, 0, 1].into()) });
    let shown: Vec<_> = web.backends.iter().map(|backend| (backend.to_string(), backend.weight)).collect();
    assert_eq!(shown, [("10.0.0.11:8080".into(), 1), ("10.0.0.12:8080".into(), 2), ("10.0.0.13".into(), 1)]);
    assert_eq!((dns.transport, dns.to_string()), (Transport::Udp, "[2001:db8::80]:53-54".into()));
    let check = dns.check.as_ref().unwrap();
    assert_eq!(check.probe, Probe::Command(vec!["/bin/true".into(), "now".into()]));
    assert_eq!((check.interval, check.rise, check.fall), (Duration::from_secs(5), 2, 3));
    assert_eq!((dns.scheduler, dns.affinity), (Scheduler::RoundRobin, None));
    let shown: Vec<_> = dns.backends.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["[fd00::11]:5353", "[fd00::13]"]);
    assert_eq!(parse("empty.toml", "").unwrap(), []);
}

#[test]
fn errors_name_line_and_column() {
    let mut otherwise = Vec::new();
    for (wrong, right, place, words) in [
        (
            "scheduler = \"magic\"",
            "scheduler = \"maglev\"",
            "5:13",
            "unknown value `magic`. Known: round-robin, random",
        ),
        ("lissten = 7", "seed = 7", "7:1", "unknown key `lissten`; did you mean `listen`?"),
        ("listen = \"192.0.2.80\"", "listen = \"192.0.2.80:80\"", "4:10", "ADDRESS:PORT"),
        ("listen = \"192.0.2.80:90-80\"", "listen = \"192.0.2.80:80\"", "3:8", "the smaller one first"),
        ("affinity = \"2d\"", "affinity = \"3h\"", "8:12", "1s to 24h"),
        ("affinity = \"soon\"", "affinity = \"3h\"", "8:12", "write a time"),
        ("affinity = true", "affinity = \"3h\"", "8:12", "a time like"),
        ("weight = 70000", "weight = 2", "12:70", "from 0 to 65535"),
        ("10.0.0.11:80800", "10.0.0.11:8080", "12:13", "or [fd00::11]:8080"),
        ("address = \"10.0.0.11:8080\"", "address = \"10.0.0.12:8080\"", "12:31", "duplicate backend"),
        ("10.0.0.9", "[fd00::13]", "18:32", "between address families"),
        ("fd00::13:53", "[fd00::13]", "18:32", "or [fd00::11]:8080"),
        ("check = \"ping\"", "check.command = [\"/bin/true\", \"now\"]", "19:9", "unknown check \"ping\""),
        ("check = \"tcp\"", "check.command = [\"/bin/true\", \"now\"]", "15:8", "takes no TCP connection"),
        ("check = { command = [], port = 3 }", "check.command = [\"/bin/true\", \"now\"]", "19:9", "port and source"),
        ("name = \"web\"", "name = \"dns\"", "15:8", "duplicate service name"),
    ] {
        let text = FULL_EXAMPLE.replace(right, wrong);
        assert_ne!(text, FULL_EXAMPLE, "{right}");
        let said = parse("a.toml", &text).map(|_| ()).unwrap_err().to_string();
        if !said.starts_with(&format!("a.toml:{place}: ")) || !said.contains(words) || !said.contains('^') {
            otherwise.push(format!("{wrong}: not at {place}, or without {words:?}:\n{said}"));
        }
    }
    assert!(otherwise.is_empty(), "{}", otherwise.join("\n"));
}

#[test]
fn all_errors_are_reported_and_invalid_toml_is_rejected() {
    let text = FULL_EXAMPLE.replace("\"[fd00::13]\"", "\"10.0.0.1\", \"10.0.0.2\"");
    let refused = parse("a.toml", &text).unwrap_err();
    assert_eq!(refused.diagnostics.len(), 2, "{refused}");
    for text in ["[[service]", "service = 3", "\u{0}", "[[service]]\nname = \"a", "[[service]]\n", "\tx = [", "é = é"]
    {
        let said = parse("a.toml", text).unwrap_err().to_string();
        assert!(said.starts_with("a.toml:"), "{text:?}: {said}");
    }
}
