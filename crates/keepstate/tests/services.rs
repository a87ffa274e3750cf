//! Services with real peers: a client and two servers in namespaces of their own, the gateway between them, checked, drained, killed.
//!
//! Namespaces have names of this process's own and go at the end, even of a failed test.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(unsafe_code, reason = "setns(2) has no safe wrapper in std")]

mod common;

use common::{TempFile, keepstate, report_skipped};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// The virtual address is nobody's: clients reach it because the gateway is their way to everybody.
const SERVICES: &str = r#"
[[service]]
name = "web"
listen = "198.51.100.80:80"
check = { source = "172.31.255.1", interval = "200ms", timeout = "1s", rise = 1, fall = 2 }
backends = ["10.1.0.2:8080", "10.2.0.2:8080"]

[[service]]
name = "dns"
listen = "198.51.100.80:53"
protocol = "udp"
backends = ["10.1.0.2:5353", "10.2.0.2:5353"]
check = { command = ["test", "-e", "FLAG"], interval = "200ms", timeout = "1s", rise = 1, fall = 1 }
"#;

/// Long enough for a machine that is busy with other things.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A client, two servers, and the gateway between them; servers are checked over a link of their own.
struct ServiceTestbed {
    tag: String,
    _namespaces: Namespaces,
    gateway: Child,
    /// It is read again with the services.
    _ruleset: TempFile,
    services: TempFile,
    flag: TempFile,
}

impl ServiceTestbed {
    /// `None` where namespaces may not be made.
    fn new(name: &str) -> Option<ServiceTestbed> {
        let tag = format!("kssv{}{name}", std::process::id());
        let Some(namespaces) = Namespaces::new(&tag) else {
            report_skipped("services between real peers: it needs root, network namespaces and iproute2");
            return None;
        };
        let ruleset = TempFile::new(&format!("{name}.nft"), b"");
        let flag = TempFile::new(&format!("{name}.flag"), b"");
        let services = TempFile::new(&format!("{name}.toml"), SERVICES.replace("FLAG", flag.path()).as_bytes());
        for (side, network) in [("1", "10.1.0"), ("2", "10.2.0")] {
            add_check_link(&tag, side, network);
        }
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{tag}g"), env!("CARGO_BIN_EXE_keepstate"), "gateway"]);
        command.args(["--ruleset", ruleset.path(), "--services", services.path(), "--control", &socket(&tag)]);
        command.args(["--device", "c0=192.0.2.1/24", "--device", "s1=10.1.0.1/24", "--device", "s2=10.2.0.1/24"]);
        let gateway = command.stderr(Stdio::piped()).spawn().unwrap();
        let lab = ServiceTestbed { tag, _namespaces: namespaces, gateway, _ruleset: ruleset, services, flag };
        lab.configure_side("c0", "c", "192.0.2.9/24");
        lab.configure_side("s1", "1", "10.1.0.2/24");
        lab.configure_side("s2", "2", "10.2.0.2/24");
        Some(lab)
    }

    /// Gives a device to a namespace, with its address and the way to everybody.
    fn configure_side(&self, device: &str, side: &str, address: &str) {
        let (from, to) = (format!("{}g", self.tag), format!("{}{side}", self.tag));
        wait_until(&format!("{device} is made"), || run_ip(&["-n", &from, "link", "set", device, "netns", &to]));
        for words in [
            &["addr", "add", address, "dev", device][..],
            &["link", "set", "lo", "up"],
            &["link", "set", device, "up"],
            &["route", "replace", "default", "dev", device],
        ] {
            assert!(run_ip(&[&["-n", to.as_str()][..], words].concat()), "{words:?}");
        }
    }

    /// Runs something in a namespace, on a thread of its own.
    fn spawn_in_netns<T: Send + 'static>(
        &self,
        side: &str,
        what: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let path = format!("/run/netns/{}{side}", self.tag);
        spawn(move || {
            let door = File::open(path).unwrap();
            // SAFETY: the descriptor is open; only this thread and those it makes change their namespace.
            assert_eq!(unsafe { libc::setns(door.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
            what()
        })
    }

    /// What the gateway answers.
    fn control(&self, words: &[&str]) -> String {
        let ran = keepstate(&[&["control", "--socket", &socket(&self.tag)][..], words].concat(), b"");
        ran.out + &ran.err
    }

    /// The line of a backend.
    fn backend_status(&self, backend: &str) -> String {
        let shown = self.control(&["services"]);
        let line = shown.lines().find(|line| line.trim_start().starts_with(backend));
        line.unwrap_or_else(|| panic!("no {backend} in:\n{shown}")).to_owned()
    }

    /// Waits until a backend's line says this.
    fn wait_backend_status(&self, backend: &str, said: &str) {
        wait_until(&format!("{backend} {said}"), || self.backend_status(backend).contains(said));
    }

    /// Waits until every check has found its backend well: one that came before its server has found it down.
    fn wait_all_healthy(&self) {
        wait_until("all are known to be up", || {
            let shown = self.control(&["services"]);
            shown.contains(" up ") && !shown.contains("not checked yet") && !shown.contains(" down ")
        });
    }

    /// Who answers a new connection of the client's, or why nobody does.
    fn connect_and_read_name(&self) -> Result<String, std::io::ErrorKind> {
        self.spawn_in_netns("c", || HeldConnection::open().map(|held| held.name)).join().unwrap()
    }

    /// Who answers a datagram of this socket's.
    fn ask_udp(&self, socket: &Arc<UdpSocket>) -> Option<u8> {
        let socket = socket.clone();
        let ask = move || {
            socket.send(b"who?").ok()?;
            let mut name = [0];
            socket.recv(&mut name).ok().map(|_| name[0])
        };
        self.spawn_in_netns("c", ask).join().unwrap()
    }
}

impl Drop for ServiceTestbed {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
        let _ = std::fs::remove_file(socket(&self.tag));
    }
}

/// The namespaces of the client, the gateway and both servers. They go with this.
struct Namespaces(Vec<String>);

impl Namespaces {
    fn new(tag: &str) -> Option<Namespaces> {
        let mut made = Namespaces(Vec::new());
        for side in ["c", "g", "1", "2"] {
            let name = format!("{tag}{side}");
            if !run_ip(&["netns", "add", &name]) {
                return None;
            }
            made.0.push(name);
        }
        Some(made)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            run_ip(&["netns", "del", name]);
        }
    }
}

/// A link from the gateway's host to a server, for checks; the services' own packets go through the gateway.
fn add_check_link(tag: &str, side: &str, network: &str) {
    let (gateway, server) = (format!("{tag}g"), format!("{tag}{side}"));
    let (near, far) = (format!("n{side}"), format!("f{side}"));
    for words in [
        &["-n", &gateway, "link", "add", &near, "type", "veth", "peer", "name", &far, "netns", &server][..],
        &["-n", &gateway, "addr", "replace", "172.31.255.1/32", "dev", "lo"],
        &["-n", &gateway, "link", "set", "lo", "up"],
        &["-n", &gateway, "link", "set", &near, "up"],
        &["-n", &gateway, "route", "add", &format!("{network}.0/24"), "dev", &near],
        &["-n", &server, "link", "set", &far, "up"],
        &["-n", &server, "route", "add", "172.31.255.1/32", "dev", &far],
    ] {
        assert!(run_ip(words), "{words:?}");
    }
}

/// A connection that stands: says its server's name, and can be asked again.
struct HeldConnection {
    name: String,
    stream: TcpStream,
}

impl HeldConnection {
    fn open() -> Result<HeldConnection, std::io::ErrorKind> {
        let at: SocketAddr = "198.51.100.80:80".parse().unwrap();
        let mut stream = TcpStream::connect_timeout(&at, TIMEOUT).map_err(|error| error.kind())?;
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut name = [0];
        stream.read_exact(&mut name).map_err(|error| error.kind())?;
        Ok(HeldConnection { name: char::from(name[0]).to_string(), stream })
    }

    fn still_works(&mut self) -> bool {
        let mut word = [0; 5];
        let asked = self.stream.write_all(b"hello").and_then(|()| self.stream.read_exact(&mut word));
        asked.is_ok() && word == *b"hello"
    }
}

/// A server that says its name to each that comes, then echoes; and answers datagrams by its name. It stops listening when told, and its
/// connections live on.
struct Server {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn new(lab: &ServiceTestbed, side: &'static str) -> Server {
        let ended = Arc::new(AtomicBool::new(false));
        let told = ended.clone();
        let (ready, waits) = channel();
        let address = IpAddr::from([10, side.parse().unwrap(), 0, 2]);
        let thread = lab.spawn_in_netns(side, move || serve_name(address, side.as_bytes()[0], &told, &ready));
        waits.recv_timeout(TIMEOUT).unwrap();
        Server { ended, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking());
    }
}

fn serve_name(address: IpAddr, name: u8, ended: &AtomicBool, ready: &Sender<()>) {
    let listener = TcpListener::bind((address, 8080)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let datagrams = UdpSocket::bind((address, 5353)).unwrap();
    datagrams.set_nonblocking(true).unwrap();
    ready.send(()).unwrap();
    while !ended.load(Ordering::Relaxed) {
        if let Ok((mut peer, _)) = listener.accept() {
            peer.set_nonblocking(false).unwrap();
            spawn(move || {
                let mut word = [0; 5];
                let _ = peer.write_all(&[name]);
                while peer.read_exact(&mut word).and_then(|()| peer.write_all(&word)).is_ok() {}
            });
        }
        if let Ok((_, from)) = datagrams.recv_from(&mut [0; 64]) {
            let _ = datagrams.send_to(&[name], from);
        }
        sleep(Duration::from_millis(5));
    }
}

fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let until = Instant::now() + TIMEOUT;
    while !happened() {
        assert!(Instant::now() < until, "not in {TIMEOUT:?}: {what}");
        sleep(Duration::from_millis(50));
    }
}

fn socket(tag: &str) -> String {
    std::env::temp_dir().join(format!("{tag}.sock")).to_string_lossy().into_owned()
}

fn run_ip(words: &[&str]) -> bool {
    let mut command = Command::new("ip");
    command.args(words).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A held connection on a thread of the client's namespace: asked by a word, it says whether it is well.
fn hold_connection(lab: &ServiceTestbed) -> (String, Sender<()>, Receiver<bool>) {
    let ((ask, asked), (say, said), (name, named)) = (channel(), channel(), channel());
    lab.spawn_in_netns("c", move || {
        let mut held = HeldConnection::open().unwrap();
        name.send(held.name.clone()).unwrap();
        while asked.recv().is_ok() {
            let _ = say.send(held.still_works());
        }
    });
    (named.recv_timeout(TIMEOUT).unwrap(), ask, said)
}

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

/// Ends the gateway: what it has said.
fn terminate_gateway(lab: &mut ServiceTestbed) -> String {
    assert!(Command::new("kill").arg(lab.gateway.id().to_string()).status().unwrap().success());
    let mut notes = String::new();
    lab.gateway.stderr.take().unwrap().read_to_string(&mut notes).unwrap();
    assert!(lab.gateway.wait().unwrap().success());
    notes
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
        std::iter::from_fn(|| reads.recv(&mut answer).ok().map(|_| answer[0])).take(400).collect::<Vec<u8>>()
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
    let page = include_str!("../../../docs/services.md");
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
