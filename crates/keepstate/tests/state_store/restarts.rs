//! Real connections through a gateway that ends in the middle, and comes back.
use super::gateway_testbed::GatewayTestbed;
use keepstate_test_support::uninterrupted;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

const MEGABYTE: usize = 1_000_000;

/// So many octets that nobody mixes up.
fn test_bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// A connection that carries `length` octets each way, at once.
struct Transfer {
    got: Arc<AtomicUsize>,
    /// The client reads no further, so that there is always something left to come.
    allowed: Arc<AtomicUsize>,
    client: JoinHandle<(Vec<u8>, SocketAddr)>,
    server: JoinHandle<(Vec<u8>, SocketAddr)>,
}

/// Both ways at once over one stream; counts what came.
fn exchange(stream: &TcpStream, length: usize, got: &AtomicUsize, allowed: &AtomicUsize) -> Vec<u8> {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || writer.write_all(&test_bytes(length)).unwrap());
    let mut all = Vec::new();
    let mut piece = vec![0; 65_536];
    while all.len() < length {
        let read = uninterrupted(|| (&mut &*stream).read(&mut piece)).unwrap();
        assert!(read > 0, "it ended after {} octets", all.len());
        all.extend_from_slice(&piece[..read]);
        got.fetch_add(read, Ordering::Relaxed);
        while all.len() < length && all.len() >= allowed.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    sending.join().unwrap();
    all
}

impl Transfer {
    fn start(lab: &GatewayTestbed, at: &'static str, length: usize) -> Transfer {
        let (ready, waits) = channel();
        let server = lab.spawn_in_netns("s", move || {
            let listener = TcpListener::bind(at).unwrap();
            ready.send(()).unwrap();
            let (stream, from) = listener.accept().unwrap();
            (exchange(&stream, length, &AtomicUsize::new(0), &AtomicUsize::new(usize::MAX)), from)
        });
        waits.recv().unwrap();
        let got = Arc::new(AtomicUsize::new(0));
        let allowed = Arc::new(AtomicUsize::new(0));
        let (counted, limit) = (got.clone(), allowed.clone());
        let client = lab.spawn_in_netns("c", move || {
            let stream = TcpStream::connect(at).unwrap();
            let own = stream.local_addr().unwrap();
            (exchange(&stream, length, &counted, &limit), own)
        });
        Transfer { got, allowed, client, server }
    }

    /// Waits until so much has come since now.
    fn wait_for(&self, more: usize) {
        let goal = self.got.load(Ordering::Relaxed) + more;
        self.allowed.store(goal, Ordering::Relaxed);
        super::gateway_testbed::wait_until("bytes", || self.got.load(Ordering::Relaxed) >= goal);
    }

    /// Both got all of it; gives the client's own address, and as whom the server saw it.
    fn finish(self, length: usize) -> (SocketAddr, SocketAddr) {
        self.allowed.store(usize::MAX, Ordering::Relaxed);
        let ((got, own), (sent, seen)) = (self.client.join().unwrap(), self.server.join().unwrap());
        assert!(
            got == test_bytes(length) && sent == test_bytes(length),
            "{} and {} bytes, or different ones",
            got.len(),
            sent.len()
        );
        (own, seen)
    }
}

#[test]
fn transfers_survive_repeated_gateway_kills() {
    let Some(mut lab) = GatewayTestbed::new("k") else { return };
    let said = lab.start();
    assert!(!said.contains("restored"), "{said}");
    const LENGTH: usize = 60 * MEGABYTE;
    let transfers =
        [Transfer::start(&lab, "192.0.2.9:7000", LENGTH), Transfer::start(&lab, "[2001:db8::9]:7001", LENGTH)];
    // A question that is answered only after the first kill; and a connection on which nothing is said for a while.
    let (ready, waits) = channel();
    let (go, told) = channel();
    let answerer = lab.spawn_in_netns("s", move || {
        let socket = UdpSocket::bind("192.0.2.9:53").unwrap();
        ready.send(()).unwrap();
        let mut word = [0; 8];
        let (length, from) = uninterrupted(|| socket.recv_from(&mut word)).unwrap();
        ready.send(()).unwrap();
        told.recv().unwrap();
        // The way may not be there again at once.
        while socket.send_to(&word[..length], from).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        from
    });
    waits.recv().unwrap();
    let asker = lab.spawn_in_netns("c", move || {
        let socket = UdpSocket::bind("10.1.0.2:5353").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        socket.send_to(b"who?", "192.0.2.9:53").unwrap();
        let mut word = [0; 8];
        uninterrupted(|| socket.recv_from(&mut word)).unwrap().0
    });
    waits.recv().unwrap();
    transfers.iter().for_each(|transfer| transfer.wait_for(MEGABYTE));
    let before = ports(&lab.control(&["list"]));
    assert_eq!(before.len(), 3, "{before:?}");

    for round in 0..3 {
        lab.kill();
        let said = lab.start();
        assert!(said.contains("connections restored 3, expired 0, not restored 0"), "round {round}: {said}");
        if round == 0 {
            go.send(()).unwrap();
        }
        transfers.iter().for_each(|transfer| transfer.wait_for(MEGABYTE));
        assert_eq!(ports(&lab.control(&["list"])), before, "round {round}: everybody keeps his port");
    }
    let [first, second] = transfers.map(|transfer| transfer.finish(LENGTH));
    assert_eq!((first.1.ip().to_string(), second.1.ip().to_string()), ("192.0.2.1".into(), "fd00:1::2".into()));
    assert_ne!(first.0.port(), first.1.port(), "it was translated to another port");
    assert_eq!(asker.join().unwrap(), 4);
    assert_ne!(answerer.join().unwrap().port(), 5353);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(lab.state()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn graceful_restart_keeps_all_connections() {
    let Some(mut lab) = GatewayTestbed::new("o") else { return };
    lab.start();
    const LENGTH: usize = 20 * MEGABYTE;
    let transfer = Transfer::start(&lab, "192.0.2.9:7000", LENGTH);
    transfer.wait_for(MEGABYTE);
    let before = ports(&lab.control(&["list"]));
    lab.terminate();
    let said = lab.start();
    assert!(
        said.contains("connections restored 1, expired 0, not restored 0") && !said.contains("incomplete"),
        "{said}"
    );
    transfer.wait_for(MEGABYTE);
    assert_eq!(ports(&lab.control(&["list"])), before);
    transfer.finish(LENGTH);
    // What was removed by hand stays removed. Nobody says anything more then, which would be met in its middle.
    super::gateway_testbed::wait_until("the end of the transfer", || {
        let list = lab.control(&["list"]);
        list.contains("TIME_WAIT") || list.contains(" CLOSE ")
    });
    lab.control(&["flush"]);
    lab.kill();
    let said = lab.start();
    assert!(!said.contains("restored"), "{said}");
}

/// The tuples of each line, sorted: what must stay as it is.
fn ports(list: &str) -> Vec<String> {
    let wanted = ["src=", "dst=", "sport=", "dport="];
    let line = |line: &str| {
        let words = line.split_whitespace().filter(|word| wanted.iter().any(|wanted| word.starts_with(wanted)));
        words.collect::<Vec<_>>().join(" ")
    };
    let mut lines: Vec<String> = list.lines().map(line).collect();
    lines.sort();
    lines
}
