//! Two sets of namespaces, c – r – s and a second client d: one with the kernel's netfilter in the middle, one with the gateway.
use crate::common::TempFile;
use crate::events::EventWatcher;
use crate::peers::{run_ip, spawn_in_netns};
use crate::report_skipped;
use crate::router_netns::RouterNetns;
use crate::sockets::{
    Quoted, accept_within, bind_raw_socket, bind_udp_socket, exchange, exchange_big, exchange_raw, from_hex, open_tcp,
    send_expecting_error,
};
use std::collections::HashMap;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Long enough for a lost SYN to be sent again, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Datagrams that mark a moment go to the ports behind this one.
const FIRST_MARK: u16 = 9000;

/// What a case is made of.
pub struct Case {
    pub name: &'static str,
    pub rules: &'static str,
    /// Commands: `SIDE WORDS`.
    pub prepare: &'static [&'static str],
    /// Steps, and what each shows.
    pub steps: &'static [(&'static str, &'static str)],
}

/// Runs the case twice: by the kernel, and by the gateway. What the kernel shows is known; where a loaded machine has lost one of its packets, it is asked once more. In the end
/// both have the same connections.
pub fn run(case: &Case) {
    let wanted: Vec<&str> = case.steps.iter().map(|(_, wanted)| *wanted).collect();
    let shown_by = |is_kernel| {
        let mut lab = Lab::new(case, is_kernel)?;
        let shown = case.steps.iter().map(|(step, _)| lab.step(step)).collect::<Vec<String>>();
        Some((shown, lab))
    };
    let Some((mut kernel, mut kernel_lab)) = shown_by(true) else {
        report_skipped("the gateway beside netfilter: it needs root, network namespaces, iproute2 and nft");
        return;
    };
    if kernel != wanted {
        drop(kernel_lab);
        (kernel, kernel_lab) = shown_by(true).unwrap();
    }
    let kernel_table = kernel_lab.table();
    drop(kernel_lab);
    let (keepstate, lab) = shown_by(false).unwrap();
    for (((step, _), kernel), keepstate) in case.steps.iter().zip(&kernel).zip(&keepstate) {
        println!("{}: {step}\n   kernel    {kernel}\n   keepstate {keepstate}", case.name);
    }
    assert_eq!(kernel, wanted, "{}: the kernel", case.name);
    assert_eq!(keepstate, wanted, "{}: keepstate", case.name);
    lab.wait_for_table(case.name, &kernel_table);
}

pub struct Lab {
    pub netns: RouterNetns,
    pub gateway: Option<Child>,
    pub listeners: HashMap<(String, String), TcpListener>,
    pub datagram_servers: HashMap<(String, String), UdpSocket>,
    /// Clients, and the servers' ends.
    pub streams: Vec<(TcpStream, TcpStream)>,
    /// With the side that they are of.
    pub datagram_clients: Vec<(String, UdpSocket)>,
    /// Connections that are begun.
    pub begun: Vec<TcpStream>,
    /// Statistics as they were last shown.
    pub stats_before: HashMap<String, u64>,
    watcher: Option<EventWatcher>,
    /// Of the gateway.
    pub socket: String,
    /// The last datagram that a watcher was asked to tell.
    marked: u16,
    // Until the gateway has ended.
    ruleset: TempFile,
}

impl Lab {
    pub fn new(case: &Case, is_kernel: bool) -> Option<Lab> {
        let tag = format!("kstw{}{}{}", std::process::id(), case.name, u8::from(is_kernel));
        let netns = RouterNetns::new(&tag, 1)?;
        let ruleset = TempFile::new(&format!("{tag}.nft"), case.rules.as_bytes());
        let (gateway, listeners, datagram_servers) = (None, HashMap::new(), HashMap::new());
        let (streams, datagram_clients) = (Vec::new(), Vec::new());
        let socket = std::env::temp_dir().join(format!("{tag}.sock")).to_string_lossy().into_owned();
        let (watcher, marked) = (None, FIRST_MARK);
        let mut lab = Lab {
            netns,
            gateway,
            listeners,
            datagram_servers,
            streams,
            datagram_clients,
            begun: Vec::new(),
            stats_before: HashMap::new(),
            watcher,
            socket,
            marked,
            ruleset,
        };
        let [d, r] = ["d", "r"].map(|side| lab.netns.name(side));
        assert!(run_ip(&["netns", "add", &d]));
        assert!(run_ip(&["link", "add", "d0", "netns", &d, "type", "veth", "peer", "name", "r2", "netns", &r]));
        for command in [
            "d ip addr add 10.0.3.2/24 dev d0; ip addr add fd00:3::2/64 dev d0 nodad; ip link set d0 up; ip link set lo up
             ip route add default via 10.0.3.1; ip -6 route add default via fd00:3::1",
            "r ip addr add 10.0.3.1/24 dev r2; ip addr add fd00:3::1/64 dev r2 nodad; ip link set r2 up
             echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
             echo 0 > /proc/sys/net/ipv4/icmp_ratelimit; echo 100000 > /proc/sys/net/ipv4/icmp_msgs_per_sec
             echo 0 > /proc/sys/net/ipv6/icmp/ratelimit",
            "s ip route add 10.0.1.0/24 via 10.0.2.1; ip route add 10.0.3.0/24 via 10.0.2.1; ip -6 route add fd00:3::/64 via fd00:2::1
             echo 0 > /proc/sys/net/ipv4/icmp_ratelimit; echo 0 > /proc/sys/net/ipv6/icmp/ratelimit
             echo 100000 > /proc/sys/net/ipv4/icmp_msgs_per_sec",
        ]
        .iter()
        .chain(case.prepare)
        {
            assert!(lab.command(command), "{command}");
        }
        lab.wait_for_addresses();
        if is_kernel {
            let loaded = Command::new("ip")
                .args(["netns", "exec", &lab.netns.name("r"), "nft", "-f", lab.ruleset.path()])
                .output()
                .ok()?;
            assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
        } else {
            let words = ["--ruleset", lab.ruleset.path(), "--interface", "r*", "--control", &lab.socket];
            lab.gateway = Some(lab.netns.start_gateway(&words).0);
        }
        Some(lab)
    }

    /// An address that is not usable yet would lose packets.
    fn wait_for_addresses(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        for side in ["c", "d", "r", "s"] {
            let name = self.netns.name(side);
            let tentative = || {
                let shown = Command::new("ip").args(["-n", &name, "-6", "addr", "show", "tentative"]).output().unwrap();
                !shown.stdout.is_empty()
            };
            while tentative() {
                assert!(Instant::now() < until, "addresses stay tentative");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// The names of the namespaces, as variables of commands: `$c`.
    fn names(&self) -> [(&'static str, String); 4] {
        ["c", "d", "r", "s"].map(|side| (side, self.netns.name(side)))
    }

    pub fn command(&self, command: &str) -> bool {
        let (side, words) = command.split_once(' ').unwrap();
        let name = self.netns.name(side);
        let status = Command::new("ip").args(["netns", "exec", &name, "sh", "-ec", words]).envs(self.names()).status();
        status.is_ok_and(|status| status.success())
    }

    /// One step, and what it shows:
    /// - `tcp SIDE FROM TO SERVER AT`: a connection from this address to that one, while a server listens at AT; it stays.
    /// - `udp SIDE FROM TO SERVER AT`: the same of datagrams.
    /// - `burst SIDE FROM TO SERVER AT`: datagrams of several sockets at the same moment, all with this address and port; how many arrive, and from how many peers.
    /// - `ping SIDE TO`, with more words for ping.
    /// - `error SIDE FROM TO OPTIONS`: the ICMP error that answers a datagram (`ttl=1`, `size=1400`; `open`: whatever checksum it quotes).
    /// - `run SIDE WORDS`: a command, and what it prints.
    /// - `raw SIDE FROM TO SERVER AT PROTOCOL BYTES`: a packet of another protocol with these bytes, and its answer: whom the server sees, and whom the client.
    /// - `big SIDE FROM TO SERVER AT SIZE`: a datagram of so many bytes, and an answer as long.
    /// - `bulk SIDE FROM TO SERVER AT SIZE`: so many bytes each way over one connection.
    /// - `nft COMMAND`, `conntrack OPTIONS`: what nft and conntrack print. `counters FAMILY TABLE`: named counters since the last such step. `elements FAMILY TABLE SET`. `table OPTIONS`: the connections (see [`Lab::table`]); `deleted OPTIONS`: those that `conntrack -D` deletes. `sysctl NAME VALUE`: a variable of connection tracking.
    /// - those of crossings.rs, quotes.rs, ftp.rs, proxies.rs and unanswered.rs.
    /// - `repeat SIDE FROM TO SERVER AT COUNT`: so many datagrams of one socket, one after the other; how many arrive.
    /// - `drop`: closes the sockets of all clients with datagrams.
    /// - `watch`: events are watched from now on; `told`: what was told since then, or since the last such step.
    /// - `again`: each connection carries something again; how many do.
    /// - `close`: ends all connections, servers first.
    pub fn step(&mut self, step: &str) -> String {
        let words: Vec<&str> = step.split(' ').collect();
        match words[..] {
            ["tcp", side, from, to, server, at] => self.tcp(side, from, to, server, at),
            ["udp", side, from, to, server, at] => self.udp(side, from, to, server, at),
            ["burst", side, from, to, server, at] => self.burst(side, from, to, server, at),
            ["raw", side, from, to, server, at, protocol, bytes] => {
                let ends = [from, at].map(|text| text.parse::<IpAddr>().unwrap());
                let to: IpAddr = to.parse().unwrap();
                let protocol: u8 = protocol.parse().unwrap();
                let [client, server] = [(side, ends[0]), (server, ends[1])].map(|(side, address)| {
                    let open = move || bind_raw_socket(address, protocol);
                    spawn_in_netns(&self.netns.name(side), open).join().unwrap()
                });
                exchange_raw(&client, &server, to, &from_hex(bytes))
            }
            ["big", side, from, to, server, at, size] => {
                let key = self.datagram_server(server, at);
                let [from, to]: [SocketAddr; 2] = [from, to].map(|text| text.parse().unwrap());
                let client = spawn_in_netns(&self.netns.name(side), move || bind_udp_socket(from)).join().unwrap();
                exchange_big(&client, to, &self.datagram_servers[&key], size.parse().unwrap())
            }
            ["watch"] => {
                let socket = self.gateway.is_some().then_some(self.socket.as_str());
                self.watcher = Some(EventWatcher::start(&self.netns.name("r"), socket));
                self.told().map_or("nothing is told".to_owned(), |_| "watched".to_owned())
            }
            ["told"] => self.told().map_or("nothing is told".to_owned(), |told| told.join(", ")),
            ["drop"] => {
                for (side, client) in std::mem::take(&mut self.datagram_clients) {
                    let port = client.local_addr().unwrap().port();
                    drop(client);
                    self.wait_until_closed(&side, &format!(":{port:04X}"));
                }
                String::new()
            }
            ["ping", side, ..] => {
                let name = self.netns.name(side);
                let fixed = ["netns", "exec", &name, "ping", "-n", "-c", "1", "-W", "5"];
                let ran = Command::new("ip").args(fixed).args(&words[2..]).output().unwrap();
                let text = String::from_utf8_lossy(&ran.stdout).into_owned();
                let answer = text.lines().find(|line| line.contains("bytes from") || line.contains("From"));
                answer.map_or("nothing".to_owned(), |line| line.split(" time=").next().unwrap_or_default().to_owned())
            }
            ["error", side, from, to, ..] => {
                let options: Vec<String> = words[4..].iter().map(|word| (*word).to_owned()).collect();
                let [from, to]: [SocketAddr; 2] = [from, to].map(|text| text.parse().unwrap());
                let asks = move || send_expecting_error(from, to, &options);
                let heard: Quoted = spawn_in_netns(&self.netns.name(side), asks).join().unwrap();
                heard.to_string()
            }
            ["run", side, ..] => {
                let name = self.netns.name(side);
                let script = words[2..].join(" ");
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &name, "sh", "-c", &script]).envs(self.names());
                let ran = command.output().unwrap();
                String::from_utf8_lossy(&ran.stdout).trim().replace('\n', ", ")
            }
            ["again"] => {
                let goes_on = |(client, served): &&(TcpStream, TcpStream)| exchange(client, served).is_ok();
                format!("{} of {}", self.streams.iter().filter(goes_on).count(), self.streams.len())
            }
            ["close"] => {
                for (mut client, server) in self.streams.drain(..) {
                    drop(server);
                    client.read_to_end(&mut Vec::new()).unwrap();
                }
                String::new()
            }
            ["nft", ..] => self.nft(&words[1..]),
            ["elements", ..] => self.elements(&words[1..]),
            ["repeat", side, from, to, server, at, count] => {
                self.repeat(side, (from, to), (server, at), count.parse().unwrap())
            }
            ["sysctl", name, value] => self.sysctl(name, value),
            ["counters", ..] => self.counters(&words[1..]),
            ["deleted", ..] => self.deleted(&words[1..]),
            ["table", ..] => self.table_of(&words[1..]),
            ["conntrack", ..] => self.conntrack(&words[1..]).1,
            ["who", side, from, to, ..] => self.who(side, (from, to), &words[4..]),
            ["pair", side, from, to, ..] => self.pair(side, (from, to), &words[4..]),
            ["cross", one, from, to, other, other_from, other_to] => {
                self.cross((one, from, to), (other, other_from, other_to))
            }
            ["simultaneous", one, from, other, to] => self.open_at_once((one, from), (other, to)),
            ["quote", ..] => self.quote(&words[1..]),
            ["bulk", side, from, to, server, at, size] => {
                self.bulk(side, from, to, (server, at), size.parse().unwrap())
            }
            ["proxy", ..] => self.proxy(&words[1..]),
            ["list-in-flood", side, from, to, server, at] => self.list_in_flood(side, from, to, (server, at)),
            ["send", side, from, to] => self.send(side, (from, to)),
            ["syn", side, from, to] => self.syn(side, from, to),
            ["begun"] => self.begun(),
            ["stats", ..] => self.stats(&words[1..]),
            ["flush-in-flood", side, from, to, server, at] => self.flush_in_flood(side, from, to, (server, at)),
            ["tftp", side, from, to, server, at] => self.tftp((side, from, to), (server, at)),
            ["ftp-data", side, from, to, server, at, client_says, server_says] => {
                self.ftp_data((side, from, to), (server, at), (client_says, server_says))
            }
            _ => panic!("{step}: no such step"),
        }
    }

    /// A program that another test starts meanwhile has a socket too, from its fork until it is executed.
    /// `end` is a local end as the kernel lists it, or the last part of one.
    pub fn wait_until_closed(&self, side: &str, end: &str) {
        let listed_end = end.to_owned();
        let is_open = move || {
            let listed = |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap();
            let is_there = |name: &&str| {
                listed(name).lines().any(|line| {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    // Of TCP what listens.
                    words.get(1).is_some_and(|at| at.ends_with(&listed_end))
                        && (name.starts_with("udp") || words[3] == "0A")
                })
            };
            ["udp", "udp6", "tcp", "tcp6"].iter().any(is_there)
        };
        let until = Instant::now() + PATIENCE;
        while spawn_in_netns(&self.netns.name(side), is_open.clone()).join().unwrap() {
            assert!(Instant::now() < until, "{end} is not closed");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A connection: the client's end, the server's end, whom the server sees.
    pub fn connect(
        &mut self,
        side: &str,
        from: &str,
        to: &str,
        (server, at): (&str, &str),
    ) -> Result<(TcpStream, TcpStream, SocketAddr), String> {
        let key = (server.to_owned(), at.to_owned());
        if !self.listeners.contains_key(&key) {
            let address: SocketAddr = at.parse().unwrap();
            let listen = move || TcpListener::bind(address).unwrap();
            let listener = spawn_in_netns(&self.netns.name(server), listen).join().unwrap();
            self.listeners.insert(key.clone(), listener);
        }
        let [from, to]: [SocketAddr; 2] = [from, to].map(|text| text.parse().unwrap());
        let opens = move || open_tcp(from, to, PATIENCE);
        let client = spawn_in_netns(&self.netns.name(side), opens).join().unwrap();
        let client = client.map_err(|error| format!("{error:?}"))?;
        let accepted = accept_within(&self.listeners[&key], PATIENCE);
        let (served, seen) = accepted.ok_or_else(|| "somebody else answers".to_owned())?;
        Ok((client, served, seen))
    }

    fn tcp(&mut self, side: &str, from: &str, to: &str, server: &str, at: &str) -> String {
        let (client, served, seen) = match self.connect(side, from, to, (server, at)) {
            Ok(connected) => connected,
            Err(text) => return text,
        };
        if let Err(error) = exchange(&client, &served) {
            return format!("breaks: {:?}", error.kind());
        }
        let shown = show_peer(seen, client.local_addr().unwrap());
        self.streams.push((client, served));
        shown
    }

    /// Events so far: datagrams to ports of their own are sent until one is told.
    fn told(&mut self) -> Option<Vec<String>> {
        let mut all = Vec::new();
        for _ in 0..20 {
            self.marked += 1;
            let to: SocketAddr = ([10, 0, 2, 2], self.marked).into();
            let send = move || bind_udp_socket("10.0.1.2:0".parse().unwrap()).send_to(b"mark", to).map(drop);
            spawn_in_netns(&self.netns.name("c"), send).join().unwrap().unwrap();
            if self.watcher.as_ref()?.told_until(self.marked, &mut all) {
                all.retain(|event: &String| {
                    !event.split(' ').nth(1).is_some_and(|port| port > "9000" && port.len() == 4)
                });
                return Some(all);
            }
        }
        None
    }

    pub fn datagram_server(&mut self, server: &str, at: &str) -> (String, String) {
        let key = (server.to_owned(), at.to_owned());
        if !self.datagram_servers.contains_key(&key) {
            let address: SocketAddr = at.parse().unwrap();
            let bound = spawn_in_netns(&self.netns.name(server), move || bind_udp_socket(address)).join().unwrap();
            self.datagram_servers.insert(key.clone(), bound);
        }
        key
    }

    fn burst(&mut self, side: &str, from: &str, to: &str, server: &str, at: &str) -> String {
        const SENDERS: usize = 4;
        let key = self.datagram_server(server, at);
        let [from, to]: [SocketAddr; 2] = [from, to].map(|text| text.parse().unwrap());
        let barrier = std::sync::Arc::new(std::sync::Barrier::new(SENDERS));
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                let barrier = std::sync::Arc::clone(&barrier);
                spawn_in_netns(&self.netns.name(side), move || {
                    let socket = bind_udp_socket(from);
                    socket.connect(to).unwrap();
                    barrier.wait();
                    socket.send(b"burst").unwrap();
                })
            })
            .collect();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        let server = &self.datagram_servers[&key];
        let mut peers = Vec::new();
        while peers.len() < SENDERS {
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            let Ok((_, peer)) = server.recv_from(&mut [0; 9]) else { break };
            peers.push(peer);
        }
        let arrived = peers.len();
        peers.sort();
        peers.dedup();
        format!("{arrived} of {SENDERS} from {}", peers.len())
    }

    fn udp(&mut self, side: &str, from: &str, to: &str, server: &str, at: &str) -> String {
        let key = self.datagram_server(server, at);
        let [from, to]: [SocketAddr; 2] = [from, to].map(|text| text.parse().unwrap());
        let opens = move || {
            let socket = bind_udp_socket(from);
            socket.connect(to).map(|()| socket)
        };
        let client = match spawn_in_netns(&self.netns.name(side), opens).join().unwrap() {
            Ok(client) => client,
            Err(error) => return format!("{:?}", error.kind()),
        };
        let server = &self.datagram_servers[&key];
        let mut seen = None;
        for round in 0..12_u8 {
            match crate::sockets::exchange_datagrams(&client, server, round, PATIENCE) {
                Ok(peer) if *seen.get_or_insert(peer) != peer => return "seen as two".to_owned(),
                Ok(_) => (),
                Err(text) => return text,
            }
        }
        let shown = show_peer(seen.unwrap(), client.local_addr().unwrap());
        self.datagram_clients.push((side.to_owned(), client));
        shown
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(gateway) = &mut self.gateway {
            let _ = gateway.kill();
            let _ = gateway.wait();
            let _ = self.netns.gateway_command(&["--detach"]).output();
        }
        run_ip(&["netns", "del", &self.netns.name("d")]);
    }
}

/// An address, and whether the port is the client's own.
fn show_peer(seen: SocketAddr, client: SocketAddr) -> String {
    if seen.port() == client.port() { format!("{} same port", seen.ip()) } else { format!("{} other port", seen.ip()) }
}
