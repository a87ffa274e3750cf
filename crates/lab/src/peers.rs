//! Clients and servers of both sides: installed programs where the machine has them, built-in ones where it has not.
use super::builtin_servers::{self, BuiltinServer};
use super::process::{CommandOutput, find_program};
use super::topology::{GATEWAY_ADDR, INSIDE_ADDRS, SERVER_ADDR, Side, Topology};
use anyhow::Result;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The published port, and that of the servers behind it.
pub(super) const PUBLISHED_PORT: u16 = 8080;
/// The name that the DNS server resolves.
pub(super) const DNS_NAME: &str = "lab.example";
/// Time limit for an installed server to listen.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit of a client's request, in seconds.
const REQUEST_TIMEOUT_SECS: &str = "3";

/// Clients and servers of one topology.
#[derive(Debug)]
pub(super) struct Peers {
    curl: Option<PathBuf>,
    /// mosquitto_pub and mosquitto_sub, if a broker listens.
    mosquitto_clients: Option<(PathBuf, PathBuf)>,
    dig: Option<PathBuf>,
    iperf3: Option<PathBuf>,
    /// Names of the installed programs that are used.
    pub(super) installed: Vec<&'static str>,
    /// What is built in or skipped because a program is missing, and the package to install.
    pub(super) substitutes: Vec<String>,
    builtin_servers: Vec<BuiltinServer>,
}

impl Peers {
    /// Starts the servers.
    pub(super) fn start(topology: &mut Topology) -> Result<Peers> {
        let mut peers = Peers {
            curl: find_program("curl"),
            mosquitto_clients: None,
            dig: None,
            iperf3: None,
            installed: Vec::new(),
            substitutes: Vec::new(),
            builtin_servers: Vec::new(),
        };
        match peers.curl {
            Some(_) => peers.installed.push("curl"),
            None => peers.substitute("web client: built in", "curl"),
        }
        peers.start_web(topology)?;
        peers.mosquitto_clients = peers.start_broker(topology)?;
        peers.dig = peers.start_dns(topology)?;
        peers.iperf3 = peers.start_iperf3(topology)?;
        Ok(peers)
    }

    fn substitute(&mut self, what: &str, packages: &str) {
        self.substitutes.push(format!("{what} (for the real one: apt-get install {packages})"));
    }

    /// Web servers: one outside that answers with the client's address, two inside that answer with their own.
    fn start_web(&mut self, topology: &mut Topology) -> Result<()> {
        let outer = [SocketAddr::new(SERVER_ADDR, 80)];
        let inner = INSIDE_ADDRS.map(|address| SocketAddr::new(address, PUBLISHED_PORT));
        let sides = [(Side::Server, "outer", &outer[..]), (Side::Client, "inner", &inner)];
        match find_program("nginx") {
            None => self.substitute("web servers: built in", "nginx-light"),
            Some(nginx) => {
                let mut listening = true;
                for (side, name, addresses) in sides {
                    let config = topology.work_dir.write(&format!("{name}.nginx"), &nginx_config(name, addresses))?;
                    let (folder, config) =
                        (topology.work_dir.path().display().to_string(), config.display().to_string());
                    let args = ["-e", "stderr", "-p", &folder, "-c", &config];
                    let server = topology.spawn_background(side, &nginx, &args)?;
                    listening = listening && wait_listening(topology, side, addresses, server)?;
                }
                if listening {
                    self.installed.push("nginx");
                    return Ok(());
                }
                self.substitutes.push("web servers: built in (the installed nginx does not start here)".into());
            }
        }
        for (side, _, addresses) in sides {
            for address in addresses {
                self.builtin_servers.push(BuiltinServer::serve_page(topology.netns_of(side), *address)?);
            }
        }
        Ok(())
    }

    fn start_broker(&mut self, topology: &mut Topology) -> Result<Option<(PathBuf, PathBuf)>> {
        let tools = (find_program("mosquitto"), find_program("mosquitto_pub"), find_program("mosquitto_sub"));
        let (Some(broker), Some(publish), Some(subscribe)) = tools else {
            self.substitute("MQTT publish and subscribe: skipped", "mosquitto mosquitto-clients");
            return Ok(None);
        };
        let log = topology.work_dir.file("broker.log");
        let text = format!(
            "listener 1883 {SERVER_ADDR}\nallow_anonymous true\nuser root\npersistence false\n\
             log_dest file {}\nlog_type notice\nconnection_messages true\n",
            log.display()
        );
        let config = topology.work_dir.write("mosquitto.conf", &text)?.display().to_string();
        let server = topology.spawn_background(Side::Server, &broker, &["-c", &config])?;
        if !wait_listening(topology, Side::Server, &[SocketAddr::new(SERVER_ADDR, 1883)], server)? {
            self.substitutes
                .push("MQTT publish and subscribe: skipped (the installed mosquitto does not start here)".into());
            return Ok(None);
        }
        self.installed.push("mosquitto");
        Ok(Some((publish, subscribe)))
    }

    fn start_dns(&mut self, topology: &mut Topology) -> Result<Option<PathBuf>> {
        let (Some(dig), Some(dnsmasq)) = (find_program("dig"), find_program("dnsmasq")) else {
            self.substitute("DNS query: skipped", "dnsutils dnsmasq-base");
            return Ok(None);
        };
        let (listen, name) =
            (format!("--listen-address={SERVER_ADDR}"), format!("--address=/{DNS_NAME}/{SERVER_ADDR}"));
        let options = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="];
        let more = ["--user=root", "--group=root", "--bind-interfaces", &listen, &name];
        let server = topology.spawn_background(Side::Server, &dnsmasq, &[&options[..], &more].concat())?;
        let at = [SocketAddr::new(SERVER_ADDR, 53)];
        // It has a socket of each kind, and makes one after the other.
        let ready = wait_listening(topology, Side::Server, &at, server)?
            && wait_for_sockets(topology, Side::Server, UDP_SOCKETS, &at, server)?;
        if !ready {
            self.substitutes.push("DNS query: skipped (the installed dnsmasq does not start here)".into());
            return Ok(None);
        }
        self.installed.extend(["dig", "dnsmasq"]);
        Ok(Some(dig))
    }

    fn start_iperf3(&mut self, topology: &mut Topology) -> Result<Option<PathBuf>> {
        let address = SocketAddr::new(SERVER_ADDR, builtin_servers::THROUGHPUT_PORT);
        match find_program("iperf3") {
            None => self.substitute("throughput test: built in", "iperf3"),
            Some(iperf3) => {
                let server =
                    topology.spawn_background(Side::Server, &iperf3, &["-s", "-B", &SERVER_ADDR.to_string()])?;
                if wait_listening(topology, Side::Server, &[address], server)? {
                    self.installed.push("iperf3");
                    return Ok(Some(iperf3));
                }
                self.substitutes.push("throughput test: built in (the installed iperf3 does not start here)".into());
            }
        }
        self.builtin_servers.push(BuiltinServer::serve_bytes(topology.netns_of(Side::Server), address)?);
        Ok(None)
    }

    /// Fetches a page. Returns the command as typed, and its output.
    pub(super) fn fetch(
        &self,
        topology: &Topology,
        from: Side,
        address: IpAddr,
        port: u16,
    ) -> Result<(String, CommandOutput)> {
        let at = SocketAddr::new(address, port);
        let url = if port == 80 { format!("http://{address}/") } else { format!("http://{at}/") };
        match &self.curl {
            Some(curl) => {
                let ran =
                    topology.run(from, curl, &["-sS", "--noproxy", "*", "--max-time", REQUEST_TIMEOUT_SECS, &url])?;
                Ok((format!("curl {url}"), ran))
            }
            None => {
                let page = topology.netns_of(from).enter(|| builtin_servers::http_get(at))?;
                let ran = match page {
                    Ok(out) => CommandOutput { success: true, stdout: out, stderr: String::new() },
                    Err(error) => CommandOutput { success: false, stdout: String::new(), stderr: error.to_string() },
                };
                Ok((format!("(built in) GET {url}"), ran))
            }
        }
    }

    /// Publishes a message and subscribes to it. Returns the output, and the broker's log line about its client. `None` without a broker.
    pub(super) fn publish_message(&self, topology: &Topology) -> Result<Option<(CommandOutput, String)>> {
        let Some((publish, subscribe)) = &self.mosquitto_clients else { return Ok(None) };
        let at = SERVER_ADDR.to_string();
        // A retained message: the order of publishing and subscribing does not matter.
        topology.run(Side::Client, publish, &["-h", &at, "-t", "lab", "-m", "hello", "-r", "-q", "1"])?;
        let received =
            topology.run(Side::Client, subscribe, &["-h", &at, "-t", "lab", "-C", "1", "-W", REQUEST_TIMEOUT_SECS])?;
        let log = std::fs::read_to_string(topology.work_dir.file("broker.log")).unwrap_or_default();
        let mut clients =
            log.lines().filter(|line| line.contains("connected from") && !line.contains(&format!("from {at}")));
        Ok(Some((received, clients.next_back().unwrap_or_default().to_owned())))
    }

    /// Resolves a name. `None` without a DNS server.
    pub(super) fn resolve_name(&self, topology: &Topology) -> Result<Option<CommandOutput>> {
        let Some(dig) = &self.dig else { return Ok(None) };
        let args = ["+short", "+time=1", "+tries=3", DNS_NAME, &format!("@{SERVER_ADDR}")];
        topology.run(Side::Client, dig, &args).map(Some)
    }

    /// Measures the throughput of one TCP connection. Returns the command as typed, and bits per second.
    pub(super) fn measure_throughput(&self, topology: &Topology, seconds: u32) -> Result<(String, Option<f64>)> {
        let Some(iperf3) = &self.iperf3 else {
            let at = SocketAddr::new(SERVER_ADDR, builtin_servers::THROUGHPUT_PORT);
            let measured = topology
                .netns_of(Side::Client)
                .enter(|| builtin_servers::measure_download(at, Duration::from_secs(seconds.into())))?;
            return Ok((format!("(built in) download from {SERVER_ADDR} for {seconds} s"), measured.ok()));
        };
        let (at, time) = (SERVER_ADDR.to_string(), seconds.to_string());
        let ran = topology.run(Side::Client, iperf3, &["-c", &at, "-t", &time, "-J"])?;
        let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        let throughput = report.pointer("/end/sum_received/bits_per_second").and_then(serde_json::Value::as_f64);
        Ok((format!("iperf3 -c {at} -t {time}"), throughput))
    }

    /// Sends requests to the published port. Returns the command as typed, the answers of each inner server, and all other results.
    pub(super) fn count_balanced(&self, topology: &Topology, times: u32) -> Result<(String, [u32; 2], u32)> {
        let (mut typed, mut counts, mut others) = (String::new(), [0; 2], 0);
        for _ in 0..times {
            let (command, ran) = self.fetch(topology, Side::Server, GATEWAY_ADDR, PUBLISHED_PORT)?;
            let answered =
                INSIDE_ADDRS.iter().zip(&mut counts).find(|(inside, _)| ran.stdout.contains(&format!("I am {inside}")));
            match answered {
                Some((_, count)) => *count += 1,
                None => others += 1,
            }
            typed = command;
        }
        Ok((typed, counts, others))
    }
}

/// The configuration of nginx; it writes nothing outside of the work directory.
fn nginx_config(name: &str, at: &[SocketAddr]) -> String {
    let servers: Vec<String> = at
        .iter()
        .map(|at| {
            format!(
                "  server {{ listen {at}; location / {{ default_type text/plain; return 200 \"I am {}, you are $remote_addr\\n\"; }} }}\n",
                at.ip()
            )
        })
        .collect();
    let folders: Vec<String> = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {name}.{kind};\n"))
        .into();
    format!(
        "daemon off;\nmaster_process off;\npid {name}.pid;\nevents {{ }}\nhttp {{\n  access_log off;\n{}{}}}\n",
        folders.concat(),
        servers.concat()
    )
}

/// Waits until a background program listens on these TCP addresses; false if it ends or takes too long. No connection is made: some
/// servers (iperf3) serve one client at a time.
fn wait_listening(topology: &mut Topology, side: Side, addresses: &[SocketAddr], program: usize) -> Result<bool> {
    wait_for_sockets(topology, side, TCP_LISTENERS, addresses, program)
}

/// A file of proc that lists sockets, and the state there of one that takes what comes.
type SocketTable = (&'static str, &'static str);

const TCP_LISTENERS: SocketTable = ("/proc/thread-self/net/tcp", "0A");
const UDP_SOCKETS: SocketTable = ("/proc/thread-self/net/udp", "07");

/// The same, for sockets of this table.
fn wait_for_sockets(
    topology: &mut Topology,
    side: Side,
    (path, ready): SocketTable,
    addresses: &[SocketAddr],
    program: usize,
) -> Result<bool> {
    let deadline = Instant::now() + START_TIMEOUT;
    while Instant::now() < deadline {
        // The namespace of this thread, which is not that of the process.
        let sockets = topology.netns_of(side).enter(|| std::fs::read_to_string(path))??;
        if addresses.iter().all(|address| has_socket(&sockets, ready, *address)) {
            return Ok(true);
        }
        if topology.has_exited(program) {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(false)
}

/// Whether a table of sockets has one in this state on this IPv4 address and port, or on the port at any address.
fn has_socket(sockets: &str, ready: &str, at: SocketAddr) -> bool {
    let IpAddr::V4(address) = at.ip() else { return false };
    // The kernel prints the address as a number in the machine's byte order.
    let bound = [u32::from_ne_bytes(address.octets()), 0].map(|address| format!("{address:08X}:{:04X}", at.port()));
    sockets.lines().any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let (local, state) = (columns.next().unwrap_or_default(), columns.nth(1));
        state == Some(ready) && bound.iter().any(|bound| bound == local)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn listening_sockets_are_found_without_connecting() {
        let sockets = || std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        assert!(has_socket(&sockets(), "0A", at));
        let connection = TcpStream::connect(at).unwrap();
        assert!(!has_socket(&sockets(), "0A", connection.local_addr().unwrap()), "a connected socket does not listen");
        let any = TcpListener::bind("0.0.0.0:0").unwrap();
        assert!(has_socket(&sockets(), "0A", SocketAddr::new(at.ip(), any.local_addr().unwrap().port())));
        assert!(!has_socket("", "0A", at) && !has_socket("  sl  local_address\n", "0A", at));
    }
}
