//! Three network namespaces: clients, a router between its two devices, servers; for as long as this value lives.
//!
//! They have no names and their programs end with this process, so that nothing is left behind however it ends.
use super::folder::Folder;
use super::router::{Kind, Router};
use anyhow::{Context, Result, bail, ensure};
use keepstate_linux::private::{self, Private};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take to come up, or a program that is run to end.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Crowds of first segments: a device drops what finds no room in its queue.
const QUEUE: &str = "10000";

/// The router's outer address.
pub(super) const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Where the outer servers are: web, broker, names.
pub(super) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
/// The first two inner machines; the published port is theirs.
pub(super) const INSIDE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2)), IpAddr::V4(Ipv4Addr::new(10, 1, 0, 3))];

/// The address of a fleet of sessions, and of the server that it calls.
pub(super) fn ends(fleet: u8) -> (IpAddr, IpAddr) {
    (IpAddr::from([10, 1, 0, fleet.saturating_add(11)]), IpAddr::from([192, 0, 2, fleet.saturating_add(11)]))
}

/// See the module's words.
#[derive(Debug)]
pub(super) struct Stage {
    // What runs ends before where it runs.
    kept: Vec<Child>,
    pub(super) router: Router,
    client: Private,
    server: Private,
    pub(super) folder: Folder,
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
pub(super) struct Ran {
    pub(super) good: bool,
    pub(super) out: String,
    pub(super) err: String,
}

/// Lets this process make namespaces: as root, or as the root of a user namespace of its own. It must have no threads yet.
pub(super) fn permit() -> Result<()> {
    match Private::make() {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => (),
        Err(error) => return Err(error).context("network namespaces cannot be made on this machine"),
    }
    private::become_root_within().and_then(|()| Private::make()).context(
        "network namespaces need root (sudo keepstate lab), or a machine that lets users make them: \
         sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns",
    )?;
    Ok(())
}

impl Stage {
    /// Makes everything; the sides have addresses for so many fleets.
    pub(super) fn build(kind: Kind, fleets: u8) -> Result<Stage> {
        let tun = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
        if kind == Kind::Ours {
            tun.context("/dev/net/tun cannot be opened: type modprobe tun; in a container, give it that device")?;
        }
        let folder = Folder::make()?;
        let (client, server) = (Private::make()?, Private::make()?);
        let router = Router::begin(kind, &folder, &client, &server)?;
        let mut stage = Stage { kept: Vec::new(), router, client, server, folder };
        let inside: Vec<IpAddr> = INSIDE.into_iter().chain((0..fleets).map(|fleet| ends(fleet).0)).collect();
        let outside: Vec<IpAddr> = [SERVER].into_iter().chain((0..fleets).map(|fleet| ends(fleet).1)).collect();
        stage.wire("lan0", Side::Client, &inside, "10.1.0.1")?;
        stage.wire("wan0", Side::Server, &outside, "192.0.2.1")?;
        Ok(stage)
    }

    /// Gives a device addresses and the way to everybody, as soon as it is there.
    fn wire(&mut self, device: &str, side: Side, addresses: &[IpAddr], way: &str) -> Result<()> {
        let space = match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        };
        self.router.hand_over(device, space)?;
        for address in addresses {
            ip(space, &["addr", "add", &format!("{address}/24"), "dev", device])?;
        }
        ip(space, &["link", "set", device, "txqueuelen", QUEUE])?;
        ip(space, &["link", "set", "lo", "up"])?;
        ip(space, &["link", "set", device, "up"])?;
        ip(space, &["route", "add", "default", "via", way, "dev", device])
    }

    /// A side's namespace.
    pub(super) fn side(&self, side: Side) -> &Private {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    /// Runs a program on a side to its end.
    pub(super) fn run(&self, side: Side, program: &Path, words: &[&str]) -> Result<Ran> {
        finish(self.side(side).command(program).args(words), PATIENCE)
    }

    /// Starts a program on a side, which goes on as long as the stage stands.
    pub(super) fn keep(&mut self, side: Side, program: &Path, words: &[&str]) -> Result<()> {
        let mut command = self.side(side).command(program);
        let silent = command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.kept.push(silent.spawn().with_context(|| format!("{} cannot be started", program.display()))?);
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in &mut self.kept {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs to its end, or to that of our patience; its output is short.
pub(super) fn finish(command: &mut Command, patience: Duration) -> Result<Ran> {
    let named = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{named} cannot be run"))?;
    let (out, err) = (gather(child.stdout.take()), gather(child.stderr.take()));
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
    Ok(Ran { good, out: out.join().unwrap_or_default(), err: err.join().unwrap_or_default() })
}

fn gather(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        // What came before a broken pipe is what it said.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut all));
        String::from_utf8_lossy(&all).into_owned()
    })
}

/// Runs ip(8) inside.
pub(super) fn ip(space: &Private, words: &[&str]) -> Result<()> {
    let program = found("ip").context("ip is missing. Type: apt-get install iproute2")?;
    let ran = finish(space.command(program).args(words), PATIENCE)?;
    ensure!(ran.good, "ip {}: {}", words.join(" "), ran.err.trim_end());
    Ok(())
}

/// Where a program is, also where only root looks.
pub(super) fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Waits until something is so.
pub(super) fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !is_so()? {
        if Instant::now() > end {
            bail!("{what} takes longer than {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
