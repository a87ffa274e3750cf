//! Programs that the laboratory runs: finding them, running them to their end, and waiting for a condition.
use anyhow::{Context, Result, bail, ensure};
use keepstate_linux::netns::AnonNetns;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Time limit for a program that is run to its end, and for everything that has to come up.
pub(super) const TIMEOUT: Duration = Duration::from_secs(20);

/// The result of a program.
#[derive(Clone, Debug, Default)]
pub(super) struct CommandOutput {
    pub(super) success: bool,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Runs a program with little output to its end; kills it after `timeout`.
pub(super) fn run_to_end(command: &mut Command, timeout: Duration) -> Result<CommandOutput> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let (out, err) = (read_all(child.stdout.take()), read_all(child.stderr.take()));
    let deadline = Instant::now() + timeout;
    let success = loop {
        if let Some(status) = child.try_wait()? {
            break status.success();
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            break false;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Ok(CommandOutput { success, stdout: out.join().unwrap_or_default(), stderr: err.join().unwrap_or_default() })
}

fn read_all(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        // Output before a read error still counts.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut all));
        String::from_utf8_lossy(&all).into_owned()
    })
}

/// Runs ip(8) in a namespace.
pub(super) fn run_ip(netns: &AnonNetns, args: &[&str]) -> Result<()> {
    let program = find_program("ip").context("missing program: ip. Type: apt-get install iproute2")?;
    let ran = run_to_end(netns.command(program).args(args), TIMEOUT)?;
    ensure!(ran.success, "ip {}: {}", args.join(" "), ran.stderr.trim_end());
    Ok(())
}

/// The path of a program; the system directories are searched too, which are often not on a user's PATH.
pub(super) fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// The path of this program.
pub(super) fn current_exe() -> Result<PathBuf> {
    std::env::current_exe().context("cannot find the path of this program")
}

/// Waits until `condition` holds.
pub(super) fn wait_until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while !condition()? {
        if Instant::now() > deadline {
            bail!("timeout: {what} takes longer than {} s", TIMEOUT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
