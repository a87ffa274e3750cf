//! Five network namespaces: clients, servers, two gateways with a NATS server each, and a third machine with a NATS server alone.
//!
//! The machines of the cluster are joined by a bridge in the third one's namespace. Clients and servers have a default route by the gateway that packets are to go to; without a gateway
//! they go to an interface where nobody is, as to a machine that is dead. Namespaces have no names, and their programs end with this process, so nothing is left behind.
use crate::process::{TIMEOUT, current_exe, find_program, run_ip, wait_until};
use crate::router::has_interface;
use crate::work_dir::WorkDir;
use anyhow::{Context, Result, bail};
use keepstate_gateway::control_client;
use keepstate_gateway::control_protocol::ControlRequest;
use keepstate_linux::netns::AnonNetns;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const RULESET: &str = include_str!("router.nft");
/// Addresses of clients, and as many of servers: each pair has its own ports.
pub(super) const ADDRESSES: u8 = 4;
/// NATS servers may take longer than a gateway: they elect leaders.
const NATS_TIMEOUT: Duration = Duration::from_secs(60);

/// A client's address.
pub(super) fn client_addr(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 1, 0, 11 + number % ADDRESSES))
}

/// A server's address.
pub(super) fn server_addr(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11 + number % ADDRESSES))
}

/// The namespaces and the programs in them.
#[derive(Debug)]
pub(super) struct ClusterSite {
    // Programs end before their namespaces.
    gateways: [Option<Child>; 2],
    nats: [Option<Child>; 3],
    pub(super) clients: Arc<AnonNetns>,
    pub(super) servers: Arc<AnonNetns>,
    /// The two gateways' machines and the third one.
    machines: [AnonNetns; 3],
    pub(super) work_dir: WorkDir,
}

impl ClusterSite {
    /// Makes namespaces and links; starts the NATS servers and both gateways, the first of which is active then.
    pub(super) fn build(lease_secs: u32) -> Result<ClusterSite> {
        let work_dir = WorkDir::create()?;
        let machines = [AnonNetns::create()?, AnonNetns::create()?, AnonNetns::create()?];
        let (clients, servers) = (Arc::new(AnonNetns::create()?), Arc::new(AnonNetns::create()?));
        let (gateways, nats) = (Default::default(), Default::default());
        let mut site = ClusterSite { gateways, nats, clients, servers, machines, work_dir };
        site.link_machines()?;
        for (netns, address) in [(&site.clients, client_addr as fn(u8) -> IpAddr), (&site.servers, server_addr)] {
            run_ip(netns, &["link", "set", "lo", "up"])?;
            for number in 0..ADDRESSES {
                run_ip(netns, &["addr", "add", &format!("{}/32", address(number)), "dev", "lo"])?;
            }
            // Nobody listens there.
            run_ip(netns, &["tuntap", "add", "dead0", "mode", "tun"])?;
            run_ip(netns, &["link", "set", "dead0", "up"])?;
            run_ip(netns, &["route", "add", "default", "dev", "dead0", "metric", "1000"])?;
        }
        (0..3).try_for_each(|index| site.write_nats_config(index))?;
        site.start_nats(&[0, 1, 2])?;
        site.work_dir.write("gateway.nft", RULESET)?;
        (0..2).try_for_each(|index| site.write_gateway_config(index, lease_secs))?;
        Ok(site)
    }

    fn link_machines(&self) -> Result<()> {
        let [first, second, third] = &self.machines;
        run_ip(third, &["link", "add", "hub", "type", "bridge"])?;
        run_ip(third, &["addr", "add", "10.9.0.3/24", "dev", "hub"])?;
        for (index, netns) in [first, second].into_iter().enumerate() {
            let (port, other) = (format!("hub{index}"), netns.path().display().to_string());
            run_ip(third, &["link", "add", &port, "type", "veth", "peer", "name", "hub", "netns", &other])?;
            run_ip(third, &["link", "set", &port, "master", "hub", "up"])?;
            run_ip(netns, &["addr", "add", &format!("10.9.0.{}/24", index + 1), "dev", "hub"])?;
            run_ip(netns, &["link", "set", "hub", "up"])?;
            run_ip(netns, &["link", "set", "lo", "up"])?;
        }
        run_ip(third, &["link", "set", "lo", "up"])?;
        run_ip(third, &["link", "set", "hub", "up"])
    }

    fn write_nats_config(&self, index: usize) -> Result<()> {
        let (address, store) = (format!("10.9.0.{}", index + 1), self.work_dir.file(&format!("nats{index}")));
        let text = format!(
            "server_name: nats{index}\nlisten: \"{address}:4222\"\nhttp: \"{address}:8222\"\n\
             jetstream {{ store_dir: \"{}\" }}\n\
             cluster {{ name: lab, listen: \"{address}:6222\", routes: [nats://10.9.0.1:6222, nats://10.9.0.2:6222, nats://10.9.0.3:6222] }}\n",
            store.display()
        );
        self.work_dir.write(&format!("nats{index}.conf"), &text).map(drop)
    }

    fn write_gateway_config(&self, index: usize, lease_secs: u32) -> Result<()> {
        let own = index + 101;
        let text = format!(
            "version = 1\nruleset = \"gateway.nft\"\ncontrol = \"gw{index}.sock\"\n\
             device = [{{ name = \"lan{index}\", addresses = [\"10.1.0.{own}/32\"] }}, {{ name = \"wan{index}\", addresses = [\"192.0.2.{own}/32\"] }}]\n\
             route = [{{ to = \"10.1.0.0/24\", interface = \"lan{index}\" }}, {{ to = \"0.0.0.0/0\", interface = \"wan{index}\" }}]\n\
             [cluster]\nnode = \"gw{index}\"\nlease = \"{lease_secs}s\"\ndirectory = \"state{index}\"\naddress = [\"192.0.2.77\"]\n\
             servers = [\"nats://10.9.0.1:4222\", \"nats://10.9.0.2:4222\", \"nats://10.9.0.3:4222\"]\n"
        );
        self.work_dir.write(&format!("gw{index}.toml"), &text).map(drop)
    }

    /// Starts these NATS servers and waits until all that run answer.
    pub(super) fn start_nats(&mut self, which: &[usize]) -> Result<()> {
        let program = find_program("nats-server").context("missing program: nats-server")?;
        for &index in which {
            let (Some(netns), Some(place)) = (self.machines.get(index), self.nats.get_mut(index)) else { continue };
            let config = self.work_dir.file(&format!("nats{index}.conf"));
            let log =
                File::options().create(true).append(true).open(self.work_dir.file(&format!("nats{index}.log")))?;
            let mut command = netns.command(&program);
            *place = Some(spawn(command.arg("-c").arg(config), log)?);
        }
        let deadline = Instant::now() + NATS_TIMEOUT;
        for (index, netns) in self.machines.iter().enumerate() {
            while self.nats.get(index).is_some_and(Option::is_some)
                && !netns.enter(|| is_healthy([10, 9, 0, index as u8 + 1].into()))?
            {
                if Instant::now() > deadline {
                    bail!("the NATS server {index} does not answer within {} s", NATS_TIMEOUT.as_secs());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// Kills NATS servers with SIGKILL.
    pub(super) fn kill_nats(&mut self, which: &[usize]) {
        which.iter().filter_map(|index| self.nats.get_mut(*index)?.take()).for_each(kill);
    }

    /// Starts a gateway and waits until it routes.
    pub(super) fn start_gateway(&mut self, index: usize) -> Result<()> {
        let (Some(netns), Some(place)) = (self.machines.get(index), self.gateways.get_mut(index)) else {
            bail!("there is no gateway {index}");
        };
        // A killed gateway has left its socket.
        let _ = std::fs::remove_file(self.work_dir.file(&format!("gw{index}.sock")));
        let path = self.work_dir.file(&format!("gw{index}.log"));
        let log = File::options().create(true).append(true).open(&path)?;
        let mut command = netns.command(current_exe()?);
        let config = self.work_dir.file(&format!("gw{index}.toml"));
        let child = place.insert(spawn(command.args(["gateway", "--config"]).arg(config), log)?);
        for (interface, side) in [(format!("lan{index}"), &self.clients), (format!("wan{index}"), &self.servers)] {
            wait_until("the start of a gateway", || {
                if child.try_wait()?.is_some() {
                    bail!("a gateway does not start:\n{}", std::fs::read_to_string(&path).unwrap_or_default());
                }
                has_interface(netns, &interface)
            })?;
            run_ip(netns, &["link", "set", &interface, "netns", &side.path().display().to_string()])?;
            run_ip(side, &["link", "set", &interface, "txqueuelen", "10000", "up"])?;
        }
        wait_until("an answer of a gateway", || Ok(self.control(index, ControlRequest::Count).is_ok()))
    }

    /// Kills a gateway with SIGKILL.
    pub(super) fn kill_gateway(&mut self, index: usize) {
        if let Some(child) = self.gateways.get_mut(index).and_then(Option::take) {
            kill(child);
        }
    }

    /// Cuts a gateway's machine off from the other two, or joins it again.
    pub(super) fn set_link(&self, index: usize, state: LinkState) -> Result<()> {
        let state = match state {
            LinkState::Up => "up",
            LinkState::Down => "down",
        };
        let [_, _, third] = &self.machines;
        run_ip(third, &["link", "set", &format!("hub{index}"), state])
    }

    /// Packets of both sides go through this gateway from now on.
    pub(super) fn use_gateway(clients: &AnonNetns, servers: &AnonNetns, index: usize) -> Result<()> {
        run_ip(clients, &["route", "replace", "default", "dev", &format!("lan{index}")])?;
        run_ip(servers, &["route", "replace", "default", "dev", &format!("wan{index}")])
    }

    /// Where a gateway's control socket is.
    pub(super) fn socket(&self, index: usize) -> PathBuf {
        self.work_dir.file(&format!("gw{index}.sock"))
    }

    /// Asks a gateway.
    pub(super) fn control(&self, index: usize, request: ControlRequest) -> Result<String> {
        control_client::fetch(&self.socket(index), request)
    }
}

/// Of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    Up,
    Down,
}

impl Drop for ClusterSite {
    fn drop(&mut self) {
        self.gateways.iter_mut().chain(&mut self.nats).filter_map(Option::take).for_each(kill);
    }
}

fn spawn(command: &mut Command, log: File) -> Result<Child> {
    let program = command.get_program().to_string_lossy().into_owned();
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    silent.spawn().with_context(|| format!("cannot start {program}"))
}

fn kill(mut child: Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// The NATS server answers, and its JetStream has a leader.
fn is_healthy(address: Ipv4Addr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&SocketAddr::from((address, 8222)), TIMEOUT) else { return false };
    let asked = stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .and_then(|()| stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n"));
    let mut answer = Vec::new();
    asked.is_ok() && stream.read_to_end(&mut answer).is_ok() && answer.starts_with(b"HTTP/1.0 200")
}
