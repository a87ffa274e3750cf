//! Packets watched: captures of both sides of the translation, traces rule by rule, drops by reason and rule; the interfaces, routes and neighbours that the gateway has.
use crate::common::{TempFile, keepstate};
use crate::{PATIENCE, TcTestbed};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{IpAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const RULES: &str = "
table inet filter {
	chain sub {
		udp dport 9998 drop
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		tcp dport 9999 counter reject with tcp reset
		udp dport 9997 meta nftrace set 1
		meta l4proto udp jump sub
		ct state established,related accept
		iifname r0 tcp dport 7000 accept
		udp dport 9996 jump { udp sport 1 accept; drop; }
	}
}
table ip nat {
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
}
";

/// `keepstate control` that goes on until it is stopped, once it has begun.
fn begin(lab: &TcTestbed, words: &[&str]) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_keepstate"))
        .args(["control", "--socket", &lab.socket])
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut notes = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("Ctrl-C ends") {
        assert!(notes.read_line(&mut said).unwrap() > 0, "{said}");
    }
    (child, notes)
}

/// Ends it as Ctrl-C does; what it has said.
fn interrupt((mut child, mut notes): (Child, BufReader<std::process::ChildStderr>)) -> String {
    let pid = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut said = String::new();
    notes.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    said
}

/// The events of the table, line by line.
pub(crate) struct EventLines {
    program: Child,
    pub(crate) lines: Receiver<String>,
}

impl EventLines {
    /// Those of a protocol, all from now on; `stir` makes one, and is called until one is told.
    pub(crate) fn watch(lab: &TcTestbed, protocol: &str, mut stir: impl FnMut()) -> EventLines {
        let mut program = Command::new(env!("CARGO_BIN_EXE_keepstate"))
            .args(["control", "--socket", &lab.socket, "events", "-p", protocol])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(program.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let until = Instant::now() + PATIENCE;
        while lines.try_recv().is_err() {
            assert!(Instant::now() < until, "no event");
            stir();
            std::thread::sleep(Duration::from_millis(20));
        }
        EventLines { program, lines }
    }
}

impl Drop for EventLines {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// A packet of a capture.
#[derive(Debug)]
struct Captured {
    interface: String,
    inbound: bool,
    packet: Vec<u8>,
    length: usize,
    comment: Option<String>,
}

/// Reads pcapng as the specification has it.
fn read_pcapng(bytes: &[u8]) -> Vec<Captured> {
    let u16_at = |bytes: &[u8], at: usize| u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap());
    let u32_at = |bytes: &[u8], at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    let options = |mut rest: &[u8]| {
        let mut found = BTreeMap::new();
        while u16_at(rest, 0) != 0 {
            let length = usize::from(u16_at(rest, 2));
            found.insert(u16_at(rest, 0), rest[4..4 + length].to_vec());
            rest = &rest[4 + length.next_multiple_of(4)..];
        }
        found
    };
    let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
    let (mut interfaces, mut packets, mut at) = (Vec::new(), Vec::new(), 0);
    while at < bytes.len() {
        let length = u32_at(bytes, at + 4) as usize;
        assert_eq!(length, u32_at(bytes, at + length - 4) as usize, "a whole block");
        let body = &bytes[at + 8..at + length - 4];
        match u32_at(bytes, at) {
            0x0a0d_0d0a => assert_eq!(u32_at(body, 0), 0x1a2b_3c4d),
            1 => {
                assert_eq!(u16_at(body, 0), 101, "raw IP");
                interfaces.push(text(&options(&body[8..])[&2]));
            }
            6 => {
                let kept = u32_at(body, 12) as usize;
                let options = options(&body[20 + kept.next_multiple_of(4)..]);
                packets.push(Captured {
                    interface: interfaces[u32_at(body, 0) as usize].clone(),
                    inbound: u32_at(&options[&2], 0) == 1,
                    packet: body[20..20 + kept].to_vec(),
                    length: u32_at(body, 16) as usize,
                    comment: options.get(&1).map(text),
                });
            }
            kind => assert_eq!(kind, 5),
        }
        at += length;
    }
    packets
}

fn ends_of(packet: &[u8]) -> (IpAddr, IpAddr) {
    let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
    (address(12), address(16))
}

#[test]
fn a_capture_has_every_packet_of_a_connection_on_both_sides() {
    let Some(lab) = TcTestbed::with_rules("cap", RULES, &["--interface", "r0,r1"]) else { return };
    const LENGTH: usize = 1_000_000;
    let (client, server) = (IpAddr::from([10, 0, 1, 2]), IpAddr::from([10, 0, 2, 2]));
    let outside = IpAddr::from([10, 0, 2, 1]);
    let file = TempFile::new("watching.pcapng", b"");
    let capture = begin(&lab, &["capture", file.path(), "-p", "tcp", "--dport", "7000", "--snaplen", "64"]);
    lab.netns.transfer("c", "s", "10.0.2.2:7000", "10.0.2.2:7000", LENGTH);
    assert_eq!(lab.connect("c", "10.0.2.2:7001", crate::SILENCE), Err(ErrorKind::TimedOut), "not captured");
    let said = interrupt(capture);
    let packets = read_pcapng(&std::fs::read(file.path()).unwrap());
    assert!(said.contains(&format!("{} packets captured", packets.len())), "{said}");
    let on = |interface: &str, inbound: bool| -> Vec<&Captured> {
        packets.iter().filter(|one| one.interface == interface && one.inbound == inbound).collect()
    };
    let (asked, sent) = (on("r0", true), on("r1", false));
    assert!(!asked.is_empty() && asked.len() == sent.len(), "{} came, {} left", asked.len(), sent.len());
    assert!(asked.iter().all(|one| ends_of(&one.packet) == (client, server)), "before the translation");
    assert!(sent.iter().all(|one| ends_of(&one.packet) == (outside, server)), "and after it");
    let (answered, delivered) = (on("r1", true), on("r0", false));
    assert!(answered.iter().all(|one| ends_of(&one.packet) == (server, outside)));
    assert!(delivered.iter().all(|one| ends_of(&one.packet) == (server, client)));
    // Also what the kernel would have forwarded by itself, had nobody watched.
    let bytes: usize = delivered.iter().map(|one| one.length - 40).sum();
    assert!(bytes >= LENGTH, "{bytes} of {LENGTH} bytes");
    assert!(packets.iter().all(|one| one.packet.len() <= 64 && one.comment.is_none()));
    // Without a capture it does.
    lab.netns.transfer("c", "s", "10.0.2.2:7000", "10.0.2.2:7000", LENGTH);
    let until = Instant::now() + PATIENCE;
    let offloaded = || {
        let stats: serde_json::Value = serde_json::from_str(&lab.control(&["stats", "--json"])).unwrap();
        stats["offloaded_packets"].as_u64().unwrap()
    };
    while offloaded() == 0 {
        assert!(Instant::now() < until, "nothing is offloaded again");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Their packets are those of the interfaces too.
    let interfaces: serde_json::Value = serde_json::from_str(&lab.control(&["interfaces", "--json"])).unwrap();
    let r0 = interfaces.as_array().unwrap().iter().find(|one| one["name"] == "r0").unwrap();
    assert!(r0["sent_bytes"].as_u64().unwrap() >= 2 * LENGTH as u64, "{r0}");
}

#[test]
fn a_trace_tells_rule_by_rule_and_drops_are_counted_by_rule() {
    let Some(lab) = TcTestbed::with_rules("trace", RULES, &["--interface", "r0,r1"]) else { return };
    let mut all = begin(&lab, &["trace", "--dport", "7000", "-p", "tcp", "-c", "1"]);
    let mut dropped = begin(&lab, &["trace", "-p", "udp", "-d", "10.0.2.2", "-c", "2"]);
    // Only what a rule asks for.
    let mut asked = begin(&lab, &["trace", "-c", "1"]);
    let capture = TempFile::new("dropped.pcapng", b"");
    let mut captured = begin(&lab, &["capture", capture.path(), "-p", "udp", "--dport", "9998", "-c", "1"]);
    lab.netns.transfer("c", "s", "10.0.2.2:7000", "10.0.2.2:7000", 1000);
    let send = |port: u16| {
        let socket = UdpSocket::bind("10.0.1.2:0").unwrap();
        socket.send_to(b"x", ("10.0.2.2", port)).unwrap();
    };
    crate::spawn_in_netns(&lab.netns.name("c"), move || [9998, 9997, 9996].into_iter().for_each(send)).join().unwrap();
    let read = |child: &mut Child| {
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(child.wait().unwrap().success());
        text
    };
    let text = read(&mut all.0);
    for line in [
        "trace id 1 packet in r0: 10.0.1.2:",
        "trace id 1 inet filter forward rule iifname r0 tcp dport 7000 accept handle 8 (verdict accept)",
        "trace id 1 ip nat post rule oifname r1 masquerade handle 2 (verdict accept)",
        "trace id 1 out r1 to 10.0.2.2: 10.0.2.1:",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let text = read(&mut dropped.0);
    for line in [
        "trace id 1 inet filter forward rule meta l4proto udp jump sub handle 6 (verdict jump sub)",
        "trace id 1 inet filter sub rule udp dport 9998 drop handle 3 (verdict drop)",
        "trace id 1 dropped: ruleset_drop",
        "trace id 2 inet filter sub end of chain (verdict continue)",
        "trace id 2 inet filter forward policy drop",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let text = read(&mut asked.0);
    assert!(text.contains("9997 meta nftrace set 1 handle 5 (verdict continue)") && !text.contains("9998"), "{text}");
    assert!(captured.0.wait().unwrap().success());
    let packets = read_pcapng(&std::fs::read(capture.path()).unwrap());
    let comments: Vec<_> = packets.iter().map(|one| (one.interface.as_str(), one.comment.as_deref())).collect();
    assert_eq!(comments, [("r0", Some("dropped: ruleset_drop"))]);

    // A reset in the server's name, from an address that this machine does not have.
    assert_eq!(lab.connect("c", "10.0.2.2:9999", PATIENCE), Err(ErrorKind::ConnectionRefused), "rejected");
    let text = lab.control(&["drops"]);
    for line in [
        "ruleset_drop=3",
        "ruleset_reject=1",
        "table inet filter chain sub handle 3 packets=1 udp dport 9998 drop",
        "table inet filter chain forward handle 4 packets=1 tcp dport 9999 counter reject with tcp reset",
        "table inet filter chain forward policy packets=1",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }
    // A chain without a name is part of its rule.
    let unnamed =
        |line: &str| line.contains("chain forward handle ") && line.contains(" packets=1 udp dport 9996 jump {");
    assert!(text.lines().any(unnamed), "{text}");
    // A script keeps the counts of the rules that it leaves.
    lab.control(&["nft", "insert rule inet filter forward tcp dport 1 drop"]);
    let text = lab.control(&["drops"]);
    assert!(text.contains("handle 3 packets=1 udp") && text.contains("policy packets=1"), "{text}");

    let text = lab.control(&["routes"]);
    assert!(text.lines().any(|line| line == "10.0.1.0/24 dev r0"), "{text}");
    let text = lab.control(&["neighbours"]);
    assert!(text.lines().any(|line| line.starts_with("10.0.1.2 dev r0 lladdr ")), "{text}");
    let text = lab.control(&["interfaces"]);
    assert!(text.lines().any(|line| line.starts_with("r1 index=") && line.contains("10.0.2.1/24")), "{text}");
}

#[test]
fn a_capture_that_cannot_be_written_is_an_error() {
    let ran = keepstate(&["control", "--socket", "/nonexistent/socket", "capture", "-"], b"");
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("no gateway listens there"), "{}", ran.err);
}
