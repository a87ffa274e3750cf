//! The router between the two sides: `keepstate gateway` or Linux itself, with the same ruleset.
use super::process::{CommandOutput, TIMEOUT, current_exe, find_program, run_ip, run_to_end, wait_until};
use super::work_dir::WorkDir;
use anyhow::{Context, Result, bail, ensure};
use keepstate_gateway::control_client;
use keepstate_gateway::control_protocol::{ControlRequest, FilterArgs, ShowOptions};
use keepstate_linux::netns::AnonNetns;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

/// The ruleset of both.
pub(super) const RULESET: &str = include_str!("router.nft");

/// Which router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouterKind {
    /// `keepstate gateway`, between TUN interfaces.
    Keepstate,
    /// Linux's connection tracking and nftables, between veth pairs.
    Linux,
}

impl RouterKind {
    /// Its name in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            RouterKind::Keepstate => "keepstate gateway",
            RouterKind::Linux => "Linux",
        }
    }
}

/// A running router in its own network namespace.
#[derive(Debug)]
pub(super) struct Router {
    kind: RouterKind,
    netns: AnonNetns,
    process: Option<Child>,
    socket: PathBuf,
    /// The gateway's log so far.
    log_lines: Arc<Mutex<Vec<String>>>,
}

impl Router {
    /// Starts it; its interfaces are then [moved](Router::move_interface) to the sides.
    pub(super) fn launch(
        kind: RouterKind,
        work_dir: &WorkDir,
        client: &AnonNetns,
        server: &AnonNetns,
    ) -> Result<Router> {
        let rules = work_dir.write("router.nft", RULESET)?;
        let socket = work_dir.file("control.sock");
        let netns = AnonNetns::create()?;
        let mut router = Router { kind, netns, process: None, socket, log_lines: Arc::default() };
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
            .context("cannot start keepstate gateway")?;
        let (stderr, log_lines) = (process.stderr.take(), self.log_lines.clone());
        self.process = Some(process);
        std::thread::spawn(move || {
            for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines().map_while(Result::ok)) {
                if let Ok(mut lines) = log_lines.lock() {
                    lines.push(line);
                }
            }
        });
        Ok(())
    }

    fn set_up_linux(&self, rules: &Path, client: &AnonNetns, server: &AnonNetns) -> Result<()> {
        for (interface, side, address) in [("lan0", client, "10.1.0.1/24"), ("wan0", server, "192.0.2.1/24")] {
            let other = side.path().display().to_string();
            run_ip(
                &self.netns,
                &["link", "add", interface, "type", "veth", "peer", "name", interface, "netns", &other],
            )?;
            run_ip(&self.netns, &["addr", "add", address, "dev", interface])?;
            run_ip(&self.netns, &["link", "set", interface, "up"])?;
        }
        let forward = || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1");
        self.netns.enter(forward)?.context("cannot enable net.ipv4.ip_forward")?;
        let nft = find_program("nft").context("missing program: nft. Type: apt-get install nftables")?;
        let ran = run_to_end(self.netns.command(nft).arg("-f").arg(rules), TIMEOUT)?;
        ensure!(ran.success, "nft rejects the ruleset: {}", ran.stderr.trim_end());
        Ok(())
    }

    /// Moves the router's interface to a side, as soon as it exists.
    pub(super) fn move_interface(&mut self, interface: &str, side: &AnonNetns) -> Result<()> {
        if self.kind == RouterKind::Linux {
            // The other end of the veth pair was made there.
            return Ok(());
        }
        let (netns, process, log_lines) = (&self.netns, &mut self.process, &self.log_lines);
        wait_until("the start of the gateway", || {
            if has_interface(netns, interface)? {
                return Ok(true);
            }
            if process.as_mut().is_none_or(|process| process.try_wait().is_ok_and(|status| status.is_some())) {
                bail!("the gateway does not start:\n  {}", lock_lines(log_lines).join("\n  "));
            }
            Ok(false)
        })?;
        run_ip(netns, &["link", "set", interface, "netns", &side.path().display().to_string()])
    }

    /// The namespace it routes in.
    pub(super) fn netns(&self) -> &AnonNetns {
        &self.netns
    }

    /// Which router it is.
    pub(super) fn kind(&self) -> RouterKind {
        self.kind
    }

    /// The gateway's control socket; Linux has none.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The number of connections in the table.
    pub(super) fn count(&self) -> Result<u64> {
        self.read_counter("nf_conntrack_count", ControlRequest::Count)
    }

    /// The table limit.
    pub(super) fn limit(&self) -> Result<u64> {
        self.read_counter("nf_conntrack_max", ControlRequest::Get { sysctl: "nf_conntrack_max".into() })
    }

    fn read_counter(&self, sysctl: &str, request: ControlRequest) -> Result<u64> {
        let text = match self.kind {
            RouterKind::Keepstate => self.control(request)?,
            RouterKind::Linux => {
                self.netns.enter(|| std::fs::read_to_string(format!("/proc/sys/net/netfilter/{sysctl}")))??
            }
        };
        text.trim().parse().with_context(|| format!("{sysctl}: {text:?} is not a number"))
    }

    /// Sends the gateway a control request.
    pub(super) fn control(&self, request: ControlRequest) -> Result<String> {
        control_client::fetch(&self.socket, request)
    }

    /// Its TCP connections, in the format of conntrack -L.
    pub(super) fn connections(&self) -> Result<String> {
        match self.kind {
            RouterKind::Keepstate => {
                let filter = FilterArgs::of_protocol(keepstate_linux::ctnetlink::protocol::TCP);
                self.control(ControlRequest::List(ShowOptions { filter, ..ShowOptions::default() }))
            }
            RouterKind::Linux => Ok(self.run_keepstate(&["conntrack", "-L", "-p", "tcp"])?.stdout),
        }
    }

    /// Packets that the last rule of the forward chain has rejected.
    pub(super) fn rejected_packets(&self) -> Result<u64> {
        let text = match self.kind {
            RouterKind::Keepstate => self.control(ControlRequest::Rules)?,
            RouterKind::Linux => {
                let nft = find_program("nft").context("missing program: nft. Type: apt-get install nftables")?;
                run_to_end(self.netns.command(nft).args(["list", "chain", "inet", "filter", "forward"]), TIMEOUT)?
                    .stdout
            }
        };
        let text: String = text.lines().filter(|line| line.contains("reject")).collect();
        Ok(text.lines().last().and_then(parse_packets).unwrap_or(0))
    }

    /// Runs this program in the router's namespace.
    pub(super) fn run_keepstate(&self, args: &[&str]) -> Result<CommandOutput> {
        run_to_end(self.netns.command(current_exe()?).args(args), TIMEOUT)
    }

    /// The gateway's log so far.
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

/// Whether the namespace has this interface: by /proc, so that no program is run while waiting.
pub(super) fn has_interface(netns: &AnonNetns, interface: &str) -> Result<bool> {
    let interfaces = netns.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
    let interfaces = interfaces.context("cannot read /proc/thread-self/net/dev")?;
    Ok(interfaces.lines().any(|line| line.split_once(':').is_some_and(|(name, _)| name.trim() == interface)))
}

/// The number in `… packets 3 bytes 180 …`.
fn parse_packets(line: &str) -> Option<u64> {
    let mut words = line.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1)?.parse().ok()
}

fn lock_lines(lines: &Mutex<Vec<String>>) -> Vec<String> {
    lines.lock().map(|lines| lines.clone()).unwrap_or_default()
}

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
