//! Records as messages of NATS: each event has its subject.
use crate::common::keepstate;
use crate::log_testbed::{FIRST_PORT, LogTestbed, SESSIONS, wait_until};
use crate::peers::spawn_in_netns;
use keepstate_test_support::NatsServers;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Sender, channel};

const LOG: &str = "
[sysctl]
nf_conntrack_udp_timeout = 1
[[flow-log]]
to = \"nats:flows.gw1\"
servers = [\"nats://127.0.0.1:SERVER_PORT\"]
peers = true
";

/// Reads as a plain client of NATS' text protocol, until there is a message of `last`: subject and record of each. Tells when it has subscribed.
fn read_until(address: &str, last: &str, ready: &Sender<()>) -> Vec<(String, Value)> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"CONNECT {\"verbose\":false}\r\nSUB flows.> 1\r\nPING\r\n").unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut next = move || lines.next().unwrap().unwrap();
    let mut messages: Vec<(String, Value)> = Vec::new();
    while messages.last().is_none_or(|(subject, _)| subject != last) {
        let line = next();
        if let Some(subject) = line.strip_prefix("MSG ").and_then(|rest| rest.split(' ').next()) {
            messages.push((subject.to_owned(), serde_json::from_str(&next()).unwrap()));
        } else if line == "PING" {
            stream.write_all(b"PONG\r\n").unwrap();
        } else if line == "PONG" {
            ready.send(()).unwrap();
        }
    }
    messages
}

#[test]
fn each_event_goes_to_its_subject_and_none_is_missing() {
    // The port is known once the server runs; that needs the namespace.
    let Some(mut lab) = LogTestbed::new("nats", LOG) else { return };
    let server = spawn_in_netns(&lab.gateway_netns(), || NatsServers::start_at("127.0.0.1")).join().unwrap();
    let Some(server) = server else { return };
    let address = server.url().trim_start_matches("nats://").to_owned();
    lab.replace("127.0.0.1:SERVER_PORT", &address);
    let checked = keepstate(&["check", &lab.text_path("gateway.toml")], b"");
    assert_eq!(checked.code, Some(0), "{}{}", checked.out, checked.err);
    // Before the gateway, so it hears the first record too.
    let (ready, subscribed) = channel();
    let reader = spawn_in_netns(&lab.gateway_netns(), move || read_until(&address, "flows.gw1.log-end", &ready));
    subscribed.recv().unwrap();
    lab.start();
    lab.send_packets();
    wait_until("every record is written", || {
        let stats = lab.stats();
        stats["entries"] == 0 && stats["flow_log_records"].as_u64() >= Some(u64::from(SESSIONS) * 2 + 1)
    });
    let stats = lab.stats();
    assert_eq!((&stats["flow_log_lost"], &stats["flow_logs_failing"]), (&0.into(), &0.into()), "{stats}");
    lab.stop();
    let messages = reader.join().unwrap();
    for (subject, record) in &messages {
        assert_eq!(subject.strip_prefix("flows.gw1."), record["event"].as_str());
    }
    let numbers: Vec<u64> = messages.iter().map(|(_, record)| record["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=messages.len() as u64).collect::<Vec<_>>(), "each once, in order");
    for event in ["session-begin", "session-end"] {
        let ports = messages.iter().filter(|(_, record)| record["event"] == event && record["nat_src"] == "192.0.2.1");
        let ports: BTreeSet<u64> = ports.map(|(_, record)| record["src_port"].as_u64().unwrap()).collect();
        assert!((FIRST_PORT..FIRST_PORT + SESSIONS).all(|port| ports.contains(&port.into())), "{event}: {ports:?}");
    }
}

/// A server that is away, and one that refuses the subject: said, and what was lost is counted.
#[test]
fn what_nats_refuses_is_lost_and_said() {
    let Some(mut lab) = LogTestbed::new("refu", LOG) else { return };
    let users = "authorization { users: [ { user: u, password: p, permissions: { publish: \"_INBOX.>\", subscribe: \">\" } } ] }";
    let server =
        spawn_in_netns(&lab.gateway_netns(), move || NatsServers::start_at_with("127.0.0.1", users)).join().unwrap();
    let Some(server) = server else { return };
    lab.replace("127.0.0.1:SERVER_PORT", server.url().trim_start_matches("nats://"));
    lab.replace("peers = true", "user-file = \"user\"");
    std::fs::write(lab.path("user"), "u\np\n").unwrap();
    lab.start();
    lab.send_packets();
    wait_until("the refusal is noticed", || {
        let stats = lab.stats();
        stats["flow_logs_failing"] == 1 && stats["flow_log_lost"].as_u64() >= Some(1)
    });
    assert_eq!(lab.stats()["flow_log_records"], 0);
}
