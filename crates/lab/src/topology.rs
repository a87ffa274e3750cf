//! Three network namespaces: clients, a router between its two interfaces, servers. They live as long as this value.
//!
//! The namespaces have no names, and their programs end with this process, so nothing is left behind however it ends.
use super::process::{CommandOutput, TIMEOUT, run_ip, run_to_end};
use super::router::{Router, RouterKind};
use super::work_dir::WorkDir;
use anyhow::{Context, Result};
use keepstate_linux::netns::AnonNetns;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Stdio};

/// Thousands of SYNs leave at once: a longer queue keeps the interface from dropping them.
const TX_QUEUE_LEN: &str = "10000";

/// The router's outer address.
pub(super) const GATEWAY_ADDR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Address of the outer servers: web, MQTT broker, DNS.
pub(super) const SERVER_ADDR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
/// Addresses of two inner hosts: the published port is balanced over them.
pub(super) const INSIDE_ADDRS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2)), IpAddr::V4(Ipv4Addr::new(10, 1, 0, 3))];

/// The client and the server address of one process of MQTT clients.
pub(super) fn session_addrs(process: u8) -> (IpAddr, IpAddr) {
    (IpAddr::from([10, 1, 0, process.saturating_add(11)]), IpAddr::from([192, 0, 2, process.saturating_add(11)]))
}

/// The namespaces, the router and the programs that run in them.
#[derive(Debug)]
pub(super) struct Topology {
    // Programs end before their namespaces.
    children: Vec<Child>,
    pub(super) router: Router,
    client: AnonNetns,
    server: AnonNetns,
    pub(super) work_dir: WorkDir,
}

/// A side of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Inside: 10.1.0.0/24 behind lan0.
    Client,
    /// Outside: everything else, behind wan0.
    Server,
}

impl Topology {
    /// Builds everything, with addresses for so many processes of MQTT clients.
    pub(super) fn build(kind: RouterKind, processes: u8) -> Result<Topology> {
        let work_dir = WorkDir::create()?;
        let (client, server) = (AnonNetns::create()?, AnonNetns::create()?);
        let router = Router::launch(kind, &work_dir, &client, &server)?;
        let mut topology = Topology { children: Vec::new(), router, client, server, work_dir };
        let sessions = || (0..processes).map(session_addrs);
        let inside: Vec<IpAddr> = INSIDE_ADDRS.into_iter().chain(sessions().map(|(client, _)| client)).collect();
        let outside: Vec<IpAddr> = [SERVER_ADDR].into_iter().chain(sessions().map(|(_, server)| server)).collect();
        topology.configure_side("lan0", Side::Client, &inside, "10.1.0.1")?;
        topology.configure_side("wan0", Side::Server, &outside, "192.0.2.1")?;
        Ok(topology)
    }

    /// Moves the interface to its side as soon as it exists, and gives it addresses and a default route.
    fn configure_side(&mut self, interface: &str, side: Side, addresses: &[IpAddr], gateway: &str) -> Result<()> {
        let netns = match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        };
        self.router.move_interface(interface, netns)?;
        for address in addresses {
            run_ip(netns, &["addr", "add", &format!("{address}/24"), "dev", interface])?;
        }
        run_ip(netns, &["link", "set", interface, "txqueuelen", TX_QUEUE_LEN])?;
        run_ip(netns, &["link", "set", "lo", "up"])?;
        run_ip(netns, &["link", "set", interface, "up"])?;
        run_ip(netns, &["route", "add", "default", "via", gateway, "dev", interface])
    }

    /// The namespace of a side.
    pub(super) fn netns_of(&self, side: Side) -> &AnonNetns {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    /// Runs a program on a side to its end.
    pub(super) fn run(&self, side: Side, program: &Path, args: &[&str]) -> Result<CommandOutput> {
        run_to_end(self.netns_of(side).command(program).args(args), TIMEOUT)
    }

    /// Starts a program on a side, which runs as long as the topology exists. Returns its number for [`Topology::has_exited`].
    pub(super) fn spawn_background(&mut self, side: Side, program: &Path, args: &[&str]) -> Result<usize> {
        let mut command = self.netns_of(side).command(program);
        let silent = command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.children.push(silent.spawn().with_context(|| format!("cannot start {}", program.display()))?);
        Ok(self.children.len() - 1)
    }

    /// Whether a background program has ended.
    pub(super) fn has_exited(&mut self, number: usize) -> bool {
        self.children.get_mut(number).is_none_or(|child| child.try_wait().is_ok_and(|status| status.is_some()))
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
