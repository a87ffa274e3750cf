//! Failures that need the machine-wide sysctls: one after the other under the exclusive lock, and the sysctls are restored whatever happens.
use crate::netns_fixture::{
    Connections, DEADLINE, DoctorOutput, NetnsFixture, SysctlLock, UNREACHABLE_ADDR, send_datagrams, unreachable,
};
use crate::raw_segments::{RawTcpSocket, SYN};
use std::fs;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const BUCKETS: &str = "/proc/sys/net/netfilter/nf_conntrack_buckets";

/// The machine-wide sysctls as they were, restored on drop.
pub struct SavedSysctls(Vec<(&'static str, String)>);

impl SavedSysctls {
    /// None where they cannot be written: not root, or not the initial namespace.
    pub fn save() -> Option<SavedSysctls> {
        let mut held = Vec::new();
        for path in [BUCKETS, MAX] {
            let value = fs::read_to_string(path).ok()?;
            fs::write(path, value.trim()).ok()?;
            held.push((path, value.trim().to_owned()));
        }
        Some(SavedSysctls(held))
    }
}

impl Drop for SavedSysctls {
    fn drop(&mut self) {
        for (path, value) in &self.0 {
            let _ = fs::write(path, value);
        }
    }
}

pub fn set_max(max: u64) {
    fs::write(MAX, max.to_string()).unwrap();
}

/// Begins a connection over loopback that may never come about.
pub fn try_to_connect(port: u16) {
    let _ = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_millis(5));
}

#[test]
fn machine_wide_findings() {
    type Scene = fn(&NetnsFixture);
    let scenes: [(&str, Scene); 12] = [
        ("1, 10 and 25: full of ASSURED", finds_table_full_of_assured),
        ("2: full of half-open", finds_table_full_of_half_open),
        ("3: an alert without loss", finds_nearly_full_but_reclaimable),
        ("4: TIME_WAIT", finds_time_wait_majority),
        ("4: CLOSE_WAIT", finds_close_wait_majority),
        ("5: dead peers", finds_dead_peers),
        ("11: lowered below the count", finds_lowered_limit),
        ("14: UDP", finds_udp_majority),
        ("26: no limit", finds_no_limit),
        ("9: buckets too few", finds_few_buckets),
        ("8: lists too long", finds_long_hash_chains),
        ("21: a resize", finds_resize_stalls),
    ];
    for (name, scene) in scenes {
        // Each has a namespace of its own: its counters tell of nothing that came before.
        let lock = SysctlLock::exclusive();
        let Some(bed) = NetnsFixture::create(lock) else { return };
        let Some(_knobs) = SavedSysctls::save() else {
            crate::common::report_skipped(
                "failures of the whole machine: nf_conntrack_max and _buckets cannot be written here",
            );
            return;
        };
        let _ = writeln!(std::io::stderr(), "scene {name}");
        scene(&bed);
    }
    let Some(bed) = NetnsFixture::create_shared() else { return };
    assert_eq!(bed.run_doctor().finding_names(), Vec::<&str>::new(), "put back, all is well");
}

fn finds_table_full_of_assured(bed: &NetnsFixture) {
    let held = bed.enter(|| (TcpListener::bind("127.0.0.1:22").unwrap(), Connections::open(1883, 300)));
    set_max(300);
    let said = bed.run_doctor_during(|| try_to_connect(1883));
    said.assert_first_finding("table-full-assured");
    assert_eq!((said.code, said.finding_names()[1]), (Some(2), "no-lifeline"));
    assert_eq!(said.document["findings"][0]["certainty"], "certain");
    // The same, seen from the host, whose own table is empty.
    let run = || DoctorOutput::run(&["doctor", "--interval", "400ms", "--json"]);
    let said = bed.repeat_during(|| try_to_connect(1883), run);
    assert_eq!(said.first_finding_in(&bed.name), Some("full-in-namespace"), "{:#}", said.document["findings"]);
    assert_eq!(said.code, Some(2));
    drop(held);
}

fn finds_table_full_of_half_open(bed: &NetnsFixture) {
    set_max(300);
    let port = AtomicU32::new(10_000);
    let flood = || {
        let forger = RawTcpSocket::new();
        for _ in 0..50 {
            let port = 1024 + port.fetch_add(1, Ordering::Relaxed) % 60_000;
            forger.send_segment(u16::try_from(port).unwrap(), SocketAddrV4::new(UNREACHABLE_ADDR.into(), 443), 1, SYN);
        }
    };
    bed.enter(|| (0..7).for_each(|_| flood()));
    let said = bed.run_doctor_during(|| {
        flood();
        std::thread::sleep(Duration::from_millis(10));
    });
    said.assert_first_finding("table-full-half-open");
    let evicted = said.document["namespaces"][0]["growth"]["by"]["early_drop"].as_u64().unwrap();
    assert!(evicted > 0, "the kernel evicts what is half open");
}

fn finds_nearly_full_but_reclaimable(bed: &NetnsFixture) {
    set_max(400);
    bed.enter(|| {
        let forger = RawTcpSocket::new();
        for port in 20_000..20_170 {
            forger.send_segment(port, SocketAddrV4::new(UNREACHABLE_ADDR.into(), 443), 1, SYN);
        }
        send_datagrams(unreachable(53), 150);
    });
    let said = bed.run_doctor();
    said.assert_first_finding("nearly-full-reclaimable");
    assert_eq!(said.code, Some(1), "nothing is lost");
}

fn finds_time_wait_majority(bed: &NetnsFixture) {
    set_max(600);
    bed.enter(|| {
        let listener = TcpListener::bind("127.0.0.1:80").unwrap();
        for _ in 0..400 {
            let client = TcpStream::connect("127.0.0.1:80").unwrap();
            let (server, _) = listener.accept().unwrap();
            drop(client);
            drop(server);
        }
    });
    bed.run_doctor().assert_first_finding("time-wait-dominates");
}

fn finds_close_wait_majority(bed: &NetnsFixture) {
    set_max(600);
    bed.set_sysctl("nf_conntrack_tcp_timeout_close_wait", 3600);
    let held = bed.enter(|| {
        let held = Connections::open(81, 300);
        for client in &held.clients {
            client.shutdown(Shutdown::Write).unwrap();
        }
        held
    });
    // The other end acknowledges each FIN when it pleases.
    bed.enter(|| {
        let waiting = || {
            fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap_or_default().matches("CLOSE_WAIT").count()
        };
        let deadline = Instant::now() + DEADLINE;
        while waiting() < 300 {
            assert!(Instant::now() < deadline, "{} of 300 connections are in CLOSE_WAIT", waiting());
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    bed.run_doctor().assert_first_finding("close-wait-lingers");
    bed.set_sysctl("nf_conntrack_tcp_timeout_close_wait", 60);
    drop(held);
}

fn finds_dead_peers(bed: &NetnsFixture) {
    set_max(600);
    // As if they had been idle for four days: made with one day left.
    bed.set_sysctl("nf_conntrack_tcp_timeout_established", 86_400);
    let held = bed.enter(|| Connections::open(1884, 300));
    bed.set_sysctl("nf_conntrack_tcp_timeout_established", 432_000);
    bed.run_doctor().assert_first_finding("dead-peers-linger");
    drop(held);
}

fn finds_lowered_limit(bed: &NetnsFixture) {
    bed.enter(|| send_datagrams(unreachable(53), 300));
    set_max(100);
    bed.run_doctor().assert_first_finding("count-above-max");
}

fn finds_udp_majority(bed: &NetnsFixture) {
    set_max(600);
    bed.enter(|| send_datagrams(unreachable(53), 400));
    let said = bed.run_doctor();
    said.assert_first_finding("udp-dominates");
    assert!(said.document["findings"][0]["for_good"][0]["command"].as_str().unwrap().contains("udp/53"));
}

fn finds_no_limit(bed: &NetnsFixture) {
    set_max(0);
    bed.run_doctor().assert_first_finding("no-limit");
}

fn finds_few_buckets(bed: &NetnsFixture) {
    fs::write(BUCKETS, "1024").unwrap();
    bed.run_doctor().assert_first_finding("buckets-too-few");
}

fn finds_long_hash_chains(bed: &NetnsFixture) {
    fs::write(BUCKETS, "512").unwrap();
    let forger = bed.enter(RawTcpSocket::new);
    let flood = |from: u16| {
        for port in 10_000..25_000 {
            let to = SocketAddrV4::new([10, 9, 2, (from % 200) as u8].into(), 443);
            forger.send_segment(port, to, 1, SYN);
        }
    };
    flood(1);
    flood(2);
    let next = AtomicU32::new(3);
    let said = bed.run_doctor_during(|| {
        let next = next.fetch_add(1, Ordering::Relaxed);
        for port in 10_000..10_200 {
            forger.send_segment(port, SocketAddrV4::new([10, 9, 3, (next % 200) as u8].into(), 443), 1, SYN);
        }
    });
    said.assert_first_finding("chains-too-long");
    assert_eq!(said.code, Some(2));
}

fn finds_resize_stalls(bed: &NetnsFixture) {
    // Another size each time: whatever two moments the doctor looks at, they differ.
    let turn = AtomicU32::new(128);
    let before = fs::read_to_string(BUCKETS).unwrap();
    let said = bed.run_doctor_during_host(|| {
        std::thread::sleep(Duration::from_millis(50));
        let size = turn.fetch_add(1, Ordering::Relaxed) * 512;
        fs::write(BUCKETS, size.to_string()).unwrap();
    });
    fs::write(BUCKETS, before.trim()).unwrap();
    said.assert_first_finding("resize-stalls");
}
