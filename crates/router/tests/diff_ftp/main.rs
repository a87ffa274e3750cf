//! Compares FTP through NAT on Linux, with its own FTP helper, and on our router, with the same conversations. The packets that leave must be equal byte by byte: rewritten
//! announcements, sequence numbers, acknowledgements and SACK blocks after them, and the destinations of the data connections.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

#[path = "../diff_nft/kernel.rs"]
mod kernel;
mod tcp_peer;

use keepstate_engine::{Engine, Instant, Secret, Sysctls, Tuple};
use keepstate_router::{Egress, FibTable, Interface, LINK_TYPE_NONE, Route, Router};
use keepstate_rules::{NoIncludes, compile, parse_with};
use keepstate_test_support::SplitMix64;
use kernel::Kernel;
use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};
use tcp_peer::{ACK, FIN, PSH, ParsedSegment, SYN, TcpPeer, parse_segment};

const RULES: &str = r#"
table inet helped {
	ct helper ftp-standard {
		type "ftp" protocol tcp;
	}
	chain pre {
		type filter hook prerouting priority filter;
		tcp dport 21 ct helper set "ftp-standard"
	}
	chain input {
		type filter hook input priority filter; policy drop;
	}
}
table ip nat {
	chain pre {
		type nat hook prerouting priority dstnat;
		iifname "wan0" tcp dport 2121 dnat to 10.1.0.9:21
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname "wan0" masquerade
	}
}
table ip6 nat {
	chain pre {
		type nat hook prerouting priority dstnat;
		iifname "wan0" tcp dport 2121 dnat to [fd00:1::9]:21
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname "wan0" masquerade
	}
}
"#;

/// Client, the interface it is behind, and server.
const CONTROL_CONNECTIONS: [(&str, usize, &str); 7] = [
    ("10.1.0.2:40000", 0, "198.51.100.9:21"),
    ("10.1.0.177:40001", 0, "198.51.100.9:21"),
    ("10.1.0.3:40002", 0, "203.0.113.254:21"),
    ("198.51.100.7:40003", 1, "192.0.2.1:2121"),
    ("[fd00:1::2]:40004", 0, "[2001:db8:f::9]:21"),
    ("[fd00:1::abcd]:40005", 0, "[2001:db8:f::9]:21"),
    ("[2001:db8::7]:40006", 1, "[2001:db8::1]:2121"),
];

/// The packets that leave, each with its interface.
type Output = Vec<(usize, Vec<u8>)>;

/// Linux and our router.
struct LinuxAndRouter {
    kernel: Kernel,
    router: Router,
    /// The packets sent so far.
    history: Vec<String>,
    /// Number of data connections so far: each has its own port, since the port that resolves a clash is random.
    data_connections: u16,
}

fn now() -> Instant {
    Instant(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64)
}

impl LinuxAndRouter {
    fn new() -> Option<LinuxAndRouter> {
        let kernel = Kernel::new(RULES)?;
        let (tree, sources) =
            parse_with("ftp.nft", RULES, &NoIncludes, &[]).unwrap_or_else(|refused| panic!("{refused}"));
        let program = compile(&tree, &sources).unwrap_or_else(|refused| panic!("{refused}"));
        let interface = |index, name: &str, addresses: &[(&str, u8)]| Interface {
            index,
            name: name.to_owned(),
            mtu: 1500,
            group: 0,
            link_type: LINK_TYPE_NONE,
            kind: String::new(),
            addresses: addresses.iter().map(|(address, length)| (address.parse().unwrap(), *length)).collect(),
        };
        let lan = interface(1, "lan0", &[("10.1.0.1", 24), ("fd00:1::1", 64)]);
        let wan = interface(2, "wan0", &[("192.0.2.1", 24), ("2001:db8::1", 64)]);
        let default = |prefix: &str| Route::new(prefix.parse().unwrap(), 0, 2);
        let map = FibTable::new(vec![lan, wan], vec![default("0.0.0.0"), default("::")]);
        let engine = Engine::new(Sysctls::default(), Secret([9; 16]));
        Some(LinuxAndRouter {
            kernel,
            router: Router::new(engine, program, map, (1, 2)),
            history: Vec::new(),
            data_connections: 0,
        })
    }

    /// Sends a packet through both, checks that the output is equal, and returns it.
    fn send(&mut self, device: usize, bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
        let (result, mut ours, mut theirs) = self.send_both(device, bytes);
        self.history.push(format!("{} {:?} → {} out", ["lan0", "wan0"][device], parse_segment(bytes), theirs.len()));
        if ours != theirs {
            let shown = |out: &[(usize, Vec<u8>)]| -> String {
                out.iter()
                    .map(|(device, bytes)| format!("\n  {device} {:?} {bytes:02x?}", parse_segment(bytes)))
                    .collect()
            };
            let history = self.history[self.history.len().saturating_sub(40)..].join("\n");
            panic!("{history}\nLinux:{}\nours ({result}):{}", shown(&theirs), shown(&ours));
        }
        ours.clear();
        assert!(theirs.len() < 2);
        theirs.pop()
    }

    fn send_both(&mut self, device: usize, bytes: &[u8]) -> (String, Output, Output) {
        let result = self.router.handle(bytes, device as u32 + 1, now());
        let leaves = |out: Egress| match out {
            Egress::Forward { oif, packet, .. } => Some((oif as usize - 1, packet)),
            Egress::LocalDeliver(_) | Egress::LetOut(_) | Egress::ToProxy { .. } | Egress::Loop { .. } => None,
        };
        let ours: Output = std::iter::from_fn(|| self.router.poll_output()).filter_map(leaves).collect();
        let theirs = self.kernel.handle(bytes, device, ours.len());
        (format!("{result:?}"), ours, theirs)
    }

    /// The tuples of both tables.
    fn conntrack_tables(&mut self) -> [Vec<String>; 2] {
        let tuple = |tuple: &Tuple| {
            let (source, destination) = (tuple.source_key, tuple.destination_key);
            format!("src={} dst={} sport={source} dport={destination}", tuple.source, tuple.destination)
        };
        let entries = self.router.engine().entries(now());
        let mut ours: Vec<String> =
            entries.map(|entry| format!("6 {} {}", tuple(&entry.original), tuple(&entry.reply))).collect();
        ours.sort();
        [self.kernel.table(), ours]
    }

    /// The expectations of both: source, destination and port.
    fn expectations(&mut self) -> [Vec<String>; 2] {
        let text = std::fs::read_to_string("/proc/thread-self/net/nf_conntrack_expect").unwrap();
        let line = |line: &str| {
            let word = |name: &str| {
                let found = line.split_whitespace().find_map(|word| word.strip_prefix(name).map(str::to_owned));
                found.unwrap_or_else(|| panic!("{name} in {line}"))
            };
            let address = |name: &str| word(name).parse::<IpAddr>().unwrap();
            format!("{} {} {}", address("src="), address("dst="), word("dport="))
        };
        let mut theirs: Vec<String> = text.lines().map(line).collect();
        let shown = self.router.engine().expectations(now());
        let mut ours: Vec<String> = shown
            .map(|one| format!("{} {} {}", one.tuple.source, one.tuple.destination, one.tuple.destination_key))
            .collect();
        theirs.sort();
        ours.sort();
        [theirs, ours]
    }
}

/// A control connection.
struct FtpControl {
    client: TcpPeer,
    server: TcpPeer,
    number: u16,
    /// The last lines of each end, for retransmission.
    last_sent: [Vec<(u32, Vec<u8>)>; 2],
}

impl FtpControl {
    fn open(both: &mut LinuxAndRouter, number: usize, dice: &mut SplitMix64) -> FtpControl {
        let (from, device, to) = CONTROL_CONNECTIONS[number];
        let (own, other) = (from.parse().unwrap(), to.parse().unwrap());
        // Often close to the sequence number wrap.
        let first = |dice: &mut SplitMix64| dice.pick(&[1000, u32::MAX - 60, u32::MAX - 700, 1 << 31]);
        let mut client = TcpPeer { device, own, other, next_seq: first(dice), rcv_next: 0 };
        let (device, syn) = both.send(device, &client.segment(client.next_seq, SYN, b"", &[])).unwrap();
        client.next_seq = client.next_seq.wrapping_add(1);
        let syn = parse_segment(&syn);
        let mut server = TcpPeer {
            device,
            own: syn.destination,
            other: syn.source,
            next_seq: first(dice),
            rcv_next: syn.seq.wrapping_add(1),
        };
        let (_, answer) = both.send(device, &server.segment(server.next_seq, SYN | ACK, b"", &[])).unwrap();
        server.next_seq = server.next_seq.wrapping_add(1);
        assert!(client.receive(&parse_segment(&answer)));
        both.send(client.device, &client.segment(client.next_seq, ACK, b"", &[])).unwrap();
        let mut control = FtpControl { client, server, number: number as u16, last_sent: [Vec::new(), Vec::new()] };
        control.send_line(both, false, b"220 ready\r\n");
        control.send_line(both, true, b"USER me\r\n");
        control
    }

    fn sender_receiver(&mut self, client: bool) -> (&mut TcpPeer, &mut TcpPeer) {
        if client { (&mut self.client, &mut self.server) } else { (&mut self.server, &mut self.client) }
    }

    /// Sends a line, and returns its data as received at the other end.
    fn send_line(&mut self, both: &mut LinuxAndRouter, client: bool, text: &[u8]) -> Option<Vec<u8>> {
        let (sender, receiver) = self.sender_receiver(client);
        let seq = sender.next_seq;
        // `None` if it was dropped: a retransmission or another line follows.
        let (device, bytes) = both.send(sender.device, &sender.segment(seq, ACK | PSH, text, &[]))?;
        assert_eq!(device, receiver.device);
        assert!(receiver.receive(&parse_segment(&bytes)), "{:?} to {receiver:?}", parse_segment(&bytes));
        sender.next_seq = seq.wrapping_add(text.len() as u32);
        let last = &mut self.last_sent[usize::from(client)];
        last.insert(0, (seq, text.to_vec()));
        last.truncate(3);
        Some(parse_segment(&bytes).data.to_vec())
    }

    /// Retransmits one of the last lines.
    fn retransmit(&mut self, both: &mut LinuxAndRouter, client: bool, dice: &mut SplitMix64) {
        let last = &self.last_sent[usize::from(client)];
        if last.is_empty() {
            return;
        }
        let (seq, text) = last[dice.below(last.len())].clone();
        let (sender, receiver) = self.sender_receiver(client);
        if let Some((_, bytes)) = both.send(sender.device, &sender.segment(seq, ACK | PSH, &text, &[])) {
            receiver.receive(&parse_segment(&bytes));
        }
    }

    /// Sends an ACK, possibly with SACK blocks, possibly an old one.
    fn acknowledge(&mut self, both: &mut LinuxAndRouter, client: bool, dice: &mut SplitMix64) {
        let (sender, _) = self.sender_receiver(client);
        let mut sender = sender.clone();
        let newest = sender.rcv_next;
        sender.rcv_next = newest.wrapping_sub(dice.pick(&[0, 0, 1, 20, 60]));
        let block = |dice: &mut SplitMix64| {
            let right = newest.wrapping_sub(dice.below(60) as u32);
            (right.wrapping_sub(10), right)
        };
        let sacks: Vec<(u32, u32)> = (0..dice.pick(&[0, 1, 2, 3])).map(|_| block(dice)).collect();
        both.send(sender.device, &sender.segment(sender.next_seq, ACK, b"", &sacks));
    }

    /// A random line that one end may send.
    fn random_line(&self, client: bool, dice: &mut SplitMix64) -> Vec<u8> {
        let sender = if client { &self.client } else { &self.server };
        // Ports differ by connection: a clash would be resolved with a random port.
        let port = dice.pick(&[200_u16, 1024, 2000, 9992, 20_000, 60_000]) + self.number + 8 * dice.below(4) as u16;
        let address = sender.own.ip();
        let [high, low] = port.to_be_bytes();
        let commas = address.to_string().replace('.', ",");
        let family = if address.is_ipv4() { 1 } else { 2 };
        let all = if client {
            [
                format!("PORT {commas},{high},{low}\r\n"),
                format!("PORT {commas},{high},{low}\r\nNOOP\r\n"),
                format!("EPRT |{family}|{address}|{port}|\r\n"),
                format!("eprt !{family}!{address}!{port}!\r\n"),
                "NOOP\r\n".to_owned(),
                "PASV\r\n".to_owned(),
                format!("PORT {commas},{high}"),
                "RETR without an end".to_owned(),
                "PORT 10,1,0,99,4,7\r\n".to_owned(),
            ]
        } else {
            [
                format!("227 Entering Passive Mode ({commas},{high},{low}).\r\n"),
                format!("227 {commas},{high:03},{low:03} \r\n226 more\r\n"),
                format!("229 Entering Extended Passive Mode (|||{port}|)\r\n"),
                format!("229 (!!!{port}!)\r\n"),
                "200 fine\r\n".to_owned(),
                "150 opening\r\n".to_owned(),
                format!("227 ({commas},"),
                "without an end".to_owned(),
                "227 (10,1,0,99,4,7)\r\n".to_owned(),
            ]
        };
        let line = &all[dice.below(all.len())];
        // PORT and 227 do not exist for IPv6.
        if sender.own.is_ipv6() && (line.starts_with("PORT") || line.starts_with("227")) {
            return b"NOOP\r\n".to_vec();
        }
        line.clone().into_bytes()
    }

    /// Opens the data connection announced by `text` from the end that received it.
    fn open_data_connection(&mut self, both: &mut LinuxAndRouter, by_client: bool, text: &[u8]) -> bool {
        let (opener, _) = self.sender_receiver(by_client);
        let Some(to) = parse_announcement(text, opener.other.ip()) else { return false };
        both.data_connections += 1;
        let own = SocketAddr::new(opener.own.ip(), 3000 + both.data_connections);
        let mut opener = TcpPeer { device: opener.device, own, other: to, next_seq: 7, rcv_next: 0 };
        let Some((device, syn)) = both.send(opener.device, &opener.segment(7, SYN, b"", &[])) else { return false };
        let syn = parse_segment(&syn);
        let opened = TcpPeer { device, own: syn.destination, other: syn.source, next_seq: 77, rcv_next: 8 };
        let (_, answer) = both.send(device, &opened.segment(77, SYN | ACK, b"", &[])).unwrap();
        assert!(opener.receive(&parse_segment(&answer)));
        both.send(opener.device, &opener.segment(8, ACK, b"data", &[]));
        both.send(opener.device, &opener.segment(12, FIN | ACK, b"", &[]));
        true
    }
}

/// The address and port of an announcement.
fn parse_announcement(text: &[u8], from: IpAddr) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let numbers = |text: &str| -> Vec<u8> {
        let text = text.trim_start_matches(|letter: char| !letter.is_ascii_digit());
        text.split([',', ')', ' ', '\r']).map_while(|number| number.parse().ok()).collect()
    };
    let upper = text.to_ascii_uppercase();
    if upper.starts_with("PORT") || upper.starts_with("227") {
        let numbers = numbers(&text[4..]);
        let [a, b, c, d, high, low] = *numbers.first_chunk::<6>()?;
        return Some(SocketAddr::new([a, b, c, d].into(), u16::from_be_bytes([high, low])));
    }
    let parts = |at: usize| -> Option<Vec<&str>> {
        let delimiter = text[at..].chars().next()?;
        Some(text[at..].split(delimiter).collect())
    };
    if upper.starts_with("EPRT") {
        let parts = parts(5)?;
        return Some(SocketAddr::new(parts.get(2)?.parse().ok()?, parts.get(3)?.parse().ok()?));
    }
    let parts = parts(text.find('(').filter(|_| upper.starts_with("229"))? + 1)?;
    Some(SocketAddr::new(from, parts.get(3)?.parse().ok()?))
}

fn skipped() {
    keepstate_test_support::report_skipped("FTP beside Linux needs root and network namespaces");
}

#[test]
fn ftp_nat_rewrites_and_seqadj_match_linux() {
    let Some(mut both) = LinuxAndRouter::new() else { return skipped() };
    let seed = std::env::var("KEEPSTATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let steps = std::env::var("KEEPSTATE_PACKETS").ok().and_then(|number| number.parse().ok()).unwrap_or(4000);
    let mut dice = SplitMix64(seed);
    let mut controls: Vec<FtpControl> =
        (0..CONTROL_CONNECTIONS.len()).map(|number| FtpControl::open(&mut both, number, &mut dice)).collect();
    let mut opened = 0;
    for _ in 0..steps {
        let which = dice.below(controls.len());
        let control = &mut controls[which];
        let client = dice.below(2) == 0;
        match dice.below(8) {
            0..=3 => {
                let line = control.random_line(client, &mut dice);
                let came = control.send_line(&mut both, client, &line);
                if let (Some(came), true) = (came, dice.below(3) > 0) {
                    opened += usize::from(control.open_data_connection(&mut both, !client, &came));
                }
            }
            4..=5 => control.acknowledge(&mut both, client, &mut dice),
            6 => control.retransmit(&mut both, client, &mut dice),
            _ => {
                control.acknowledge(&mut both, !client, &mut dice);
                control.acknowledge(&mut both, client, &mut dice);
            }
        }
    }
    let [theirs, ours] = both.expectations();
    assert_eq!(theirs, ours);
    let [theirs, ours] = both.conntrack_tables();
    assert_eq!(theirs, ours);
    assert!(opened > steps / 20, "only {opened} data connections");
    both.router.engine().check_invariants().unwrap();
}

#[test]
fn ftp_expectation_port_clash_is_resolved_like_linux() {
    let Some(mut both) = LinuxAndRouter::new() else { return skipped() };
    let mut dice = SplitMix64(7);
    let mut controls = [0, 1].map(|number| FtpControl::open(&mut both, number, &mut dice));
    controls[0].send_line(&mut both, true, b"PORT 10,1,0,2,250,0\r\n").unwrap();
    let client = &controls[1].client;
    let port = client.segment(client.next_seq, ACK | PSH, b"PORT 10,1,0,177,250,0\r\n", &[]);
    let (_, ours, theirs) = both.send_both(client.device, &port);
    let ports = [&ours, &theirs].map(|out| {
        let ParsedSegment { data, .. } = parse_segment(&out[0].1);
        parse_announcement(data, client.own.ip()).unwrap().port()
    });
    assert!(ports.iter().all(|port| *port > 64_000), "{ports:?}");
    // Both ports lead to the client's own port.
    for (which, port) in ports.into_iter().enumerate() {
        let opener = TcpPeer {
            device: 1,
            own: SocketAddr::new(controls[1].server.own.ip(), 20),
            other: SocketAddr::new([192, 0, 2, 1].into(), port),
            next_seq: 1,
            rcv_next: 0,
        };
        let (_, ours, theirs) = both.send_both(1, &opener.segment(1, SYN, b"", &[]));
        let out = [ours, theirs];
        assert_eq!(parse_segment(&out[which][0].1).destination, "10.1.0.177:64000".parse().unwrap());
        assert!(ports[0] == ports[1] || out[1 - which].is_empty());
    }
}
