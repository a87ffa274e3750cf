//! Two gateways that move their addresses by themselves: on two networks, bridges, with hosts that know nothing of a cluster. Nothing but the gateways changes an address, a route or a neighbour.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;
#[path = "common/peers.rs"]
mod peers;

use common::{keepstate, report_skipped};
use keepstate_test_support::NatsServers;
use peers::{connect, run_ip, spawn_in_netns, start_gateway};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A test that has waited for this long has failed, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(120);
/// Client, server, the networks with the NATS server, gateways.
const SIDES: [&str; 5] = ["c", "s", "h", "g0", "g1"];
const NATS_ADDRESS: &str = "10.1.0.250";
const SERVER: [u8; 4] = [192, 0, 2, 9];
/// By interface, the addresses that move.
const MOVING: [(&str, &str); 3] = [("lan0", "10.1.0.1"), ("lan0", "2001:db8::1"), ("wan0", "192.0.2.77")];
const KEYS: &str = "lease = \"2s\"
address = [\"10.1.0.1\", \"192.0.2.77\", \"2001:db8::/64\"]
takeover = [\"10.1.0.1/24 dev lan0\", \"2001:db8::1/64 dev lan0\", \"192.0.2.77/24 dev wan0\"]
";
const RULES: &str = "
table ip nat {
	chain post {
		type nat hook postrouting priority srcnat;
		oifname wan0 meta l4proto { tcp, udp } snat to 192.0.2.77:40000-44095
	}
}
";

struct Networks {
    tag: String,
    folder: TempDir,
    nats: Option<NatsServers>,
    gateways: [Option<Child>; 2],
}

impl Networks {
    fn new() -> Option<Networks> {
        let tag = format!("kstko{}", std::process::id());
        for side in SIDES {
            if !run_ip(&["netns", "add", &format!("{tag}{side}")]) {
                report_skipped("gateways that move addresses: it needs root, network namespaces and iproute2");
                return None;
            }
        }
        let mut networks = Networks { tag, folder: tempfile::tempdir().unwrap(), nats: None, gateways: [None, None] };
        assert!(run_ip(&["-n", &networks.netns("h"), "link", "set", "lo", "up"]));
        for bridge in ["lan", "wan"] {
            assert!(run_ip(&["-n", &networks.netns("h"), "link", "add", bridge, "type", "bridge"]));
            assert!(run_ip(&["-n", &networks.netns("h"), "link", "set", bridge, "up"]));
        }
        networks.join("c", "eth0", "lan", &["10.1.0.2/24", "2001:db8::2/64"]);
        networks.join("s", "eth0", "wan", &["192.0.2.9/24"]);
        for (number, side) in ["g0", "g1"].into_iter().enumerate() {
            let own = number + 101;
            networks.join(side, "lan0", "lan", &[&format!("10.1.0.{own}/24")]);
            networks.join(side, "wan0", "wan", &[&format!("192.0.2.{own}/24")]);
            let settings = "echo 1 > /proc/sys/net/ipv4/ip_forward";
            assert!(run_ip(&["netns", "exec", &networks.netns(side), "sh", "-c", settings]));
        }
        assert!(run_ip(&["-n", &networks.netns("c"), "route", "add", "default", "via", "10.1.0.1"]));
        assert!(run_ip(&["-n", &networks.netns("h"), "addr", "add", &format!("{NATS_ADDRESS}/24"), "dev", "lan"]));
        networks.nats = spawn_in_netns(&networks.netns("h"), || NatsServers::start_at(NATS_ADDRESS)).join().unwrap();
        networks.nats.is_some().then_some(networks)
    }

    fn netns(&self, side: &str) -> String {
        format!("{}{side}", self.tag)
    }

    /// An interface of this side on a network.
    fn join(&self, side: &str, interface: &str, bridge: &str, addresses: &[&str]) {
        let (own, hub, port) = (self.netns(side), self.netns("h"), format!("{side}{bridge}"));
        let pair = ["link", "add", interface, "netns", &own, "type", "veth", "peer", "name", &port, "netns", &hub];
        assert!(run_ip(&pair));
        assert!(run_ip(&["-n", &hub, "link", "set", &port, "master", bridge, "up"]));
        assert!(run_ip(&["-n", &own, "link", "set", "lo", "up"]));
        assert!(run_ip(&["-n", &own, "link", "set", interface, "up"]));
        for address in addresses {
            assert!(run_ip(&["-n", &own, "addr", "add", address, "dev", interface, "nodad"]));
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&mut self, index: usize) {
        fs::write(self.path("rules.nft"), RULES).unwrap();
        let text = format!(
            "version = 1\nruleset = \"rules.nft\"\ncontrol = \"{index}.sock\"\ninterface = [\"lan0\", \"wan0\"]\n\
             [cluster]\nnode = \"gw{index}\"\nservers = [\"{}\"]\ndirectory = \"state{index}\"\n{KEYS}",
            self.nats.as_ref().unwrap().url()
        );
        let config = self.path(&format!("{index}.toml"));
        fs::write(&config, text).unwrap();
        let log = fs::File::options().create(true).append(true).open(self.path(&format!("{index}.log"))).unwrap();
        self.gateways[index] = Some(start_gateway(&self.netns(&format!("g{index}")), &config, log));
        self.wait("the control socket", |networks| networks.control(index, &["count"]).0 == Some(0));
    }

    fn control(&self, index: usize, words: &[&str]) -> (Option<i32>, String) {
        let socket = self.path(&format!("{index}.sock"));
        let ran = keepstate(&[&["control", "--socket", socket.to_str().unwrap()][..], words].concat(), b"");
        (ran.code, ran.out + &ran.err)
    }

    fn json(&self, index: usize) -> Value {
        serde_json::from_str(&self.control(index, &["cluster", "--json"]).1).unwrap_or_default()
    }

    fn logs(&self) -> String {
        let log = |index: usize| fs::read_to_string(self.path(&format!("{index}.log"))).unwrap_or_default();
        format!("gw0:\n{}\ngw1:\n{}", log(0), log(1))
    }

    fn wait(&self, what: &str, holds: impl Fn(&Networks) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < until, "{what} has not come\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn wait_in_step(&self, active: usize) {
        self.wait("a standby with the whole table", |networks| {
            let [ours, theirs] = [active, 1 - active].map(|index| networks.json(index));
            ours["role"] == "active"
                && theirs["role"] == "standby"
                && theirs["in_step"] == true
                && ours["in_step"] == true
                && theirs["sequence"] == ours["sequence"]
        });
    }

    /// What ip(8) says.
    fn ip(&self, side: &str, words: &[&str]) -> Value {
        let ran = Command::new("ip").args(["-n", &self.netns(side), "-j"]).args(words).output().unwrap();
        serde_json::from_slice(&ran.stdout).unwrap_or_default()
    }

    fn has(&self, index: usize, (interface, address): (&str, &str)) -> bool {
        let links = self.ip(&format!("g{index}"), &["addr", "show", "dev", interface]);
        let mut all = links[0]["addr_info"].as_array().into_iter().flatten();
        all.any(|one| one["local"] == address)
    }

    fn has_all(&self, index: usize) -> bool {
        MOVING.iter().all(|moving| self.has(index, *moving))
    }

    fn has_none(&self, index: usize) -> bool {
        !MOVING.iter().any(|moving| self.has(index, *moving))
    }

    fn mac(&self, side: &str, interface: &str) -> Value {
        self.ip(side, &["link", "show", "dev", interface])[0]["address"].clone()
    }

    /// Whom a host takes for the owner of an address.
    fn neighbour(&self, side: &str, address: &str) -> Value {
        self.ip(side, &["neigh", "show", "to", address])[0]["lladdr"].clone()
    }

    fn wait_announced(&self, index: usize) {
        let gateway = format!("g{index}");
        for (side, interface, address) in
            [("c", "lan0", "10.1.0.1"), ("c", "lan0", "2001:db8::1"), ("s", "wan0", "192.0.2.77")]
        {
            let mac = self.mac(&gateway, interface);
            self.wait(&format!("{address} at {mac}"), |networks| networks.neighbour(side, address) == mac);
        }
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for gateway in self.gateways.iter_mut().flatten() {
            let _ = gateway.kill();
            let _ = gateway.wait();
        }
        for side in ["g0", "g1"] {
            let (netns, program) = (self.netns(side), env!("CARGO_BIN_EXE_keepstate"));
            let words = ["netns", "exec", &netns, program, "gateway", "--detach"];
            let _ = Command::new("ip").args(words).stderr(Stdio::null()).status();
        }
        for side in SIDES {
            run_ip(&["netns", "del", &self.netns(side)]);
        }
    }
}

/// So many bytes each way.
fn carry((client, server): &(TcpStream, TcpStream)) {
    for (mut from, mut to) in [(client, server), (server, client)] {
        let mut bytes = vec![0; 20_000];
        std::thread::scope(|scope| {
            scope.spawn(|| from.write_all(&[7; 20_000]).unwrap());
            to.read_exact(&mut bytes).unwrap();
        });
    }
}

#[test]
fn addresses_follow_the_active_gateway_and_hosts_are_told() {
    let Some(mut networks) = Networks::new() else { return };
    networks.start(0);
    networks.wait("addresses", |networks| networks.has_all(0));
    networks.start(1);
    networks.wait_in_step(0);
    assert!(networks.has_none(1), "a standby has none of them\n{}", networks.logs());
    let at = SocketAddr::from((SERVER, 7000));
    let listener = spawn_in_netns(&networks.netns("s"), move || TcpListener::bind(at).unwrap()).join().unwrap();
    let client = spawn_in_netns(&networks.netns("c"), move || connect(at)).join().unwrap();
    let (server, from) = listener.accept().unwrap();
    assert_eq!(from.ip().to_string(), "192.0.2.77");
    let ends = (client, server);
    [&ends.0, &ends.1].into_iter().for_each(|end| end.set_read_timeout(Some(PATIENCE)).unwrap());
    carry(&ends);
    // The client asks for the address of IPv6; nobody listens at that port.
    let there = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9));
    let asked = spawn_in_netns(&networks.netns("c"), move || TcpStream::connect_timeout(&there, PATIENCE));
    assert!(asked.join().unwrap().is_err());
    networks.wait_announced(0);
    networks.wait_in_step(0);

    // Killed, it takes nothing away; the other one has been told of at once, and the kernel does the rest.
    let killed = networks.gateways[0].as_mut().unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(networks.has_all(0));
    carry(&ends);
    networks.wait("a takeover", |networks| networks.has_all(1));
    networks.wait_announced(1);
    carry(&ends);
    networks.wait("addresses that end by themselves", |networks| networks.has_none(0));

    networks.start(0);
    networks.wait_in_step(1);
    let (code, said) = networks.control(1, &["demote"]);
    assert_eq!(code, Some(0), "{said}{}", networks.logs());
    networks.wait("the other way round", |networks| networks.has_all(0) && networks.has_none(1));
    networks.wait_announced(0);
    carry(&ends);

    // Stopped, it takes them away itself.
    let stopped = networks.gateways[0].as_mut().unwrap();
    assert!(Command::new("kill").arg(stopped.id().to_string()).status().unwrap().success());
    assert!(stopped.wait().unwrap().success(), "{}", networks.logs());
    assert!(networks.has_none(0), "{}", networks.logs());
    networks.wait("the other one again", |networks| networks.has_all(1));
    networks.wait_announced(1);
    carry(&ends);
}
