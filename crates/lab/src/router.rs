//! Who routes between the two sides, by the same rules: `keepstate gateway`, or Linux itself.
use super::folder::Folder;
use super::stage::{Ran, finish, found, ip, until};
use anyhow::{Context, Result, bail, ensure};
use keepstate_gateway::caller;
use keepstate_linux::private::Private;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The rules, of both.
pub(super) const RULESET: &str = include_str!("router.nft");

/// Who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `keepstate gateway`, between TUN devices.
    Ours,
    /// Linux's connection tracking and nftables, between veth pairs.
    Linux,
}

impl Kind {
    /// As it is called in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Ours => "keepstate gateway",
            Kind::Linux => "Linux",
        }
    }
}

/// See the module's words.
#[derive(Debug)]
pub(super) struct Router {
    kind: Kind,
    space: Private,
    process: Option<Child>,
    socket: PathBuf,
    /// What the gateway has said.
    said: Arc<Mutex<Vec<String>>>,
}

impl Router {
    /// Starts it; its devices are then [handed over](Router::hand_over) to the sides.
    pub(super) fn begin(kind: Kind, folder: &Folder, client: &Private, server: &Private) -> Result<Router> {
        let rules = folder.write("router.nft", RULESET)?;
        let socket = folder.file("control.sock");
        let space = Private::make()?;
        let mut router = Router { kind, space, process: None, socket, said: Arc::default() };
        match kind {
            Kind::Ours => router.start(&rules)?,
            Kind::Linux => router.set_up(&rules, client, server)?,
        }
        Ok(router)
    }

    fn start(&mut self, rules: &Path) -> Result<()> {
        let mut command = self.space.command(own_program()?);
        command.args(["gateway", "--ruleset"]).arg(rules);
        command.args(["--device", "lan0=10.1.0.1/24", "--device", "wan0=192.0.2.1/24", "--route", "0.0.0.0/0=wan0"]);
        command.arg("--control").arg(&self.socket);
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("the gateway cannot be started")?;
        let (notes, said) = (process.stderr.take(), self.said.clone());
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

    fn set_up(&self, rules: &Path, client: &Private, server: &Private) -> Result<()> {
        for (device, side, address) in [("lan0", client, "10.1.0.1/24"), ("wan0", server, "192.0.2.1/24")] {
            let other = side.path().display().to_string();
            ip(&self.space, &["link", "add", device, "type", "veth", "peer", "name", device, "netns", &other])?;
            ip(&self.space, &["addr", "add", address, "dev", device])?;
            ip(&self.space, &["link", "set", device, "up"])?;
        }
        let forward = || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1");
        self.space.enter(forward)?.context("forwarding cannot be switched on")?;
        let nft = found("nft").context("nft is missing. Type: apt-get install nftables")?;
        let ran = finish(self.space.command(nft).arg("-f").arg(rules), PATIENCE)?;
        ensure!(ran.good, "nft takes these rules not: {}", ran.err.trim_end());
        Ok(())
    }

    /// Gives a side its device, as soon as it is there.
    pub(super) fn hand_over(&mut self, device: &str, side: &Private) -> Result<()> {
        if self.kind == Kind::Linux {
            // The other end of the pair is there from the beginning.
            return Ok(());
        }
        let there = side.path().display().to_string();
        let (space, process, said) = (&self.space, &mut self.process, &self.said);
        until("the gateway's start", || {
            if ip(space, &["link", "set", device, "netns", &there]).is_ok() {
                return Ok(true);
            }
            if process.as_mut().is_none_or(|process| process.try_wait().is_ok_and(|ended| ended.is_some())) {
                bail!("the gateway does not come up:\n  {}", lines(said).join("\n  "));
            }
            Ok(false)
        })
    }

    /// Where it routes.
    pub(super) fn space(&self) -> &Private {
        &self.space
    }

    /// Who it is.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// The control socket; Linux has none.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Connections in the table.
    pub(super) fn count(&self) -> Result<u64> {
        self.number("nf_conntrack_count", &["count"])
    }

    /// How many it takes.
    pub(super) fn limit(&self) -> Result<u64> {
        self.number("nf_conntrack_max", &["get", "nf_conntrack_max"])
    }

    fn number(&self, knob: &str, words: &[&str]) -> Result<u64> {
        let text = match self.kind {
            Kind::Ours => self.ask(words)?,
            Kind::Linux => {
                self.space.enter(|| std::fs::read_to_string(format!("/proc/sys/net/netfilter/{knob}")))??
            }
        };
        text.trim().parse().with_context(|| format!("{knob}: {text:?} is no number"))
    }

    /// Asks the gateway, with the words of `keepstate control`.
    pub(super) fn ask(&self, words: &[&str]) -> Result<String> {
        caller::text(&self.socket, words)
    }

    /// Its connections of TCP, as conntrack writes them.
    pub(super) fn connections(&self) -> Result<String> {
        match self.kind {
            Kind::Ours => self.ask(&["list", "-p", "tcp"]),
            Kind::Linux => Ok(self.run(&["conntrack", "-L", "-p", "tcp"])?.out),
        }
    }

    /// Packets that the last rule of the forward chain has refused.
    pub(super) fn refused(&self) -> Result<u64> {
        let text = match self.kind {
            Kind::Ours => self.ask(&["rules"])?,
            Kind::Linux => {
                let nft = found("nft").context("nft is missing. Type: apt-get install nftables")?;
                finish(self.space.command(nft).args(["list", "chain", "inet", "filter", "forward"]), PATIENCE)?.out
            }
        };
        let text: String = text.lines().filter(|line| line.contains("reject")).collect();
        Ok(text.lines().last().and_then(packets).unwrap_or(0))
    }

    /// Runs this program where the router is.
    pub(super) fn run(&self, words: &[&str]) -> Result<Ran> {
        finish(self.space.command(own_program()?).args(words), PATIENCE)
    }

    /// What the gateway has said so far.
    pub(super) fn said(&self) -> Vec<String> {
        lines(&self.said)
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
pub(super) fn own_program() -> Result<PathBuf> {
    std::env::current_exe().context("this program's own file")
}

/// `… packets 3 bytes 180 …`
fn packets(line: &str) -> Option<u64> {
    let mut words = line.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1)?.parse().ok()
}

fn lines(said: &Mutex<Vec<String>>) -> Vec<String> {
    said.lock().map(|said| said.clone()).unwrap_or_default()
}

const PATIENCE: Duration = super::stage::PATIENCE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_counting_are_read() {
        assert_eq!(packets("ip t c rule 3 packets 7 bytes 420"), Some(7));
        assert_eq!(packets("\t\tcounter packets 12 bytes 720 reject with icmpx admin-prohibited"), Some(12));
        assert_eq!(packets("accept"), None);
    }
}
