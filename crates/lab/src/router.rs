//! Who routes between the two sides, by the same rules: `keepstate gateway`, or Linux itself.
use super::topology::{CommandOutput, find_program, run_ip, run_to_end, wait_until};
use super::work_dir::WorkDir;
use anyhow::{Context, Result, bail, ensure};
use keepstate_conntrack::FilterArgs;
use keepstate_gateway::control_client;
use keepstate_gateway::control_protocol::{ControlRequest, ShowOptions};
use keepstate_linux::netns::AnonNetns;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The rules, of both.
pub(super) const RULESET: &str = include_str!("router.nft");

/// Who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouterKind {
    /// `keepstate gateway`, between TUN devices.
    Keepstate,
    /// Linux's connection tracking and nftables, between veth pairs.
    Linux,
}

impl RouterKind {
    /// As it is called in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            RouterKind::Keepstate => "keepstate gateway",
            RouterKind::Linux => "Linux",
        }
    }
}

/// See the module's words.
#[derive(Debug)]
pub(super) struct Router {
    kind: RouterKind,
    netns: AnonNetns,
    process: Option<Child>,
    socket: PathBuf,
    /// What the gateway has said.
    log_lines: Arc<Mutex<Vec<String>>>,
}

impl Router {
    /// Starts it; its devices are then [handed over](Router::hand_over) to the sides.
    pub(super) fn launch(kind: RouterKind, folder: &WorkDir, client: &AnonNetns, server: &AnonNetns) -> Result<Router> {
        let rules = folder.write("router.nft", RULESET)?;
        let socket = folder.file("control.sock");
        let space = AnonNetns::create()?;
        let mut router = Router { kind, netns: space, process: None, socket, log_lines: Arc::default() };
        match kind {
            RouterKind::Keepstate => router.start_gateway(&rules)?,
            RouterKind::Linux => router.set_up_linux(&rules, client, server)?,
        }
        Ok(router)
    }

    fn start_gateway(&mut self, rules: &Path) -> Result<()> {
        let mut command = self.netns.command(current_exe()?);
        command.args(["gateway", "--ruleset"]).arg(rules);
        command.args(["--device", "lan0=10.1.0.1/24", "--device", "wan0=192.0.2.1/24", "--route", "0.0.0.0/0=wan0"]);
        command.arg("--control").arg(&self.socket);
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("the gateway cannot be started")?;
        let (notes, said) = (process.stderr.take(), self.log_lines.clone());
        self.process = Some(process);
        std::thread::spawn(move || {
            for line in notes.into_iter().flat_map(|notes| BufReader::new(notes).lines().map_while(Result::ok)) {
                if let Ok(mut said) = said.lock() {
                    said.push(line);
                }
            }
        });
        Ok(())
    }

    fn set_up_linux(&self, rules: &Path, client: &AnonNetns, server: &AnonNetns) -> Result<()> {
        for (device, side, address) in [("lan0", client, "10.1.0.1/24"), ("wan0", server, "192.0.2.1/24")] {
            let other = side.path().display().to_string();
            run_ip(&self.netns, &["link", "add", device, "type", "veth", "peer", "name", device, "netns", &other])?;
            run_ip(&self.netns, &["addr", "add", address, "dev", device])?;
            run_ip(&self.netns, &["link", "set", device, "up"])?;
        }
        let forward = || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1");
        self.netns.enter(forward)?.context("forwarding cannot be switched on")?;
        let nft = find_program("nft").context("nft is missing. Type: apt-get install nftables")?;
        let ran = run_to_end(self.netns.command(nft).arg("-f").arg(rules), TIMEOUT)?;
        ensure!(ran.success, "nft takes these rules not: {}", ran.stderr.trim_end());
        Ok(())
    }

    /// Gives a side its device, as soon as it is there.
    pub(super) fn move_interface(&mut self, device: &str, side: &AnonNetns) -> Result<()> {
        if self.kind == RouterKind::Linux {
            // The other end of the pair is there from the beginning.
            return Ok(());
        }
        let there = side.path().display().to_string();
        let (space, process, said) = (&self.netns, &mut self.process, &self.log_lines);
        wait_until("the gateway's start", || {
            if run_ip(space, &["link", "set", device, "netns", &there]).is_ok() {
                return Ok(true);
            }
            if process.as_mut().is_none_or(|process| process.try_wait().is_ok_and(|ended| ended.is_some())) {
                bail!("the gateway does not come up:\n  {}", lock_lines(said).join("\n  "));
            }
            Ok(false)
        })
    }

    /// Where it routes.
    pub(super) fn netns(&self) -> &AnonNetns {
        &self.netns
    }

    /// Who it is.
    pub(super) fn kind(&self) -> RouterKind {
        self.kind
    }

    /// The control socket; Linux has none.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Connections in the table.
    pub(super) fn count(&self) -> Result<u64> {
        self.read_counter("nf_conntrack_count", ControlRequest::Count)
    }

    /// How many it takes.
    pub(super) fn limit(&self) -> Result<u64> {
        self.read_counter("nf_conntrack_max", ControlRequest::Get { sysctl: "nf_conntrack_max".into() })
    }

    fn read_counter(&self, knob: &str, request: ControlRequest) -> Result<u64> {
        let text = match self.kind {
            RouterKind::Keepstate => self.control(request)?,
            RouterKind::Linux => {
                self.netns.enter(|| std::fs::read_to_string(format!("/proc/sys/net/netfilter/{knob}")))??
            }
        };
        text.trim().parse().with_context(|| format!("{knob}: {text:?} is no number"))
    }

    /// Sends the gateway a control request.
    pub(super) fn control(&self, request: ControlRequest) -> Result<String> {
        control_client::fetch(&self.socket, request)
    }

    /// Its connections of TCP, as conntrack writes them.
    pub(super) fn connections(&self) -> Result<String> {
        match self.kind {
            RouterKind::Keepstate => {
                let filter = FilterArgs::of_protocol(keepstate_linux::ctnetlink::protocol::TCP);
                self.control(ControlRequest::List(ShowOptions { filter, ..ShowOptions::default() }))
            }
            RouterKind::Linux => Ok(self.run_keepstate(&["conntrack", "-L", "-p", "tcp"])?.stdout),
        }
    }

    /// Packets that the last rule of the forward chain has refused.
    pub(super) fn rejected_packets(&self) -> Result<u64> {
        let text = match self.kind {
            RouterKind::Keepstate => self.control(ControlRequest::Rules)?,
            RouterKind::Linux => {
                let nft = find_program("nft").context("nft is missing. Type: apt-get install nftables")?;
                run_to_end(self.netns.command(nft).args(["list", "chain", "inet", "filter", "forward"]), TIMEOUT)?
                    .stdout
            }
        };
        let text: String = text.lines().filter(|line| line.contains("reject")).collect();
        Ok(text.lines().last().and_then(parse_packets).unwrap_or(0))
    }

    /// Runs this program where the router is.
    pub(super) fn run_keepstate(&self, words: &[&str]) -> Result<CommandOutput> {
        run_to_end(self.netns.command(current_exe()?).args(words), TIMEOUT)
    }

    /// What the gateway has said so far.
    pub(super) fn log(&self) -> Vec<String> {
        lock_lines(&self.log_lines)
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// This program's own file.
pub(super) fn current_exe() -> Result<PathBuf> {
    std::env::current_exe().context("this program's own file")
}

/// `… packets 3 bytes 180 …`
fn parse_packets(line: &str) -> Option<u64> {
    let mut words = line.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1)?.parse().ok()
}

fn lock_lines(said: &Mutex<Vec<String>>) -> Vec<String> {
    said.lock().map(|said| said.clone()).unwrap_or_default()
}

const TIMEOUT: Duration = super::topology::TIMEOUT;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_packets_of_both_routers() {
        assert_eq!(parse_packets("ip t c rule 3 packets 7 bytes 420"), Some(7));
        assert_eq!(parse_packets("\t\tcounter packets 12 bytes 720 reject with icmpx admin-prohibited"), Some(12));
        assert_eq!(parse_packets("accept"), None);
    }
}
