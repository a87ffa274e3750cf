//! Interfaces that come, go and change while packets pass, and starts that fail.
use crate::offload::{Conversation, offloaded, stat};
use crate::peers::run_ip;
use crate::routes::in_netns;
use crate::{PATIENCE, RULES, SILENCE, TcTestbed};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

/// An interface that is made anew under its name is governed as soon as it is there.
#[test]
fn interfaces_made_anew_are_governed() {
    let Some(lab) = TcTestbed::new("n") else { return };
    let [client, router] = ["c", "r"].map(|side| lab.netns.name(side));
    assert!(run_ip(&["-n", &router, "link", "del", "r0"]));
    assert!(run_ip(&["link", "add", "c0", "netns", &client, "type", "veth", "peer", "name", "r0", "netns", &router]));
    for (name, device, address) in [(&client, "c0", "10.0.1.2/24"), (&router, "r0", "10.0.1.1/24")] {
        assert!(run_ip(&["-n", name, "addr", "add", address, "dev", device]));
        assert!(run_ip(&["-n", name, "link", "set", device, "up"]));
    }
    assert!(run_ip(&["-n", &client, "route", "add", "default", "via", "10.0.1.1"]));
    let until = Instant::now() + PATIENCE;
    // A closed port answers until the programs are there.
    while lab.connect("c", "10.0.1.1:2223", SILENCE) != Err(ErrorKind::TimedOut) {
        assert!(Instant::now() < until, "it is not governed");
    }
    let seen = lab.netns.transfer("c", "s", "10.0.2.2:7000", "10.0.2.2:7000", 100_000);
    assert_eq!(seen, IpAddr::from([10, 0, 2, 1]));
}

/// New MAC addresses of the router and of its neighbours, an interface down and up, a new name: connections go on.
#[test]
fn known_flows_go_on_when_interfaces_change() {
    let rules = "table inet t { chain f { type filter hook forward priority 0; policy accept; ct state established counter; } }";
    let Some(lab) = TcTestbed::with_rules("nc", rules, &["--interface", "*"]) else { return };
    // A new MAC address is told to the neighbours, who would else find out when theirs is too old.
    let notify =
        "for f in /proc/sys/net/ipv4/conf/*/arp_notify /proc/sys/net/ipv6/conf/*/ndisc_notify; do echo 1 > $f; done";
    assert!(["c", "r", "s"].iter().all(|side| in_netns(&lab, side, notify)));
    let mut talks = ["10.0.2.2:7000", "[fd00:2::2]:7000"].map(|at| offloaded(&lab, "c", "s", at, at));
    for (side, change) in [
        ("r", "ip link set r1 address 02:00:00:00:00:71"),
        ("s", "ip link set s0 address 02:00:00:00:00:72"),
        ("c", "ip link set c0 address 02:00:00:00:00:73"),
        ("r", "ip link set r0 name inside0"),
        // Its IPv6 addresses go with it, but not for long.
        ("r", "ip link set r1 down; ip link set r1 up; ip addr replace fd00:2::1/64 dev r1 nodad"),
    ] {
        assert!(in_netns(&lab, side, change), "{change}");
        for talk in &mut talks {
            (0..20).for_each(|_| talk.exchange(1000));
        }
    }
    assert_eq!(lab.control(&["count"]).trim(), "2");
}

/// A masqueraded connection ends with its address, known or not; the next one takes the new address.
#[test]
fn known_flows_end_with_their_address() {
    let Some(lab) = TcTestbed::new("na") else { return };
    let mut talk = offloaded(&lab, "c", "s", "10.0.2.2:7000", "10.0.2.2:7000");
    assert!(in_netns(
        &lab,
        "r",
        "ip addr add 10.0.2.9/24 dev r1; ip addr del 10.0.2.1/24 dev r1; ip addr add 10.0.2.9/24 dev r1 || true"
    ));
    let until = Instant::now() + PATIENCE;
    while lab.control(&["list"]).contains("dst=10.0.2.1 ") {
        assert!(Instant::now() < until, "{}", lab.control(&["list"]));
    }
    assert!(!talk.is_heard(Duration::from_millis(700)), "it goes on with an address that is gone");
    let seen = lab.netns.transfer("c", "s", "10.0.2.2:7001", "10.0.2.2:7001", 100_000);
    assert_eq!(seen, IpAddr::from([10, 0, 2, 9]));
    assert!(stat(&lab, "received") > 0);
}

/// Containers that come and go beside them, a capture that starts, an address of the link's own: known flows stay in the kernel.
#[test]
fn interfaces_that_concern_no_flow_leave_known_flows_in_the_kernel() {
    let rules = "table inet t { chain f { type filter hook forward priority 0; policy accept; } }";
    let Some(lab) = TcTestbed::with_rules("nb", rules, &["--interface", "r0,r1"]) else { return };
    let mut talks = ["10.0.2.2:7000", "[fd00:2::2]:7000"].map(|at| offloaded(&lab, "c", "s", at, at));
    let (received, flows) = (stat(&lab, "received"), stat(&lab, "offloaded_flows"));
    assert_eq!(flows, 2);
    let churn = "ip link set r1 promisc on; ip link set r1 alias outside
        for n in 1 2 3 4 5; do
            ip link add v$n type veth peer name w$n
            ip link set v$n up; ip link set w$n up
            ip addr add fe80::9:$n/64 dev r0
            ip link del v$n
        done
        ip link set r1 promisc off";
    for _ in 0..5 {
        assert!(in_netns(&lab, "r", churn));
        assert!(in_netns(&lab, "r", "for n in 1 2 3 4 5; do ip addr del fe80::9:$n/64 dev r0; done"));
        for talk in &mut talks {
            (0..40).for_each(|_| talk.exchange(1000));
        }
    }
    let seen = stat(&lab, "received") - received;
    assert!(seen < 100, "{seen} of more than 800 packets came to the router");
}

/// Interfaces that are gone, or called otherwise, before it is their turn to be governed: the gateway goes on, and governs those that stay.
#[test]
fn interfaces_that_come_and_go_at_once_do_not_end_the_gateway() {
    let Some(lab) = TcTestbed::with_rules("nv", RULES, &["--interface", "r*,v*"]) else { return };
    let churn = "for n in $(seq 60); do
            ip link add v$n type veth peer name w$n
            ip link set v$n name va$n
            ip link del va$n
        done
        ip link add vlast type veth peer name wlast; ip link set vlast up";
    assert!(in_netns(&lab, "r", churn));
    let until = Instant::now() + PATIENCE;
    while !lab.control(&["interfaces"]).contains("vlast") {
        assert!(Instant::now() < until, "{}", lab.control(&["interfaces"]));
    }
    lab.netns.transfer("c", "s", "10.0.2.2:7000", "10.0.2.2:7000", 100_000);
}

/// Masqueraded connections end when their interface goes down or their address is gone, even if they come back at once; others do not.
#[test]
fn masqueraded_connections_end_as_in_the_kernel() {
    let rules = "table ip t {
        chain post {
            type nat hook postrouting priority srcnat; policy accept;
            tcp dport 7001 masquerade
            tcp dport 7002 snat to 10.0.2.1
        }
    }";
    let Some(mut lab) = crate::routes::with_second_way("ne", rules) else { return };
    if !in_netns(&lab, "r", &format!("nft -f {} && conntrack -L >/dev/null 2>&1", lab.ruleset.path())) {
        crate::report_skipped("masqueraded connections beside the kernel's: it needs nft and conntrack");
        return;
    }
    const ENDS: [&str; 3] = ["10.0.2.2:7001", "10.0.2.2:7002", "10.0.2.2:7003"];
    let changes = [
        "ip link set r1 down; ip link set r1 up",
        "ip addr del 10.0.2.1/24 dev r1; ip addr add 10.0.2.1/24 dev r1",
        "ip link set r1 mtu 1400; ip link set r1 mtu 1500",
    ];
    let kept = |lab: &TcTestbed,
                begin: &dyn Fn(&TcTestbed, &'static str) -> Conversation,
                list: &dyn Fn(&TcTestbed) -> String| {
        changes.map(|change| {
            let mut talks = ENDS.map(|at| begin(lab, at));
            assert!(in_netns(lab, "r", change), "{change}");
            let ended = if change.contains("mtu") { 0 } else { 1 };
            let until = Instant::now() + PATIENCE;
            let known = loop {
                let list = list(lab);
                let known = ENDS.map(|at| list.contains(&format!("dport={} ", &at[9..])));
                if known.iter().filter(|known| !**known).count() == ended {
                    break known;
                }
                assert!(Instant::now() < until, "{change}: {list}");
                std::thread::sleep(Duration::from_millis(20));
            };
            talks.iter_mut().zip(known).filter(|(_, known)| *known).for_each(|(talk, _)| talk.exchange(1000));
            known
        })
    };
    let by_kernel = kept(&lab, &|lab, at| Conversation::begin(lab, "c", "s", at, at), &|lab| {
        output_in_netns(lab, "r", "conntrack -L 2>/dev/null; true")
    });
    assert_eq!(by_kernel, [[false, true, true], [false, true, true], [true; 3]]);
    assert!(in_netns(&lab, "r", "nft flush ruleset"));
    lab.start(&["--interface", "r0,r1"]);
    let ours = kept(&lab, &|lab, at| offloaded(lab, "c", "s", at, at), &|lab| lab.control(&["list"]));
    assert_eq!(ours, by_kernel);
}

fn output_in_netns(lab: &TcTestbed, side: &str, script: &str) -> String {
    let output =
        Command::new("ip").args(["netns", "exec", &lab.netns.name(side), "sh", "-c", script]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A start that fails half way leaves the interfaces as it found them: open, or closed by an earlier gateway.
#[test]
fn a_failed_start_leaves_interfaces_as_they_were() {
    let Some(mut lab) = TcTestbed::without_gateway("nf", RULES) else { return };
    let fails = |lab: &TcTestbed| {
        // A file is no folder for a socket.
        let control = format!("{}/control.sock", lab.ruleset.path());
        let words = ["--ruleset", lab.ruleset.path(), "--interface", "r0,r1", "--control", &control];
        let failed = lab.netns.gateway_command(&words).output().unwrap();
        let said = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert!(failed.status.code() == Some(1) && said.contains("cannot create directory"), "{said}");
    };
    fails(&lab);
    assert_eq!(lab.connect("c", "10.0.1.1:2223", PATIENCE), Err(ErrorKind::ConnectionRefused), "the kernel's own");
    let carrier = Command::new("ip").args(["-n", &lab.netns.name("r"), "link", "show", "keepstate0"]).output().unwrap();
    assert!(!carrier.status.success(), "the carrier is still there");
    lab.start(&["--interface", "r0,r1"]);
    lab.kill();
    fails(&lab);
    assert_eq!(lab.connect("c", "10.0.1.1:2223", SILENCE), Err(ErrorKind::TimedOut), "closed by the one before");
}
