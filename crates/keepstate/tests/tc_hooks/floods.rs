//! Changes in the middle of a flood: of the numbered datagrams of a known flow, none goes by the old state once one has gone by the new.
use crate::offload::wait_for;
use crate::peers::spawn_in_netns;
use crate::routes::{in_netns, with_second_way};
use crate::{PATIENCE, TcTestbed, bind_to_device};
use keepstate_test_support::uninterrupted;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A datagram as the server got it.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    number: u64,
    from: IpAddr,
    /// The server's interface: s0 or s1.
    by: &'static str,
}

/// A flow of numbered datagrams that are answered, until this is dropped.
struct Flood {
    sent: Arc<AtomicU64>,
    arrived: Arc<Mutex<Vec<Arrival>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const PORT: u16 = 7000;

impl Flood {
    /// From the client to the server, once the kernel has it.
    fn begin(lab: &TcTestbed) -> Flood {
        let (sent, arrived, stop) =
            (Arc::<AtomicU64>::default(), Arc::<Mutex<Vec<Arrival>>>::default(), Arc::default());
        let mut flood = Flood { sent, arrived, stop, threads: Vec::new() };
        for by in ["s0", "s1"] {
            let socket = spawn_in_netns(&lab.netns.name("s"), move || bound_to(by)).join().unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let (arrived, stop) = (Arc::clone(&flood.arrived), Arc::clone(&flood.stop));
            flood.threads.push(std::thread::spawn(move || {
                let mut number = [0; 8];
                while !stop.load(Ordering::Relaxed) {
                    let Ok((_, from)) = uninterrupted(|| socket.recv_from(&mut number)) else {
                        continue;
                    };
                    let number = u64::from_be_bytes(number);
                    arrived.lock().unwrap().push(Arrival { number, from: from.ip(), by });
                    let _ = socket.send_to(b"seen", from);
                }
            }));
        }
        let client = spawn_in_netns(&lab.netns.name("c"), || UdpSocket::bind("0.0.0.0:0").unwrap()).join().unwrap();
        client.connect((SERVER, PORT)).unwrap();
        let (sent, stop) = (Arc::clone(&flood.sent), Arc::clone(&flood.stop));
        flood.threads.push(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let number = sent.fetch_add(1, Ordering::SeqCst);
                // Refused where an address has just gone.
                let _ = client.send(&number.to_be_bytes());
                std::thread::sleep(Duration::from_micros(200));
            }
        }));
        wait_for(lab, "offloaded_flows", |flows| flows == 1);
        flood
    }

    /// Waits until a datagram has arrived so. Gives out all that have arrived by then and for some hundred datagrams more.
    fn until(&self, what: &str, is_so: impl Fn(&Arrival) -> bool) -> Vec<Arrival> {
        let until = Instant::now() + PATIENCE;
        let arrived = || self.arrived.lock().unwrap().clone();
        while !arrived().iter().any(&is_so) {
            assert!(Instant::now() < until, "{what}: {:?}", arrived().last());
            std::thread::sleep(Duration::from_millis(5));
        }
        let enough = arrived().len() + 300;
        while arrived().len() < enough {
            assert!(Instant::now() < until, "{what}: no more arrive");
            std::thread::sleep(Duration::from_millis(5));
        }
        arrived()
    }
}

/// A socket that gets only what comes by this interface.
fn bound_to(device: &str) -> UdpSocket {
    use rustix::net::{AddressFamily, SocketType, bind, socket};
    let socket = UdpSocket::from(socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap());
    // Before it has its port, which the other one has too.
    bind_to_device(&socket, device);
    bind(&socket, &SocketAddrV4::new(SERVER, PORT)).unwrap();
    socket
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| _ = thread.join());
    }
}

/// From the first arrival by the new state on, in the order of sending, none is by the old one.
fn assert_changed_at_once(what: &str, arrived: &[Arrival], is_new: impl Fn(&Arrival) -> bool) {
    let first = arrived.iter().filter(|arrival| is_new(arrival)).map(|arrival| arrival.number).min().unwrap();
    let late: Vec<&Arrival> = arrived.iter().filter(|arrival| arrival.number > first && !is_new(arrival)).collect();
    assert!(late.is_empty(), "{what}: after {first} still {late:?}");
}

#[test]
fn changes_in_a_flood_leave_no_packet_by_the_old_state() {
    let rules = "table ip t {
        chain post { type nat hook postrouting priority srcnat; policy accept; oifname { r1, r2 } masquerade; }
    }";
    let Some(mut lab) = with_second_way("fl", rules) else { return };
    assert!(in_netns(&lab, "r", "ip route add 198.51.100.0/24 via 10.0.2.2"));
    lab.start(&["--interface", "r*"]);
    let flood = Flood::begin(&lab);

    assert!(in_netns(&lab, "r", "ip route replace 198.51.100.0/24 via 10.0.3.2"));
    let by_s1 = |arrival: &Arrival| arrival.by == "s1";
    assert_changed_at_once("route", &flood.until("route", by_s1), by_s1);

    // From when the command has returned, the neighbour's new address counts: not one is lost.
    wait_for(&lab, "offloaded_flows", |flows| flows == 1);
    assert!(in_netns(&lab, "s", "ip link set s1 address 02:00:00:00:00:77"));
    assert!(in_netns(&lab, "r", "ip neigh replace 10.0.3.2 lladdr 02:00:00:00:00:77 dev r2"));
    let from = flood.sent.load(Ordering::SeqCst);
    let arrived = flood.until("neighbour", |arrival| arrival.number > from + 300);
    let mut numbers: Vec<u64> = arrived.iter().map(|arrival| arrival.number).collect();
    numbers.sort_unstable();
    let missing: Vec<u64> = (from..from + 300).filter(|number| numbers.binary_search(number).is_err()).collect();
    assert!(missing.is_empty(), "neighbour: {missing:?} are lost");

    // The masqueraded connection ends with its address; the next one begins with that of its way.
    wait_for(&lab, "offloaded_flows", |flows| flows == 1);
    let new: IpAddr = "10.0.3.1".parse().unwrap();
    assert!(in_netns(&lab, "r", "ip addr del 10.0.2.1/24 dev r1; ip addr add 10.0.2.9/24 dev r1"));
    let is_new = |arrival: &Arrival| arrival.from == new;
    assert_changed_at_once("address", &flood.until("address", is_new), is_new);

    // The link by which it leaves goes; what was sent meanwhile is lost.
    wait_for(&lab, "offloaded_flows", |flows| flows == 1);
    let before = flood.sent.load(Ordering::SeqCst);
    assert!(in_netns(&lab, "r", "ip link del r2; ip route replace 198.51.100.0/24 via 10.0.2.2"));
    let by_s0 = |arrival: &Arrival| arrival.by == "s0" && arrival.number >= before;
    let arrived = flood.until("interface", by_s0);
    let after: Vec<Arrival> = arrived.into_iter().filter(|arrival| arrival.number >= before).collect();
    assert_changed_at_once("interface", &after, by_s0);
}
