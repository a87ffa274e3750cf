//! Gateways that die and start again, without a state file, while connections go on: the next one adopts what the kernel knows.
use crate::common::TempFile;
use crate::offload::{Conversation, offloaded, stat, wait_for};
use crate::peers::spawn_in_netns;
use crate::{PATIENCE, RULES, SILENCE, TcTestbed};
use keepstate_test_support::uninterrupted;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const HOW: [&str; 2] = ["--interface", "r0,r1"];

/// Waits until so many bytes more have come through of each; `when` is what has just happened.
fn wait_for_progress(moved: &[Arc<AtomicU64>], bytes: u64, when: &str) {
    let now = || moved.iter().map(|moved| moved.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let (from, until) = (now(), Instant::now() + PATIENCE);
    while now().iter().zip(&from).any(|(now, from)| *now < from + bytes) {
        assert!(Instant::now() < until, "{when}: {:?} bytes after {from:?}", now());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Transfers both ways, forwarded and to the machine itself, a session in which the server speaks now and then, and one that is idle: none is lost, however often the gateway dies.
#[test]
fn connections_go_on_however_often_the_gateway_dies() {
    // KEEPSTATE_TEST_KILLS=10 for longer.
    let kills = std::env::var("KEEPSTATE_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let Some(mut lab) = TcTestbed::new("kk") else { return };
    let streams = [
        offloaded(&lab, "c", "s", "10.0.2.2:7000", "10.0.2.2:7000"),
        offloaded(&lab, "s", "c", "10.0.1.2:80", "10.0.2.1:8080"),
        offloaded(&lab, "c", "s", "[fd00:2::2]:7000", "[fd00:2::2]:7000"),
        offloaded(&lab, "c", "r", "10.0.1.1:2222", "10.0.1.1:2222"),
    ];
    let mut pushed = offloaded(&lab, "c", "s", "10.0.2.2:7001", "10.0.2.2:7001");
    let mut idle = offloaded(&lab, "c", "s", "10.0.2.2:7002", "10.0.2.2:7002");
    wait_for(&lab, "offloaded_flows", |flows| flows == 6);
    let stop = Arc::new(AtomicBool::new(false));
    let moved: Vec<Arc<AtomicU64>> = (0..8).map(|_| Arc::default()).collect();
    std::thread::scope(|scope| {
        for (number, talk) in streams.iter().enumerate() {
            for (from, to, moved) in
                [(&talk.client, &talk.server, &moved[number * 2]), (&talk.server, &talk.client, &moved[number * 2 + 1])]
            {
                let stop = Arc::clone(&stop);
                let (mut from, mut to) = (from, to);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        from.write_all(&[number as u8; 4096]).unwrap();
                        // Others have to run too.
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    from.shutdown(std::net::Shutdown::Write).unwrap();
                });
                scope.spawn(move || {
                    let mut bytes = [0; 65_536];
                    loop {
                        let length = uninterrupted(|| to.read(&mut bytes)).unwrap();
                        assert!(bytes[..length].iter().all(|byte| *byte == number as u8));
                        moved.fetch_add(length as u64, Ordering::Relaxed);
                        if length == 0 {
                            return;
                        }
                    }
                });
            }
        }
        let all_go_on = |when: &str| wait_for_progress(&moved, 40_000, when);
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..kills {
                let before = lab.control(&["stats"]);
                lab.kill();
                all_go_on(&format!("killed for the {round}th time; before it {before}"));
                lab.start(&HOW);
                all_go_on("started");
                // A gateway that dies before it has judged them anew leaves them parked for the next one.
                wait_for(&lab, "offloaded_flows", |flows| flows >= 4);
                // Not in every round: its lines stay parked until it speaks.
                if round % 2 == 1 {
                    pushed.server.write_all(b"news").unwrap();
                    pushed.client.read_exact(&mut [0; 4]).unwrap();
                }
            }
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    pushed.exchange(1000);
    idle.exchange(1000);
    drop((streams, pushed, idle));
    let until = Instant::now() + PATIENCE;
    // The router has seen their ends.
    while lab.control(&["list"]).contains("ESTABLISHED") {
        assert!(Instant::now() < until, "{}", lab.control(&["list"]));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The counts of the connection to the server's port, original and reply.
fn counted(lab: &TcTestbed, port: &str) -> Vec<u64> {
    let list = lab.control(&["list"]);
    let line = list.lines().find(|line| line.contains(&format!("dport={port} ")));
    let numbers = line.unwrap_or_default().split("packets=").skip(1);
    numbers.filter_map(|rest| rest.split(' ').next()?.parse().ok()).collect()
}

/// What the kernel has forwarded without a gateway is counted, and keeps the connection from expiring; a stop as by systemd is no other than a death.
#[test]
fn counts_and_timeouts_go_on_over_restarts() {
    let how = [&HOW[..], &["--set", "nf_conntrack_acct=1", "--set", "nf_conntrack_udp_timeout_stream=4"]].concat();
    let Some(mut lab) = TcTestbed::with_rules("kc", RULES, &how) else { return };
    let server = spawn_in_netns(&lab.netns.name("s"), || UdpSocket::bind("10.0.2.2:7001").unwrap()).join().unwrap();
    let client = spawn_in_netns(&lab.netns.name("c"), || UdpSocket::bind("0.0.0.0:0").unwrap()).join().unwrap();
    client.connect("10.0.2.2:7001").unwrap();
    [&client, &server].iter().for_each(|socket| socket.set_read_timeout(Some(PATIENCE)).unwrap());
    let mut exchanged = 0;
    let mut exchange = || {
        client.send(&[3; 100]).unwrap();
        let (_, from) = uninterrupted(|| server.recv_from(&mut [0; 200])).unwrap();
        server.send_to(&[4; 100], from).unwrap();
        uninterrupted(|| client.recv(&mut [0; 200])).unwrap();
        exchanged += 1;
        exchanged
    };
    let until = Instant::now() + PATIENCE;
    while stat(&lab, "offloaded_flows") == 0 {
        assert!(Instant::now() < until, "{}", lab.control(&["stats"]));
        exchange();
    }
    for round in 0..3 {
        if round == 1 {
            lab.stop()
        } else {
            lab.kill()
        }
        let begun = Instant::now();
        let mut sum = exchange();
        // Longer than its timeout.
        while round == 0 && begun.elapsed() < Duration::from_secs(5) {
            sum = exchange();
            std::thread::sleep(Duration::from_millis(50));
        }
        lab.start(&how);
        let until = Instant::now() + PATIENCE;
        while counted(&lab, "7001") != [sum, sum] {
            assert!(Instant::now() < until, "{sum} exchanged: {}", lab.control(&["list"]));
            std::thread::sleep(Duration::from_millis(50));
        }
        sum = exchange();
        wait_for(&lab, "offloaded_flows", |flows| flows == 1);
        assert!(sum > 0);
    }
}

/// What was allowed before is not allowed any more: adopted connections are judged by the new rules before a packet of theirs passes.
#[test]
fn adopted_connections_are_judged_by_the_rules_of_now() {
    let Some(mut lab) = TcTestbed::new("kj") else { return };
    let mut refused = offloaded(&lab, "c", "s", "10.0.2.2:7000", "10.0.2.2:7000");
    let mut allowed = offloaded(&lab, "c", "s", "10.0.2.2:7001", "10.0.2.2:7001");
    let mut held = offloaded(&lab, "c", "s", "10.0.2.2:7002", "10.0.2.2:7002");
    lab.kill();
    let forward = "type filter hook forward priority filter; policy drop;";
    assert!(RULES.contains(forward));
    let more = format!("{forward}\n tcp dport 7000 drop\n tcp dport 7002 ip ttl 1 drop\n tcp sport 7002 ip ttl 1 drop");
    std::fs::write(lab.ruleset.path(), RULES.replace(forward, &more)).unwrap();
    lab.start(&HOW);
    assert!(!refused.is_heard(Duration::from_millis(700)));
    for talk in [&mut allowed, &mut held] {
        talk.exchange(1000);
    }
    // The rules keep it out of the kernel; the next gateway knows it nevertheless.
    lab.kill();
    lab.start(&HOW);
    for talk in [&mut allowed, &mut held] {
        talk.exchange(1000);
    }
    assert!(!refused.is_heard(Duration::from_millis(700)));
    assert!(stat(&lab, "held_packet_content") > 0);
}

/// Speaks on each connection until the kernel knows them all: on a busy machine a handshake may come so that its connection is known later.
fn all_known(lab: &TcTestbed, talks: &mut [Conversation]) {
    let until = Instant::now() + PATIENCE;
    while stat(lab, "offloaded_flows") != talks.len() as u64 {
        assert!(Instant::now() < until, "{}", lab.control(&["stats"]));
        talks.iter_mut().for_each(|talk| talk.exchange(1000));
    }
}

/// The table of known flows has the size that was asked for, until `--detach`: the next gateway finds the connections of the one before in it.
#[test]
fn the_table_keeps_its_size_until_the_gateway_is_detached() {
    let sized = |size| [&HOW[..], &["--offload-size", size]].concat();
    let Some(mut lab) = TcTestbed::with_rules("kz", RULES, &sized("1500")) else { return };
    let listen = || TcpListener::bind("10.0.2.2:7000").unwrap();
    let listener = spawn_in_netns(&lab.netns.name("s"), listen).join().unwrap();
    let mut talks: Vec<Conversation> =
        (0..40).map(|_| Conversation::with(&listener, &lab, "c", "10.0.2.2:7000")).collect();
    all_known(&lab, &mut talks);
    lab.kill();
    let said = lab.start(&sized("4000"));
    assert!(
        said.contains("keeps the room for 2048 established connections of the gateway before, not for 4096"),
        "{said}"
    );
    all_known(&lab, &mut talks);
    lab.kill();
    assert_eq!(lab.detach().code, Some(0));
    let said = lab.start(&sized("4000"));
    assert!(!said.contains("keeps the room"), "{said}");
}

/// Without known flows the next gateway adopts them too, and keeps them to itself.
#[test]
fn a_gateway_that_offloads_nothing_adopts_too() {
    let Some(mut lab) = TcTestbed::new("ko") else { return };
    let mut talk = offloaded(&lab, "c", "s", "10.0.2.2:7000", "10.0.2.2:7000");
    lab.kill();
    lab.start(&[&HOW[..], &["--offload", "off"]].concat());
    let received = stat(&lab, "received");
    (0..20).for_each(|_| talk.exchange(1000));
    assert!(stat(&lab, "received") >= received + 40, "the kernel forwards by itself");
    lab.kill();
    lab.start(&HOW);
    talk.exchange(1000);
    drop(talk);
    let _after: Conversation = offloaded(&lab, "c", "s", "10.0.2.2:7000", "10.0.2.2:7000");
}

/// Timeouts of their own, more than there is room for in what the next gateway is told.
const OWN_TIMEOUTS: &str = "
table ip t {
	ct timeout own {
		protocol tcp
		policy = { syn_sent: 9, syn_recv: 8, established: 1000, fin_wait: 7, close_wait: 6, last_ack: 5, time_wait: 4, close: 3 }
	}
	chain f {
		type filter hook forward priority filter; policy accept;
		ct state new tcp dport 7000 ct timeout set \"own\"
	}
}
";

#[test]
fn connections_with_timeouts_of_their_own_are_adopted() {
    let Some(mut lab) = TcTestbed::with_rules("kt", OWN_TIMEOUTS, &HOW) else { return };
    let mut talk = offloaded(&lab, "c", "s", "10.0.2.2:7000", "10.0.2.2:7000");
    lab.kill();
    lab.start(&HOW);
    talk.exchange(1000);
    let list = lab.control(&["list"]);
    let left: u64 = list.split_whitespace().nth(2).unwrap().parse().unwrap();
    assert!(list.contains("ESTABLISHED") && left <= 1000, "{list}");
}

/// A namespace that ends with its gateway leaves maps behind; the next gateway anywhere removes them, and touches nothing of those that live.
#[test]
fn what_is_left_of_a_namespace_that_is_gone_is_removed() {
    let Some(mut gone) = TcTestbed::new("dg") else { return };
    let Some(mut lives) = TcTestbed::new("dl") else { return };
    let pins = |lab: &TcTestbed| {
        let namespace = std::fs::metadata(format!("/run/netns/{}", lab.netns.name("r"))).unwrap();
        format!("/sys/fs/bpf/keepstate/net-{}", std::os::unix::fs::MetadataExt::ino(&namespace))
    };
    let [of_gone, of_living] = [&gone, &lives].map(pins);
    if !std::path::Path::new(&of_living).exists() {
        return crate::report_skipped("pins of namespaces that are gone: they are in another mount namespace");
    }
    gone.kill();
    lives.kill();
    for side in ["c", "r", "s"] {
        assert!(crate::peers::run_ip(&["netns", "del", &gone.netns.name(side)]));
    }
    // The kernel takes a namespace apart some time after its name is gone.
    let until = Instant::now() + PATIENCE;
    while std::path::Path::new(&of_gone).exists() {
        assert!(Instant::now() < until, "{of_gone} is still there");
        let Some(other) = TcTestbed::new("do") else { return };
        assert!(std::path::Path::new(&of_living).exists(), "it keeps its interfaces closed");
        drop(other);
    }
    lives.start(&["--interface", "r0,r1"]);
}

/// At boot: interfaces are closed before there is a gateway, so that one that cannot start leaves nothing open. The first one takes over.
#[test]
fn interfaces_are_closed_before_the_first_gateway() {
    let Some(mut lab) = TcTestbed::without_gateway("kcb", RULES) else { return };
    assert_eq!(lab.connect("c", "10.0.1.1:2223", PATIENCE), Err(ErrorKind::ConnectionRefused), "the kernel's own");
    let run = |words: &[&str]| {
        let output = lab.netns.gateway_command(words).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(&["--close", "--interface", "r0,r1,r7"]);
    assert!(
        code == Some(0) && said.contains("no packet passes r0, r1") && said.contains("not there yet: r7"),
        "{said}"
    );
    assert_eq!(lab.connect("c", "10.0.1.1:2223", SILENCE), Err(ErrorKind::TimedOut), "closed");
    let wrong = TempFile::new("tckc-wrong.nft", b"table inet t { chain c { drp } }");
    let (code, _) = run(&["--ruleset", wrong.path(), "--interface", "r0,r1"]);
    assert_eq!(code, Some(1), "an error in the ruleset");
    assert_eq!(lab.connect("c", "10.0.1.1:2223", SILENCE), Err(ErrorKind::TimedOut), "closed still");
    let (code, said) = run(&["--close", "--interface", "r0,r1", "--on-exit", "open"]);
    assert!(code == Some(0) && said.contains("nothing is closed"), "{said}");
    let (code, said) = run(&["--close", "--device", "t0=10.9.0.1/24"]);
    assert!(code == Some(2) && said.contains("--close"), "{said}");
    lab.start(&HOW);
    lab.netns.transfer("c", "s", "10.0.2.2:7000", "10.0.2.2:7000", 100_000);
    let again = lab.netns.gateway_command(&["--close", "--interface", "r0"]).output().unwrap();
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.code() == Some(1) && said.contains("another gateway runs"), "{said}");
}
