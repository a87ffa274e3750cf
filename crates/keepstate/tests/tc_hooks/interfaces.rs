//! Interfaces that come, go and change while packets pass, and starts that fail.
use crate::offload::{offloaded, stat};
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
