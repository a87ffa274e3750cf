//! Handshakes and ends of connections, which the kernel forwards and tells the router of: of a connection only its first packet comes to user space.
use crate::offload::{Conversation, offloaded, stat, wait_for};
use crate::peers::spawn_in_netns;
use crate::watching::EventLines;
use crate::{PATIENCE, TcTestbed};
use rustix::process::{Pid, Signal, kill_process};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Instant;

/// Waits until the table is as wanted.
fn wait_for_table(lab: &TcTestbed, wanted: impl Fn(&str) -> bool) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let list = lab.control(&["list"]);
        if wanted(&list) {
            return list;
        }
        assert!(Instant::now() < until, "{list}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Where connections begin and end, and the addresses at which the server listens and is called: forwarded and masqueraded; published; to the machine; redirected to it; from the machine.
const KINDS: [[&str; 4]; 7] = [
    ["c", "s", "10.0.2.2:7000", "10.0.2.2:7000"],
    ["s", "c", "10.0.1.2:80", "10.0.2.1:8080"],
    ["c", "r", "0.0.0.0:2222", "10.0.1.1:2222"],
    ["c", "r", "0.0.0.0:2222", "10.0.1.1:8022"],
    ["r", "s", "10.0.2.2:7001", "10.0.2.2:7001"],
    ["c", "s", "[fd00:2::2]:7000", "[fd00:2::2]:7000"],
    ["c", "r", "[fd00:1::1]:2222", "[fd00:1::1]:2222"],
];

#[test]
fn one_packet_of_a_connection_comes_to_user_space() {
    let Some(lab) = TcTestbed::new("ho") else { return };
    for [from, to, at, called] in KINDS {
        const CONNECTIONS: u64 = 20;
        let listener = spawn_in_netns(&lab.netns.name(to), move || TcpListener::bind(at).unwrap()).join().unwrap();
        let received = stat(&lab, "received");
        for _ in 0..CONNECTIONS {
            let mut talk = Conversation::with(&listener, &lab, from, called);
            talk.exchange(1000);
            // The client closes first; then the server.
            talk.client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(std::io::Read::read(&mut &talk.server, &mut [0]).unwrap(), 0);
        }
        // Segments that the ends repeat on a busy machine come too; one by one it would be six each.
        let seen = stat(&lab, "received") - received;
        assert!(
            (CONNECTIONS..CONNECTIONS * 3).contains(&seen),
            "{called}: {seen} packets of {CONNECTIONS} connections"
        );
        wait_for(&lab, "offloaded_flows", |flows| flows == 0);
        let list = wait_for_table(&lab, |list| {
            !["SYN_", "ESTABLISHED", "FIN_WAIT", "LAST_ACK"].iter().any(|state| list.contains(state))
        });
        assert!(list.lines().filter(|line| line.contains("TIME_WAIT")).count() > 0, "{called}: {list}");
    }
}

/// States and counts of a connection are those that Linux has, at each step.
#[test]
fn the_table_follows_the_handshake_and_the_end() {
    let Some(lab) = TcTestbed::new("hs") else { return };
    let mut talk = Conversation::begin(&lab, "c", "s", "10.0.2.2:7000", "10.0.2.2:7000");
    talk.exchange(1000);
    let list = wait_for_table(&lab, |list| list.contains("ESTABLISHED") || list.contains("[OFFLOAD]"));
    assert!(list.contains("[ASSURED]") || list.contains("[OFFLOAD]"), "{list}");
    // The client's end: FIN, and its acknowledgement.
    talk.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(std::io::Read::read(&mut &talk.server, &mut [0]).unwrap(), 0);
    wait_for_table(&lab, |list| list.contains("CLOSE_WAIT"));
    // A connection of which one half is closed goes on in the kernel.
    let received = stat(&lab, "received");
    for _ in 0..50 {
        std::io::Write::write_all(&mut talk.server, &[1; 1000]).unwrap();
        std::io::Read::read_exact(&mut talk.client, &mut [0; 1000]).unwrap();
    }
    let seen = stat(&lab, "received") - received;
    assert!(seen < 20, "{seen} of some 100 packets: {}{}", lab.control(&["list"]), lab.control(&["stats"]));
    drop(talk);
    let list = wait_for_table(&lab, |list| list.contains("TIME_WAIT"));
    assert!(list.contains("[ASSURED]"), "{list}");
}

/// The kernel has forwarded all of a connection but its first packet: who watches the table hears of every state.
#[test]
fn every_state_of_a_handshake_and_an_end_is_an_event() {
    let Some(lab) = TcTestbed::new("hv") else { return };
    let stir = || drop(Conversation::begin(&lab, "c", "s", "10.0.2.2:7001", "10.0.2.2:7001"));
    let events = EventLines::watch(&lab, "tcp", stir);
    let mut talk = Conversation::begin(&lab, "c", "s", "10.0.2.2:7000", "10.0.2.2:7000");
    talk.exchange(1000);
    talk.client.shutdown(Shutdown::Write).unwrap();
    let mut told = Vec::new();
    let mut hear_until = |state: &str| {
        while told.last().is_none_or(|last: &String| !last.ends_with(state)) {
            let line = events.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("after {told:?}"));
            let mut words = line.split_whitespace().map(|word| word.trim_matches(['[', ']']));
            if line.contains("dport=7000")
                && let (Some(kind), Some(state)) = (words.next(), words.nth(3))
            {
                told.push(format!("{kind} {state}"));
            }
        }
    };
    // The server has acknowledged the client's end before it ends itself.
    hear_until("CLOSE_WAIT");
    drop(talk);
    hear_until("TIME_WAIT");
    let states = ["NEW SYN_SENT", "UPDATE SYN_RECV", "UPDATE ESTABLISHED", "UPDATE FIN_WAIT", "UPDATE CLOSE_WAIT"];
    assert_eq!(told, [&states[..], &["UPDATE LAST_ACK", "UPDATE TIME_WAIT"]].concat());
}

/// So many ends at once that the ring is full while nobody reads it: what does not fit comes as packets, and no end is lost.
#[test]
fn a_full_ring_loses_no_end() {
    // A small ring belongs to a small table: of some 1,900 notes.
    let how = ["--interface", "r0,r1", "--offload-size", "4096"];
    let Some(mut lab) = TcTestbed::with_rules("hr", crate::RULES, &how) else { return };
    const CONNECTIONS: usize = 3000;
    let listener = spawn_in_netns(&lab.netns.name("s"), || TcpListener::bind("10.0.2.2:7000").unwrap()).join().unwrap();
    let clients = spawn_in_netns(&lab.netns.name("c"), || {
        let connect = |_| TcpStream::connect_timeout(&"10.0.2.2:7000".parse().unwrap(), PATIENCE).unwrap();
        (0..CONNECTIONS).map(connect).collect::<Vec<_>>()
    });
    let servers: Vec<TcpStream> = (0..CONNECTIONS).map(|_| listener.accept().unwrap().0).collect();
    let clients = clients.join().unwrap();
    // Some may have begun while the interfaces still changed, or have found no place in so small a table.
    wait_for(&lab, "offloaded_flows", |flows| flows > CONNECTIONS as u64 * 9 / 10);
    let pid = Pid::from_raw(lab.gateway.as_ref().unwrap().id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    // Four notes each: more than the ring holds.
    drop((clients, servers));
    std::thread::sleep(std::time::Duration::from_secs(1));
    kill_process(pid, Signal::CONT).unwrap();
    wait_for(&lab, "offloaded_flows", |flows| flows == 0);
    wait_for_table(&lab, |list| !list.contains("ESTABLISHED"));
    lab.stop();
}

/// What has ended while no gateway ran is not established for the next one.
#[test]
fn ends_without_a_gateway_are_told_to_the_next_one() {
    let Some(mut lab) = TcTestbed::new("hk") else { return };
    let mut talks = [7000, 7001].map(|port| {
        let at: &'static str = if port == 7000 { "10.0.2.2:7000" } else { "10.0.2.2:7001" };
        offloaded(&lab, "c", "s", at, at)
    });
    talks.iter_mut().for_each(|talk| talk.exchange(1000));
    wait_for(&lab, "offloaded_flows", |flows| flows == 2);
    lab.kill();
    let [ended, mut goes_on] = talks;
    goes_on.exchange(1000);
    ended.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(std::io::Read::read(&mut &ended.server, &mut [0]).unwrap(), 0, "its end passes");
    drop(ended);
    lab.start(&["--interface", "r0,r1"]);
    let of = |list: &str, port: &str| list.lines().find(|line| line.contains(port)).unwrap_or_default().to_owned();
    let list = wait_for_table(&lab, |list| of(list, "dport=7000 ").contains("TIME_WAIT"));
    assert!(of(&list, "dport=7001 ").contains("[ASSURED]") || of(&list, "dport=7001 ").contains("[OFFLOAD]"), "{list}");
    goes_on.exchange(100_000);
}

/// A second SYN, a reset and data with the SYN are judged by the rules: a client that gives up in its handshake, and a port that nobody has, are as without it.
#[test]
fn handshakes_that_fail_end_in_the_table_too() {
    let Some(lab) = TcTestbed::new("hf") else { return };
    // Nobody listens: the server resets.
    assert_eq!(lab.connect("c", "10.0.2.2:7999", PATIENCE), Err(std::io::ErrorKind::ConnectionRefused));
    wait_for(&lab, "offloaded_flows", |flows| flows == 0);
    let list = lab.control(&["list"]);
    assert!(!list.contains("SYN_SENT") && !list.contains("ESTABLISHED"), "{list}");
}
