//! A hundred clients with one address and one port, each behind an interface of its own, reach a server by one outside address: told apart by zones, and led back by marks.
use crate::common::report_skipped;
use crate::peers::spawn_in_netns;
use crate::sockets::{accept_within, bind_udp_socket};
use crate::twin::{Case, Lab, PATIENCE};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

const CLIENTS: usize = 100;
const SERVER: &str = "10.0.2.2:7000";
const CLIENT: &str = "10.0.1.2:4001";

/// A socket of the client behind interface `vN` of d, as if it were a host of its own.
fn open_client(number: usize, kind: SocketType) -> std::os::fd::OwnedFd {
    let socket = rustix::net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None).unwrap();
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    let socket = UdpSocket::from(socket);
    crate::sockets::bind_to_device(&socket, &format!("v{number}"));
    rustix::net::bind(&socket, &CLIENT.parse::<SocketAddr>().unwrap()).unwrap();
    rustix::net::connect(&socket, &SERVER.parse::<SocketAddr>().unwrap()).unwrap();
    socket.into()
}

/// How many clients get their own answers, and as how many the server sees them.
fn talk(lab: &mut Lab) -> Vec<String> {
    let [d, s] = ["d", "s"].map(|side| lab.netns.name(side));
    let (server, listener) = spawn_in_netns(&s, || {
        let server = bind_udp_socket(SERVER.parse().unwrap());
        (server, TcpListener::bind(SERVER).unwrap())
    })
    .join()
    .unwrap();
    let datagrams = spawn_in_netns(&d, || {
        (0..CLIENTS).map(|number| UdpSocket::from(open_client(number, SocketType::DGRAM))).collect::<Vec<_>>()
    });
    let datagrams = datagrams.join().unwrap();
    let mut shown = Vec::new();
    for round in 0..3 {
        let (mut answered, mut seen) = (0, BTreeSet::new());
        for (number, client) in datagrams.iter().enumerate() {
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            client.send(&[number as u8]).unwrap();
            let mut bytes = [0; 9];
            let Ok((length, peer)) = server.recv_from(&mut bytes) else { continue };
            seen.insert(peer);
            server.send_to(&bytes[..length], peer).unwrap();
            answered += usize::from(client.recv(&mut bytes).is_ok() && usize::from(bytes[0]) == number);
        }
        shown.push(format!("datagrams {round}: {answered} answered, {} seen", seen.len()));
    }
    let streams = spawn_in_netns(&d, || {
        (0..CLIENTS).map(|number| TcpStream::from(open_client(number, SocketType::STREAM))).collect::<Vec<_>>()
    });
    let streams = streams.join().unwrap();
    let mut served: Vec<(TcpStream, SocketAddr)> =
        (0..CLIENTS).map_while(|_| accept_within(&listener, PATIENCE)).collect();
    let seen = served.iter().map(|(_, peer)| *peer).collect::<BTreeSet<_>>().len();
    for (number, mut stream) in streams.iter().enumerate() {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&[number as u8]).unwrap();
    }
    for (stream, _) in &mut served {
        let mut byte = [0];
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_exact(&mut byte).unwrap();
        stream.write_all(&byte).unwrap();
    }
    let own = |(number, mut stream): (usize, &TcpStream)| {
        let mut byte = [0];
        stream.read_exact(&mut byte).is_ok() && usize::from(byte[0]) == number
    };
    let answered = streams.iter().enumerate().filter(|client| own(*client)).count();
    shown.push(format!("streams: {answered} answered, {seen} seen"));
    shown.push(lab.conntrack(&["-C"]).1);
    lab.streams.extend(streams.into_iter().zip(served.into_iter().map(|(stream, _)| stream)));
    shown
}

#[test]
fn a_hundred_clients_with_one_tuple() {
    let (mut zones, mut d, mut r) = (String::new(), String::new(), String::new());
    for number in 0..CLIENTS {
        let zone = number + 1;
        write!(zones, "rv{number} : {zone}, ").unwrap();
        write!(
            d,
            "link add v{number} type veth peer name rv{number} netns $r\naddr add 10.0.1.2/24 dev v{number}\n\
             link set v{number} up\nroute add default via 10.0.1.1 dev v{number} metric {zone}\n"
        )
        .unwrap();
        write!(
            r,
            "link set rv{number} up\naddr add 10.0.1.1/32 dev rv{number}\nroute add 10.0.1.0/24 dev rv{number} table {}\n\
             rule add fwmark {zone} lookup {}\n",
            1000 + zone,
            1000 + zone
        )
        .unwrap();
    }
    let rules = format!(
        "
table inet z {{
	chain raw {{
		type filter hook prerouting priority raw;
		ct original zone set iifname map {{ {zones} }}
	}}
	chain pre {{
		type filter hook prerouting priority mangle;
		ct direction original ct mark set iifname map {{ {zones} }}
		iifname r1 meta mark set ct mark
	}}
	chain post {{
		type nat hook postrouting priority srcnat;
		oifname r1 snat ip to 10.0.2.1
	}}
}}
"
    );
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let [d, r] = [("d", d), ("r", r)].map(|(side, script)| leak(format!("{side} ip -batch - <<END\n{script}END\n")));
    let prepare: &'static [&'static str] =
        Box::leak(Box::new(["d ip link del d0", "r ip addr del 10.0.1.1/24 dev r0", d, r]));
    let case = Case { name: "mz", rules: leak(rules), prepare, steps: &[] };
    let Some(mut lab) = Lab::new(&case, true) else {
        report_skipped("a hundred clients with one tuple: it needs root, network namespaces, iproute2 and nft");
        return;
    };
    let (kernel, kernel_table) = (talk(&mut lab), lab.table());
    drop(lab);
    let mut lab = Lab::new(&case, false).unwrap();
    let keepstate = talk(&mut lab);
    println!("kernel    {kernel:?}\nkeepstate {keepstate:?}");
    let all = format!("{CLIENTS} answered, {CLIENTS} seen");
    assert!(kernel[..4].iter().all(|line| line.ends_with(&all)), "{kernel:?}");
    assert_eq!(keepstate, kernel);
    lab.wait_for_table(case.name, &kernel_table);
}
