//! Three network namespaces in a row, client, router and server, with veth pairs between them and addresses of both families.
#![allow(dead_code, reason = "each test uses what it needs")]
use crate::peers::{download, run_ip, serve_once, spawn_in_netns, test_bytes};
use keepstate_test_support::wait_until_it_routes;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

/// The namespaces: c0 – r0, r1 – s0. They go when this is dropped.
pub struct RouterNetns {
    pub tag: String,
}

impl RouterNetns {
    /// `None` where network namespaces cannot be made.
    pub fn new(tag: &str, queues: u32) -> Option<RouterNetns> {
        let netns = RouterNetns { tag: tag.to_owned() };
        for side in SIDES {
            let name = netns.name(side);
            // Else one of the two would be taken for a machine without namespaces, and the other lose its own.
            assert!(
                !Path::new("/run/netns").join(&name).exists(),
                "{name}: two tests have this name, or one that was killed has left it"
            );
        }
        let made = SIDES.iter().all(|side| run_ip(&["netns", "add", &netns.name(side)]));
        made.then(|| {
            netns.connect(queues);
            netns
        })
    }

    /// The name of a side's namespace: c, r or s.
    pub fn name(&self, side: &str) -> String {
        format!("{}{side}", self.tag)
    }

    fn connect(&self, queues: u32) {
        let [c, r, s] = SIDES.map(|side| self.name(side));
        let queues = queues.to_string();
        for (outside, there, inside) in [("c0", &c, "r0"), ("s0", &s, "r1")] {
            let queues = ["numtxqueues", &queues, "numrxqueues", &queues];
            let one = [&["link", "add", outside, "netns", there][..], &queues, &["type", "veth"]].concat();
            let other = [&["peer", "name", inside, "netns", &r][..], &queues].concat();
            assert!(run_ip(&[one, other].concat()));
        }
        for (name, device, addresses) in [
            (&c, "c0", ["10.0.1.2/24", "fd00:1::2/64"]),
            (&r, "r0", ["10.0.1.1/24", "fd00:1::1/64"]),
            (&r, "r1", ["10.0.2.1/24", "fd00:2::1/64"]),
            (&s, "s0", ["10.0.2.2/24", "fd00:2::2/64"]),
        ] {
            for address in addresses {
                let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
                assert!(run_ip(&[&["-n", name, "addr", "add", address, "dev", device][..], nodad].concat()));
            }
            assert!(run_ip(&["-n", name, "link", "set", "lo", "up"]));
            assert!(run_ip(&["-n", name, "link", "set", device, "up"]));
        }
        assert!(run_ip(&["-n", &c, "route", "add", "default", "via", "10.0.1.1"]));
        assert!(run_ip(&["-n", &c, "-6", "route", "add", "default", "via", "fd00:1::1"]));
        assert!(run_ip(&["-n", &s, "-6", "route", "add", "fd00:1::/64", "via", "fd00:2::1"]));
    }

    /// Starts a gateway in the router's namespace, and waits until it routes. Also returns what it has said by then.
    pub fn start_gateway(&self, words: &[&str]) -> (Child, String) {
        let mut gateway = self.gateway_command(words).stderr(Stdio::piped()).spawn().unwrap();
        let said = wait_until_it_routes(&mut gateway).unwrap();
        (gateway, said)
    }

    /// `keepstate gateway` in the router's namespace.
    pub fn gateway_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name("r"), env!("CARGO_BIN_EXE_keepstate"), "gateway"]).args(words);
        command
    }

    /// Sets an offload of every interface: `tx off`.
    pub fn set_offload(&self, words: &str) {
        for (side, device) in [("c", "c0"), ("r", "r0"), ("r", "r1"), ("s", "s0")] {
            let words: Vec<&str> = words.split(' ').collect();
            let name = self.name(side);
            let all = [&["netns", "exec", &name, "ethtool", "-K", device][..], &words].concat();
            assert!(run_ip(&all), "{all:?}");
        }
    }

    /// From a client in `from` to a server in `to` that listens at `at` and is called `called`: whom the server saw.
    pub fn transfer(&self, from: &str, to: &str, at: &'static str, called: &str, length: usize) -> IpAddr {
        let (ready, waits) = channel();
        let server = spawn_in_netns(&self.name(to), move || {
            let (_, serve) = serve_once(at, length);
            ready.send(()).unwrap();
            serve()
        });
        waits.recv().unwrap();
        let called: SocketAddr = called.parse().unwrap();
        let got = spawn_in_netns(&self.name(from), move || download(called)).join().unwrap();
        assert!(got == test_bytes(length), "{} of {length} bytes, or other ones", got.len());
        server.join().unwrap()
    }
}

const SIDES: [&str; 3] = ["c", "r", "s"];

impl Drop for RouterNetns {
    fn drop(&mut self) {
        for side in SIDES {
            run_ip(&["netns", "del", &self.name(side)]);
        }
    }
}
