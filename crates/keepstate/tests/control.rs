//! The control socket of a running gateway, by the program: answers, sd_notify, the end. Each gateway is in a network namespace of its own, because it creates an interface.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use common::{TempFile, keepstate, report_skipped};
use keepstate_test_support::uninterrupted;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A gateway, while it runs.
struct RunningGateway {
    child: Child,
    socket: PathBuf,
    _ruleset: TempFile,
}

impl RunningGateway {
    /// `None` where there may be none; with these variables of the environment.
    fn start(name: &str, environment: &[(&str, String)]) -> Option<RunningGateway> {
        let ruleset = TempFile::new(&format!("control-{name}.nft"), b"");
        let socket = std::env::temp_dir().join(format!("ksctl{}{name}.sock", std::process::id()));
        let child = Command::new("unshare")
            .args(["--net", env!("CARGO_BIN_EXE_keepstate"), "gateway", "--device", "ctl0=10.1.0.1/24"])
            .args(["--ruleset", ruleset.path(), "--control"])
            .arg(&socket)
            .envs(environment.iter().map(|(name, value)| (*name, value.as_str())))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut running = RunningGateway { child, socket, _ruleset: ruleset };
        let until = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(&running.socket).is_err() {
            if !matches!(running.child.try_wait(), Ok(None)) || Instant::now() > until {
                report_skipped("a gateway's control socket: it needs root, unshare and /dev/net/tun");
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(running)
    }

    fn socket(&self) -> &str {
        self.socket.to_str().unwrap()
    }

    /// What `keepstate control` prints, and its exit code.
    fn control(&self, words: &[&str]) -> (Option<i32>, String) {
        let ran = keepstate(&[&["control", "--socket", self.socket()][..], words].concat(), b"");
        (ran.code, ran.out + &ran.err)
    }

    fn conntrack(&self, line: &str) -> (Option<i32>, String) {
        let gateway = format!("--gateway={}", self.socket());
        let words: Vec<&str> = ["conntrack", &gateway].into_iter().chain(line.split(' ')).collect();
        let ran = keepstate(&words, b"");
        (ran.code, ran.out + &ran.err)
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for RunningGateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Entries of every kind; GRE's by request has timeouts of zero in the kernel, which no packet would give it.
const CREATE_COMMANDS: &[&str] = &[
    "-I -p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2 -t 100 --state ESTABLISHED -u ASSURED,SEEN_REPLY",
    "-I -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 53 -t 100",
    "-I -p icmp -s 10.0.0.1 -d 10.0.0.2 --icmp-type 8 --icmp-code 0 --icmp-id 3 -t 100",
    "-I -p sctp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 53 -t 100 --state ESTABLISHED --orig-vtag 1 --reply-vtag 2",
    "-I -p 99 -s 10.0.0.1 -d 10.0.0.2 -t 100 -w 5",
    "-I -p udp -s 10.0.0.5 -d 10.0.0.2 --sport 1 --dport 53 -t 100 --orig-zone 4",
    "-I -p udplite -s 10.0.0.5 -d 10.0.0.2 --sport 1 --dport 53 -t 100 --reply-zone 4",
    "-I -p icmpv6 -s fd00::1 -d fd00::2 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 3 -t 100",
    "-I -p tcp -s fd00:1:2:3:4:5:6:7 -d fd00::2 --sport 1 --dport 2 -t 100 --state NONE",
    "-I -p udp -s 10.0.1.6 -d 10.0.0.2 --sport 1 --dport 53 -t 100 -n 9.9.9.9",
];

#[test]
fn proc_output_matches_proc_net_nf_conntrack() {
    let Some(gateway) = RunningGateway::start("proc", &[]) else { return };
    let script: Vec<String> = CREATE_COMMANDS.iter().map(|line| format!("conntrack {line}")).collect();
    let script = format!(
        "echo 1 > /proc/sys/net/netfilter/nf_conntrack_acct && {} && cat /proc/net/nf_conntrack",
        script.join(" && ")
    );
    let kernel = Command::new("unshare").args(["--net", "sh", "-c", &script]).output().unwrap();
    if !kernel.status.success() {
        return report_skipped("the gateway's proc beside the kernel's: conntrack and /proc/net/nf_conntrack");
    }
    assert_eq!(gateway.control(&["set", "nf_conntrack_acct=1"]).0, Some(0));
    for line in CREATE_COMMANDS {
        let (code, said) = gateway.conntrack(line);
        assert_eq!(code, Some(0), "{line}: {said}");
    }
    let (code, ours) = gateway.control(&["proc"]);
    assert_eq!(code, Some(0), "{ours}");
    // Only the remaining timeout differs: both tables were filled with 100 s, at different times.
    let without_timeout = |line: &str| {
        let mut words: Vec<&str> = line.split(' ').collect();
        let place = words.iter().enumerate().filter(|(_, word)| !word.is_empty()).nth(4).unwrap().0;
        let timeout: u32 = words[place].parse().unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(timeout <= 100, "{line}");
        words[place] = "TIMEOUT";
        words.join(" ")
    };
    let lines = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(without_timeout).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(&ours), lines(&String::from_utf8(kernel.stdout).unwrap()));
}

#[test]
fn events_stream_until_the_client_disconnects() {
    let Some(gateway) = RunningGateway::start("events", &[]) else { return };
    let mut listening = Command::new(env!("CARGO_BIN_EXE_keepstate"))
        .args(["control", "--socket", gateway.socket(), "events", "-p", "udp", "-o", "extended"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut heard = BufReader::new(listening.stdout.take().unwrap()).lines();
    let until = Instant::now() + Duration::from_secs(60);
    while !gateway.control(&["stats"]).1.contains("listeners=1") {
        assert!(Instant::now() < until, "no subscriber");
    }
    for line in &CREATE_COMMANDS[..3] {
        assert_eq!(gateway.conntrack(line).0, Some(0));
    }
    let (code, said) = gateway.control(&["flush"]);
    assert_eq!((code, said.as_str()), (Some(0), "removed 3\n"));
    let [new, destroy] = [(); 2].map(|()| heard.next().unwrap().unwrap());
    assert!(new.starts_with("    [NEW] ipv4     2 udp      17 "), "{new}");
    assert!(destroy.starts_with("[DESTROY] ipv4     2 udp      17 "), "{destroy}");
    listening.kill().unwrap();
    listening.wait().unwrap();
    while !gateway.control(&["stats", "--json"]).1.contains("\"listeners\":0") {
        assert!(Instant::now() < until, "the subscriber is still counted");
    }
}

#[test]
fn drain_waits_until_the_table_is_empty() {
    let Some(gateway) = RunningGateway::start("drain", &[]) else { return };
    assert_eq!(gateway.conntrack("-I -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 53 -t 600").0, Some(0));
    let (code, said) = gateway.control(&["drain-all"]);
    assert!(code == Some(0) && said.contains("; 1 left."), "{said}");
    assert!(gateway.control(&["stats"]).1.contains("draining=1"));
    assert_eq!(gateway.conntrack("-U -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 53 -t 2").0, Some(0));
    let begun = Instant::now();
    let (code, said) = gateway.control(&["drain-all", "--wait"]);
    assert!(code == Some(0) && said.ends_with("\n0 left\n") && begun.elapsed() < Duration::from_secs(60), "{said}");
    assert_eq!(gateway.control(&["drain-all", "--off"]), (Some(0), "draining off: new connections accepted\n".into()));
    assert!(gateway.control(&["stats"]).1.contains("draining=0"));
}

#[test]
fn usage_errors_and_missing_gateway_are_explained() {
    let ran = keepstate(&["conntrack", "--gateway=/nonexistent/gateway.sock", "-L"], b"");
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("start one: keepstate gateway --control /nonexistent/gateway.sock"), "{}", ran.err);
    let Some(gateway) = RunningGateway::start("wrong", &[]) else { return };
    let mode = std::fs::metadata(&gateway.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    // As conntrack does: 2 for a wrong command line, whatever the table.
    assert_eq!(gateway.conntrack("-L -p nosuch").0, Some(2));
}

#[test]
fn control_socket_serves_whom_its_mode_and_group_admit() {
    const GROUP: u32 = 54_321;
    let Some(gateway) = RunningGateway::start("mode", &[]) else { return };
    let ask_as_nobody = |groups: &str| {
        let ran = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", groups, env!("CARGO_BIN_EXE_keepstate")])
            .args(["control", "--socket", gateway.socket(), "count"])
            .output();
        ran.ok().filter(|ran| ran.status.code().is_some_and(|code| code < 2)).map(|ran| ran.status.success())
    };
    let Some(admitted) = ask_as_nobody("--clear-groups") else {
        report_skipped("another user at the control socket: setpriv, and a program that this user may run");
        return;
    };
    assert!(!admitted, "0660, and not of its group");
    std::os::unix::fs::chown(&gateway.socket, None, Some(GROUP)).unwrap();
    assert_eq!(ask_as_nobody("--clear-groups"), Some(false));
    assert_eq!(ask_as_nobody(&format!("--groups={GROUP}")), Some(true), "a supplementary group counts");
    std::fs::set_permissions(&gateway.socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(ask_as_nobody("--clear-groups"), Some(true), "the mode decides");
}

#[test]
fn sd_notify_reports_state() {
    let path = std::env::temp_dir().join(format!("ksctl{}notify", std::process::id()));
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let environment = [("NOTIFY_SOCKET", path.to_string_lossy().into_owned()), ("WATCHDOG_USEC", "300000".to_owned())];
    let gateway = RunningGateway::start("notify", &environment);
    let heard = || {
        let mut buffer = [0; 512];
        let length = uninterrupted(|| systemd.recv(&mut buffer)).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    // Signs of life come in between.
    let next = |wanted: &str| {
        let told = std::iter::repeat_with(heard).take(50).find(|told| told.starts_with(wanted));
        assert!(told.is_some(), "{wanted} was never told");
    };
    if let Some(mut gateway) = gateway {
        next("READY=1");
        next("STATUS=connections 0, packets forwarded 0");
        next("WATCHDOG=1");
        gateway.signal("-HUP");
        next("RELOADING=1\nMONOTONIC_USEC=");
        next("READY=1");
        gateway.signal("-TERM");
        next("STOPPING=1");
        assert!(gateway.child.wait().unwrap().success());
        assert!(!gateway.socket.exists(), "the socket is left behind");
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn hundred_connections_are_served_or_get_a_retry_error() {
    let Some(gateway) = RunningGateway::start("many", &[]) else { return };
    let mut idle: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(&gateway.socket).unwrap()).collect();
    // Silent clients are closed after five seconds at the latest; those above the limit were refused at once.
    let mut refused = 0;
    for stream in &mut idle {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        refused += usize::from(said.contains("too many control connections (64); retry later"));
    }
    // The probes of the start may still be open.
    assert!((36..=40).contains(&refused), "{refused}");
    assert_eq!(gateway.control(&["count"]), (Some(0), "0\n".into()));
}
