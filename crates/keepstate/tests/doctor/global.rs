//! Failures that need the machine-wide knobs: one after the other, alone under the lock, and the knobs are put back whatever happens.
use crate::bed::{Bed, Connections, Lock, NOBODY, Said, datagrams, nobody};
use crate::forged::{Forger, SYN};
use std::fs;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const BUCKETS: &str = "/proc/sys/net/netfilter/nf_conntrack_buckets";

/// The machine-wide knobs as they were, to be put back.
pub struct Knobs(Vec<(&'static str, String)>);

impl Knobs {
    /// None where they cannot be written: not root, or not the initial namespace.
    pub fn hold() -> Option<Knobs> {
        let mut held = Vec::new();
        for path in [BUCKETS, MAX] {
            let value = fs::read_to_string(path).ok()?;
            fs::write(path, value.trim()).ok()?;
            held.push((path, value.trim().to_owned()));
        }
        Some(Knobs(held))
    }
}

impl Drop for Knobs {
    fn drop(&mut self) {
        for (path, value) in &self.0 {
            let _ = fs::write(path, value);
        }
    }
}

pub fn limit(max: u64) {
    fs::write(MAX, max.to_string()).unwrap();
}

/// Begins a connection over loopback that may never come about.
pub fn try_to_connect(port: u16) {
    let _ = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_millis(5));
}

#[test]
fn with_the_machines_own_knobs() {
    type Scene = fn(&Bed);
    let scenes: [(&str, Scene); 12] = [
        ("1, 10 and 25: full of ASSURED", full_of_assured),
        ("2: full of half-open", full_of_half_open),
        ("3: an alert without loss", nearly_full_of_reclaimable),
        ("4: TIME_WAIT", crowded_by_time_wait),
        ("4: CLOSE_WAIT", crowded_by_close_wait),
        ("5: dead peers", dead_peers),
        ("11: lowered below the count", lowered),
        ("14: UDP", crowded_by_udp),
        ("26: no limit", no_limit),
        ("9: buckets too few", few_buckets),
        ("8: lists too long", long_lists),
        ("21: a resize", resized),
    ];
    for (name, scene) in scenes {
        // Each has a namespace of its own: its counters tell of nothing that came before.
        let lock = Lock::alone();
        let Some(bed) = Bed::make(lock) else { return };
        let Some(_knobs) = Knobs::hold() else {
            crate::common::skipped(
                "failures of the whole machine: nf_conntrack_max and _buckets cannot be written here",
            );
            return;
        };
        let _ = writeln!(std::io::stderr(), "scene {name}");
        scene(&bed);
    }
    let Some(bed) = Bed::shared() else { return };
    assert_eq!(bed.doctor().names(), Vec::<&str>::new(), "put back, all is well");
}

fn full_of_assured(bed: &Bed) {
    let held = bed.inside(|| (TcpListener::bind("127.0.0.1:22").unwrap(), Connections::open(1883, 300)));
    limit(300);
    let said = bed.doctor_while(|| try_to_connect(1883));
    said.first("table-full-assured");
    assert_eq!((said.code, said.names()[1]), (Some(2), "no-lifeline"));
    assert_eq!(said.document["findings"][0]["certainty"], "certain");
    // The same, seen from the host, whose own table is empty.
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            bed.inside(|| {
                while !over.load(Ordering::Relaxed) {
                    try_to_connect(1883);
                }
            });
        });
        let said = Said::of(&["doctor", "--interval", "400ms", "--json"]);
        over.store(true, Ordering::Relaxed);
        assert_eq!(said.first_in(&bed.name), Some("full-in-namespace"), "{:#}", said.document["findings"]);
        assert_eq!(said.code, Some(2));
    });
    drop(held);
}

fn full_of_half_open(bed: &Bed) {
    limit(300);
    let port = AtomicU32::new(10_000);
    let flood = || {
        let forger = Forger::new();
        for _ in 0..50 {
            let port = 1024 + port.fetch_add(1, Ordering::Relaxed) % 60_000;
            forger.send(u16::try_from(port).unwrap(), SocketAddrV4::new(NOBODY.into(), 443), 1, SYN);
        }
    };
    bed.inside(|| (0..7).for_each(|_| flood()));
    let said = bed.doctor_while(|| {
        flood();
        std::thread::sleep(Duration::from_millis(10));
    });
    said.first("table-full-half-open");
    let evicted = said.document["namespaces"][0]["growth"]["by"]["early_drop"].as_u64().unwrap();
    assert!(evicted > 0, "the kernel evicts what is half open");
}

fn nearly_full_of_reclaimable(bed: &Bed) {
    limit(400);
    bed.inside(|| {
        let forger = Forger::new();
        for port in 20_000..20_170 {
            forger.send(port, SocketAddrV4::new(NOBODY.into(), 443), 1, SYN);
        }
        datagrams(nobody(53), 150);
    });
    let said = bed.doctor();
    said.first("nearly-full-reclaimable");
    assert_eq!(said.code, Some(1), "nothing is lost");
}

fn crowded_by_time_wait(bed: &Bed) {
    limit(600);
    bed.inside(|| {
        let listener = TcpListener::bind("127.0.0.1:80").unwrap();
        for _ in 0..400 {
            let client = TcpStream::connect("127.0.0.1:80").unwrap();
            let (server, _) = listener.accept().unwrap();
            drop(client);
            drop(server);
        }
    });
    bed.doctor().first("time-wait-dominates");
}

fn crowded_by_close_wait(bed: &Bed) {
    limit(600);
    bed.set("nf_conntrack_tcp_timeout_close_wait", 3600);
    let held = bed.inside(|| {
        let held = Connections::open(81, 300);
        for client in &held.clients {
            client.shutdown(Shutdown::Write).unwrap();
        }
        held
    });
    // The other end acknowledges each FIN when it pleases.
    bed.inside(|| {
        let waiting = || fs::read_to_string("/proc/net/nf_conntrack").unwrap_or_default().matches("CLOSE_WAIT").count();
        for _ in 0..100 {
            if waiting() >= 300 {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    bed.doctor().first("close-wait-lingers");
    bed.set("nf_conntrack_tcp_timeout_close_wait", 60);
    drop(held);
}

fn dead_peers(bed: &Bed) {
    limit(600);
    // As if they had been idle for four days: made with one day left.
    bed.set("nf_conntrack_tcp_timeout_established", 86_400);
    let held = bed.inside(|| Connections::open(1884, 300));
    bed.set("nf_conntrack_tcp_timeout_established", 432_000);
    bed.doctor().first("dead-peers-linger");
    drop(held);
}

fn lowered(bed: &Bed) {
    bed.inside(|| datagrams(nobody(53), 300));
    limit(100);
    bed.doctor().first("count-above-max");
}

fn crowded_by_udp(bed: &Bed) {
    limit(600);
    bed.inside(|| datagrams(nobody(53), 400));
    let said = bed.doctor();
    said.first("udp-dominates");
    assert!(said.document["findings"][0]["for_good"][0]["command"].as_str().unwrap().contains("udp/53"));
}

fn no_limit(bed: &Bed) {
    limit(0);
    bed.doctor().first("no-limit");
}

fn few_buckets(bed: &Bed) {
    fs::write(BUCKETS, "1024").unwrap();
    bed.doctor().first("buckets-too-few");
}

fn long_lists(bed: &Bed) {
    fs::write(BUCKETS, "512").unwrap();
    let forger = bed.inside(Forger::new);
    let flood = |from: u16| {
        for port in 10_000..25_000 {
            let to = SocketAddrV4::new([10, 9, 2, (from % 200) as u8].into(), 443);
            forger.send(port, to, 1, SYN);
        }
    };
    flood(1);
    flood(2);
    let next = AtomicU32::new(3);
    let said = bed.doctor_while(|| {
        let next = next.fetch_add(1, Ordering::Relaxed);
        for port in 10_000..10_200 {
            forger.send(port, SocketAddrV4::new([10, 9, 3, (next % 200) as u8].into(), 443), 1, SYN);
        }
    });
    said.first("chains-too-long");
    assert_eq!(said.code, Some(2));
}

fn resized(bed: &Bed) {
    // Another size each time: whatever two moments the doctor looks at, they differ.
    let turn = AtomicU32::new(128);
    let said = std::thread::scope(|scope| {
        let doctor = scope.spawn(|| bed.doctor());
        let before = fs::read_to_string(BUCKETS).unwrap();
        while !doctor.is_finished() {
            std::thread::sleep(Duration::from_millis(50));
            let size = turn.fetch_add(1, Ordering::Relaxed) * 512;
            fs::write(BUCKETS, size.to_string()).unwrap();
        }
        fs::write(BUCKETS, before.trim()).unwrap();
        doctor.join().unwrap()
    });
    said.first("resize-stalls");
}
