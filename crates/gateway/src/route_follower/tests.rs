//! What is followed piece by piece beside what the kernel lists as a whole.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
use super::*;
use keepstate_linux::netns::AnonNetns;
use keepstate_test_support::{SplitMix64, report_skipped};
use std::io::Write;
use std::process::Stdio;

/// Far more than a loaded machine needs.
const DEADLINE: Duration = Duration::from_secs(120);

/// Runs lines of ip(8) in one process; some may fail.
fn ip_batch(namespace: &AnonNetns, lines: &str) {
    let mut child = namespace
        .command("ip")
        .args(["-force", "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    child.wait().unwrap();
}

fn namespace_with_interfaces(setup: &str) -> Option<AnonNetns> {
    let namespace = AnonNetns::create().ok()?;
    let ip = namespace.command("ip").arg("-V").stdout(Stdio::null()).status();
    ip.is_ok_and(|status| status.success()).then(|| {
        ip_batch(&namespace, setup);
        namespace
    })
}

/// The table that is followed, and how it was told.
struct Followed {
    follower: RouteFollower,
    fib: FibTable,
    tables: usize,
    changes: usize,
    longest_batch: usize,
}

impl Followed {
    fn start(namespace: &AnonNetns) -> Followed {
        let (mut follower, fib, _) = namespace.enter(RouteFollower::open).unwrap().unwrap();
        follower.start(Box::new(|_| ())).unwrap();
        Followed { follower, fib, tables: 0, changes: 0, longest_batch: 0 }
    }

    /// Takes over what comes, until nothing has come for a moment.
    fn step(&mut self) {
        let FollowerState::Started(updates) = &self.follower.state else { panic!("not started") };
        while let Ok(update) = updates.recv_timeout(Duration::from_millis(20)) {
            match update {
                FibUpdate::Table(fib) => (self.fib, self.tables) = (*fib, self.tables + 1),
                FibUpdate::Changes(changes) => {
                    self.changes += changes.len();
                    self.longest_batch = self.longest_batch.max(changes.len());
                    changes.into_iter().for_each(|change| _ = self.fib.apply(change));
                }
            }
        }
    }

    /// Follows until it is what the kernel lists.
    fn wait_for_kernel(&mut self, namespace: &AnonNetns, what: &str) {
        let began = Clock::now();
        loop {
            self.step();
            let dumped = namespace.enter(|| RtMonitor::open().unwrap().dump_all().unwrap()).unwrap();
            let (kernel, ours) = (kernel_fib::build_fib(dumped).1.describe(), self.fib.describe());
            if kernel == ours {
                return;
            }
            if began.elapsed() > DEADLINE {
                let missing: Vec<_> = kernel.iter().filter(|line| !ours.contains(line)).collect();
                let extra: Vec<_> = ours.iter().filter(|line| !kernel.contains(line)).collect();
                panic!("{what}\nonly the kernel: {missing:#?}\nonly here: {extra:#?}");
            }
        }
    }
}

const INTERFACES: &str = "
link set lo up
link add d0 type veth peer name e0
link add d1 type veth peer name e1
link set d0 arp off up
link set e0 arp off up
link set d1 arp off up
link set e1 arp off up
";

/// One random line of ip(8); few values, so that changes meet.
fn random_line(random: &mut SplitMix64) -> String {
    let mut pick = |words: &[&str]| words[random.below(words.len())].to_owned();
    let device = pick(&["d0", "d1", "e0", "e1"]);
    let action = pick(&["add", "add", "append", "replace", "prepend", "del", "del"]);
    let six_action = if action == "prepend" { "add" } else { &action };
    let metric = pick(&["", " metric 50", " metric 7"]);
    let (net, way) =
        (pick(&["198.51.100.0/24", "198.51.0.0/16", "203.0.113.7/32"]), pick(&["", " via 10.0.0.2", " via 10.0.1.2"]));
    let (six, six_way) = (pick(&["2001:db8:1::/48", "2001:db8::/32"]), pick(&["", " via fe80::2", " via fe80::3"]));
    let address = pick(&["10.0.0.1/24", "10.0.0.3/24", "10.0.1.1/24", "192.0.2.1/32", "10.0.0.9/16"]);
    let six_address = pick(&["2001:db8:9::1/64", "2001:db8:9::2/64", "fd00::1/64", "fe80::77/64"]);
    let on_off = pick(&["add", "add", "del"]);
    match random.below(12) {
        0..=2 => format!("route {action} {net}{way} dev {device}{metric} onlink"),
        3 => format!("route {action} {net} dev {device}{metric}"),
        4 => format!("route {action} unreachable {net}{metric}"),
        5 | 6 => format!("-6 route {six_action} {six}{six_way} dev {device}{metric}"),
        7 => format!("addr {on_off} {address} dev {device}"),
        8 => format!("-6 addr {on_off} {six_address} dev {device} nodad"),
        9 => format!(
            "route {action} 198.18.0.0/15 nexthop via 10.0.0.2 dev d0 onlink nexthop via 10.0.1.2 dev d1 onlink"
        ),
        10 => format!("link set {device} mtu {}", 1400 + random.below(3)),
        _ => format!("link set {device} {}", if random.below(3) == 0 { "down" } else { "up" }),
    }
}

#[test]
fn random_changes_are_followed_as_the_kernel_makes_them() {
    let Some(namespace) = namespace_with_interfaces(INTERFACES) else {
        return report_skipped("routes followed beside the kernel: it needs root, namespaces and iproute2");
    };
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_129);
    let mut random = SplitMix64(seed);
    let mut followed = Followed::start(&namespace);
    for round in 0..60 {
        let lines: Vec<String> = (0..25).map(|_| random_line(&mut random)).collect();
        ip_batch(&namespace, &lines.join("\n"));
        followed.wait_for_kernel(&namespace, &format!("seed {seed}, round {round}:\n{}", lines.join("\n")));
    }
    assert!(followed.changes > 500, "{} changes came one by one", followed.changes);
}

#[test]
fn renamed_removed_and_new_interfaces_are_followed() {
    let Some(namespace) = namespace_with_interfaces(INTERFACES) else {
        return report_skipped("interfaces followed beside the kernel: it needs root, namespaces and iproute2");
    };
    let mut followed = Followed::start(&namespace);
    for lines in [
        "addr add 10.0.0.1/24 dev d0\nroute add 198.51.100.0/24 via 10.0.0.2",
        "link set d0 down\nlink set d0 name wan0\nlink set wan0 up",
        "link add d2 type veth peer name e2\nlink set d2 up\nlink set e2 up\naddr add 10.2.0.1/24 dev d2",
        "link del d2",
        "link add br0 type bridge\nlink set d1 master br0\nlink set br0 up\nlink set d1 nomaster\nlink del br0",
        "link set wan0 down\nlink set wan0 up",
    ] {
        ip_batch(&namespace, lines);
        followed.wait_for_kernel(&namespace, lines);
    }
    assert_eq!(followed.tables, 0, "nothing had to be read again");
    assert!(followed.fib.describe().iter().any(|line| line.contains("wan0")));
}

#[test]
fn ten_thousand_routes_are_told_one_by_one_in_bounded_batches() {
    const ROUTES: usize = 10_000;
    let Some(namespace) = namespace_with_interfaces(INTERFACES) else {
        return report_skipped("10,000 routes: it needs root, namespaces and iproute2");
    };
    let mut followed = Followed::start(&namespace);
    let route = |number: usize| format!("100.{}.{}.{}/32", 64 + number / 65_536, number / 256 % 256, number % 256);
    for action in ["add", "del"] {
        let lines: Vec<String> = (0..ROUTES).map(|number| format!("route {action} {} dev d0", route(number))).collect();
        ip_batch(&namespace, &lines.join("\n"));
        followed.wait_for_kernel(&namespace, action);
    }
    assert_eq!(followed.tables, 0, "nothing had to be read as a whole");
    assert!((2 * ROUTES..2 * ROUTES + 100).contains(&followed.changes), "{}", followed.changes);
    assert!(followed.longest_batch <= CHANGES_PER_BATCH, "{}", followed.longest_batch);
}
