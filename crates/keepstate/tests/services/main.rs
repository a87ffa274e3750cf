//! Services with real peers: a client and two servers in namespaces of their own, the gateway between them, checked, drained, killed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/peers.rs"]
mod peers;
mod testbed;

use common::{TempFile, keepstate};
use keepstate_test_support::uninterrupted;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;
use testbed::{Server, ServiceTestbed, TIMEOUT, hold_connection, terminate_gateway, wait_until};

#[test]
fn failed_backend_is_removed_and_drained_backend_keeps_connections() {
    let Some(mut lab) = ServiceTestbed::new("a") else { return };
    let (first, second) = (Server::new(&lab, "1"), Server::new(&lab, "2"));
    let [one, two] = ["10.1.0.2:8080", "10.2.0.2:8080"];
    lab.wait_all_healthy();
    let mut names: Vec<_> = (0..4).map(|_| lab.connect_and_read_name().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["1", "1", "2", "2"], "in turn");

    // Drained: who is there stays, nobody new comes.
    let held = [hold_connection(&lab), hold_connection(&lab)];
    let of_one = held.iter().find(|(name, ..)| name == "1").unwrap();
    assert!(lab.control(&["drain", one]).contains("drained 1"));
    assert!(lab.backend_status(one).contains("draining"), "{}", lab.backend_status(one));
    assert!((0..4).all(|_| lab.connect_and_read_name().unwrap() == "2"));
    of_one.1.send(()).unwrap();
    assert!(of_one.2.recv_timeout(TIMEOUT).unwrap(), "cut off");
    wait_until("only the held connection is left", || lab.backend_status(one).contains("connections=1 "));
    assert!(lab.control(&["undrain", one]).contains("undrained 1"));
    assert!((0..2).any(|_| lab.connect_and_read_name().unwrap() == "1"));

    // One dies: its check says so, and nobody is sent there any more; what stands is kept, as its owner wants it.
    drop(second);
    lab.wait_backend_status(two, " down ");
    assert!((0..4).all(|_| lab.connect_and_read_name().unwrap() == "1"));
    // None is left: refused at once, and not left waiting.
    drop(first);
    lab.wait_backend_status(one, " down ");
    assert_eq!(lab.connect_and_read_name(), Err(std::io::ErrorKind::ConnectionRefused));
    let again = Server::new(&lab, "2");
    lab.wait_backend_status(two, " up ");
    assert_eq!(lab.connect_and_read_name().unwrap(), "2");
    drop(again);
    let notes = terminate_gateway(&mut lab);
    assert!(notes.contains("web: 10.2.0.2:8080 is down: 10.2.0.2:8080: ") && notes.contains("is up"), "{notes}");
}

#[test]
fn udp_client_moves_to_another_backend_on_failure() {
    let Some(lab) = ServiceTestbed::new("b") else { return };
    let _servers = [Server::new(&lab, "1"), Server::new(&lab, "2")];
    let socket = Arc::new(
        lab.spawn_in_netns("c", || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(TIMEOUT)).unwrap();
            // Only a connected socket hears of a refusal.
            socket.connect("198.51.100.80:53").unwrap();
            socket
        })
        .join()
        .unwrap(),
    );
    lab.wait_all_healthy();
    let first = lab.ask_udp(&socket).unwrap();
    assert!((0..5).all(|_| lab.ask_udp(&socket) == Some(first)), "one connection, one server");
    assert!(lab.control(&["drain", &format!("10.{}.0.2:5353", char::from(first))]).contains("drained 1"));
    assert_eq!(lab.ask_udp(&socket), Some(first), "drained, not cut off");
    // Its check is a command that looks for a file; that fails for both, and then for nobody.
    std::fs::remove_file(lab.flag.path()).unwrap();
    lab.wait_backend_status("10.1.0.2:5353", " down ");
    lab.wait_backend_status("10.2.0.2:5353", " down ");
    // Refused, which its client hears of as an error.
    assert_eq!(lab.ask_udp(&socket), None);
    std::fs::write(lab.flag.path(), b"").unwrap();
    lab.wait_backend_status("10.1.0.2:5353", if first == b'1' { " draining " } else { " up " });
    lab.wait_backend_status("10.2.0.2:5353", if first == b'2' { " draining " } else { " up " });
    let other = if first == b'1' { b'2' } else { b'1' };
    wait_until("the same socket has moved", || lab.ask_udp(&socket) == Some(other));
}

#[test]
fn active_udp_sender_leaves_a_backend_that_is_removed_from_the_file() {
    let Some(lab) = ServiceTestbed::new("d") else { return };
    let _servers = [Server::new(&lab, "1"), Server::new(&lab, "2")];
    lab.wait_all_healthy();
    let connect = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket.connect("198.51.100.80:53").unwrap();
        socket
    };
    let socket = Arc::new(lab.spawn_in_netns("c", connect).join().unwrap());
    let first = lab.ask_udp(&socket).unwrap();
    // It sends on and on, so that its flow never times out.
    let (sender, stop) = (socket.clone(), Arc::new(AtomicBool::new(false)));
    let stopped = stop.clone();
    let sending = lab.spawn_in_netns("c", move || {
        while !stopped.load(Ordering::Relaxed) {
            let _ = sender.send(b"who?");
            sleep(Duration::from_millis(5));
        }
    });
    let name = char::from(first);
    let other = if first == b'1' { '2' } else { '1' };
    let whole = std::fs::read_to_string(lab.services.path()).unwrap();
    let both = "[\"10.1.0.2:5353\", \"10.2.0.2:5353\"]";
    std::fs::write(lab.services.path(), whole.replace(both, &format!("[\"10.{other}.0.2:5353\"]"))).unwrap();
    assert!(lab.control(&["reload"]).contains("loaded"));
    // Answers of before may still be on their way; then there is only the other's name.
    let reads = socket.clone();
    let answers = lab.spawn_in_netns("c", move || {
        let mut answer = [0];
        std::iter::from_fn(|| uninterrupted(|| reads.recv(&mut answer)).ok().map(|_| answer[0]))
            .take(400)
            .collect::<Vec<u8>>()
    });
    let answers = answers.join().unwrap();
    stop.store(true, Ordering::Relaxed);
    sending.join().unwrap();
    assert!(answers.len() == 400 && answers.iter().rev().take(200).all(|name| *name == other as u8), "{answers:?}");
    assert!(!lab.control(&["services"]).contains(&format!("10.{name}.0.2:5353")), "forgotten with its last connection");
}

#[test]
fn services_reload_atomically_with_the_ruleset() {
    let Some(mut lab) = ServiceTestbed::new("c") else { return };
    let _servers = [Server::new(&lab, "1"), Server::new(&lab, "2")];
    lab.wait_all_healthy();
    let (name, ask, said) = hold_connection(&lab);
    let whole = std::fs::read_to_string(lab.services.path()).unwrap();
    // First a file that is refused, with its place; then one without the server that the client has.
    std::fs::write(lab.services.path(), whole.replace("10.1.0.2:8080", "10.1.0.2:80800")).unwrap();
    let refused = lab.control(&["reload"]);
    assert!(
        refused.contains("stays as it was") && refused.contains(".toml:6:13: ") && refused.contains("^^^"),
        "{refused}"
    );
    assert!(lab.control(&["services"]).contains("10.1.0.2:8080"));
    let gone = format!("10.{name}.0.2:8080");
    let other = if name == "1" { "10.2.0.2:8080" } else { "10.1.0.2:8080" };
    let less = whole.replace("[\"10.1.0.2:8080\", \"10.2.0.2:8080\"]", &format!("[\"{other}\"]"));
    // The removed server's connections may go on for an hour.
    let less = less.replace("name = \"web\"\n", "name = \"web\"\ndrain = \"1h\"\n");
    std::fs::write(lab.services.path(), less).unwrap();
    assert!(Command::new("kill").args(["-HUP", &lab.gateway.id().to_string()]).status().unwrap().success());
    let mut notes = BufReader::new(lab.gateway.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("connections kept") {
        line.clear();
        assert!(notes.read_line(&mut line).unwrap() > 0, "the gateway ended");
    }
    assert!(lab.backend_status(&gone).contains("no longer in the file"), "{}", lab.backend_status(&gone));
    assert!((0..4).all(|_| lab.connect_and_read_name().unwrap() != name));
    ask.send(()).unwrap();
    assert!(said.recv_timeout(TIMEOUT).unwrap(), "cut off");
    drop(ask);
    lab.wait_backend_status(&gone, " connections=0 ");
    // It is forgotten with the last trace of its connections.
    assert!(lab.control(&["flush"]).contains("removed "));
    wait_until("it is forgotten", || !lab.control(&["services"]).contains(&gone));
    assert!(lab.control(&["drain", &gone]).contains("no service has a backend"));
    assert!(lab.control(&["drain", "fd00::1:80"]).contains("[fd00::11]:8080"));
}

#[test]
fn offline_capture_is_balanced() {
    let ruleset = TempFile::new("offline.nft", b"");
    let services = "[[service]]\nname = \"dns\"\nlisten = \"10.0.0.2:53\"\nprotocol = \"udp\"\n\
        backends = [\"10.9.0.1:5353\", \"10.9.0.2:5353\"]\n";
    let services = TempFile::new("offline.toml", services.as_bytes());
    let questions = [4000, 4001, 4000].map(|port| (1_000_000_000, common::udp_packet(port, false)));
    let input = TempFile::new("services-in.pcap", &common::pcap(common::ByteOrder::Little, true, 101, &questions));
    let output = TempFile::new("services-out.pcap", b"");
    let ran = keepstate(
        &[
            &["gateway", "--ruleset", ruleset.path(), "--services", services.path()][..],
            &["--in", input.path(), "--out", output.path()],
            &["--device", "a=10.0.0.254/24", "--device", "b=10.9.0.254/24"],
        ]
        .concat(),
        b"",
    );
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let again = keepstate(&["replay", output.path()], b"").out;
    let sent = |port: u16, to: &str| again.contains(&format!("dst={to} sport={port} dport=5353"));
    assert!(sent(4000, "10.9.0.1") && sent(4001, "10.9.0.2") && again.lines().count() == 2, "{again}");
}

/// The page's example is what the program takes, and what it says of a wrong one is what the page says.
#[test]
fn documented_example_is_valid() {
    let page = include_str!("../../../../docs/services.md");
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let file = TempFile::new("services.toml", example.as_bytes());
    let ran = keepstate(&["check", "--services", file.path()], b"");
    assert_eq!(
        (ran.code, ran.out.ends_with("ok: 3 services, 7 backends\n")),
        (Some(0), true),
        "{}{}",
        ran.out,
        ran.err
    );
    let wrong = TempFile::new("wrong.toml", example.replace("maglev", "magleve").as_bytes());
    let ran = keepstate(&["check", "--services", wrong.path(), "--json"], b"");
    assert!(
        ran.code == Some(1) && ran.out.contains("\"line\"") && ran.out.contains("did you mean `maglev`?"),
        "{}",
        ran.out
    );
    let ran = keepstate(&["check"], b"");
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    // Every word of the file is on the page.
    for word in [
        "name",
        "listen",
        "protocol",
        "scheduler",
        "hash",
        "seed",
        "affinity",
        "masquerade",
        "when-down",
        "check",
        "backends",
        "command",
        "interval",
        "timeout",
        "rise",
        "fall",
        "port",
        "source",
        "weight",
        "round-robin",
        "random",
        "source-hash",
        "least-connections",
    ] {
        assert!(page.contains(&format!("`{word}`")), "{word} is nowhere on the page");
    }
}
