//! Clients and servers with fixed addresses and ports, and the ICMP errors that they hear.
use crate::peers::enable_icmp_errors;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

fn open(address: SocketAddr, kind: SocketType) -> OwnedFd {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap()
}

/// Connects from this address, as soon as its last connection has ended.
pub fn open_tcp(from: SocketAddr, to: SocketAddr, patience: Duration) -> Result<TcpStream, ErrorKind> {
    let until = Instant::now() + patience;
    loop {
        match open_tcp_now(from, to, patience) {
            Err(ErrorKind::AddrNotAvailable) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

fn open_tcp_now(from: SocketAddr, to: SocketAddr, patience: Duration) -> Result<TcpStream, ErrorKind> {
    let socket = open(from, SocketType::STREAM);
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    let bound = rustix::net::bind(&socket, &from);
    bound.map_err(|error| io::Error::from(error).kind())?;
    sockopt::set_socket_timeout(&socket, Timeout::Send, Some(patience)).unwrap();
    let mut connected = rustix::net::connect(&socket, &to);
    while connected == Err(rustix::io::Errno::INTR) {
        connected = rustix::net::connect(&socket, &to);
    }
    match connected {
        Ok(()) | Err(rustix::io::Errno::ISCONN) => Ok(TcpStream::from(socket)),
        // That is how a connect with a timeout ends.
        Err(rustix::io::Errno::INPROGRESS | rustix::io::Errno::AGAIN) => Err(ErrorKind::TimedOut),
        Err(error) => Err(io::Error::from(error).kind()),
    }
}

/// Begins to connect, and does not wait.
pub fn begin_tcp(from: SocketAddr, to: SocketAddr) -> Result<TcpStream, ErrorKind> {
    let socket = open(from, SocketType::STREAM);
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    rustix::net::bind(&socket, &from).map_err(|error| io::Error::from(error).kind())?;
    let socket = TcpStream::from(socket);
    socket.set_nonblocking(true).unwrap();
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(io::Error::from(error).kind()),
    }
}

pub fn accept_within(listener: &TcpListener, patience: Duration) -> Option<(TcpStream, SocketAddr)> {
    listener.set_nonblocking(true).unwrap();
    let until = Instant::now() + patience;
    loop {
        match listener.accept() {
            Ok((stream, from)) => {
                stream.set_nonblocking(false).unwrap();
                return Some((stream, from));
            }
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            Err(_) => return None,
        }
    }
}

/// Questions and answers, short and long.
pub fn exchange(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    for stream in [client, server] {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
    }
    for round in 0..24_u8 {
        let length = if round == 20 { 40_000 } else { 200 };
        for (mut from, mut to) in [(client, server), (server, client)] {
            from.write_all(&vec![round; length])?;
            let mut bytes = vec![0; length];
            to.read_exact(&mut bytes)?;
            assert!(bytes.iter().all(|byte| *byte == round), "other bytes");
        }
    }
    Ok(())
}

pub fn bind_udp_socket(at: SocketAddr) -> UdpSocket {
    let socket = open(at, SocketType::DGRAM);
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    rustix::net::bind(&socket, &at).unwrap();
    UdpSocket::from(socket)
}

/// A datagram and its answer. Whom the server has seen.
pub fn exchange_datagrams(
    client: &UdpSocket,
    server: &UdpSocket,
    round: u8,
    patience: Duration,
) -> Result<SocketAddr, String> {
    client.set_read_timeout(Some(patience)).unwrap();
    server.set_read_timeout(Some(patience)).unwrap();
    let mut bytes = [0; 300];
    client.send(&[round; 200]).map_err(|error| format!("not sent: {:?}", error.kind()))?;
    let from = loop {
        match server.recv_from(&mut bytes) {
            Ok((200, from)) if bytes[0] == round => break from,
            Ok(_) => (),
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(_) => return Err("not heard".to_owned()),
        }
    };
    server.send_to(&[round; 100], from).map_err(|error| format!("not answered: {:?}", error.kind()))?;
    match client.recv(&mut bytes) {
        Ok(100) if bytes[0] == round => Ok(from),
        Ok(_) => Err("another answer".to_owned()),
        Err(error) => Err(format!("no answer: {:?}", error.kind())),
    }
}

/// A socket for packets of a protocol that come to this address.
pub fn bind_raw_socket(at: IpAddr, protocol: u8) -> OwnedFd {
    let protocol = rustix::net::Protocol::from_raw(std::num::NonZeroU32::new(protocol.into()).unwrap());
    let family = if at.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol)).unwrap();
    rustix::net::bind(&socket, &SocketAddr::new(at, 0)).unwrap();
    sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(2))).unwrap();
    socket
}

pub fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// A packet of the protocol that has these bytes, and an answer with the same bytes.
pub fn exchange_raw(client: &OwnedFd, server: &OwnedFd, to: IpAddr, bytes: &[u8]) -> String {
    let hear = |socket: &OwnedFd| {
        let mut heard = vec![0; 2000];
        let (length, _, from) =
            rustix::net::recvfrom(socket, heard.as_mut_slice(), rustix::net::RecvFlags::empty()).ok()?;
        let from = SocketAddr::try_from(from?).unwrap().ip();
        // A raw socket of IPv4 gets the header too.
        let at = if from.is_ipv4() { 20 } else { 0 };
        Some((from, heard[at..length].to_vec()))
    };
    let send = |socket: &OwnedFd, to: IpAddr| {
        rustix::net::sendto(socket, bytes, rustix::net::SendFlags::empty(), &SocketAddr::new(to, 0)).unwrap();
    };
    send(client, to);
    let Some((seen, heard)) = hear(server) else { return "not heard".to_owned() };
    let as_hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let changed = if heard == bytes { String::new() } else { format!(" {}", as_hex(&heard)) };
    send(server, seen);
    match hear(client) {
        Some((from, heard)) => {
            let back = if heard == bytes { "" } else { " other bytes" };
            format!("{seen}{changed}, answer from {from}{back}")
        }
        None => format!("{seen}{changed}, no answer"),
    }
}

/// A long datagram, and an answer as long.
pub fn exchange_big(client: &UdpSocket, to: SocketAddr, server: &UdpSocket, size: usize) -> String {
    for socket in [client, server] {
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    }
    let sent: Vec<u8> = (0..size).map(|at| at as u8).collect();
    let mut heard = vec![0; 70_000];
    if let Err(error) = client.send_to(&sent, to) {
        return format!("not sent: {:?}", error.kind());
    }
    let Ok((length, seen)) = server.recv_from(&mut heard) else { return "not heard".to_owned() };
    let there = heard[..length] == sent;
    server.send_to(&sent, seen).unwrap();
    let Ok((length, from)) = client.recv_from(&mut heard) else { return format!("{seen} whole {there}, no answer") };
    format!("{} whole {there}, answer from {from} whole {}", seen.ip(), heard[..length] == sent)
}

/// What a datagram socket hears, and the ICMP packet.
pub struct Quoted {
    socket: ErrorKind,
    icmp: Option<Vec<u8>>,
    /// Is the quoted checksum of no interest?
    is_open: bool,
}

/// Sends a datagram, and waits for the error.
pub fn send_expecting_error(from: SocketAddr, to: SocketAddr, options: &[String]) -> Quoted {
    let icmp_protocol = if from.is_ipv6() { rustix::net::ipproto::ICMPV6 } else { rustix::net::ipproto::ICMP };
    let family = if from.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let raw = rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(icmp_protocol)).unwrap();
    sockopt::set_socket_timeout(&raw, Timeout::Recv, Some(Duration::from_secs(1))).unwrap();
    let socket = bind_udp_socket(from);
    let (mut size, mut is_open) = (40, false);
    for option in options {
        match option.split_once('=') {
            Some(("ttl", hops)) if from.is_ipv6() => {
                sockopt::set_ipv6_unicast_hops(&socket, Some(hops.parse().unwrap())).unwrap();
            }
            Some(("ttl", hops)) => socket.set_ttl(hops.parse().unwrap()).unwrap(),
            Some(("size", bytes)) => size = bytes.parse().unwrap(),
            _ if option == "open" => is_open = true,
            _ => panic!("{option}: no such option"),
        }
    }
    enable_icmp_errors(&socket);
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(crate::twin::PATIENCE)).unwrap();
    let sent = socket.send(&vec![0x41; size]);
    let heard = sent.and_then(|_| socket.recv(&mut [0; 9])).map(|_| ErrorKind::Other);
    let heard = heard.unwrap_or_else(|error| error.kind());
    let mut bytes = vec![0; 70_000];
    // Neighbour discovery is heard as well.
    let icmp = (0..20).find_map(|_| {
        let (length, _) = rustix::net::recv(&raw, bytes.as_mut_slice(), rustix::net::RecvFlags::empty()).ok()?;
        let packet = bytes[..length].to_vec();
        (from.is_ipv4() || packet[0] < 128).then_some(packet)
    });
    Quoted { socket: heard, icmp: icmp.filter(|_| heard != ErrorKind::WouldBlock), is_open }
}

pub fn sum(bytes: &[u8]) -> u16 {
    let mut total: u32 = 0;
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.socket)?;
        self.icmp.iter().try_for_each(|bytes| show_error(f, bytes, self.is_open))
    }
}

/// An ICMP error as a raw socket gets it.
pub struct IcmpError(pub Vec<u8>);

impl fmt::Display for IcmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_error(f, &self.0, false)
    }
}

fn show_error(f: &mut fmt::Formatter<'_>, bytes: &[u8], is_open: bool) -> fmt::Result {
    // A raw socket of IPv6 gets no IP header.
    if bytes[0] >> 4 == 4 {
        let address = |at: usize| Ipv4Addr::from([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        write!(f, " from {} to {}", address(12), address(16))?;
        show_icmp(f, &bytes[20..], true, is_open)
    } else {
        show_icmp(f, bytes, false, is_open)
    }
}

/// Type, code, word, and what is quoted.
fn show_icmp(f: &mut fmt::Formatter<'_>, icmp: &[u8], v4: bool, is_open: bool) -> fmt::Result {
    let word = u32::from_be_bytes([icmp[4], icmp[5], icmp[6], icmp[7]]);
    write!(f, " {}/{} {word}", icmp[0], icmp[1])?;
    if v4 && sum(icmp) != 0 {
        write!(f, " WRONG CHECKSUM")?;
    }
    let inner = &icmp[8..];
    let (addresses, header, hops): ([IpAddr; 2], usize, u8) = if v4 {
        let address = |at: usize| IpAddr::from([inner[at], inner[at + 1], inner[at + 2], inner[at + 3]]);
        if sum(&inner[..20]) != 0 {
            write!(f, " WRONG INNER CHECKSUM")?;
        }
        ([address(12), address(16)], 20, inner[8])
    } else {
        let address = |at: usize| {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&inner[at..at + 16]);
            IpAddr::from(Ipv6Addr::from(bytes))
        };
        ([address(8), address(24)], 40, inner[7])
    };
    let port = |at: usize| u16::from_be_bytes([inner[header + at], inner[header + at + 1]]);
    write!(f, " about {}:{} > {}:{} hops {hops} length {}", addresses[0], port(0), addresses[1], port(2), port(4))?;
    if !is_open {
        write!(f, " sum {:04x}", port(6))?;
    }
    write!(f, " quoted {}", inner.len())
}

/// Binds a socket to an interface.
pub fn bind_to_device(socket: &UdpSocket, name: &str) {
    let length = libc::socklen_t::try_from(name.len()).unwrap();
    let pointer = name.as_ptr().cast();
    #[allow(unsafe_code, reason = "SO_BINDTODEVICE has no safe wrapper")]
    // SAFETY: the pointer and the length are those of the name, which outlives the call.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BINDTODEVICE, pointer, length) };
    assert_eq!(done, 0);
}
