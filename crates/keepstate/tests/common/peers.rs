//! Peers with the kernel's own TCP, in namespaces.
#![allow(dead_code, reason = "each test uses what it needs")]
#![allow(unsafe_code, reason = "setns(2) and setsockopt(2) have no safe wrapper in std")]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Starts a gateway in a namespace by its file; what it says goes to a log.
pub fn start_gateway(namespace: &str, config: &Path, log: File) -> Child {
    Command::new("ip")
        .args(["netns", "exec", namespace, env!("CARGO_BIN_EXE_keepstate"), "gateway", "--config"])
        .arg(config)
        .stderr(Stdio::from(log))
        .spawn()
        .unwrap()
}

/// Runs something in a namespace, on a thread of its own.
pub fn spawn_in_netns<T: Send + 'static>(namespace: &str, what: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let path = format!("/run/netns/{namespace}");
    std::thread::spawn(move || {
        let door = File::open(path).unwrap();
        // SAFETY: the descriptor is open; only this thread changes its namespace.
        assert_eq!(unsafe { libc::setns(door.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
        what()
    })
}

/// Runs ip(8); did it do it?
pub fn run_ip(words: &[&str]) -> bool {
    Command::new("ip")
        .args(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// So many octets that nobody mixes up.
pub fn test_bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// Serves one client: says who it is, and sends it `length` octets.
pub fn serve_once(at: &str, length: usize) -> (SocketAddr, impl FnOnce() -> IpAddr + Send + 'static) {
    let listener = TcpListener::bind(at).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        let (mut peer, from) = listener.accept().unwrap();
        peer.write_all(&test_bytes(length)).unwrap();
        from.ip()
    };
    (address, serve)
}

/// Connects, and reads everything.
pub fn download(at: SocketAddr) -> Vec<u8> {
    let mut all = Vec::new();
    connect(at).read_to_end(&mut all).unwrap();
    all
}

/// Connects, as often as it takes within a generous time.
pub fn connect(at: SocketAddr) -> TcpStream {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match TcpStream::connect_timeout(&at, Duration::from_secs(5)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
                return stream;
            }
            Err(error) => assert!(Instant::now() < until, "{at}: {error}"),
        }
    }
}

/// Binds. For a moment a process that another test is just starting still holds a copy of a socket that was closed here.
pub fn bind_udp(at: &str) -> UdpSocket {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match UdpSocket::bind(at) {
            Ok(socket) => return socket,
            Err(error) => {
                assert!(error.kind() == ErrorKind::AddrInUse && Instant::now() < until, "{at}: {error}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// From now on a socket reports ICMP errors that may pass, too (IP_RECVERR, IPV6_RECVERR).
pub fn enable_icmp_errors(socket: &UdpSocket) {
    let on: libc::c_int = 1;
    let (level, option) = match socket.local_addr().unwrap().is_ipv6() {
        false => (libc::IPPROTO_IP, libc::IP_RECVERR),
        true => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    };
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer and the length are those of one value, which outlives the call.
    assert_eq!(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), length) }, 0);
}
