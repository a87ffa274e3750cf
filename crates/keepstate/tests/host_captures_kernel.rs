//! A capture of the host itself, with the offloads of its interface on, gives the table that the host's kernel had.
#![allow(clippy::unwrap_used, reason = "a test speaks by panicking, its helpers too")]
mod common;
#[path = "common/peers.rs"]
mod peers;

use common::{ByteOrder, TempFile, keepstate, linktype, pcap, report_skipped};
use keepstate_capture::packet_mmap::PacketRing;
use keepstate_test_support::uninterrupted;
use peers::{download, run_ip, serve_once, spawn_in_netns};
use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LENGTH: usize = 2_000_000;

/// Two namespaces, `h` (the host, whose kernel tracks) and `p` (its peer), removed at the end.
struct Hosts {
    host: String,
    peer: String,
}

impl Hosts {
    fn create() -> Option<Hosts> {
        let name = |side: char| format!("hc{}{side}", std::process::id());
        let hosts = Hosts { host: name('h'), peer: name('p') };
        let (h, p) = (hosts.host.as_str(), hosts.peer.as_str());
        let tools = ["nft", "conntrack"].iter().all(|tool| Command::new(tool).arg("-V").output().is_ok());
        if !tools || !run_ip(&["netns", "add", h]) || !run_ip(&["netns", "add", p]) {
            report_skipped("a capture beside the kernel's table (needs root, ip, nft and conntrack)");
            return None;
        }
        assert!(run_ip(&["link", "add", "v0", "netns", h, "type", "veth", "peer", "name", "v0", "netns", p]));
        for (space, address) in [(h, "10.9.0.1/24"), (p, "10.9.0.2/24")] {
            assert!(run_ip(&["-n", space, "addr", "add", address, "dev", "v0"]));
            assert!(run_ip(&["-n", space, "link", "set", "v0", "up"]));
        }
        let rules = "add table ip t; add chain ip t c { type filter hook input priority 0; }; \
                     add rule ip t c ct state invalid counter";
        assert!(Command::new("ip").args(["netns", "exec", h, "nft", rules]).status().unwrap().success());
        Some(hosts)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        run_ip(&["netns", "del", &self.host]);
        run_ip(&["netns", "del", &self.peer]);
    }
}

/// The lines of a table without their remaining times, sorted.
fn lines_without_timeouts(table: &str) -> Vec<String> {
    let lines = table.lines().filter(|line| line.contains(" src=10.9.0."));
    let mut lines: Vec<String> = lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            [&words[..2], &words[3..]].concat().join(" ")
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn capture_of_the_host_itself_gives_its_kernels_table() {
    let Some(hosts) = Hosts::create() else { return };
    let (port_sent, port) = std::sync::mpsc::channel();
    let server = spawn_in_netns(&hosts.peer, move || {
        let (address, serve) = serve_once("10.9.0.2:0", LENGTH);
        let udp = UdpSocket::bind("10.9.0.2:5300").unwrap();
        port_sent.send(address).unwrap();
        let mut question = [0; 16];
        let (length, from) = uninterrupted(|| udp.recv_from(&mut question)).unwrap();
        udp.send_to(&question[..length], from).unwrap();
        serve();
    });
    let address = port.recv().unwrap();
    let (done, opened) = (Arc::new(AtomicBool::new(false)), std::sync::mpsc::channel());
    let (seen_done, opened_sent) = (Arc::clone(&done), opened.0);
    let capture = spawn_in_netns(&hosts.host, move || {
        let mut ring = PacketRing::open("v0", false).unwrap();
        opened_sent.send(()).unwrap();
        let mut frames = Vec::new();
        // Once more after the end: what was sent before it is in the ring by then.
        let mut last = false;
        while !last {
            last = seen_done.load(Ordering::SeqCst);
            ring.wait(Duration::from_millis(200)).unwrap();
            ring.for_each_frame(|frame| frames.push((frame.time.unwrap(), frame.data.to_vec(), frame.wire_len)));
        }
        assert_eq!(ring.dropped(), 0);
        frames
    });
    opened.1.recv().unwrap();
    let host = hosts.host.clone();
    let table = spawn_in_netns(&hosts.host, move || {
        let udp = UdpSocket::bind("10.9.0.1:0").unwrap();
        udp.send_to(b"question", "10.9.0.2:5300").unwrap();
        uninterrupted(|| udp.recv_from(&mut [0; 16])).unwrap();
        assert_eq!(download(address).len(), LENGTH);
        let list = Command::new("ip").args(["netns", "exec", &host, "conntrack", "-L"]).output().unwrap();
        String::from_utf8(list.stdout).unwrap()
    });
    let table = table.join().unwrap();
    server.join().unwrap();
    done.store(true, Ordering::SeqCst);
    let frames = capture.join().unwrap();
    assert!(frames.iter().any(|(_, _, wire_len)| *wire_len > 1514), "nothing was left to be cut by the interface");
    let kernel = lines_without_timeouts(&table);
    assert_eq!(kernel.len(), 2, "{table}");
    for snaplen in [usize::MAX, 68] {
        let kept: Vec<_> =
            frames.iter().map(|(time, data, _)| (*time, data[..snaplen.min(data.len())].to_vec())).collect();
        let mut file = pcap(ByteOrder::Little, true, linktype::ETHERNET, &kept);
        let mut at = 24;
        for ((_, data, wire_len), (_, kept)) in frames.iter().zip(&kept) {
            assert!(data.len() <= *wire_len);
            file[at + 12..at + 16].copy_from_slice(&(*wire_len as u32).to_le_bytes());
            at += 16 + kept.len();
        }
        let file = TempFile::new("host.pcap", &file);
        let ran = keepstate(&["replay", file.path()], b"");
        assert_eq!(lines_without_timeouts(&ran.out), kernel, "{snaplen}: {}{table}", ran.err);
        let stats = keepstate(&["replay", file.path(), "--stats"], b"");
        assert!(stats.out.contains("invalid=0"), "{snaplen}: {}{}", stats.out, stats.err);
    }
}
