//! FTP through NAT on both: Linux with its own FTP helper, and our router; the same dialogues into both. What comes out must be equal octet by octet: the announcements
//! written anew, sequence numbers, acknowledgements and SACK blocks behind them, and where the data connections go.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

#[path = "../same_ruleset/kernel.rs"]
mod kernel;
mod peers;

use keepstate_engine::{Engine, Instant, Knobs, Secret, Tuple};
use keepstate_router::{Interface, Map, Out, Route, Router};
use keepstate_rules::{NoLibrary, compile, parse_with};
use kernel::Kernel;
use peers::{ACK, FIN, PSH, Peer, SYN, Seen, seen};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

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

/// From, by which device; to.
const DIALOGUES: [(&str, usize, &str); 7] = [
    ("10.1.0.2:40000", 0, "198.51.100.9:21"),
    ("10.1.0.177:40001", 0, "198.51.100.9:21"),
    ("10.1.0.3:40002", 0, "203.0.113.254:21"),
    ("198.51.100.7:40003", 1, "192.0.2.1:2121"),
    ("[fd00:1::2]:40004", 0, "[2001:db8:f::9]:21"),
    ("[fd00:1::abcd]:40005", 0, "[2001:db8:f::9]:21"),
    ("[2001:db8::7]:40006", 1, "[2001:db8::1]:2121"),
];

/// What came out: by which device, and the datagram.
type Left = Vec<(usize, Vec<u8>)>;

/// Linux and we.
struct Both {
    kernel: Kernel,
    router: Router,
    /// What was asked of them so far.
    story: Vec<String>,
    /// Data connections so far: each has a port of its own, as what a clash is settled with is drawn by lot.
    opened: u16,
}

fn now() -> Instant {
    Instant(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64)
}

impl Both {
    fn new() -> Option<Both> {
        let kernel = Kernel::new(RULES)?;
        let (tree, sources) =
            parse_with("ftp.nft", RULES, &NoLibrary, &[]).unwrap_or_else(|refused| panic!("{refused}"));
        let program = compile(&tree, &sources).unwrap_or_else(|refused| panic!("{refused}"));
        let interface = |index, name: &str, addresses: &[(&str, u8)]| Interface {
            index,
            name: name.to_owned(),
            mtu: 1500,
            group: 0,
            addresses: addresses.iter().map(|(address, length)| (address.parse().unwrap(), *length)).collect(),
        };
        let lan = interface(1, "lan0", &[("10.1.0.1", 24), ("fd00:1::1", 64)]);
        let wan = interface(2, "wan0", &[("192.0.2.1", 24), ("2001:db8::1", 64)]);
        let default = |prefix: &str| Route { prefix: prefix.parse().unwrap(), length: 0, device: 2, gateway: None };
        let map = Map::new(vec![lan, wan], vec![default("0.0.0.0"), default("::")]);
        let engine = Engine::new(Knobs::default(), Secret([9; 16]), now());
        Some(Both { kernel, router: Router::new(engine, program, map, (1, 2)), story: Vec::new(), opened: 0 })
    }

    /// Sends a datagram through both; what came out, which is the same.
    fn send(&mut self, device: usize, bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
        let (said, mut ours, mut theirs) = self.ask(device, bytes);
        self.story.push(format!("{} {:?} → {} out", ["lan0", "wan0"][device], seen(bytes), theirs.len()));
        if ours != theirs {
            let shown = |out: &[(usize, Vec<u8>)]| -> String {
                out.iter().map(|(device, bytes)| format!("\n  {device} {:?} {bytes:02x?}", seen(bytes))).collect()
            };
            let story = self.story[self.story.len().saturating_sub(40)..].join("\n");
            panic!("{story}\nLinux:{}\nours ({said}):{}", shown(&theirs), shown(&ours));
        }
        ours.clear();
        assert!(theirs.len() < 2);
        theirs.pop()
    }

    fn ask(&mut self, device: usize, bytes: &[u8]) -> (String, Left, Left) {
        let mut out = Vec::new();
        let said = self.router.handle(bytes, device as u32 + 1, now(), &mut out);
        let leaves = |out: Out| match out {
            Out::Device(index, _, bytes) => Some((index as usize - 1, bytes)),
            Out::Host(_) => None,
        };
        let ours: Left = out.into_iter().filter_map(leaves).collect();
        let theirs = self.kernel.handle(bytes, device, ours.len());
        (format!("{said:?}"), ours, theirs)
    }

    /// The tuples of both tables.
    fn tables(&mut self) -> [Vec<String>; 2] {
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

    /// What both expect: source, destination and port.
    fn expected(&mut self) -> [Vec<String>; 2] {
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
struct Control {
    client: Peer,
    server: Peer,
    number: u16,
    /// What each end said last, to be said again.
    last: [Vec<(u32, Vec<u8>)>; 2],
}

impl Control {
    fn open(both: &mut Both, number: usize, dice: &mut Dice) -> Control {
        let (from, device, to) = DIALOGUES[number];
        let (own, other) = (from.parse().unwrap(), to.parse().unwrap());
        // Close to the wrap, often.
        let first = |dice: &mut Dice| dice.of(&[1000, u32::MAX - 60, u32::MAX - 700, 1 << 31]);
        let mut client = Peer { device, own, other, next: first(dice), heard: 0 };
        let (device, syn) = both.send(device, &client.segment(client.next, SYN, b"", &[])).unwrap();
        client.next = client.next.wrapping_add(1);
        let syn = seen(&syn);
        let mut server =
            Peer { device, own: syn.destination, other: syn.source, next: first(dice), heard: syn.seq.wrapping_add(1) };
        let (_, answer) = both.send(device, &server.segment(server.next, SYN | ACK, b"", &[])).unwrap();
        server.next = server.next.wrapping_add(1);
        assert!(client.hear(&seen(&answer)));
        both.send(client.device, &client.segment(client.next, ACK, b"", &[])).unwrap();
        let mut control = Control { client, server, number: number as u16, last: [Vec::new(), Vec::new()] };
        control.say(both, false, b"220 ready\r\n");
        control.say(both, true, b"USER me\r\n");
        control
    }

    fn ends(&mut self, client: bool) -> (&mut Peer, &mut Peer) {
        if client { (&mut self.client, &mut self.server) } else { (&mut self.server, &mut self.client) }
    }

    /// What came out at the other end.
    fn say(&mut self, both: &mut Both, client: bool, text: &[u8]) -> Option<Vec<u8>> {
        let (speaker, hearer) = self.ends(client);
        let seq = speaker.next;
        // Dropped: it is to be said again, or something else.
        let (device, bytes) = both.send(speaker.device, &speaker.segment(seq, ACK | PSH, text, &[]))?;
        assert_eq!(device, hearer.device);
        assert!(hearer.hear(&seen(&bytes)), "{:?} to {hearer:?}", seen(&bytes));
        speaker.next = seq.wrapping_add(text.len() as u32);
        let last = &mut self.last[usize::from(client)];
        last.insert(0, (seq, text.to_vec()));
        last.truncate(3);
        Some(seen(&bytes).data.to_vec())
    }

    /// Says something again.
    fn again(&mut self, both: &mut Both, client: bool, dice: &mut Dice) {
        let last = &self.last[usize::from(client)];
        if last.is_empty() {
            return;
        }
        let (seq, text) = last[dice.roll(last.len())].clone();
        let (speaker, hearer) = self.ends(client);
        if let Some((_, bytes)) = both.send(speaker.device, &speaker.segment(seq, ACK | PSH, &text, &[])) {
            hearer.hear(&seen(&bytes));
        }
    }

    /// Acknowledges, perhaps selectively, perhaps not the newest.
    fn acknowledge(&mut self, both: &mut Both, client: bool, dice: &mut Dice) {
        let (speaker, _) = self.ends(client);
        let mut speaker = speaker.clone();
        let newest = speaker.heard;
        speaker.heard = newest.wrapping_sub(dice.of(&[0, 0, 1, 20, 60]));
        let block = |dice: &mut Dice| {
            let right = newest.wrapping_sub(dice.roll(60) as u32);
            (right.wrapping_sub(10), right)
        };
        let sacks: Vec<(u32, u32)> = (0..dice.of(&[0, 1, 2, 3])).map(|_| block(dice)).collect();
        both.send(speaker.device, &speaker.segment(speaker.next, ACK, b"", &sacks));
    }

    /// Something that one end may say.
    fn line(&self, client: bool, dice: &mut Dice) -> Vec<u8> {
        let speaker = if client { &self.client } else { &self.server };
        // Nobody announces another's port: what is chosen then is drawn by lot.
        let port = dice.of(&[200_u16, 1024, 2000, 9992, 20_000, 60_000]) + self.number + 8 * dice.roll(4) as u16;
        let address = speaker.own.ip();
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
        let line = &all[dice.roll(all.len())];
        // Over IPv6 there is neither PORT nor 227.
        if speaker.own.is_ipv6() && (line.starts_with("PORT") || line.starts_with("227")) {
            return b"NOOP\r\n".to_vec();
        }
        line.clone().into_bytes()
    }

    /// The data connection that `text`, heard by one end, announces: opened by that end.
    fn data(&mut self, both: &mut Both, by_client: bool, text: &[u8]) -> bool {
        let (opener, _) = self.ends(by_client);
        let Some(to) = announced(text, opener.other.ip()) else { return false };
        both.opened += 1;
        let own = SocketAddr::new(opener.own.ip(), 3000 + both.opened);
        let mut opener = Peer { device: opener.device, own, other: to, next: 7, heard: 0 };
        let Some((device, syn)) = both.send(opener.device, &opener.segment(7, SYN, b"", &[])) else { return false };
        let syn = seen(&syn);
        let opened = Peer { device, own: syn.destination, other: syn.source, next: 77, heard: 8 };
        let (_, answer) = both.send(device, &opened.segment(77, SYN | ACK, b"", &[])).unwrap();
        assert!(opener.hear(&seen(&answer)));
        both.send(opener.device, &opener.segment(8, ACK, b"data", &[]));
        both.send(opener.device, &opener.segment(12, FIN | ACK, b"", &[]));
        true
    }
}

/// The end that an announcement names.
fn announced(text: &[u8], from: IpAddr) -> Option<SocketAddr> {
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

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ word >> 31) % below as u64) as usize
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.roll(list.len())]
    }
}

fn skipped() {
    let _ = writeln!(std::io::stderr(), "\n######## SKIPPED: FTP on both: it needs root and network namespaces");
}

#[test]
fn linux_and_we_write_the_same_announcements_and_shift_the_same_numbers() {
    let Some(mut both) = Both::new() else { return skipped() };
    let seed = std::env::var("KEEPSTATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let steps = std::env::var("KEEPSTATE_PACKETS").ok().and_then(|number| number.parse().ok()).unwrap_or(4000);
    let mut dice = Dice(seed);
    let mut controls: Vec<Control> =
        (0..DIALOGUES.len()).map(|number| Control::open(&mut both, number, &mut dice)).collect();
    let mut opened = 0;
    for _ in 0..steps {
        let which = dice.roll(controls.len());
        let control = &mut controls[which];
        let client = dice.roll(2) == 0;
        match dice.roll(8) {
            0..=3 => {
                let line = control.line(client, &mut dice);
                let came = control.say(&mut both, client, &line);
                if let (Some(came), true) = (came, dice.roll(3) > 0) {
                    opened += usize::from(control.data(&mut both, !client, &came));
                }
            }
            4..=5 => control.acknowledge(&mut both, client, &mut dice),
            6 => control.again(&mut both, client, &mut dice),
            _ => {
                control.acknowledge(&mut both, !client, &mut dice);
                control.acknowledge(&mut both, client, &mut dice);
            }
        }
    }
    let [theirs, ours] = both.expected();
    assert_eq!(theirs, ours);
    let [theirs, ours] = both.tables();
    assert_eq!(theirs, ours);
    assert!(opened > steps / 20, "only {opened} data connections");
    both.router.engine().check().unwrap();
}

#[test]
fn a_port_that_somebody_else_expects_is_exchanged_for_a_higher_one() {
    let Some(mut both) = Both::new() else { return skipped() };
    let mut dice = Dice(7);
    let mut controls = [0, 1].map(|number| Control::open(&mut both, number, &mut dice));
    controls[0].say(&mut both, true, b"PORT 10,1,0,2,250,0\r\n").unwrap();
    let client = &controls[1].client;
    let port = client.segment(client.next, ACK | PSH, b"PORT 10,1,0,177,250,0\r\n", &[]);
    let (_, ours, theirs) = both.ask(client.device, &port);
    let ports = [&ours, &theirs].map(|out| {
        let Seen { data, .. } = seen(&out[0].1);
        announced(data, client.own.ip()).unwrap().port()
    });
    assert!(ports.iter().all(|port| *port > 64_000), "{ports:?}");
    // Both lead to the client's own.
    for (which, port) in ports.into_iter().enumerate() {
        let opener = Peer {
            device: 1,
            own: SocketAddr::new(controls[1].server.own.ip(), 20),
            other: SocketAddr::new([192, 0, 2, 1].into(), port),
            next: 1,
            heard: 0,
        };
        let (_, ours, theirs) = both.ask(1, &opener.segment(1, SYN, b"", &[]));
        let out = [ours, theirs];
        assert_eq!(seen(&out[which][0].1).destination, "10.1.0.177:64000".parse().unwrap());
        assert!(ports[0] == ports[1] || out[1 - which].is_empty());
    }
}
