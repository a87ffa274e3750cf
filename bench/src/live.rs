//! `bench live`: what watching a large table costs: `keepstate top`'s first screen, what it takes while connections come and go, and a scrape of `keepstate serve`.
//!
//! The table is Linux's, in a new network namespace, filled by ctnetlink; the machine-wide limit is raised meanwhile and restored. Run it on an idle machine.
use crate::conntrack_cli::{SOURCE_COUNT, established_flow, fill_table, time_kernel_dump};
use crate::linux_table::LinuxTableSize;
use crate::median::median;
use crate::process;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use keepstate_linux::ctnetlink::CtClient;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Measure top and serve over a large table
#[derive(Args)]
pub struct LiveBench {
    /// Connections in the kernel's table
    #[arg(long, default_value_t = 1_000_000)]
    connections: u32,
    /// Connections that come and go each second, while top and serve are watched
    #[arg(long, default_value_t = 1000)]
    churn: u32,
    /// For how many seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Runs of `top --once`, for the median
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Internal: already in a network namespace of its own
    #[arg(long, hide = true)]
    inside: bool,
}

/// Where serve listens, in the namespace.
const LISTEN: &str = "127.0.0.1:9464";
/// Scrapes: the kernel counts processor time in steps of ten milliseconds.
const SCRAPES: u32 = 500;
/// What is promised for a million connections.
const FIRST_SCREEN: Duration = Duration::from_secs(2);
const SCRAPE: Duration = Duration::from_millis(5);
const CORE_PERCENT: f64 = 3.0;
const PATIENCE: Duration = Duration::from_secs(120);
/// Connections that come and go have numbers above all others.
const CHURN_BEGINS: u32 = 200_000_000;

impl LiveBench {
    /// Raises nf_conntrack_max, runs itself in a network namespace, restores the limit.
    pub fn run(&self) -> Result<()> {
        if self.inside {
            return self.measure();
        }
        let built = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
            .args(["build", "--release", "--quiet", "--package", "keepstate"])
            .status()?;
        ensure!(built.success(), "cannot build keepstate");
        let _size = LinuxTableSize::for_connections(self.connections.saturating_mul(2))?;
        let numbers = [("--connections", u64::from(self.connections)), ("--churn", self.churn.into())];
        let mut inside = Command::new("unshare");
        inside.args(["--net", "--"]).arg(std::env::current_exe()?).args(["live", "--inside"]);
        for (option, number) in numbers.into_iter().chain([("--seconds", self.seconds), ("--runs", self.runs as u64)]) {
            inside.args([option, &number.to_string()]);
        }
        let status = inside.status().context("cannot run unshare (package util-linux)")?;
        ensure!(status.success(), "the benchmark failed: {status}");
        Ok(())
    }

    fn measure(&self) -> Result<()> {
        let program = std::env::current_exe()?.with_file_name("keepstate");
        ensure!(Command::new("ip").args(["link", "set", "lo", "up"]).status()?.success(), "ip link set lo up");
        fill_table(0, self.connections, &(0..SOURCE_COUNT).collect::<Vec<_>>())?;
        println!("{} connections in the kernel's table", self.connections);
        self.first_screen(&program)?;
        self.top_while_busy(&program)?;
        self.scrapes(&program)
    }

    /// `top --once`: reads the table, draws a screen, ends. The kernel's dump, which it cannot do without, is measured beside it.
    fn first_screen(&self, program: &Path) -> Result<()> {
        let dump = time_kernel_dump(self.runs)?;
        println!("the kernel's dump alone, discarded: {:.2} s", dump.as_secs_f64());
        let mut runs = Vec::new();
        for _ in 0..self.runs {
            let took = process::run(Command::new(program).args(["top", "--once", "--doctor", "0"]))?;
            ensure!(took.exit_code == Some(0), "top --once: {}", took.stderr);
            runs.push(took);
        }
        let wall = median(runs.iter().map(|took| took.wall).collect()).unwrap_or_default();
        let processor = median(runs.iter().map(|took| took.cpu_time).collect()).unwrap_or_default();
        let memory = runs.iter().map(|took| took.max_rss).max().unwrap_or_default() / 1024;
        println!(
            "top's whole screen: {:.2} s ({:.2} x the kernel's dump; {:.2} s of processor time, {memory} MB); promised: under {} s: {}",
            wall.as_secs_f64(),
            wall.as_secs_f64() / dump.as_secs_f64(),
            processor.as_secs_f64(),
            FIRST_SCREEN.as_secs(),
            kept(wall < FIRST_SCREEN)
        );
        Ok(())
    }

    /// `top` on a terminal of its own, while connections come and go.
    fn top_while_busy(&self, program: &Path) -> Result<()> {
        let command = format!("stty rows 40 columns 120; exec '{}' top --doctor 0", program.display());
        let spawned = Instant::now();
        let mut terminal = Command::new("script")
            .args(["--quiet", "--return", "--command", &command, "/dev/null"])
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run script (package bsdutils)")?;
        let screen = terminal.stdout.take().context("what it draws")?;
        let drawn = std::thread::spawn(move || first_totals(screen, spawned));
        let until = Instant::now() + PATIENCE;
        let top = loop {
            match child_named(terminal.id(), "keepstate") {
                Some(top) => break top,
                None if Instant::now() > until => bail!("top does not start"),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        // The table is read by then: its processor time stands still.
        wait_until_idle(top)?;
        let before = processor_time(top)?;
        let begun = Instant::now();
        self.churn()?;
        let (used, wall) = (processor_time(top)? - before, begun.elapsed());
        let percent = 100.0 * used.as_secs_f64() / wall.as_secs_f64();
        println!(
            "top while {} connections a second come and go: {percent:.1} % of a core; promised: under {CORE_PERCENT} %: {}",
            self.churn,
            kept(percent < CORE_PERCENT)
        );
        if let Some(keys) = &mut terminal.stdin {
            keys.write_all(b"q")?;
        }
        drop(terminal.stdin.take());
        terminal.wait()?;
        match drawn.join() {
            Ok(Some(time)) => {
                println!("top on a terminal: size, limit and first rows after {:.2} s", time.as_secs_f64())
            }
            _ => bail!("top has drawn no screen with the table's size"),
        }
        Ok(())
    }

    /// `serve`, scraped while connections come and go, and while none do.
    fn scrapes(&self, program: &Path) -> Result<()> {
        let mut serve = Command::new(program);
        serve.args(["serve", "--doctor", "0", "--listen", LISTEN]).stderr(Stdio::null()).stdout(Stdio::null());
        let serve = EndedChild(serve.spawn()?);
        let until = Instant::now() + PATIENCE;
        while !fetch("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            ensure!(Instant::now() < until, "serve is not ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        let id = serve.0.id();
        wait_until_idle(id)?;
        let dumps = || -> Result<String> {
            let answer = fetch("/metrics")?;
            let line = answer.lines().find(|line| line.starts_with("keepstate_conntrack_dumps_total "));
            Ok(line.context("/metrics has the number of dumps")?.to_owned())
        };
        let dumps_before = dumps()?;
        let (before, begun) = (processor_time(id)?, Instant::now());
        for _ in 0..SCRAPES {
            ensure!(fetch("/metrics")?.contains("keepstate_conntrack_entries"), "/metrics is not complete");
        }
        let (used, wall) = (processor_time(id)? - before, begun.elapsed());
        let one = used / SCRAPES;
        println!(
            "a scrape: {:.2} ms of processor time ({:.2} ms elapsed), {}; promised: under {} ms, no dump: {}",
            one.as_secs_f64() * 1e3,
            wall.as_secs_f64() * 1e3 / f64::from(SCRAPES),
            if dumps()? == dumps_before { "no dump" } else { "A DUMP" },
            SCRAPE.as_millis(),
            kept(one < SCRAPE && dumps()? == dumps_before)
        );
        let (before, begun) = (processor_time(id)?, Instant::now());
        self.churn()?;
        let share = (processor_time(id)? - before).as_secs_f64() / begun.elapsed().as_secs_f64();
        println!("serve while {} connections a second come and go: {:.1} % of a core", self.churn, share * 100.0);
        Ok(())
    }

    /// Connections come and go, evenly.
    fn churn(&self) -> Result<()> {
        const STEPS: u32 = 20;
        let mut table = CtClient::open()?;
        let begun = Instant::now();
        let each = self.churn / STEPS;
        for step in 0..u32::try_from(self.seconds)? * STEPS {
            let numbers = || (0..each).map(move |number| CHURN_BEGINS + (step % STEPS) * each + number);
            for number in numbers() {
                table.create(&established_flow(0, number))?;
            }
            for number in numbers() {
                table.delete(&established_flow(0, number))?;
            }
            let due = begun + Duration::from_secs(1) * (step + 1) / STEPS;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }
}

fn kept(kept: bool) -> &'static str {
    if kept { "kept" } else { "NOT KEPT" }
}

/// Reads what a program draws to its end; how long it took until there were the table's size and the heading of its rows.
fn first_totals(mut screen: impl Read, begun: Instant) -> Option<Duration> {
    let (mut seen, mut buffer, mut first) = (Vec::new(), [0; 16384], None);
    let has = |seen: &[u8], text: &[u8]| seen.windows(text.len()).any(|part| part == text);
    while let Ok(count @ 1..) = screen.read(&mut buffer) {
        if first.is_none() {
            seen.extend_from_slice(&buffer[..count]);
            first = (has(&seen, b"%)") && has(&seen, "→".as_bytes())).then(|| begun.elapsed());
        }
    }
    first
}

/// A process that is killed in the end.
struct EndedChild(Child);

impl Drop for EndedChild {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The answer to a request, headers included.
fn fetch(path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(LISTEN.parse::<SocketAddr>()?)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {LISTEN}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A child of a process, by its name.
fn child_named(parent: u32, name: &str) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().find_map(|id| {
        let comm = fs::read_to_string(format!("/proc/{id}/comm")).ok()?;
        (comm.trim() == name).then(|| id.parse().ok())?
    })
}

/// The processor time of a process so far, user and system.
fn processor_time(id: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).context("the process has ended")?;
    // The name in parentheses may have spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).context("/proc/PID/stat");
    // USER_HZ is 100 on every architecture that this runs on.
    Ok(Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
}

/// Waits until a process has taken next to nothing for a second.
fn wait_until_idle(id: u32) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let before = processor_time(id)?;
        std::thread::sleep(Duration::from_secs(1));
        if processor_time(id)? - before <= Duration::from_millis(50) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "the process does not come to rest");
    }
}
