//! Failures of one namespace alone: made for real, without touching anything of the machine.
use crate::netns_fixture::{Connections, NetnsFixture, UNREACHABLE_ADDR, send_datagrams, unreachable};
use crate::raw_segments::{ACK, RawTcpSocket};
use crate::stalled_listener::StalledListener;
use keepstate_test_support::uninterrupted;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

#[test]
fn healthy_namespace_has_no_findings() {
    let Some(bed) = NetnsFixture::create_shared() else { return };
    let held = bed.enter(|| {
        send_datagrams(unreachable(53), 30);
        Connections::open(8080, 50)
    });
    let said = bed.run_doctor();
    assert_eq!((said.finding_names(), said.code), (vec![], Some(0)));
    assert_eq!(
        (said.document["schema"].as_str(), said.document["verdict"].as_str()),
        (Some("keepstate.doctor/1"), Some("ok"))
    );
    let seen = &said.document["namespaces"][0];
    assert_eq!((seen["name"].as_str(), seen["entries"].as_u64()), (Some(bed.name.as_str()), Some(80)));
    assert_eq!((seen["sampled"].as_u64(), seen["initial"].as_bool()), (Some(80), Some(false)));
    drop(held);
}

#[test]
fn n07_snat_ports_exhausted() {
    let Some(bed) = NetnsFixture::create_shared() else { return };
    bed.nft("table ip nat { chain post { type nat hook postrouting priority srcnat; udp dport 9000 masquerade to :1024-1040; }; }");
    bed.enter(|| send_datagrams(unreachable(9000), 60));
    let said = bed.run_doctor_during(|| {
        send_datagrams(unreachable(9000), 5);
        std::thread::sleep(Duration::from_millis(5));
    });
    said.assert_first_finding("snat-ports-exhausted");
    let evidence = said.document["findings"][0]["evidence"].to_string();
    assert!(evidence.contains("17 of 17 (1024 to 1040)"), "{evidence}");
    assert_eq!(said.code, Some(2), "inserts fail while it looks");
}

#[test]
fn n07_snat_to_an_address_that_is_gone() {
    let Some(bed) = NetnsFixture::create_shared() else { return };
    let address = |verb: &str| {
        assert!(crate::netns_fixture::run(&["ip", "-n", &bed.name, "addr", verb, "10.9.0.77/32", "dev", "d0"]));
    };
    address("add");
    bed.nft(
        "table ip nat { chain post { type nat hook postrouting priority srcnat; udp dport 5500 snat to 10.9.0.77\n}\n}",
    );
    bed.enter(|| send_datagrams(unreachable(5500), 10));
    assert_eq!(bed.run_doctor().finding_names(), Vec::<&str>::new());
    address("del");
    let said = bed.run_doctor();
    said.assert_first_finding("snat-address-gone");
    let cure = said.document["findings"][0]["now"][1]["command"].as_str().unwrap().to_owned();
    assert!(crate::remedy_commands::cure(&bed.name, &cure), "{cure}");
    assert_eq!(bed.run_doctor().finding_names(), Vec::<&str>::new());
}

#[test]
fn n04_ended_entries_wait_for_a_listener() {
    let Some(bed) = NetnsFixture::create_shared() else { return };
    let listener = bed.enter(|| {
        let listener = StalledListener::new();
        send_datagrams(unreachable(5400), 300);
        listener
    });
    let flush = ["ip", "netns", "exec", &bed.name, env!("CARGO_BIN_EXE_keepstate"), "conntrack", "-F"];
    assert!(crate::netns_fixture::run(&flush));
    let said = bed.run_doctor();
    said.assert_first_finding("count-not-listed");
    let evidence = &said.document["findings"][0]["evidence"];
    assert_eq!(evidence[1]["value"], "0", "{evidence:#}");
    drop(listener);
}

#[test]
fn n12_invalid_dropped_by_a_rule() {
    let Some(bed) = NetnsFixture::create_shared() else { return };
    bed.nft("table inet drops { chain in { type filter hook input priority 0; ct state invalid drop; }; }");
    let held = bed.enter(|| Connections::open(8081, 1));
    let port = held.clients[0].local_addr().unwrap().port();
    let seq = AtomicU32::new(0);
    let said = bed.run_doctor_during(|| {
        // A quarter of the numbers further each time: most are far outside any window.
        let seq = seq.fetch_add(0x4000_0001, Ordering::Relaxed);
        RawTcpSocket::new().send_segment(port, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8081), seq, ACK);
        std::thread::sleep(Duration::from_millis(2));
    });
    said.assert_first_finding("invalid-dropped");
    bed.set_sysctl("nf_conntrack_tcp_be_liberal", 1);
    assert_eq!(bed.run_doctor().finding_names(), Vec::<&str>::new(), "the remedy is taken");
}

/// Segments out of every window on a real connection, while the doctor looks.
fn run_doctor_during_bad_segments(bed: &NetnsFixture, client: u16, server: u16) -> crate::netns_fixture::DoctorOutput {
    let seq = AtomicU32::new(0);
    bed.run_doctor_during(|| {
        let seq = seq.fetch_add(0x4000_0001, Ordering::Relaxed);
        RawTcpSocket::new().send_segment(client, SocketAddrV4::new(Ipv4Addr::LOCALHOST, server), seq, ACK);
        std::thread::sleep(Duration::from_millis(2));
    })
}

#[test]
fn n12_invalid_passes_nat_untranslated() {
    let Some(bed) = NetnsFixture::create_shared() else { return };
    bed.nft("table ip nat { chain out { type nat hook output priority -100; tcp dport 8083 redirect to :8082; }; }");
    let (listener, client) = bed.enter(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:8082").unwrap();
        (listener, TcpStream::connect("127.0.0.1:8083").unwrap())
    });
    let port = client.local_addr().unwrap().port();
    // Untranslated, a segment reaches port 8083, where nobody listens.
    let said = run_doctor_during_bad_segments(&bed, port, 8083);
    said.assert_first_finding("invalid-not-dropped");
    let finding = &said.document["findings"][0];
    assert!(finding["evidence"].to_string().contains("resets sent"), "{finding:#}");
    let steps = finding["for_good"].as_array().unwrap().iter();
    let table = steps.filter_map(|step| step["command"].as_str()).find(|command| command.starts_with("nft ")).unwrap();
    let cure = ["ip", "netns", "exec", &bed.name, "sh", "-c", table];
    assert!(crate::netns_fixture::run(&cure), "{table}");
    let rules = std::process::Command::new("ip")
        .args(["netns", "exec", &bed.name, "nft", "list", "table", "inet", "drop_invalid"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&rules.stdout).matches("ct state invalid drop").count(), 2);
    drop((listener, client));
}

#[test]
fn n12_invalid_dropped_by_the_end_of_a_chain() {
    let Some(bed) = NetnsFixture::create_shared() else { return };
    bed.nft("table inet host { chain in { type filter hook input priority 0; ct state established,related accept; tcp dport 8084 accept; drop; }; }");
    let held = bed.enter(|| Connections::open(8084, 1));
    let port = held.servers[0].local_addr().unwrap().port();
    // From the server to its client: no rule but the first accepts it.
    let client = held.clients[0].local_addr().unwrap().port();
    run_doctor_during_bad_segments(&bed, port, client).assert_first_finding("invalid-not-dropped");
    bed.set_sysctl("nf_conntrack_tcp_be_liberal", 1);
    assert_eq!(bed.run_doctor().finding_names(), Vec::<&str>::new());
}

#[test]
fn n13_one_way_traffic() {
    let Some(bed) = NetnsFixture::create_shared() else { return };
    bed.enter(|| {
        let forger = RawTcpSocket::new();
        for port in 20_000..20_100 {
            forger.send_segment(port, SocketAddrV4::new(UNREACHABLE_ADDR.into(), 443), 1, ACK);
        }
    });
    bed.run_doctor().assert_first_finding("one-way-flows");
}

#[test]
fn n27_local_proxy_took_the_flow() {
    let Some(bed) = NetnsFixture::create_shared() else { return };
    bed.nft("table ip nat { chain out { type nat hook output priority -100; }; }");
    let (server, client) =
        bed.enter(|| (UdpSocket::bind("10.9.0.1:5301").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap()));
    // From loopback to one's own address: as docker-proxy has it, the answer comes from this machine.
    let client_address = client.local_addr().unwrap();
    client.send_to(b"question", "10.9.0.1:5301").unwrap();
    let mut room = [0; 16];
    uninterrupted(|| server.recv_from(&mut room)).unwrap();
    server.send_to(b"answer", client_address).unwrap();
    bed.nft("table ip nat { chain out { udp dport 5301 dnat to 10.9.1.3:5301; }; }");
    bed.run_doctor().assert_first_finding("udp-source-not-translated");
}

#[test]
fn n16_another_program_writes_the_sysctl() {
    let Some(bed) = NetnsFixture::create_shared() else { return };
    let value = AtomicU64::new(100_000);
    let said = bed.run_doctor_during(|| {
        // Another value each time: whatever two moments the doctor looks at, they differ.
        let value = value.fetch_add(1, Ordering::Relaxed).to_string();
        std::fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", value).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    });
    said.assert_first_finding("value-reverts");
    let evidence = &said.document["findings"][0]["evidence"][0]["what"];
    assert_eq!(evidence.as_str(), Some("nf_conntrack_tcp_timeout_established"));
}

#[test]
fn n17_sysctl_read_only_outside_initial_namespace() {
    let Some(bed) = NetnsFixture::create_shared() else { return };
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("90-limit.conf"), "net.netfilter.nf_conntrack_max = 7654321\n").unwrap();
    // A container has files of its own: a mount namespace with another sysctl.d.
    let script = format!(
        "mount --bind {} /etc/sysctl.d && exec {} doctor --netns {} --interval 0 --json",
        files.path().display(),
        env!("CARGO_BIN_EXE_keepstate"),
        bed.name
    );
    let output = std::process::Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    let said = crate::netns_fixture::DoctorOutput {
        code: output.status.code(),
        document: serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}")),
    };
    said.assert_first_finding("knob-read-only-here");
    assert_eq!(said.document["findings"][0]["now"][0]["at"], "host");
}

#[test]
fn n19_ftp_without_a_helper() {
    let Some(bed) = NetnsFixture::create_shared() else { return };
    bed.nft(
        "table inet filter { chain in { type filter hook input priority 0; ct state established,related accept; }; }",
    );
    let held = bed.enter(|| Connections::open(21, 1));
    bed.run_doctor().assert_first_finding("helper-not-assigned");
    drop(held);
}

#[test]
fn watch_marks_changed_findings() {
    let Some(bed) = NetnsFixture::create_shared() else { return };
    bed.nft(
        "table inet filter { chain in { type filter hook input priority 0; ct state established,related accept; }; }",
    );
    let held: TcpStream = bed.enter(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:21").unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap()
    });
    let arguments = ["doctor", "--netns", &bed.name, "--interval", "0", "--watch=10ms", "--times", "2", "--json"];
    let ran = crate::common::keepstate(&arguments, b"");
    let lines: Vec<serde_json::Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), ran.code), (2, Some(1)), "{}", ran.err);
    assert_eq!(
        (lines[0]["findings"][0].get("change"), lines[1]["findings"][0]["change"].as_str()),
        (None, Some("same"))
    );
    drop(held);
}
