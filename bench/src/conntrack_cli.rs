//! `bench cli`: `keepstate conntrack` beside Debian's `conntrack` on the kernel's own table, in the same run, the two taking turns for each command.
//!
//! The table is that of a new network namespace; the machine-wide limit is raised meanwhile and restored.
use crate::linux_table::LinuxTableSize;
use crate::median::median;
use crate::process::{self, ProcessUsage};
use anyhow::{Context, Result, ensure};
use clap::Args;
use keepstate_linux::ctnetlink::{
    CtClient, CtDumpKind, CtFlow, CtProtoInfo, CtTcpInfo, CtTuple, DumpFilter, Status, TcpState, protocol,
};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Measure `keepstate conntrack` beside Debian's conntrack
#[derive(Args)]
pub struct CliBench {
    /// Connections in the kernel's table
    #[arg(long, default_value_t = 1_000_000)]
    connections: u32,
    /// Runs of each command, for the median
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Internal: already in a network namespace of its own
    #[arg(long, hide = true)]
    inside: bool,
}

/// Number of source addresses of the connections.
pub(crate) const SOURCE_COUNT: u32 = 16;
const DEBIAN_CONNTRACK: &str = "/usr/sbin/conntrack";

impl CliBench {
    /// Raises nf_conntrack_max, runs itself in a network namespace, restores the limit.
    pub fn run(&self) -> Result<()> {
        if self.inside {
            return self.measure();
        }
        ensure!(
            Path::new(DEBIAN_CONNTRACK).exists(),
            "Debian's conntrack is missing; install it with: apt-get install conntrack"
        );
        let built = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
            .args(["build", "--release", "--quiet", "--package", "keepstate"])
            .status()?;
        ensure!(built.success(), "cannot build keepstate");
        let _size = LinuxTableSize::for_connections(self.connections.saturating_mul(2))?;
        let status = Command::new("unshare")
            .args(["--net", "--"])
            .arg(std::env::current_exe()?)
            .args(["cli", "--inside", "--connections", &self.connections.to_string(), "--runs", &self.runs.to_string()])
            .status()
            .context("cannot run unshare (package util-linux)")?;
        ensure!(status.success(), "the benchmark failed: {status}");
        Ok(())
    }

    fn measure(&self) -> Result<()> {
        // The namespace needs no conntrack hooks: entries are created by ctnetlink.
        let ours = std::env::current_exe()?.with_file_name("keepstate");
        fill_table(0, self.connections, &(0..SOURCE_COUNT).collect::<Vec<_>>())?;
        println!(
            "{} connections in the kernel's table, from {SOURCE_COUNT} sources; medians of {} runs\n",
            self.connections, self.runs
        );
        let dump = time_kernel_dump(self.runs)?;
        println!("the kernel's dump alone, discarded: {:.2} s", dump.as_secs_f64());
        println!(
            "\n{:<34} {:>9} {:>9} {:>7} {:>11} {:>11}",
            "", "Debian's", "ours", "ratio", "its memory", "our memory"
        );
        let bench = Comparison { ours, runs: self.runs };
        let listed = bench.compare("-L", &["-L"], || Ok(()))?;
        bench.compare("-L -o extended,id", &["-L", "-o", "extended,id"], || Ok(()))?;
        bench.compare("-L -o xml", &["-L", "-o", "xml"], || Ok(()))?;
        bench.compare("-L -o save", &["-L", "-o", "save"], || Ok(()))?;
        bench.compare("-L -s 10.0.0.3 (1 of 16)", &["-L", "-s", "10.0.0.3"], || Ok(()))?;
        bench.compare("-L -s 10.0.0.0/30 (1 of 4)", &["-L", "-s", "10.0.0.0/30"], || Ok(()))?;
        bench.compare("-L -p tcp --sport 1234 (16)", &["-L", "-p", "tcp", "--sport", "1234"], || Ok(()))?;
        bench.compare("-L -p tcp --state CLOSE (none)", &["-L", "-p", "tcp", "--state", "CLOSE"], || Ok(()))?;
        bench.compare("-C", &["-C"], || Ok(()))?;
        let refill = || fill_table(0, self.connections, &[3]);
        bench.compare("-D -s 10.0.0.3 (1 of 16)", &["-D", "-s", "10.0.0.3"], refill)?;
        let everything = || fill_table(0, self.connections, &(0..SOURCE_COUNT).collect::<Vec<_>>());
        bench.compare("-F", &["-F"], everything)?;
        println!(
            "\nkeepstate's listing takes {:.2} x the kernel's dump alone",
            listed.as_secs_f64() / dump.as_secs_f64()
        );
        bench.measure_events()
    }
}

struct Comparison {
    ours: PathBuf,
    runs: usize,
}

impl Comparison {
    fn commands(&self, words: &[&str]) -> [Command; 2] {
        let mut theirs = Command::new(DEBIAN_CONNTRACK);
        theirs.args(words);
        let mut ours = Command::new(&self.ours);
        ours.arg("conntrack").args(words);
        [theirs, ours]
    }

    /// Runs both programs in turns, each after `prepare`; prints the medians, and returns keepstate's.
    fn compare(&self, name: &str, words: &[&str], prepare: impl Fn() -> Result<()>) -> Result<Duration> {
        let mut runs: [Vec<ProcessUsage>; 2] = Default::default();
        for _ in 0..self.runs {
            for (at, mut command) in self.commands(words).into_iter().enumerate() {
                let took = process::run(&mut command)?;
                ensure!(took.exit_code == Some(0), "{command:?} ended with {:?}: {}", took.exit_code, took.stderr);
                runs[at].push(took);
                prepare()?;
            }
        }
        let [theirs, ours] = runs.map(|runs| {
            (
                median(runs.iter().map(|took| took.wall).collect()).unwrap_or_default(),
                runs.iter().map(|took| took.max_rss).max().unwrap_or(0),
            )
        });
        println!(
            "{name:<34} {:>7.3} s {:>7.3} s {:>6.2}x {:>9.1} MB {:>8.1} MB",
            theirs.0.as_secs_f64(),
            ours.0.as_secs_f64(),
            ours.0.as_secs_f64() / theirs.0.as_secs_f64(),
            theirs.1 as f64 / 1024.0,
            ours.1 as f64 / 1024.0,
        );
        Ok(ours.0)
    }

    /// Measures the event monitor, with connections created as fast as one thread can.
    fn measure_events(&self) -> Result<()> {
        const EVENTS: u32 = 300_000;
        println!("\nevents of {EVENTS} new connections, created as fast as possible:");
        for words in [
            &["-E", "-e", "NEW"][..],
            &["-E", "-e", "NEW", "-b", "67108864"],
            &["-E", "-e", "NEW", "-o", "xml", "-b", "67108864"],
        ] {
            for (mut command, whose) in self.commands(words).into_iter().zip(["Debian's", "ours"]) {
                flush_table()?;
                let begun = Instant::now();
                let child = process::spawn(&mut command)?;
                std::thread::sleep(Duration::from_millis(500));
                fill_table(0, EVENTS, &[0])?;
                std::thread::sleep(Duration::from_millis(1500));
                process::interrupt(&child);
                let took = process::wait(child, begun)?;
                let mut shown = took.stderr.lines().filter_map(|line| {
                    line.strip_suffix(" flow events have been shown.")?.rsplit(' ').next()?.parse::<u64>().ok()
                });
                let shown = shown.next_back().unwrap_or(0);
                let each = took.cpu_time.as_secs_f64() * 1e9 / shown.max(1) as f64;
                println!(
                    "  {:<38} {whose:<9} {shown:>7} shown, {each:>5.0} ns of processor time each",
                    words.join(" ")
                );
            }
        }
        Ok(())
    }
}

/// Median time to dump the kernel's table and discard it.
pub(crate) fn time_kernel_dump(runs: usize) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..runs {
        let begun = Instant::now();
        let mut bytes = 0;
        CtClient::open()?.dump_chunks(CtDumpKind::Confirmed, &DumpFilter::default(), |piece| {
            bytes += piece.len();
            Ok(ControlFlow::Continue(()))
        })?;
        ensure!(bytes > 0, "the kernel's dump is empty");
        times.push(begun.elapsed());
    }
    Ok(median(times).unwrap_or_default())
}

/// Creates the connections with numbers `from` to `to`, from the given number of sources; existing ones stay.
pub(crate) fn fill_table(from: u32, to: u32, sources: &[u32]) -> Result<()> {
    let mut table = CtClient::open()?;
    let share = if sources.len() == 1 && to - from <= 300_000 { to - from } else { (to - from) / SOURCE_COUNT };
    for source in sources {
        for number in 0..share {
            let flow = established_flow(*source, from + number);
            match table.create(&flow) {
                Err(failure) if failure.errno() != Some(17) => {
                    return Err(failure).context("cannot create an entry");
                }
                _ => (),
            }
        }
    }
    Ok(())
}

/// Flushes the table.
fn flush_table() -> Result<()> {
    Ok(CtClient::open()?.flush(&DumpFilter::default())?)
}

/// An established TCP connection.
pub(crate) fn established_flow(source: u32, number: u32) -> CtFlow {
    let [_, high, middle, low] = number.to_be_bytes();
    let original = CtTuple {
        source: Some(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + source))),
        destination: Some(IpAddr::V4(Ipv4Addr::new(10, 1, 1, high + 1))),
        protocol: Some(protocol::TCP),
        source_port: Some(u16::from_be_bytes([middle, low])),
        destination_port: Some(1883),
        ..CtTuple::default()
    };
    let reply = CtTuple {
        source: original.destination,
        destination: original.source,
        source_port: original.destination_port,
        destination_port: original.source_port,
        ..original
    };
    CtFlow {
        family: Some(keepstate_linux::ctnetlink::CtFamily::V4),
        original,
        reply,
        timeout: Some(43_200),
        status: Some(Status::CONFIRMED | Status::SEEN_REPLY | Status::ASSURED),
        protoinfo: CtProtoInfo::Tcp(CtTcpInfo { state: Some(TcpState::Established.number()), ..CtTcpInfo::default() }),
        ..CtFlow::default()
    }
}
