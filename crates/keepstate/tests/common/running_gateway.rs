//! A gateway with TUN interfaces in a network namespace of its own, while it runs.
#![allow(dead_code, reason = "each test uses what it needs")]
use crate::common::{TempFile, report_skipped};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct RunningGateway {
    pub child: Child,
    pub socket: PathBuf,
    pub ruleset: TempFile,
}

impl RunningGateway {
    /// With these interfaces (`nft0=10.1.0.1/24`); `None` where there may be none: `what` is skipped.
    pub fn start(name: &str, ruleset: &str, devices: &[&str], what: &str) -> Option<RunningGateway> {
        let ruleset = TempFile::new(&format!("{name}.nft"), ruleset.as_bytes());
        let socket = std::env::temp_dir().join(format!("ks{}{name}.sock", std::process::id()));
        let child = Command::new("unshare")
            .args(["--net", env!("CARGO_BIN_EXE_keepstate"), "gateway"])
            .args(devices.iter().flat_map(|device| ["--device", device]))
            .args(["--ruleset", ruleset.path(), "--control"])
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut running = RunningGateway { child, socket, ruleset };
        let until = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(&running.socket).is_err() {
            if !matches!(running.child.try_wait(), Ok(None)) || Instant::now() > until {
                report_skipped(&format!("{what}: it needs root, unshare and /dev/net/tun"));
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(running)
    }
}

impl Drop for RunningGateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}
