//! How long established flows stand still when the gateway dies and starts again: beside flows of the same threads by a link that is not governed, so that a busy machine is not the gateway's fault.
use crate::offload::{stat, wait_for};
use crate::peers::{run_ip, spawn_in_netns};
use crate::{PATIENCE, TcTestbed};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// Between two datagrams of a flow.
const PACE: Duration = Duration::from_millis(2);
/// A flow that waits for the next gateway stands still for longer: so long the dead one stays dead. How much less it is on an idle machine, the test prints (`--nocapture`).
const LONGEST_GAP: Duration = Duration::from_millis(150);

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// When a datagram was sent, and when the kernel had it at the other end.
#[derive(Clone, Copy)]
struct Datagram {
    sent: u64,
    arrived: u64,
}

/// The next datagram, with the kernel's time of its arrival.
#[allow(unsafe_code, reason = "recvmsg(2) with control messages has no safe wrapper")]
fn receive(socket: &UdpSocket) -> Option<Datagram> {
    let mut bytes = [0_u8; 8];
    let mut control = [0_u64; 16];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: a zeroed msghdr is a valid one; all that it points to outlives the calls; the control messages are read as the kernel has written them.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
        (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), size_of_val(&control));
        if libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) != 8 {
            return None;
        }
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        assert!(!header.is_null() && (*header).cmsg_type == libc::SCM_TIMESTAMPNS);
        let at: libc::timespec = libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned();
        let arrived = at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64;
        Some(Datagram { sent: u64::from_ne_bytes(bytes), arrived })
    }
}

/// A flow in one direction, from a socket to another one.
struct Flow {
    from: UdpSocket,
    to: UdpSocket,
}

impl Flow {
    /// A question of the client, answered.
    fn open(client: UdpSocket, server: UdpSocket, at: &str, server_speaks: bool, until: impl Fn() -> bool) -> Flow {
        client.connect(at).unwrap();
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            crate::offload::set_socket_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1);
        }
        let begun = Instant::now();
        loop {
            client.send(&now().to_ne_bytes()).unwrap();
            let (_, peer) = server.recv_from(&mut [0; 8]).unwrap();
            server.send_to(&now().to_ne_bytes(), peer).unwrap();
            client.recv(&mut [0; 8]).unwrap();
            if until() {
                server.connect(peer).unwrap();
                let (from, to) = if server_speaks { (server, client) } else { (client, server) };
                return Flow { from, to };
            }
            assert!(begun.elapsed() < PATIENCE, "the kernel does not know the flow");
        }
    }
}

/// What arrives, until `done`.
fn collect(socket: UdpSocket, done: &Arc<AtomicBool>, count: &Arc<AtomicUsize>) -> JoinHandle<Vec<Datagram>> {
    let (done, count) = (Arc::clone(done), Arc::clone(count));
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    std::thread::spawn(move || {
        let mut arrived = Vec::new();
        while !done.load(Ordering::Relaxed) {
            if let Some(datagram) = receive(&socket) {
                // Acknowledged, as by TCP.
                let _ = socket.send(b"!");
                arrived.push(datagram);
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        arrived
    })
}

/// The longest time in this part of the flow from a datagram's sending until it or a later one has arrived.
fn longest_gap(arrived: &[Datagram], sent: &[u64], (from, until): (u64, u64)) -> Duration {
    let mut longest = 0;
    let mut earliest = u64::MAX;
    let mut later = arrived.iter().rev().peekable();
    for at in sent.iter().rev() {
        while let Some(datagram) = later.next_if(|datagram| datagram.sent >= *at) {
            earliest = earliest.min(datagram.arrived);
        }
        if (from..until).contains(at) {
            longest = longest.max(earliest.saturating_sub(*at));
        }
    }
    Duration::from_nanos(longest)
}

/// From a death until the next one: a flow in which only the client speaks, and one in which only the server does, each beside one that is not governed.
#[test]
fn established_flows_do_not_stand_still_when_the_gateway_dies() {
    const ROUNDS: usize = 5;
    let Some(mut lab) = TcTestbed::new("kg") else { return };
    let [c, s] = ["c", "s"].map(|side| lab.netns.name(side));
    assert!(run_ip(&["link", "add", "c9", "netns", &c, "type", "veth", "peer", "name", "s9", "netns", &s]));
    for (name, device, address) in [(&c, "c9", "10.0.9.1/24"), (&s, "s9", "10.0.9.2/24")] {
        assert!(run_ip(&["-n", name, "addr", "add", address, "dev", device]));
        assert!(run_ip(&["-n", name, "link", "set", device, "up"]));
    }
    let bind = |side: &str, at: &'static str| {
        spawn_in_netns(&lab.netns.name(side), move || UdpSocket::bind(at).unwrap()).join().unwrap()
    };
    let open = |at: &'static str, server_speaks, until: &dyn Fn() -> bool| {
        Flow::open(bind("c", "0.0.0.0:0"), bind("s", at), at, server_speaks, until)
    };
    // Governed, beside it not governed; first the client speaks, then the server.
    let flows = [
        open("10.0.2.2:7001", false, &|| stat(&lab, "offloaded_flows") == 1),
        open("10.0.9.2:7001", false, &|| true),
        open("10.0.2.2:7002", true, &|| stat(&lab, "offloaded_flows") == 2),
        open("10.0.9.2:7002", true, &|| true),
    ];
    let (done, count) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let receivers = flows.iter().map(|flow| collect(flow.to.try_clone().unwrap(), &done, &count));
    let receivers: Vec<_> = receivers.collect();
    let sender = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            let mut sent: [Vec<u64>; 4] = Default::default();
            while !done.load(Ordering::Relaxed) {
                for (flow, sent) in flows.iter().zip(&mut sent) {
                    let at = now();
                    // What is lost is a gap.
                    let _ = flow.from.send(&at.to_ne_bytes());
                    sent.push(at);
                }
                std::thread::sleep(PACE);
            }
            sent
        }
    });
    let wait_for_more = || {
        let (before, until) = (count.load(Ordering::Relaxed), Instant::now() + PATIENCE);
        while count.load(Ordering::Relaxed) < before + 200 {
            assert!(Instant::now() < until, "no flow goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let mut deaths = Vec::new();
    for _ in 0..ROUNDS {
        // Both directions have been judged.
        wait_for(&lab, "offloaded_flows", |flows| flows == 2);
        wait_for_more();
        deaths.push(now());
        lab.kill();
        let dead_since = Instant::now();
        while dead_since.elapsed() < LONGEST_GAP * 3 {
            wait_for_more();
        }
        lab.start(&["--interface", "r0,r1"]);
        wait_for_more();
    }
    deaths.push(now());
    wait_for_more();
    done.store(true, Ordering::Relaxed);
    let sent = sender.join().unwrap();
    let arrived: Vec<Vec<Datagram>> = receivers.into_iter().map(|receiver| receiver.join().unwrap()).collect();
    for (governed, speaks) in [(0, "the client"), (2, "the server")] {
        let gaps = |flow: usize| -> Vec<Duration> {
            let rounds = deaths.windows(2);
            rounds.map(|round| longest_gap(&arrived[flow], &sent[flow], (round[0], round[1]))).collect()
        };
        let (ours, others) = (gaps(governed), gaps(governed + 1));
        println!("{speaks} speaks: {ours:.1?}, beside it {others:.1?}");
        // The sender may itself be interrupted between the two: a gap of ours would be there each time.
        let longer = ours.iter().zip(&others).filter(|(ours, others)| **ours > **others + LONGEST_GAP).count();
        assert!(longer * 2 < ROUNDS, "{speaks} speaks: {ours:.1?}, beside it {others:.1?}");
    }
}
