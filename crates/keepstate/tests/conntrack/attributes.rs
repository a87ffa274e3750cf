//! What lies in the kernel after a command, attribute by attribute: the printed line does not show TCP's flags.
use super::netns_fixture::DEBIAN;
use super::{can_run, common::report_skipped};
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_keepstate");

/// Commands on one table; `CT` is the program under test, `T` names a TCP connection.
const STORIES: &[&[&str]] = &[
    &["CT -I T --state ESTABLISHED -t 1000"],
    &["CT -A T --state SYN_SENT -t 1000"],
    &["CT -I T --state TIME_WAIT -t 1000 -u SEEN_REPLY,ASSURED"],
    &["CT -I T --state ESTABLISHED -t 1000 --dst-nat 192.0.2.1:7"],
    &["CT -I T --state CLOSE -t 1000", "CT -U T --state SYN_RECV"],
    &["CT -I T --state SYN_RECV -t 1000", "CT -U T --state LAST_ACK -m 5"],
    &["CT -I T --state SYN_RECV -t 1000", "CT -U T --state SYN_RECV"],
    &["CT -I T --state SYN_RECV -t 1000", "CT -U T -t 2000"],
    &["CT -I T --state ESTABLISHED -t 1000", "CT -L -o save > saved", "CT -F", "CT -R saved"],
    &["CT -I T --state ESTABLISHED -t 1000 --src-nat 192.0.2.1", "CT -L -o save > saved", "CT -F", "CT -R saved"],
];
const TUPLE: &str = "-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 5 --dport 6";

#[test]
fn tcp_attributes_match_debian() {
    if !can_run() {
        return;
    }
    for story in STORIES {
        let [debian, ours] =
            [DEBIAN.to_owned(), format!("{PROGRAM} conntrack")].map(|program| entries_after(story, &program));
        assert_eq!(debian, ours, "{story:?}");
        assert!(
            !ours.is_empty() && ours.iter().all(|entry| entry["original"]["tcp"]["flags"] != 0),
            "{story:?}: {ours:?}"
        );
    }
}

/// The entries in a namespace after the commands, without what differs from run to run.
fn entries_after(story: &[&str], program: &str) -> Vec<serde_json::Value> {
    let folder = tempfile::tempdir().unwrap();
    let mut script = String::from("exec 2>> log; ip link set lo up\n");
    for line in story {
        script.push_str(&format!(
            "{{ {}; }} >> log\n",
            line.replace("CT ", &format!("{program} ")).replace(" T ", &format!(" {TUPLE} "))
        ));
    }
    script.push_str(&format!("{PROGRAM} conntrack -L -o json"));
    let output =
        Command::new("unshare").args(["--net", "sh", "-c", &script]).current_dir(folder.path()).output().unwrap();
    let mut entries: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    for entry in entries.iter_mut().filter_map(serde_json::Value::as_object_mut) {
        ["id", "timeout", "uses"].into_iter().for_each(|name| drop(entry.remove(name)));
    }
    entries
}

/// A connection whose entry was saved, flushed and restored carries 2 MB with scaled windows, and none of its packets is INVALID.
#[test]
fn large_transfer_survives_save_flush_and_restore() {
    if !can_run() {
        return;
    }
    if !Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return report_skipped("a transfer over a restored entry needs python3");
    }
    let folder = tempfile::tempdir().unwrap();
    let script =
        format!("ip link set lo up\n{RULES}\npython3 -c '{TRANSFER}' {PROGRAM} conntrack && nft list chain ip t in");
    let output =
        Command::new("unshare").args(["--net", "sh", "-c", &script]).current_dir(folder.path()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(out.starts_with("2097152 bytes\n") && out.contains("invalid counter packets 0 bytes 0 drop"), "{out}{err}");
}

const RULES: &str = "nft add table ip t; nft add chain ip t in \"{ type filter hook input priority 0; }\"; nft add rule ip t in ct state invalid counter drop";
const TRANSFER: &str = r#"
import socket, subprocess, sys, threading
size = 2 << 20
listener = socket.create_server(("127.0.0.1", 4000))
client = socket.create_connection(("127.0.0.1", 4000))
server, _ = listener.accept()
conntrack = sys.argv[1:]
with open("saved", "w") as saved:
    subprocess.run(conntrack + ["-L", "-p", "tcp", "-o", "save"], stdout=saved, check=True)
subprocess.run(conntrack + ["-F"], check=True)
subprocess.run(conntrack + ["-R", "saved"], check=True)
server.settimeout(30)
threading.Thread(target=lambda: (client.sendall(bytes(size)), client.shutdown(socket.SHUT_WR)), daemon=True).start()
got = 0
while piece := server.recv(1 << 20):
    got += len(piece)
print(got, "bytes")
"#;

/// A translation of the port alone: a redirected connection goes on after its entry was saved, flushed and restored.
#[test]
fn redirected_connection_survives_save_flush_and_restore() {
    if !can_run() {
        return;
    }
    if !Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return report_skipped("a redirected connection over a restored entry needs python3");
    }
    let folder = tempfile::tempdir().unwrap();
    let script = format!("ip link set lo up\nnft '{REDIRECT}'\nexec python3 -c '{TALK}' {PROGRAM} conntrack");
    let output =
        Command::new("unshare").args(["--net", "sh", "-c", &script]).current_dir(folder.path()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(out.contains(" -g 127.0.0.1:8080 ") && out.ends_with("hello back\n"), "{out}{err}");
}

const REDIRECT: &str = "add table ip t; add chain ip t out { type nat hook output priority 0; }; add rule ip t out tcp dport 80 redirect to :8080";
const TALK: &str = r#"
import socket, subprocess, sys
listener = socket.create_server(("127.0.0.1", 8080))
client = socket.create_connection(("127.0.0.1", 80))
server, _ = listener.accept()
for end in client, server:
    end.settimeout(30)
client.sendall(b"x")
server.recv(1)
conntrack = sys.argv[1:]
saved = subprocess.run(conntrack + ["-L", "-o", "save"], stdout=subprocess.PIPE, check=True).stdout
print(saved.decode())
subprocess.run(conntrack + ["-F"], check=True)
subprocess.run(conntrack + ["-R", "-"], input=saved, check=True)
server.sendall(b"hello")
said = client.recv(9)
client.sendall(b" back")
print((said + server.recv(9)).decode())
"#;
