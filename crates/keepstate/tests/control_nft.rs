//! `keepstate control nft` on a running gateway: fail2ban's and others' scripts act on real packets, all or nothing, and state survives a reload.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;
#[path = "common/running_gateway.rs"]
mod running_gateway;

use common::{TempFile, keepstate};
use running_gateway::RunningGateway;
use std::os::unix::net::UnixStream;

const RULESET: &str = "\
table inet filter {
	set banned {
		type ipv4_addr
		flags timeout
	}
	counter seen { }
	chain forward {
		type filter hook forward priority filter; policy accept;
		counter name seen
		ip saddr @banned counter drop
	}
}
";

fn start(name: &str) -> Option<RunningGateway> {
    let devices = ["nft0=10.1.0.1/24", "nft1=10.2.0.1/24"];
    RunningGateway::start(&format!("nft-{name}"), RULESET, &devices, "control nft on a running gateway")
}

impl RunningGateway {
    /// What `keepstate control` prints, if it succeeds.
    fn control(&self, words: &[&str], input: &str) -> Result<String, String> {
        let socket = self.socket.to_str().unwrap();
        let ran = keepstate(&[&["control", "--socket", socket][..], words].concat(), input.as_bytes());
        if ran.code == Some(0) { Ok(ran.out) } else { Err(ran.err) }
    }

    fn nft(&self, commands: &str) -> Result<String, String> {
        self.control(&["nft", commands], "")
    }
}

#[test]
fn scripts_change_the_running_ruleset_and_reload_keeps_state() {
    let Some(gateway) = start("script") else { return };
    gateway.nft("add element inet filter banned { 192.0.2.7 timeout 1h }").unwrap();
    let listed = gateway.nft("list set inet filter banned").unwrap();
    assert!(listed.contains("192.0.2.7 timeout 1h expires 59m"), "{listed}");

    // One element, or the answer that it is not there.
    let found = gateway.nft("get element inet filter banned { 192.0.2.7 }").unwrap();
    assert!(found.contains("192.0.2.7 timeout 1h expires 59m"), "{found}");
    let refused = gateway.nft("get element inet filter banned { 192.0.2.8 }").unwrap_err();
    assert!(refused.contains("banned does not have the element 192.0.2.8"), "{refused}");

    // All or nothing: the last command is impossible, so the first has not happened.
    let refused =
        gateway.nft("add element inet filter banned { 192.0.2.8 }; delete element inet filter banned { 192.0.2.9 }");
    let refused = refused.unwrap_err();
    assert!(
        refused.contains("nothing was changed") && refused.contains("banned does not have this element"),
        "{refused}"
    );
    assert!(!gateway.nft("list ruleset").unwrap().contains("192.0.2.8"));

    // As scripts do it: ask for the handle, delete by it.
    let echoed =
        gateway.control(&["nft", "-e", "-a", "insert rule inet filter forward tcp dport 25 counter drop"], "").unwrap();
    assert_eq!(echoed, "insert rule inet filter forward tcp dport 25 counter packets 0 bytes 0 drop # handle 6\n");
    let rules = gateway.control(&["nft", "-a", "list", "chain", "inet", "filter", "forward"], "").unwrap();
    assert!(rules.contains("\t\ttcp dport 25 counter packets 0 bytes 0 drop # handle 6\n"), "{rules}");
    gateway.nft("delete rule inet filter forward handle 6").unwrap();
    assert!(gateway.nft("delete rule inet filter forward handle 6").is_err());

    // What was listed is what was taken.
    gateway.nft("add set inet filter counted { type ipv4_addr; counter; elements = { 192.0.2.9 counter packets 3 bytes 4 }; }").unwrap();
    let (first, second) =
        (gateway.nft("reset set inet filter counted").unwrap(), gateway.nft("reset set inet filter counted").unwrap());
    assert!(first.contains("packets 3 bytes 4") && second.contains("packets 0 bytes 0"), "{first}{second}");
    gateway.nft("delete set inet filter counted").unwrap();

    // A table of its own, from standard input; more than fits into the request's line.
    let addresses: Vec<String> = (0..10_000).map(|number| format!("10.{}.{}.1", number / 250, number % 250)).collect();
    let script = format!(
        "add table ip blocker\nadd set ip blocker blocked {{ type ipv4_addr; }}\nadd element ip blocker blocked {{ {} }}\n",
        addresses.join(", ")
    );
    gateway.control(&["nft", "-f", "-"], &script).unwrap();
    let listed = gateway.nft("list set ip blocker blocked").unwrap();
    assert_eq!(listed.matches(".1,").count() + 1, addresses.len());

    // A reload of the file keeps the ban and the other table.
    gateway.control(&["reload"], "").unwrap();
    let after = gateway.nft("list ruleset").unwrap();
    assert!(after.contains("192.0.2.7 timeout 1h expires 59m") && after.contains("table ip blocker"), "{after}");
    // Only the names of tables, without what is in them; a check changes nothing.
    assert_eq!(gateway.nft("list tables").unwrap(), "table ip blocker\ntable inet filter\n");
    gateway.control(&["nft", "-c", "flush ruleset"], "").unwrap();
    assert_eq!(gateway.nft("list tables").unwrap(), "table ip blocker\ntable inet filter\n");
    gateway.nft("flush ruleset").unwrap();
    assert_eq!(gateway.nft("list ruleset").unwrap(), "");
}

#[test]
fn included_files_are_read_by_the_client() {
    let Some(gateway) = start("include") else { return };
    let included = TempFile::new("nft-included.nft", b"add element inet filter banned { 192.0.2.55 }\n");
    let script = TempFile::new("nft-outer.nft", format!("include \"{}\"\n", included.path()).as_bytes());
    gateway.control(&["nft", "-f", script.path()], "").unwrap();
    assert!(gateway.nft("list set inet filter banned").unwrap().contains("192.0.2.55"));
    // The gateway itself opens nothing: a request whose texts were not sent is refused.
    let line = serde_json::json!({"v": 2, "request": {"nft": {"script": {"name": "x", "text": format!("include \"{}\"", gateway.ruleset.path())}}}});
    let mut stream = UnixStream::connect(&gateway.socket).unwrap();
    let mut answer = String::new();
    std::io::Write::write_all(&mut stream, format!("{line}\n").as_bytes()).unwrap();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert!(answer.contains("it was not sent with the script"), "{answer}");
}

#[test]
fn scripts_and_listings_are_json_on_request() {
    let Some(gateway) = start("json") else { return };
    let json = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
    let document = r#"{"nftables": [
        {"add": {"table": {"family": "ip", "name": "api"}}},
        {"add": {"chain": {"family": "ip", "table": "api", "name": "c"}}},
        {"add": {"rule": {"family": "ip", "table": "api", "chain": "c", "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"set": [22, 80]}}},
            {"counter": null}, {"drop": null}]}}},
        {"add": {"element": {"family": "inet", "table": "filter", "name": "banned", "elem": ["192.0.2.9"]}}},
        {"list": {"table": {"family": "ip", "name": "api"}}}
    ]}"#;
    let answer = json(&gateway.control(&["nft", "-j", "-f", "-"], document).unwrap());
    let entries = answer["nftables"].as_array().unwrap();
    assert_eq!(entries[0]["metainfo"]["json_schema_version"], 1);
    assert_eq!(entries[1]["table"]["name"], "api");
    assert_eq!(entries[3]["rule"]["expr"][1], serde_json::json!({"counter": {"packets": 0, "bytes": 0}}));
    // Commands as text, the answer as JSON.
    let listed = json(&gateway.control(&["nft", "-j", "list", "set", "inet", "filter", "banned"], "").unwrap());
    assert_eq!(listed["nftables"][1]["set"]["elem"], serde_json::json!(["192.0.2.9"]));
    let echoed = json(&gateway.control(&["nft", "-j", "-e", "add", "rule", "ip", "api", "c", "accept"], "").unwrap());
    assert_eq!(echoed["nftables"][0]["add"]["rule"]["expr"], serde_json::json!([{"accept": null}]));
    // All or nothing; the place of what is wrong.
    let wrong = document.replace("\"api\"", "\"other\"").replace("192.0.2.9", "nowhere");
    let refused = gateway.control(&["nft", "-j", "-f", "-"], &wrong).unwrap_err();
    assert!(refused.contains("nothing was changed"), "{refused}");
    assert_eq!(gateway.nft("list tables").unwrap().matches("table").count(), 2);
    // What was listed is read back.
    let all = gateway.control(&["nft", "-j", "list", "ruleset"], "").unwrap();
    let before = gateway.nft("list ruleset").unwrap();
    gateway.nft("flush ruleset").unwrap();
    gateway.control(&["nft", "-j", "-f", "-"], &all).unwrap();
    assert_eq!(gateway.nft("list ruleset").unwrap().matches("tcp dport").count(), before.matches("tcp dport").count());

    // A table of another family is noted, and the rest is done.
    let socket = gateway.socket.to_str().unwrap();
    let noted = keepstate(&["control", "--socket", socket, "nft", "add table bridge b; add table ip t2"], b"");
    assert!(noted.code == Some(0) && noted.err.contains("table bridge b is not governed here"), "{}", noted.err);
    assert!(gateway.nft("list tables").unwrap().contains("table ip t2"));
}
