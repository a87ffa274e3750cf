//! Which events of a connection are told: `ct event set` beside `conntrack -E`.
use crate::twin::{Case, run};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Who watches: `conntrack -E` of the kernel's table, or `keepstate control events`.
pub struct EventWatcher {
    program: Child,
    lines: Receiver<String>,
}

impl EventWatcher {
    /// Of the kernel in this namespace, or of the gateway with this socket.
    pub fn start(netns: &str, socket: Option<&str>) -> EventWatcher {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", netns]);
        match socket {
            None => command.args(["conntrack", "-E", "-p", "udp"]),
            Some(socket) => {
                command.args([env!("CARGO_BIN_EXE_keepstate"), "control", "--socket", socket, "events", "-p", "udp"])
            }
        };
        let mut program = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let output = BufReader::new(program.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        EventWatcher { program, lines }
    }

    /// Adds the events up to one of a connection to this port, as `TYPE port`; false if that does not come.
    pub fn told_until(&self, port: u16, told: &mut Vec<String>) -> bool {
        while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(500)) {
            let Some(event) = parse_event(&line) else { continue };
            if event.ends_with(&format!(" {port}")) {
                return true;
            }
            told.push(event);
        }
        false
    }
}

impl Drop for EventWatcher {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// `[NEW] udp … dport=7001 …` as `NEW 7001`.
fn parse_event(line: &str) -> Option<String> {
    let (_, rest) = line.split_once('[')?;
    let (kind, rest) = rest.split_once(']')?;
    let port = rest.split_whitespace().find_map(|word| word.strip_prefix("dport="))?;
    Some(format!("{kind} {port}"))
}

#[test]
fn events_that_a_rule_chooses() {
    run(&Case {
        name: "ev",
        rules: "
table ip e {
	chain pre {
		type filter hook prerouting priority mangle;
		udp dport 7001 ct event set new
		udp dport 7002 ct event set reply,assured
		udp dport 7003 ct event set assured
		udp dport 7004 ct event set destroy
		udp dport 7005 ct event set new,reply,assured
	}
}
",
        prepare: &[],
        steps: &[
            ("udp c 10.0.1.2:4001 10.0.2.2:7001 s 10.0.2.2:7001", "10.0.1.2 same port"),
            ("watch", "watched"),
            ("udp c 10.0.1.2:4002 10.0.2.2:7001 s 10.0.2.2:7001", "10.0.1.2 same port"),
            ("told", "NEW 7001"),
            ("udp c 10.0.1.2:4002 10.0.2.2:7002 s 10.0.2.2:7002", "10.0.1.2 same port"),
            ("told", "UPDATE 7002"),
            // Such a flow is assured after two seconds only.
            ("udp c 10.0.1.2:4002 10.0.2.2:7003 s 10.0.2.2:7003", "10.0.1.2 same port"),
            ("told", ""),
            ("udp c 10.0.1.2:4002 10.0.2.2:7004 s 10.0.2.2:7004", "10.0.1.2 same port"),
            ("told", ""),
            ("udp c 10.0.1.2:4002 10.0.2.2:7005 s 10.0.2.2:7005", "10.0.1.2 same port"),
            ("told", "NEW 7005, UPDATE 7005"),
            ("udp c 10.0.1.2:4002 10.0.2.2:7006 s 10.0.2.2:7006", "10.0.1.2 same port"),
            ("told", "NEW 7006, UPDATE 7006"),
        ],
    });
}
