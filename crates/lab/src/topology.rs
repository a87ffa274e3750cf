//! Three network namespaces: clients, a router between its two devices, servers; for as long as this value lives.
//!
//! They have no names and their programs end with this process, so that nothing is left behind however it ends.
use super::router::{Router, RouterKind};
use super::work_dir::WorkDir;
use anyhow::{Context, Result, bail, ensure};
use keepstate_linux::netns::{self, AnonNetns};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take to come up, or a program that is run to end.
pub(super) const TIMEOUT: Duration = Duration::from_secs(20);
/// Crowds of first segments: a device drops what finds no room in its queue.
const TX_QUEUE_LEN: &str = "10000";

/// The router's outer address.
pub(super) const GATEWAY_ADDR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Where the outer servers are: web, broker, names.
pub(super) const SERVER_ADDR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
/// The first two inner machines; the published port is theirs.
pub(super) const INSIDE_ADDRS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2)), IpAddr::V4(Ipv4Addr::new(10, 1, 0, 3))];

/// The address of a fleet of sessions, and of the server that it calls.
pub(super) fn session_addrs(fleet: u8) -> (IpAddr, IpAddr) {
    (IpAddr::from([10, 1, 0, fleet.saturating_add(11)]), IpAddr::from([192, 0, 2, fleet.saturating_add(11)]))
}

/// See the module's words.
#[derive(Debug)]
pub(super) struct Topology {
    // What runs ends before where it runs.
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

/// What a program left.
#[derive(Clone, Debug, Default)]
pub(super) struct CommandOutput {
    pub(super) success: bool,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Lets this process make namespaces: as root, or as the root of a user namespace of its own. It must have no threads yet.
pub(super) fn ensure_netns_allowed() -> Result<()> {
    match AnonNetns::create() {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => (),
        Err(error) => return Err(error).context("network namespaces cannot be made on this machine"),
    }
    netns::become_root_in_user_namespace().and_then(|()| AnonNetns::create()).context(
        "network namespaces need root (sudo keepstate lab), or a machine that lets users make them: \
         sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns",
    )?;
    Ok(())
}

impl Topology {
    /// Makes everything; the sides have addresses for so many fleets.
    pub(super) fn build(kind: RouterKind, fleets: u8) -> Result<Topology> {
        let tun = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
        if kind == RouterKind::Keepstate {
            tun.context("/dev/net/tun cannot be opened: type modprobe tun; in a container, give it that device")?;
        }
        let folder = WorkDir::create()?;
        let (client, server) = (AnonNetns::create()?, AnonNetns::create()?);
        let router = Router::launch(kind, &folder, &client, &server)?;
        let mut stage = Topology { children: Vec::new(), router, client, server, work_dir: folder };
        let inside: Vec<IpAddr> =
            INSIDE_ADDRS.into_iter().chain((0..fleets).map(|fleet| session_addrs(fleet).0)).collect();
        let outside: Vec<IpAddr> =
            [SERVER_ADDR].into_iter().chain((0..fleets).map(|fleet| session_addrs(fleet).1)).collect();
        stage.configure_side("lan0", Side::Client, &inside, "10.1.0.1")?;
        stage.configure_side("wan0", Side::Server, &outside, "192.0.2.1")?;
        Ok(stage)
    }

    /// Gives a device addresses and the way to everybody, as soon as it is there.
    fn configure_side(&mut self, device: &str, side: Side, addresses: &[IpAddr], way: &str) -> Result<()> {
        let space = match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        };
        self.router.move_interface(device, space)?;
        for address in addresses {
            run_ip(space, &["addr", "add", &format!("{address}/24"), "dev", device])?;
        }
        run_ip(space, &["link", "set", device, "txqueuelen", TX_QUEUE_LEN])?;
        run_ip(space, &["link", "set", "lo", "up"])?;
        run_ip(space, &["link", "set", device, "up"])?;
        run_ip(space, &["route", "add", "default", "via", way, "dev", device])
    }

    /// A side's namespace.
    pub(super) fn netns_of(&self, side: Side) -> &AnonNetns {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    /// Runs a program on a side to its end.
    pub(super) fn run(&self, side: Side, program: &Path, words: &[&str]) -> Result<CommandOutput> {
        run_to_end(self.netns_of(side).command(program).args(words), TIMEOUT)
    }

    /// Starts a program on a side, which goes on as long as the stage stands.
    pub(super) fn spawn_background(&mut self, side: Side, program: &Path, words: &[&str]) -> Result<()> {
        let mut command = self.netns_of(side).command(program);
        let silent = command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.children.push(silent.spawn().with_context(|| format!("{} cannot be started", program.display()))?);
        Ok(())
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

/// Runs to its end, or to that of our patience; its output is short.
pub(super) fn run_to_end(command: &mut Command, patience: Duration) -> Result<CommandOutput> {
    let named = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{named} cannot be run"))?;
    let (out, err) = (read_all(child.stdout.take()), read_all(child.stderr.take()));
    let until = Instant::now() + patience;
    let good = loop {
        if let Some(ended) = child.try_wait()? {
            break ended.success();
        }
        if Instant::now() > until {
            child.kill()?;
            child.wait()?;
            break false;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Ok(CommandOutput { success: good, stdout: out.join().unwrap_or_default(), stderr: err.join().unwrap_or_default() })
}

fn read_all(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        // What came before a broken pipe is what it said.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut all));
        String::from_utf8_lossy(&all).into_owned()
    })
}

/// Runs ip(8) inside.
pub(super) fn run_ip(space: &AnonNetns, words: &[&str]) -> Result<()> {
    let program = find_program("ip").context("ip is missing. Type: apt-get install iproute2")?;
    let ran = run_to_end(space.command(program).args(words), TIMEOUT)?;
    ensure!(ran.success, "ip {}: {}", words.join(" "), ran.stderr.trim_end());
    Ok(())
}

/// Where a program is, also where only root looks.
pub(super) fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Waits until something is so.
pub(super) fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + TIMEOUT;
    while !is_so()? {
        if Instant::now() > end {
            bail!("{what} takes longer than {} s", TIMEOUT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
