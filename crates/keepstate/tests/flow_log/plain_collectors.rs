//! Flow logs of a running gateway, as others read them: JSON lines, IPFIX by nfdump and by tshark, syslog; and `keepstate who`, which answers from them.
use crate::common::{self, keepstate, report_skipped};
use crate::log_testbed::{FIRST_PORT, LogTestbed, SESSIONS, wait_until};
use crate::peers::spawn_in_netns;
use keepstate_test_support::uninterrupted;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const NFCAPD_PORT: u16 = 9995;
const UDP_PORT: u16 = 9996;
const SYSLOG_PORT: u16 = 9997;
/// nfcapd in a namespace.
struct Collector {
    child: Child,
    folder: tempfile::TempDir,
}

impl Collector {
    fn start(netns: &str) -> Collector {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            netns,
            "nfcapd",
            "-b",
            "127.0.0.1",
            "-p",
            &NFCAPD_PORT.to_string(),
            "-t",
            "3600",
            "-w",
        ]);
        let child = command.arg(folder.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let collector = Collector { child, folder };
        wait_until("nfcapd listens", || collector.queued().is_some());
        collector
    }

    /// Bytes that it has not read; `None` while it does not listen.
    fn queued(&self) -> Option<u64> {
        let table = fs::read_to_string(format!("/proc/{}/net/udp", self.child.id())).ok()?;
        let here = format!(":{NFCAPD_PORT:04X}");
        let line =
            table.lines().find(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&here)))?;
        u64::from_str_radix(line.split_whitespace().nth(4)?.split_once(':')?.1, 16).ok()
    }

    /// What nfdump prints of it.
    fn finish(mut self, format: &str) -> String {
        wait_until("nfcapd has read everything", || self.queued() == Some(0));
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        self.child.wait().unwrap();
        let output =
            Command::new("nfdump").arg("-R").arg(self.folder.path()).args(["-q", "-N", "-o", format]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn has_tool(name: &str) -> bool {
    Command::new(name).arg("-v").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

const FOUR_LOGS: &str = "
[sysctl]
nf_conntrack_udp_timeout = 1
[[flow-log]]
to = \"flows.jsonl\"
peers = true
[[flow-log]]
to = \"udp://127.0.0.1:9995\"
peers = true
[[flow-log]]
to = \"udp://127.0.0.1:9996\"
peers = true
[[flow-log]]
to = \"tcp://127.0.0.1:9997\"
format = \"syslog\"
";

/// Packets to this port, until one comes that says that it is enough.
fn receive(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        let length = uninterrupted(|| socket.recv(&mut buffer)).unwrap();
        if &buffer[..length] == b"end" {
            return messages;
        }
        assert!(length <= 1352, "{length} bytes");
        messages.push(buffer[..length].to_vec());
    }
}

/// A capture of UDP packets to port 4739 with these contents.
fn write_ipfix_pcap(path: &Path, messages: &[Vec<u8>]) {
    let frames = messages.iter().map(|message| {
        let length = 28 + message.len();
        let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
        let mut packet =
            vec![0x45, 0, high, low, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x12, 0x83, 0x12, 0x83];
        packet.extend(u16::try_from(length - 20).unwrap().to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(message);
        (1_790_000_000_000_000, packet)
    });
    let frames: Vec<(u64, Vec<u8>)> = frames.collect();
    fs::write(path, common::pcap(common::ByteOrder::Little, false, 101, &frames)).unwrap();
}

#[test]
fn every_session_is_in_each_log_and_who_finds_it() {
    let Some(mut lab) = LogTestbed::new("all", FOUR_LOGS) else { return };
    if !has_tool("nfcapd") || !has_tool("tshark") {
        return report_skipped("IPFIX of a running gateway: apt-get install nfdump tshark");
    }
    let checked = keepstate(&["check", &lab.text_path("gateway.toml")], b"");
    assert_eq!(checked.code, Some(0), "{}{}", checked.out, checked.err);
    let collector = Collector::start(&lab.gateway_netns());
    let (ready, listens) = std::sync::mpsc::channel();
    let ready_too = ready.clone();
    let udp = spawn_in_netns(&lab.gateway_netns(), move || {
        let socket = UdpSocket::bind(("127.0.0.1", UDP_PORT)).unwrap();
        ready.send(()).unwrap();
        receive(&socket)
    });
    let syslog = spawn_in_netns(&lab.gateway_netns(), move || {
        let listener = TcpListener::bind(("127.0.0.1", SYSLOG_PORT)).unwrap();
        ready_too.send(()).unwrap();
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        text
    });
    listens.recv().unwrap();
    listens.recv().unwrap();
    lab.start();
    lab.send_packets();
    // While they live the gateway itself knows.
    let wanted = u64::from(SESSIONS) * 2;
    wait_until("every record is written", || {
        let stats = lab.stats();
        stats["entries"] == 0 && stats["flow_log_records"].as_u64() >= Some(wanted * 4 + 2)
    });
    let stats = lab.stats();
    assert_eq!((&stats["flow_log_lost"], &stats["flow_logs_failing"]), (&Value::from(0), &Value::from(0)), "{stats}");
    assert_eq!(stats["flow_logs"].as_array().map(Vec::len), Some(4));
    lab.stop();
    spawn_in_netns(&lab.gateway_netns(), || {
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"end", ("127.0.0.1", UDP_PORT)).unwrap();
    })
    .join()
    .unwrap();
    let ports: BTreeSet<u16> = (FIRST_PORT..FIRST_PORT + SESSIONS).collect();

    let text = fs::read_to_string(lab.path("flows.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for event in ["session-begin", "session-end"] {
        let found = lines
            .iter()
            .filter(|line| line["event"] == event && line["src"] == "10.1.0.2" && line["nat_src"] == "192.0.2.1");
        let found: BTreeSet<u16> = found.map(|line| line["src_port"].as_u64().unwrap().try_into().unwrap()).collect();
        assert!(found.is_superset(&ports), "{event}: {found:?}");
    }
    let end = lines.iter().find(|line| line["event"] == "session-end" && line["src_port"] == FIRST_PORT).unwrap();
    assert_eq!(
        (&end["bytes"], &end["packets"], &end["reply_packets"]),
        (&Value::from(33), &Value::from(1), &Value::from(0))
    );

    let printed = collector.finish("fmt:%sa|%sp|%da|%dp|%nsa|%nsp|%ibyt|%ipkt");
    let printed: BTreeSet<String> = printed.lines().map(|line| line.split_whitespace().collect()).collect();
    for port in &ports {
        for counted in ["0|0", "33|1"] {
            let line = format!("10.1.0.2|{port}|198.51.100.7|53|192.0.2.1|{port}|{counted}");
            assert!(printed.contains(&line), "nfdump has no {line}: {printed:#?}");
        }
    }

    let pcap = lab.path("ipfix.pcap");
    write_ipfix_pcap(&pcap, &udp.join().unwrap());
    let fields = [
        "cflow.srcaddr",
        "cflow.srcport",
        "cflow.post_natsource_ipv4_address",
        "cflow.post_naptsource_transport_port",
        "cflow.nat_event",
    ];
    let fields: Vec<&str> = fields.iter().flat_map(|field| ["-e", field]).collect();
    let tshark = Command::new("tshark")
        .arg("-r")
        .arg(&pcap)
        .args(["-d", "udp.port==4739,cflow", "-T", "fields", "-E", "separator=|"])
        .args(fields)
        .env("HOME", lab.folder())
        .output()
        .unwrap();
    let printed = String::from_utf8(tshark.stdout).unwrap();
    let mut found = Vec::new();
    for line in printed.lines() {
        let columns: Vec<Vec<&str>> = line.split('|').map(|column| column.split(',').collect()).collect();
        let [sources, source_ports, outside, outside_ports, events] = &columns[..] else { panic!("{line}") };
        for at in 0..sources.len() {
            if sources[at] == "10.1.0.2" && outside[at] == "192.0.2.1" && source_ports[at] == outside_ports[at] {
                found.push((source_ports[at].parse::<u16>().unwrap(), events[at].to_owned()));
            }
        }
    }
    for port in &ports {
        for event in ["4", "5"] {
            assert!(found.contains(&(*port, event.to_owned())), "tshark has no {event} of {port}: {printed}");
        }
    }

    let mut text = syslog.join().unwrap();
    let mut messages = Vec::new();
    while let Some((length, rest)) = text.split_once(' ') {
        let (message, rest) = rest.split_at(length.parse().unwrap());
        messages.push(message.to_owned());
        text = rest.to_owned();
    }
    for port in &ports {
        let wanted = format!("src_port=\"{port}\"");
        let found = messages.iter().filter(|message| message.contains(&wanted) && !message.contains("198.51.100.7"));
        assert!(found.count() >= 2, "syslog has no {wanted}, or the peer: {messages:#?}");
    }

    let begin = lines.iter().find(|line| line["event"] == "session-begin" && line["src_port"] == 20_007).unwrap();
    let at = begin["at"].as_str().unwrap();
    let log = lab.text_path("flows.jsonl");
    let answer = lab.who(&["192.0.2.1:20007", "--at", at, "--peer", "198.51.100.7:53", &log]);
    assert_eq!(answer.code, Some(0), "{}{}", answer.out, answer.err);
    assert!(
        answer.out.starts_with("10.1.0.2 port 20007 (udp) had 192.0.2.1:20007 from ")
            && !answer.out.contains("uncertain"),
        "{}",
        answer.out
    );
    let nobody = lab.who(&["192.0.2.1:19999", "--at", at, &log]);
    assert_eq!((nobody.code, nobody.out), (Some(1), format!("nobody had 192.0.2.1:19999 at {at}\n")));
}

#[test]
fn a_running_gateway_says_who_has_a_port_now() {
    let Some(mut lab) = LogTestbed::new("now", "") else { return };
    lab.start();
    lab.send_packets();
    wait_until("they are in the table", || lab.stats()["entries"].as_u64() >= Some(SESSIONS.into()));
    let gateway = format!("--gateway={}", lab.text_path("socket"));
    let answer = lab.who(&["192.0.2.1:20003", "--at", "now", "--protocol", "udp", "--json", &gateway]);
    assert_eq!(answer.code, Some(0), "{}{}", answer.out, answer.err);
    let answer: Value = serde_json::from_str(&answer.out).unwrap();
    let holder = &answer["holders"][0];
    assert_eq!(
        (&holder["source"], &holder["inside"], &holder["inside_port"]),
        (&"gateway".into(), &"10.1.0.2".into(), &Value::from(20_003))
    );
    assert_eq!((&holder["peer"], &holder["peer_port"]), (&"198.51.100.7".into(), &Value::from(53)));
    assert_eq!(lab.who(&["192.0.2.1:20003", "--at", "now", "--protocol", "tcp", &gateway]).code, Some(1));
    assert!(lab.stats().get("flow_log_records").is_none(), "without a log there is nothing of it");
    lab.stop();
    assert_eq!(lab.who(&["192.0.2.1:20003", "--at", "now", &gateway]).code, Some(2), "no gateway");
}
