//! Packets of one flow at the same moment, and who hears a datagram that two could hear.
//!
//! - `who SIDE FROM TO {SIDE AT}…`: a datagram from one socket; which of the others hears it.
//! - `pair SIDE FROM TO {SERVER AT}…`: sixteen sockets, with the ports from FROM on, each send two questions without waiting for an answer; how many servers hear, and how many answers come.
//! - `cross ONE FROM CALLED OTHER FROM CALLED`: both ends send the first datagram at the same moment; who hears the other.
//! - `simultaneous ONE FROM OTHER FROM`: both ends connect to each other (RFC 9293, 3.5).
//! - `flush-in-flood SIDE FROM TO SERVER AT`: fifty sockets, with the ports from FROM on, ask and are answered while the table is flushed again and again. `list-in-flood`: while it is resized and listed, and one of them is deleted each time.
use crate::peers::spawn_in_netns;
use crate::sockets::{bind_udp_socket, exchange, open_tcp};
use crate::twin::{Lab, PATIENCE};
use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

/// Sockets of a `pair`.
const PAIRS: u16 = 16;
/// Sockets of a flood, and how often the table is flushed meanwhile.
const FLOWS: u16 = 50;
const FLUSHES: usize = 20;
/// How often the table is listed meanwhile, and one of the flows deleted.
const LISTS: u16 = 4;
/// What is not heard by then is lost.
const SILENCE: Duration = Duration::from_secs(1);

impl Lab {
    /// The socket at an address: of a client, best of one that is connected to this peer, or of a server.
    fn datagram_socket(&mut self, side: &str, at: &str, peer: &str) -> UdpSocket {
        let [address, peer]: [SocketAddr; 2] = [at, peer].map(|text| text.parse().unwrap());
        let is_here =
            |(of, socket): &&(String, UdpSocket)| of == side && socket.local_addr().is_ok_and(|own| own == address);
        let clients: Vec<&UdpSocket> = self.datagram_clients.iter().filter(is_here).map(|(_, socket)| socket).collect();
        let connected = clients.iter().find(|socket| socket.peer_addr().is_ok_and(|other| other == peer));
        if let Some(socket) = connected.or(clients.first()) {
            return socket.try_clone().unwrap();
        }
        let key = self.datagram_server(side, at);
        self.datagram_servers[&key].try_clone().unwrap()
    }

    pub fn who(&mut self, side: &str, (from, to): (&str, &str), others: &[&str]) -> String {
        let listeners: Vec<(&str, UdpSocket)> =
            others.chunks(2).map(|other| (other[0], self.datagram_socket(other[0], other[1], from))).collect();
        let sender = self.datagram_socket(side, from, to);
        let to: SocketAddr = to.parse().unwrap();
        let sent = if sender.peer_addr().is_ok() { sender.send(b"who") } else { sender.send_to(b"who", to) };
        if let Err(error) = sent {
            return format!("not sent: {:?}", error.kind());
        }
        let until = Instant::now() + SILENCE;
        let mut heard = "nobody".to_owned();
        while heard == "nobody" && Instant::now() < until {
            for (name, listener) in &listeners {
                listener.set_nonblocking(true).unwrap();
                if let Ok((_, from)) = listener.recv_from(&mut [0; 9]) {
                    heard = format!("{name} from {from}");
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        listeners.iter().for_each(|(_, listener)| listener.set_nonblocking(false).unwrap());
        heard
    }

    pub fn repeat(&mut self, side: &str, (from, to): (&str, &str), (server, at): (&str, &str), count: usize) -> String {
        let key = self.datagram_server(server, at);
        let client = self.datagram_socket(side, from, to);
        let to: SocketAddr = to.parse().unwrap();
        let server = &self.datagram_servers[&key];
        server.set_read_timeout(Some(SILENCE)).unwrap();
        let hears = |_: &usize| client.send_to(b"again", to).is_ok() && server.recv(&mut [0; 9]).is_ok();
        let heard = (0..count).filter(hears).count();
        format!("{heard} of {count}")
    }

    pub fn pair(&mut self, side: &str, (from, to): (&str, &str), servers: &[&str]) -> String {
        let keys: Vec<_> = servers.chunks(2).map(|server| self.datagram_server(server[0], server[1])).collect();
        let [from, to]: [SocketAddr; 2] = [from, to].map(|text| text.parse().unwrap());
        let opens = move || {
            let ports = from.port()..from.port() + PAIRS;
            ports.map(|port| bind_udp_socket((from.ip(), port).into())).collect::<Vec<_>>()
        };
        let clients = spawn_in_netns(&self.netns.name(side), opens).join().unwrap();
        let mut kinds = BTreeSet::new();
        let (mut heard, mut answered) = (0, 0);
        for client in &clients {
            client.connect(to).unwrap();
            client.set_read_timeout(Some(SILENCE)).unwrap();
            client.send(b"A").and_then(|_| client.send(b"AAAA")).unwrap();
            let until = Instant::now() + SILENCE;
            let mut left = 2;
            while left > 0 && Instant::now() < until {
                for key in &keys {
                    let server = &self.datagram_servers[key];
                    server.set_nonblocking(true).unwrap();
                    let mut bytes = [0; 9];
                    while let Ok((length, peer)) = server.recv_from(&mut bytes) {
                        kinds.insert(key.clone());
                        left -= 1;
                        heard += 1;
                        server.send_to(&bytes[..length], peer).unwrap();
                    }
                }
            }
            answered += (0..2).filter(|_| client.recv(&mut [0; 9]).is_ok()).count();
        }
        keys.iter().for_each(|key| self.datagram_servers[key].set_nonblocking(false).unwrap());
        format!("{heard} heard by {}, {answered} answered", kinds.len())
    }

    pub fn cross(&mut self, one: (&str, &str, &str), other: (&str, &str, &str)) -> String {
        let barrier = Arc::new(Barrier::new(2));
        let ends = [one, other].map(|(side, from, to)| {
            let [from, to]: [SocketAddr; 2] = [from, to].map(|text| text.parse().unwrap());
            let barrier = Arc::clone(&barrier);
            let sends = move || {
                let socket = bind_udp_socket(from);
                socket.connect(to).unwrap();
                socket.set_read_timeout(Some(SILENCE)).unwrap();
                barrier.wait();
                socket.send(b"first").unwrap();
                let first = socket.recv(&mut [0; 9]).is_ok();
                barrier.wait();
                // Whatever became of the first ones, the flow goes on.
                socket.send(b"second").unwrap();
                (first, socket.recv(&mut [0; 9]).is_ok())
            };
            (side, spawn_in_netns(&self.netns.name(side), sends))
        });
        ends.map(|(side, end)| format!("{side} {:?}", end.join().unwrap())).join(", ")
    }

    pub fn open_at_once(&mut self, one: (&str, &str), other: (&str, &str)) -> String {
        let ends = [(one, other), (other, one)].map(|((side, from), (_, to))| {
            let [from, to]: [SocketAddr; 2] = [from, to].map(|text| text.parse().unwrap());
            spawn_in_netns(&self.netns.name(side), move || open_tcp(from, to, PATIENCE))
        });
        match ends.map(|end| end.join().unwrap()) {
            [Ok(one), Ok(other)] => {
                let shown =
                    exchange(&one, &other).map_or_else(|error| format!("{:?}", error.kind()), |()| "open".into());
                self.streams.push((one, other));
                shown
            }
            [one, other] => format!("{:?}, {:?}", one.err(), other.err()),
        }
    }

    /// Runs `meanwhile` while sockets ask and are answered; how many questions were lost, and the sockets.
    fn flood(
        &mut self,
        side: &str,
        (from, to): (&str, &str),
        (server, at): (&str, &str),
        meanwhile: impl FnOnce(&Lab),
    ) -> (usize, String) {
        let key = self.datagram_server(server, at);
        let echo = self.datagram_servers[&key].try_clone().unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&done);
        echo.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let answers = std::thread::spawn(move || {
            let mut bytes = [0; 9];
            while !ended.load(Ordering::Relaxed) {
                if let Ok((length, peer)) = echo.recv_from(&mut bytes) {
                    echo.send_to(&bytes[..length], peer).unwrap();
                }
            }
        });
        let [from, to]: [SocketAddr; 2] = [from, to].map(|text| text.parse().unwrap());
        let flushed = Arc::new(AtomicBool::new(false));
        let no_more = Arc::clone(&flushed);
        let (begins, begun) = std::sync::mpsc::channel();
        let asks = move || {
            let ports = from.port()..from.port() + FLOWS;
            let sockets: Vec<_> = ports.map(|port| bind_udp_socket((from.ip(), port).into())).collect();
            let ask = |socket: &UdpSocket| socket.send(b"ask").is_ok() && socket.recv(&mut [0; 9]).is_ok();
            let mut answered = 0;
            for socket in &sockets {
                socket.connect(to).unwrap();
                socket.set_read_timeout(Some(SILENCE)).unwrap();
            }
            let mut asked = 0;
            while !no_more.load(Ordering::Relaxed) {
                answered += sockets.iter().filter(|socket| ask(socket)).count();
                asked += sockets.len();
                let _ = begins.send(());
            }
            (asked - answered, sockets)
        };
        let client = spawn_in_netns(&self.netns.name(side), asks);
        begun.recv().unwrap();
        meanwhile(self);
        flushed.store(true, Ordering::Relaxed);
        let (lost, sockets) = client.join().unwrap();
        // Now no answer is under way that could begin one.
        assert!(self.conntrack(&["-F"]).0);
        let last = sockets.iter().filter(|socket| socket.send(b"ask").is_ok() && socket.recv(&mut [0; 9]).is_ok());
        let again = last.count();
        done.store(true, Ordering::Relaxed);
        answers.join().unwrap();
        (lost, format!("{again} again"))
    }

    pub fn flush_in_flood(&mut self, side: &str, from: &str, to: &str, server: (&str, &str)) -> String {
        let flush = |lab: &Lab| (0..FLUSHES).for_each(|_| assert!(lab.conntrack(&["-F"]).0));
        let (lost, again) = self.flood(side, (from, to), server, flush);
        format!("{lost} lost, {again}")
    }

    pub fn list_in_flood(&mut self, side: &str, from: &str, to: &str, server: (&str, &str)) -> String {
        let first = from.parse::<SocketAddr>().unwrap().port();
        let (mut missing, mut doubled) = (0, 0);
        let list = |lab: &Lab| {
            let mut deleted = None;
            for round in 0..LISTS {
                if lab.gateway.is_some() {
                    // The kernel's index is one of all namespaces.
                    lab.sysctl("nf_conntrack_buckets", if round % 2 == 0 { "16384" } else { "64" });
                }
                let (_, text) = lab.conntrack(&["-L", "-p", "udp"]);
                for port in (first..first + FLOWS).filter(|port| deleted != Some(*port)) {
                    let this = format!("sport={port}");
                    let seen = text
                        .lines()
                        .filter(|line| line.split(' ').find(|word| word.starts_with("sport=")) == Some(&this));
                    match seen.count() {
                        0 => missing += 1,
                        count => doubled += count - 1,
                    }
                }
                deleted = Some(first + round);
                let port = (first + round).to_string();
                assert!(lab.conntrack(&["-D", "-p", "udp", "--orig-port-src", &port]).0);
            }
        };
        let (lost, again) = self.flood(side, (from, to), server, list);
        format!("{lost} lost, {missing} missing, {doubled} doubled, {again}")
    }
}

#[test]
fn packets_of_one_flow_at_the_same_moment() {
    crate::twin::run(&crate::twin::Case {
        name: "xf",
        rules: "
table inet n {
	counter invalid {}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state invalid counter name invalid drop
		ct state established,related accept
		iifname { r0, r1 } ct state new accept
	}
}
",
        prepare: &[
            // Both ends have sent their first segment when they get the other's.
            "c nft add table inet q; nft add chain inet q i '{ type filter hook input priority 0; }'
             for family in ipv4 ipv6; do nft add rule inet q i meta nfproto $family tcp dport 5100 tcp flags '& (syn|ack) == syn' quota until 100 bytes drop; done",
            "s nft add table inet q; nft add chain inet q i '{ type filter hook input priority 0; }'
             for family in ipv4 ipv6; do nft add rule inet q i meta nfproto $family tcp dport 5100 tcp flags '& (syn|ack) == syn' quota until 100 bytes drop; done",
        ],
        steps: &[
            ("cross c 10.0.1.2:5000 10.0.2.2:5000 s 10.0.2.2:5000 10.0.1.2:5000", "c (true, true), s (true, true)"),
            ("cross c [fd00:1::2]:5000 [fd00:2::2]:5000 s [fd00:2::2]:5000 [fd00:1::2]:5000", "c (true, true), s (true, true)"),
            ("cross c 10.0.1.2:5001 10.0.1.1:5001 r 10.0.1.1:5001 10.0.1.2:5001", "c (true, true), r (true, true)"),
            ("simultaneous c 10.0.1.2:5100 s 10.0.2.2:5100", "open"),
            ("simultaneous c [fd00:1::2]:5100 s [fd00:2::2]:5100", "open"),
            ("nft list counter inet n invalid", "table inet n { counter invalid { packets 0 bytes 0 } }"),
            ("flush-in-flood c 10.0.1.2:6000 10.0.2.2:7000 s 10.0.2.2:7000", "0 lost, 50 again"),
            ("flush-in-flood c [fd00:1::2]:6000 [fd00:2::2]:7000 s [fd00:2::2]:7000", "0 lost, 50 again"),
        ],
    });
}

/// A resolver's question for both families, from one socket, while a rule gives each new flow another server.
#[test]
fn questions_to_servers_in_turn() {
    crate::twin::run(&crate::twin::Case {
        name: "xd",
        rules: "
table inet n {
	chain pre {
		type nat hook prerouting priority dstnat;
		ip daddr 10.0.1.1 udp dport 53 dnat ip to numgen inc mod 2 map { 0 : 10.0.2.2, 1 : 10.0.3.2 }
		ip daddr 10.0.1.1 udp dport 55 dnat ip to jhash ip saddr . udp sport mod 2 seed 0xbeef map { 0 : 10.0.2.2, 1 : 10.0.3.2 }
		ip6 daddr fd00:1::1 udp dport 53 dnat ip6 to numgen inc mod 2 map { 0 : fd00:2::2, 1 : fd00:3::2 }
	}
	chain out {
		type nat hook output priority -100;
		ip daddr 198.51.100.1 udp dport 53 dnat ip to numgen inc mod 2 map { 0 : 10.0.2.2, 1 : 10.0.3.2 }
		ip6 daddr 2001:db8::1 udp dport 53 dnat ip6 to numgen inc mod 2 map { 0 : fd00:2::2, 1 : fd00:3::2 }
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname { r1, r2 } masquerade
	}
}
",
        prepare: &["r ip route add 198.51.100.0/24 via 10.0.2.2; ip -6 route add 2001:db8::/64 via fd00:2::2"],
        steps: &[
            ("pair c 10.0.1.2:4100 10.0.1.1:53 s 10.0.2.2:53 d 10.0.3.2:53", "32 heard by 2, 32 answered"),
            ("pair c [fd00:1::2]:4100 [fd00:1::1]:53 s [fd00:2::2]:53 d [fd00:3::2]:53", "32 heard by 2, 32 answered"),
            ("pair c 10.0.1.2:4300 10.0.1.1:55 s 10.0.2.2:55 d 10.0.3.2:55", "32 heard by 2, 32 answered"),
            ("pair r 0.0.0.0:4100 198.51.100.1:53 s 10.0.2.2:53 d 10.0.3.2:53", "32 heard by 2, 32 answered"),
            ("pair r [::]:4100 [2001:db8::1]:53 s [fd00:2::2]:53 d [fd00:3::2]:53", "32 heard by 2, 32 answered"),
        ],
    });
}

/// As before, by chance: the table is not compared.
#[test]
fn questions_to_servers_at_random() {
    crate::twin::run(&crate::twin::Case {
        name: "xr",
        rules: "
table ip n {
	chain pre {
		type nat hook prerouting priority dstnat;
		ip daddr 10.0.1.1 udp dport 54 dnat to numgen random mod 2 map { 0 : 10.0.2.2, 1 : 10.0.3.2 }
	}
}
",
        prepare: &[],
        steps: &[
            ("pair c 10.0.1.2:4200 10.0.1.1:54 s 10.0.2.2:54 d 10.0.3.2:54", "32 heard by 2, 32 answered"),
            ("conntrack -F", ""),
        ],
    });
}

/// Connections whose entries were removed in the middle go on, and are in the table again.
#[test]
fn connections_go_on_over_a_flush() {
    crate::twin::run(&crate::twin::Case {
        name: "xl",
        rules: "
table inet n {
	chain pre {
		type nat hook prerouting priority dstnat;
		iifname r1 tcp dport 81 dnat ip to 10.0.1.2:8081
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
	chain forward {
		type filter hook forward priority filter;
		ct state invalid drop
	}
}
",
        prepare: &[],
        steps: &[
            ("tcp c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("tcp c [fd00:1::2]:4001 [fd00:2::2]:7000 s [fd00:2::2]:7000", "fd00:2::1 same port"),
            ("tcp d 10.0.3.2:4001 10.0.1.2:7001 c 10.0.1.2:7001", "10.0.3.2 same port"),
            ("tcp r 10.0.2.1:4002 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("tcp c 10.0.1.2:4003 10.0.1.1:2222 r 10.0.1.1:2222", "10.0.1.2 same port"),
            ("tcp s 10.0.2.2:4004 10.0.2.1:81 c 10.0.1.2:8081", "10.0.2.2 same port"),
            ("again", "6 of 6"),
            ("conntrack -F", ""),
            ("again", "6 of 6"),
            ("again", "6 of 6"),
        ],
    });
}

/// Dumps are whole while the table is resized and connections come and go, and what was deleted is there again.
#[test]
fn a_table_is_listed_while_it_changes() {
    crate::twin::run(&crate::twin::Case {
        name: "xt",
        rules: "
table inet n {
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
}
",
        prepare: &[],
        steps: &[
            ("list-in-flood c 10.0.1.2:6000 10.0.2.2:7000 s 10.0.2.2:7000", "0 lost, 0 missing, 0 doubled, 50 again"),
            ("list-in-flood r 10.0.2.1:6200 10.0.2.2:7000 s 10.0.2.2:7000", "0 lost, 0 missing, 0 doubled, 50 again"),
            ("conntrack -F", ""),
        ],
    });
}

/// Each selection deletes the same connections, and those that were deleted in the middle go on.
#[test]
fn connections_are_deleted_by_what_they_are() {
    crate::twin::run(&crate::twin::Case {
        name: "xe",
        rules: "
table inet n {
	chain pre {
		type nat hook prerouting priority dstnat;
		iifname r1 tcp dport 81 dnat ip to 10.0.1.2:8081
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
}
",
        prepare: &[],
        steps: &[
            ("tcp c 10.0.1.2:4001 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("tcp d 10.0.3.2:4006 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            ("tcp r 10.0.2.1:4002 10.0.2.2:7001 s 10.0.2.2:7001", "10.0.2.1 same port"),
            ("tcp s 10.0.2.2:4003 10.0.2.1:81 c 10.0.1.2:8081", "10.0.2.2 same port"),
            ("tcp d 10.0.3.2:4004 10.0.1.2:7004 c 10.0.1.2:7004", "10.0.3.2 same port"),
            ("udp c 10.0.1.2:4005 10.0.2.2:7000 s 10.0.2.2:7000", "10.0.2.1 same port"),
            (
                "deleted -p tcp --dport 7001",
                "tcp ESTABLISHED src=10.0.2.1 dst=10.0.2.2 sport=4002 dport=7001 src=10.0.2.2 dst=10.0.2.1 sport=7001 dport=4002 mark=0 assured",
            ),
            (
                "deleted -p tcp --src-nat",
                "tcp ESTABLISHED src=10.0.1.2 dst=10.0.2.2 sport=4001 dport=7000 src=10.0.2.2 dst=10.0.2.1 sport=7000 dport=4001 mark=0 assured; \
                 tcp ESTABLISHED src=10.0.3.2 dst=10.0.2.2 sport=4006 dport=7000 src=10.0.2.2 dst=10.0.2.1 sport=7000 dport=4006 mark=0 assured",
            ),
            (
                "deleted -p tcp --dst-nat",
                "tcp ESTABLISHED src=10.0.2.2 dst=10.0.2.1 sport=4003 dport=81 src=10.0.1.2 dst=10.0.2.2 sport=8081 dport=4003 mark=0 assured",
            ),
            (
                "deleted -p udp --reply-port-dst 4005",
                "udp src=10.0.1.2 dst=10.0.2.2 sport=4005 dport=7000 src=10.0.2.2 dst=10.0.2.1 sport=7000 dport=4005 mark=0",
            ),
            ("deleted -p udp --orig-port-dst 7000", ""),
            (
                "deleted -s 10.0.3.2 -d 10.0.1.2",
                "tcp ESTABLISHED src=10.0.3.2 dst=10.0.1.2 sport=4004 dport=7004 src=10.0.1.2 dst=10.0.3.2 sport=7004 dport=4004 mark=0 assured",
            ),
            ("again", "5 of 5"),
            ("again", "5 of 5"),
            // Nothing is taken up in the middle any more, so nothing is translated: those without a translation go on.
            ("sysctl nf_conntrack_tcp_loose 0", ""),
            ("conntrack -F", ""),
            ("again", "2 of 5"),
        ],
    });
}
