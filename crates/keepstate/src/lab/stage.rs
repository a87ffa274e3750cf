//! Three namespaces and a gateway between them, for as long as this value lives.
use anyhow::{Context, Result, bail, ensure};
use keepstate_linux::namespace;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The ruleset of the laboratory's gateway.
pub(super) const RULESET: &str = include_str!("router.nft");
/// How long anything may take to come up.
const PATIENCE: Duration = Duration::from_secs(20);

/// See the module's words.
pub(super) struct Stage {
    tag: String,
    gateway: Option<Child>,
    folder: TempDir,
    /// What the gateway has said.
    said: Arc<Mutex<Vec<String>>>,
}

/// A side of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Inside: 10.1.0.0/24 behind lan0.
    Client,
    /// Outside: everything else, behind wan0.
    Server,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Server => "server",
        }
    }
}

impl Stage {
    /// Makes everything.
    pub(super) fn build() -> Result<Stage> {
        let tag = format!("keepstate-lab-{}", std::process::id());
        let folder = TempDir::with_prefix("keepstate-lab-").context("a folder for the gateway's files")?;
        let mut stage = Stage { tag, gateway: None, folder, said: Arc::default() };
        for side in ["client", "gateway", "server"] {
            let name = stage.space(side);
            ip(&["netns", "add", &name]).context("making network namespaces needs root (CAP_NET_ADMIN, CAP_SYS_ADMIN) and iproute2 (apt-get install iproute2)")?;
        }
        stage.start_gateway()?;
        stage.wire("lan0", Side::Client, &["10.1.0.2/24", "10.1.0.3/24"])?;
        stage.wire("wan0", Side::Server, &["192.0.2.9/24"])?;
        Ok(stage)
    }

    fn space(&self, side: &str) -> String {
        format!("{}-{side}", self.tag)
    }

    fn ruleset(&self) -> PathBuf {
        self.folder.path().join("router.nft")
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    fn start_gateway(&mut self) -> Result<()> {
        fs::write(self.ruleset(), RULESET).context("the ruleset cannot be written")?;
        let program = std::env::current_exe().context("this program's own file")?;
        let mut gateway = Command::new("ip")
            .args(["netns", "exec", &self.space("gateway")])
            .arg(program)
            .args(["gateway", "--ruleset"])
            .arg(self.ruleset())
            .args([
                "--device",
                "lan0=10.1.0.1/24",
                "--device",
                "wan0=192.0.2.1/24",
                "--route",
                "0.0.0.0/0=wan0",
                "--control",
            ])
            .arg(self.socket())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("the gateway cannot be started")?;
        let notes = gateway.stderr.take();
        self.gateway = Some(gateway);
        let said = self.said.clone();
        std::thread::spawn(move || {
            for line in notes.into_iter().flat_map(|notes| BufReader::new(notes).lines().map_while(Result::ok)) {
                if let Ok(mut said) = said.lock() {
                    said.push(line);
                }
            }
        });
        Ok(())
    }

    /// Gives one of the gateway's devices to a side, with addresses and the way to everybody.
    fn wire(&mut self, device: &str, side: Side, addresses: &[&str]) -> Result<()> {
        let (from, to) = (self.space("gateway"), self.space(side.name()));
        let until = Instant::now() + PATIENCE;
        while ip(&["-n", &from, "link", "set", device, "netns", &to]).is_err() {
            let ended =
                self.gateway.as_mut().is_none_or(|gateway| gateway.try_wait().is_ok_and(|ended| ended.is_some()));
            if ended || Instant::now() > until {
                bail!("the gateway does not come up:\n  {}", self.said().join("\n  "));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for address in addresses {
            ip(&["-n", &to, "addr", "add", address, "dev", device])?;
        }
        for words in [
            &["link", "set", "lo", "up"][..],
            &["link", "set", device, "up"],
            &["route", "add", "default", "dev", device],
        ] {
            ip(&[&["-n", to.as_str()], words].concat())?;
        }
        Ok(())
    }

    /// What the gateway has said so far.
    pub(super) fn said(&self) -> Vec<String> {
        self.said.lock().map(|said| said.clone()).unwrap_or_default()
    }

    /// Runs something on a side, on a thread of its own.
    pub(super) fn within<T: Send + 'static>(&self, side: Side, what: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let space = namespace::named(&self.space(side.name()))?;
        Ok(space.enter(what)?)
    }

    /// Asks the gateway, with the words of `keepstate control`.
    pub(super) fn control(&self, words: &[&str]) -> Result<String> {
        let program = std::env::current_exe().context("this program's own file")?;
        let asked = Command::new(program).args(["control", "--socket"]).arg(self.socket()).args(words).output()?;
        ensure!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr).trim_end());
        Ok(String::from_utf8_lossy(&asked.stdout).into_owned())
    }

    /// What to type while it is held.
    pub(super) fn describe(&self) {
        let (socket, rules) = (self.socket(), self.ruleset());
        anstream::println!("\nIt stays up. In another terminal:");
        anstream::println!("  ip netns exec {} bash         # inside: 10.1.0.2 and 10.1.0.3", self.space("client"));
        anstream::println!(
            "  ip netns exec {} bash         # outside: 192.0.2.9; the gateway is 192.0.2.1",
            self.space("server")
        );
        anstream::println!("  keepstate control --socket {} list", socket.display());
        anstream::println!("  keepstate control --socket {} rules", socket.display());
        anstream::println!("  $EDITOR {0} && keepstate control --socket {1} reload", rules.display(), socket.display());
        anstream::println!("Ctrl-C takes it all away.");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(gateway) = &mut self.gateway {
            // It may have ended by itself.
            let _ = gateway.kill();
            let _ = gateway.wait();
        }
        for side in ["client", "gateway", "server"] {
            let _ = ip(&["netns", "del", &self.space(side)]);
        }
    }
}

/// Runs `ip`.
fn ip(words: &[&str]) -> Result<()> {
    let ran = Command::new("ip").args(words).stdin(Stdio::null()).output().context("ip cannot be run")?;
    ensure!(ran.status.success(), "ip {}: {}", words.join(" "), String::from_utf8_lossy(&ran.stderr).trim_end());
    Ok(())
}

/// Addresses of the stage.
pub(super) const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
