//! Whose connections are: two real namespaces, a real cgroup with a container's name, sockets opened in it. All of it goes with the test, which is alone in its process: it moves itself.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
use keepstate_linux::SysRoot;
use keepstate_linux::cgroup;
use keepstate_linux::ctnetlink::{CtClient, CtFamily, CtFlow, CtTuple, Status};
use keepstate_linux::netns::{self, Netns};
use keepstate_live::{FeedOptions, GroupRow, LiveFeed, TableSource};
use keepstate_test_support::report_skipped;
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn ip(words: &[&str]) -> bool {
    let ran = Command::new("ip").args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}

/// What the test has made.
struct Made {
    namespaces: Vec<String>,
    children: Vec<Child>,
    mount: PathBuf,
    folder: PathBuf,
}

impl Made {
    /// Puts this process into a cgroup below the mount.
    fn move_to(&self, folder: &Path) -> bool {
        fs::write(folder.join("cgroup.procs"), std::process::id().to_string()).is_ok()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let before = self.mount.clone();
        self.move_to(&before);
        let _ = fs::remove_dir(&self.folder);
        for name in &self.namespaces {
            ip(&["netns", "del", name]);
        }
    }
}

fn cgroup2_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

fn flow(from: [u8; 4], port: u16, to: [u8; 4]) -> CtFlow {
    let tuple = |from: [u8; 4], to: [u8; 4], ports: [u16; 2]| CtTuple {
        source: Some(IpAddr::from(from)),
        destination: Some(IpAddr::from(to)),
        protocol: Some(17),
        source_port: Some(ports[0]),
        destination_port: Some(ports[1]),
        ..CtTuple::default()
    };
    CtFlow {
        family: Some(CtFamily::V4),
        original: tuple(from, to, [port, 53]),
        reply: tuple(to, from, [53, port]),
        status: Some(Status::CONFIRMED),
        timeout: Some(1000),
        ..CtFlow::default()
    }
}

fn counts(rows: &[GroupRow]) -> Vec<(&str, u64)> {
    rows.iter().map(|row| (row.label.as_str(), row.entries)).collect()
}

#[test]
fn connections_are_counted_by_namespace_and_by_the_cgroup_of_their_socket() {
    let Some(mount) = cgroup2_mount() else { return report_skipped("no cgroup2 is mounted") };
    // Where we are now, to return to: the test is not to leave a limit.
    let Some(before) = cgroup::of_process(&SysRoot::live(), std::process::id()) else {
        return report_skipped("this process has no cgroup of the second version");
    };
    let home = mount.join(before.trim_start_matches('/'));
    let pid = std::process::id();
    let [table, blue] = ["t", "b"].map(|side| format!("kslo{pid}{side}"));
    let folder = mount.join(format!("docker-{ID}.scope"));
    let mut made =
        Made { namespaces: vec![table.clone(), blue.clone()], children: Vec::new(), mount: home.clone(), folder };
    if !made.namespaces.iter().all(|name| ip(&["netns", "add", name])) {
        return report_skipped("owners of connections: it needs root, network namespaces and iproute2");
    }
    for (name, address) in [(&table, "10.9.0.1/32"), (&table, "10.9.0.2/32"), (&blue, "10.9.1.1/32")] {
        assert!(ip(&["-n", name, "link", "set", "lo", "up"]) && ip(&["-n", name, "addr", "add", address, "dev", "lo"]));
    }
    if fs::create_dir(&made.folder).is_err() || !made.move_to(&made.folder) {
        return report_skipped("owners of connections: no cgroup can be made here");
    }
    let namespace: Netns = netns::find(&table).unwrap();
    let open = |port: u16| {
        let bound = namespace.enter(move || UdpSocket::bind(("10.9.0.1", port)));
        bound.unwrap().unwrap()
    };
    let in_container = open(4000);
    let sleeper = Command::new("ip").args(["netns", "exec", &blue, "sleep", "600"]).stdin(Stdio::null()).spawn();
    made.children.push(sleeper.unwrap());
    assert!(made.move_to(&home), "out of the cgroup again");
    let outside = open(4001);

    let mut client = namespace.enter(CtClient::open).unwrap().unwrap();
    for (from, port, to) in [
        ([10, 9, 0, 1], 4000, [198, 51, 100, 1]),
        ([10, 9, 0, 1], 4000, [198, 51, 100, 2]),
        ([10, 9, 0, 1], 4001, [198, 51, 100, 1]),
        ([10, 9, 0, 1], 4999, [198, 51, 100, 1]),
        ([10, 9, 1, 1], 5000, [198, 51, 100, 1]),
        ([198, 51, 100, 7], 5000, [10, 9, 1, 1]),
        ([198, 51, 100, 7], 5000, [198, 51, 100, 8]),
    ] {
        client.create(&flow(from, port, to)).unwrap();
    }
    let feed = LiveFeed::open(TableSource::kernel(Some(namespace.clone())), FeedOptions::default()).unwrap();
    let until = Instant::now() + PATIENCE;
    let groups = loop {
        feed.want_owners();
        let groups = feed.table().owner_groups(feed.now());
        // The sleeper may not have entered its namespace yet.
        let is_done =
            groups.as_ref().is_some_and(|groups| counts(&groups.containers).contains(&("container 0123456789ab", 4)));
        match groups {
            Some(groups) if is_done => break groups,
            groups => assert!(Instant::now() < until, "{groups:?}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let own = format!("{table} (this table's)");
    let elsewhere = "none seen here: forwarded, or hidden";
    assert_eq!(counts(&groups.namespaces), [(own.as_str(), 4), (blue.as_str(), 2), (elsewhere, 1)]);
    let containers = counts(&groups.containers);
    assert_eq!(containers.len(), 4, "{containers:?}");
    assert!(containers.contains(&(elsewhere, 1)), "{containers:?}");
    assert!(containers.contains(&("unknown: socket closed, or not seen", 1)), "{containers:?}");
    // The cgroup of who runs the tests, whatever it is.
    assert!(
        containers.iter().any(|(label, count)| *count == 1 && !label.starts_with("unknown") && *label != elsewhere)
    );

    // Once its socket is closed, it is not known any more; the other's is.
    drop(in_container);
    let until = Instant::now() + PATIENCE;
    loop {
        feed.want_owners();
        let groups = feed.table().owner_groups(feed.now()).unwrap();
        let containers = counts(&groups.containers);
        if containers.contains(&("unknown: socket closed, or not seen", 3)) {
            assert!(containers.contains(&("container 0123456789ab", 2)), "{containers:?}");
            break;
        }
        assert!(Instant::now() < until, "{containers:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(outside);
}
