//! Connections that others announce or bring about, translated and expected.
//!
//! - `tftp SIDE FROM TO SERVER AT` asks a TFTP server, which answers from another port.
//! - `ftp-data SIDE FROM TO SERVER AT CLIENT-SAYS SERVER-SAYS` opens a control connection of FTP, lets one of its ends say one line (`-`: none; `_` is a space), and connects whom the other end has been told to
//!   connect to.
use crate::peers::spawn_in_netns;
use crate::sockets::{accept_within, bind_udp_socket};
use crate::twin::{Case, Lab, PATIENCE, run};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// What is not heard by then was dropped.
const SILENCE: Duration = Duration::from_secs(2);

/// What a line announces: `h,h,h,h,p,p` or `|1|address|port|`; without an address that of the speaker as its peer sees it.
fn announced(line: &str, speaker: IpAddr) -> SocketAddr {
    if let Some(text) = line.split('|').nth(3).filter(|port| !port.is_empty()) {
        let address = line.split('|').nth(2).unwrap();
        let address = if address.is_empty() { speaker } else { address.parse().unwrap() };
        return (address, text.parse().unwrap()).into();
    }
    let start = line.find(|letter: char| letter.is_ascii_digit()).unwrap();
    let start = if line.starts_with("227") { line.find('(').unwrap() + 1 } else { start };
    let numbers: Vec<u8> =
        line[start..].split(|letter: char| !letter.is_ascii_digit()).map_while(|number| number.parse().ok()).collect();
    let port = u16::from(numbers[4]) << 8 | u16::from(numbers[5]);
    ([numbers[0], numbers[1], numbers[2], numbers[3]], port).into()
}

impl Lab {
    /// A TFTP request, its answer from another port, and the answer to that.
    pub fn tftp(&mut self, (side, from, to): (&str, &str, &str), (server, at): (&str, &str)) -> String {
        let key = self.datagram_server(server, at);
        let [from, to, at]: [SocketAddr; 3] = [from, to, at].map(|text| text.parse().unwrap());
        let client = spawn_in_netns(&self.netns.name(side), move || bind_udp_socket(from)).join().unwrap();
        let open = move || bind_udp_socket((at.ip(), 0).into());
        let answers = spawn_in_netns(&self.netns.name(server), open).join().unwrap();
        let asked = &self.datagram_servers[&key];
        for socket in [&client, &answers, asked] {
            socket.set_read_timeout(Some(SILENCE)).unwrap();
        }
        client.send_to(b"\0\x01file\0octet\0", to).unwrap();
        let mut bytes = [0; 99];
        let Ok((_, peer)) = asked.recv_from(&mut bytes) else { return "not heard".to_owned() };
        if let Err(error) = answers.send_to(b"\0\x03\0\x01data", peer) {
            return format!("not answered: {:?}", error.kind());
        }
        let Ok((_, answers_from)) = client.recv_from(&mut bytes) else { return format!("{}, no data", peer.ip()) };
        client.send_to(b"\0\x04\0\x01", answers_from).unwrap();
        let is_heard = answers.recv_from(&mut bytes).is_ok_and(|(_, from)| from == peer);
        format!("{}, data from {}, acknowledged {is_heard}", peer.ip(), answers_from.ip())
    }

    pub fn ftp_data(
        &mut self,
        (side, from, to): (&str, &str, &str),
        (server, at): (&str, &str),
        (client_says, server_says): (&str, &str),
    ) -> String {
        let (client, served, seen) = match self.connect(side, from, to, (server, at)) {
            Ok(connected) => connected,
            Err(text) => return text,
        };
        let client_sees = client.peer_addr().unwrap().ip();
        let (mut speaks, hears, says, speaker, listens, connects) = match client_says {
            "-" => (&served, &client, server_says, client_sees, (server, at), side),
            _ => (&client, &served, client_says, seen.ip(), (side, from), server),
        };
        let says = says.replace('_', " ");
        let own = listens.1.parse::<SocketAddr>().unwrap().ip();
        let port = announced(&says, own).port();
        let listen = move || TcpListener::bind((own, port)).unwrap();
        let listener = spawn_in_netns(&self.netns.name(listens.0), listen).join().unwrap();
        speaks.write_all(format!("{says}\r\n").as_bytes()).unwrap();
        hears.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut heard = String::new();
        if BufReader::new(hears).read_line(&mut heard).is_err() {
            return "not heard".to_owned();
        }
        let heard = heard.trim().to_owned();
        let called = announced(&heard, speaker);
        let calls = move || TcpStream::connect_timeout(&called, PATIENCE);
        let shown = match spawn_in_netns(&self.netns.name(connects), calls).join().unwrap() {
            Ok(data) => match accept_within(&listener, PATIENCE) {
                Some((other, from)) => {
                    self.streams.push((data, other));
                    format!("data from {}", from.ip())
                }
                None => "data elsewhere".to_owned(),
            },
            Err(error) => format!("no data: {:?}", error.kind()),
        };
        // The control connection goes on, with other sequence numbers.
        let after = crate::sockets::exchange(&client, &served);
        let after = after.map_or_else(|error| format!("breaks: {:?}", error.kind()), |()| "goes on".to_owned());
        self.streams.push((client, served));
        format!("{heard}, {shown}, {after}")
    }
}

const RULES: &str = "
table inet h {
	ct helper ftp { type \"ftp\" protocol tcp; }
	ct helper tftp { type \"tftp\" protocol udp; }
	chain pre {
		type filter hook prerouting priority filter;
		tcp dport { 21, 2121 } ct helper set \"ftp\"
		udp dport 69 ct helper set \"tftp\"
	}
	chain out {
		type filter hook output priority filter;
		tcp dport 21 ct helper set \"ftp\"
		udp dport 69 ct helper set \"tftp\"
	}
	chain nat {
		type nat hook prerouting priority dstnat;
		iifname r0 ip daddr 203.0.113.1 dnat ip to 10.0.2.2
		iifname r0 ip6 daddr 2001:db8:1::1 dnat ip6 to fd00:2::2
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname r1 masquerade
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		tcp dport { 21, 2121, 2122 } accept
		udp dport { 69, 70 } accept
	}
	chain in {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		tcp dport 21 accept
		udp dport 69 accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
	}
}
";

#[test]
fn data_connections_are_expected() {
    run(&Case {
        name: "hf",
        rules: RULES,
        prepare: &["r ip route add 203.0.113.0/24 via 10.0.2.2; ip -6 route add 2001:db8:1::/64 via fd00:2::2"],
        steps: &[
            (
                "ftp-data c 10.0.1.2:4001 10.0.2.2:21 s 10.0.2.2:21 PORT_10,0,1,2,20,1 -",
                "PORT 10,0,1,2,20,1, no data: TimedOut, goes on",
            ),
            (
                "ftp-data c 10.0.1.2:4002 10.0.2.2:21 s 10.0.2.2:21 - 227_Entering_(10,0,2,2,20,2)",
                "227 Entering (10,0,2,2,20,2), no data: TimedOut, goes on",
            ),
            (
                "ftp-data c 10.0.1.2:4003 203.0.113.1:21 s 10.0.2.2:21 - 227_Entering_(10,0,2,2,20,3)",
                "227 Entering (10,0,2,2,20,3), no data: TimedOut, goes on",
            ),
            (
                "ftp-data c 10.0.1.2:4004 203.0.113.1:21 s 10.0.2.2:21 PORT_10,0,1,2,20,4 -",
                "PORT 10,0,1,2,20,4, no data: TimedOut, goes on",
            ),
            (
                "ftp-data c 10.0.1.2:4005 10.0.2.2:2121 s 10.0.2.2:2121 EPRT_|1|10.0.1.2|5125| -",
                "EPRT |1|10.0.1.2|5125|, no data: TimedOut, goes on",
            ),
            (
                "ftp-data c 10.0.1.2:4006 10.0.2.2:2121 s 10.0.2.2:2121 - 229_Entering_(|||5126|)",
                "229 Entering (|||5126|), no data: TimedOut, goes on",
            ),
            (
                "ftp-data c 10.0.1.2:4007 10.0.2.2:2122 s 10.0.2.2:2122 - 229_Entering_(|||5127|)",
                "229 Entering (|||5127|), no data: TimedOut, goes on",
            ),
            (
                "ftp-data c [fd00:1::2]:4001 [fd00:2::2]:21 s [fd00:2::2]:21 EPRT_|2|fd00:1::2|5128| -",
                "EPRT |2|fd00:1::2|5128|, no data: TimedOut, goes on",
            ),
            (
                "ftp-data c [fd00:1::2]:4002 [fd00:2::2]:21 s [fd00:2::2]:21 - 229_Entering_(|||5129|)",
                "229 Entering (|||5129|), no data: TimedOut, goes on",
            ),
            (
                "ftp-data c [fd00:1::2]:4003 [2001:db8:1::1]:21 s [fd00:2::2]:21 - 229_Entering_(|||5130|)",
                "229 Entering (|||5130|), no data: TimedOut, goes on",
            ),
            // With the router itself as client and as server.
            (
                "ftp-data r 10.0.2.1:4004 10.0.2.2:21 s 10.0.2.2:21 PORT_10,0,2,1,20,11 -",
                "PORT 10,0,2,1,20,11, no data: TimedOut, goes on",
            ),
            (
                "ftp-data c 10.0.1.2:4008 10.0.1.1:21 r 10.0.1.1:21 - 227_Entering_(10,0,1,1,20,12)",
                "227 Entering (10,0,1,1,20,12), no data: TimedOut, goes on",
            ),
            (
                "ftp-data c [fd00:1::2]:4004 [fd00:1::1]:21 r [fd00:1::1]:21 - 229_Entering_(|||5133|)",
                "229 Entering (|||5133|), no data: TimedOut, goes on",
            ),
        ],
    });
}

#[test]
fn answers_of_tftp_are_expected() {
    run(&Case {
        name: "ht",
        rules: RULES,
        prepare: &["r ip route add 203.0.113.0/24 via 10.0.2.2; ip -6 route add 2001:db8:1::/64 via fd00:2::2"],
        steps: &[
            ("tftp c 10.0.1.2:4001 10.0.2.2:69 s 10.0.2.2:69", "10.0.2.1, data from 10.0.2.2, acknowledged true"),
            ("tftp c 10.0.1.2:4001 10.0.2.2:69 s 10.0.2.2:69", "10.0.2.1, data from 10.0.2.2, acknowledged true"),
            ("tftp c 10.0.1.2:4002 203.0.113.1:69 s 10.0.2.2:69", "10.0.2.1, data from 203.0.113.1, acknowledged true"),
            ("tftp c 10.0.1.2:4003 10.0.2.2:70 s 10.0.2.2:70", "10.0.2.1, no data"),
            (
                "tftp c [fd00:1::2]:4001 [fd00:2::2]:69 s [fd00:2::2]:69",
                "fd00:2::1, data from fd00:2::2, acknowledged true",
            ),
            (
                "tftp c [fd00:1::2]:4002 [2001:db8:1::1]:69 s [fd00:2::2]:69",
                "fd00:2::1, data from 2001:db8:1::1, acknowledged true",
            ),
            ("tftp r 10.0.2.1:4004 10.0.2.2:69 s 10.0.2.2:69", "10.0.2.1, data from 10.0.2.2, acknowledged true"),
            ("tftp c 10.0.1.2:4005 10.0.1.1:69 r 10.0.1.1:69", "10.0.1.2, data from 10.0.1.1, acknowledged true"),
        ],
    });
}
