//! The testbed: a client, two servers and the gateway in namespaces of their own, which go at the end, even of a failed test.
use crate::common::{TempFile, keepstate, report_skipped};
use crate::peers::{run_ip, spawn_in_netns};
use keepstate_test_support::uninterrupted;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
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
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// A client, two servers, and the gateway between them; servers are checked over a link of their own.
pub(crate) struct ServiceTestbed {
    tag: String,
    _namespaces: Namespaces,
    pub(crate) gateway: Child,
    /// It is read again with the services.
    _ruleset: TempFile,
    pub(crate) services: TempFile,
    pub(crate) flag: TempFile,
}

impl ServiceTestbed {
    /// `None` where namespaces may not be made.
    pub(crate) fn new(name: &str) -> Option<ServiceTestbed> {
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
    pub(crate) fn spawn_in_netns<T: Send + 'static>(
        &self,
        side: &str,
        what: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        spawn_in_netns(&format!("{}{side}", self.tag), what)
    }

    /// What the gateway answers.
    pub(crate) fn control(&self, words: &[&str]) -> String {
        let ran = keepstate(&[&["control", "--socket", &socket(&self.tag)][..], words].concat(), b"");
        ran.out + &ran.err
    }

    /// The line of a backend.
    pub(crate) fn backend_status(&self, backend: &str) -> String {
        let shown = self.control(&["services"]);
        let line = shown.lines().find(|line| line.trim_start().starts_with(backend));
        line.unwrap_or_else(|| panic!("no {backend} in:\n{shown}")).to_owned()
    }

    /// Waits until a backend's line says this.
    pub(crate) fn wait_backend_status(&self, backend: &str, said: &str) {
        wait_until(&format!("{backend} {said}"), || self.backend_status(backend).contains(said));
    }

    /// Waits until every check has found its backend well: one that came before its server has found it down.
    pub(crate) fn wait_all_healthy(&self) {
        wait_until("all are known to be up", || {
            let shown = self.control(&["services"]);
            shown.contains(" up ") && !shown.contains("not checked yet") && !shown.contains(" down ")
        });
    }

    /// Who answers a new connection of the client's, or why nobody does.
    pub(crate) fn connect_and_read_name(&self) -> Result<String, std::io::ErrorKind> {
        self.spawn_in_netns("c", || HeldConnection::open().map(|held| held.name)).join().unwrap()
    }

    /// Who answers a datagram of this socket's.
    pub(crate) fn ask_udp(&self, socket: &Arc<UdpSocket>) -> Option<u8> {
        let socket = socket.clone();
        let ask = move || {
            socket.send(b"who?").ok()?;
            let mut name = [0];
            uninterrupted(|| socket.recv(&mut name)).ok().map(|_| name[0])
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
pub(crate) struct Server {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn new(lab: &ServiceTestbed, side: &'static str) -> Server {
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
        if let Ok((_, from)) = uninterrupted(|| datagrams.recv_from(&mut [0; 64])) {
            let _ = datagrams.send_to(&[name], from);
        }
        sleep(Duration::from_millis(5));
    }
}

pub(crate) fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let until = Instant::now() + TIMEOUT;
    while !happened() {
        assert!(Instant::now() < until, "not in {TIMEOUT:?}: {what}");
        sleep(Duration::from_millis(50));
    }
}

fn socket(tag: &str) -> String {
    std::env::temp_dir().join(format!("{tag}.sock")).to_string_lossy().into_owned()
}

/// A held connection on a thread of the client's namespace: asked by a word, it says whether it is well.
pub(crate) fn hold_connection(lab: &ServiceTestbed) -> (String, Sender<()>, Receiver<bool>) {
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
/// Ends the gateway: what it has said.
pub(crate) fn terminate_gateway(lab: &mut ServiceTestbed) -> String {
    assert!(Command::new("kill").arg(lab.gateway.id().to_string()).status().unwrap().success());
    let mut notes = String::new();
    lab.gateway.stderr.take().unwrap().read_to_string(&mut notes).unwrap();
    assert!(lab.gateway.wait().unwrap().success());
    notes
}
