//! Packets that nobody need answer, and what becomes of them.
//!
//! - `send SIDE FROM TO`: one datagram of a socket that stays; what the call says, or an error that was pending.
//! - `syn SIDE FROM TO`: a connection is begun, and nobody waits for it. `begun`: those begun so far, in their order: `open`, `waits`, or how they have failed, once each of them has had an answer, or enough time for one: it has since sent its segment again, and again after that.
//! - `stats NAMES`: what has been added to these statistics (`conntrack -S`) since the last such step.
use crate::peers::spawn_in_netns;
use crate::sockets::{begin_tcp, bind_udp_socket};
use crate::twin::{Lab, PATIENCE};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

impl Lab {
    pub fn send(&mut self, side: &str, (from, to): (&str, &str)) -> String {
        let [from, to]: [SocketAddr; 2] = [from, to].map(|text| text.parse().unwrap());
        let is_here =
            |(of, socket): &&(String, std::net::UdpSocket)| of == side && socket.local_addr().unwrap() == from;
        let known = self.datagram_clients.iter().find(is_here).map(|(_, socket)| socket.try_clone().unwrap());
        let sends = move || {
            let socket = known.unwrap_or_else(|| bind_udp_socket(from));
            let sent = socket.send_to(b"send", to);
            (socket, sent)
        };
        let (socket, sent) = spawn_in_netns(&self.netns.name(side), sends).join().unwrap();
        self.datagram_clients.push((side.to_owned(), socket));
        match sent {
            // In Linux a socket of the router itself is told what its rules say (docs/differences.md).
            Err(error) if side == "r" && error.kind() == ErrorKind::PermissionDenied => String::new(),
            Err(error) => format!("{:?}", error.kind()),
            Ok(_) => String::new(),
        }
    }

    pub fn syn(&mut self, side: &str, from: &str, to: &str) -> String {
        let [from, to]: [SocketAddr; 2] = [from, to].map(|text| text.parse().unwrap());
        match spawn_in_netns(&self.netns.name(side), move || begin_tcp(from, to)).join().unwrap() {
            Ok(socket) => {
                self.begun.push(socket);
                String::new()
            }
            Err(error) => format!("{error:?}"),
        }
    }

    pub fn begun(&mut self) -> String {
        let before: Vec<u32> = self.begun.iter().map(retransmissions).collect();
        let shown: Vec<String> =
            self.begun.iter().zip(before).map(|(socket, before)| wait_for_answer(socket, before)).collect();
        shown.join(", ")
    }

    /// The statistics of all processors.
    pub fn stats(&mut self, names: &[&str]) -> String {
        let (_, text) = self.conntrack(&["-S"]);
        let sum = |name: &str| -> u64 {
            let values = text.split_whitespace().filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            values.map(|value| value.parse::<u64>().unwrap()).sum()
        };
        let shown: Vec<String> = names
            .iter()
            .map(|name| {
                let now = sum(name);
                let before = self.stats_before.insert((*name).to_owned(), now).unwrap_or(0);
                format!("{name} {}", now - before)
            })
            .collect();
        shown.join(", ")
    }
}

/// Waits until a socket that is connecting no longer does, or has sent its first segment twice more than `before`: an answer to the first of the two would have come before the second.
fn wait_for_answer(socket: &TcpStream, before: u32) -> String {
    // Sent again after a second four times, then after longer and longer.
    let until = Instant::now() + 4 * PATIENCE;
    loop {
        if let Ok(Some(error)) = socket.take_error() {
            return format!("{:?}", error.kind());
        }
        if socket.peer_addr().is_ok() {
            return "open".to_owned();
        }
        if retransmissions(socket) >= before + 2 {
            return "waits".to_owned();
        }
        if Instant::now() > until {
            return "ended".to_owned();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How many segments it has sent again.
fn retransmissions(socket: &TcpStream) -> u32 {
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    #[allow(unsafe_code, reason = "TCP_INFO has no safe wrapper")]
    // SAFETY: the pointer and the length are those of one structure of plain numbers, which outlives the call.
    let info = unsafe {
        let done = libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        );
        assert_eq!(done, 0);
        info.assume_init()
    };
    info.tcpi_total_retrans
}
