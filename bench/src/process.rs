//! Runs a program to its end, and measures elapsed time, CPU time and memory.
#![allow(unsafe_code, reason = "wait4(2) and kill(2), which the standard library does not have")]

use anyhow::{Context, Result};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time and memory of a program.
#[derive(Clone, Debug)]
pub struct ProcessUsage {
    /// Elapsed time.
    pub wall: Duration,
    /// CPU time, user and system.
    pub cpu_time: Duration,
    /// Peak resident memory, in KiB.
    pub max_rss: u64,
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// Its standard error.
    pub stderr: String,
}

/// Runs a program to its end; its output is discarded.
pub fn run(command: &mut Command) -> Result<ProcessUsage> {
    let begun = Instant::now();
    wait(spawn(command)?, begun)
}

/// Starts a program; its output is discarded.
pub fn spawn(command: &mut Command) -> Result<Child> {
    let name = command.get_program().to_string_lossy().into_owned();
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().with_context(|| format!("cannot run {name}"))
}

/// Sends SIGINT to a program.
pub fn interrupt(child: &Child) {
    let id = libc::pid_t::try_from(child.id()).unwrap_or(0);
    if id > 0 {
        // SAFETY: kill takes numbers only; the child is ours and has not been waited for.
        unsafe { libc::kill(id, libc::SIGINT) };
    }
}

/// Waits for a program that was started at `begun`.
pub fn wait(mut child: Child, begun: Instant) -> Result<ProcessUsage> {
    let id = libc::pid_t::try_from(child.id()).context("a process id")?;
    let mut stderr = String::new();
    if let Some(mut pipe) = child.stderr.take() {
        std::io::Read::read_to_string(&mut pipe, &mut stderr)?;
    }
    let mut status = 0;
    // SAFETY: an all-zero rusage is valid; wait4 fills it.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid during the call; nothing else waits for this child.
    let waited = unsafe { libc::wait4(id, &raw mut status, 0, &raw mut used) };
    let wall = begun.elapsed();
    anyhow::ensure!(waited == id, "wait4: {}", std::io::Error::last_os_error());
    let seconds = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.try_into().unwrap_or(0))
            + Duration::from_micros(time.tv_usec.try_into().unwrap_or(0))
    };
    Ok(ProcessUsage {
        wall,
        cpu_time: seconds(used.ru_utime) + seconds(used.ru_stime),
        max_rss: used.ru_maxrss.try_into().unwrap_or(0),
        exit_code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        stderr,
    })
}
