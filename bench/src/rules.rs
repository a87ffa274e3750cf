//! `bench rules`: what a long chain costs a packet, beside Linux in the same run.
//!
//! Linux: UDP packets on the loopback of a new namespace, with the chain at hook output; the time without it is subtracted. Ours: the router alone, a new
//! connection for each packet, with the chain at hook forward; the time of a router with an empty chain is subtracted.
#![allow(unsafe_code, reason = "unshare(2) has no safe wrapper in std")]
use super::median::median;
use super::router::{router, udp_packet};
use anyhow::{Context, Result, ensure};
use clap::Args;
use keepstate_engine::{Instant, Sysctls};
use std::fmt::Write as _;
use std::io::Write;
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::Instant as Clock;

/// Measure a packet that meets a long chain and matches none of its rules, beside Linux
#[derive(Args)]
pub struct RulesBench {
    /// Rules
    #[arg(long, default_value_t = 10_000)]
    rules: u32,
    /// Packets of one measurement
    #[arg(long, default_value_t = 2_000)]
    packets: u32,
    /// Measurements; the median counts
    #[arg(long, default_value_t = 7)]
    rounds: u32,
}

/// Kinds of rules.
const KINDS: [(&str, &str); 3] =
    [("ip saddr X drop", "drop"), ("ip saddr X tcp dport N accept", "tcp"), ("ip saddr X counter drop", "counter")];

impl RulesBench {
    pub fn run(self) -> Result<()> {
        println!("{:<32} {:>14} {:>14}", format!("{} rules", self.rules), "Linux, ns", "keepstate, ns");
        for (name, kind) in KINDS {
            let linux = self.linux(kind)?.map_or("-".to_owned(), |cost| format!("{cost:.0}"));
            println!("{name:<32} {linux:>14} {:>14.0}", self.ours(kind)?);
        }
        Ok(())
    }

    fn chain(&self, kind: &str, hook: &str, rules: u32) -> String {
        let mut text =
            format!("table ip bench {{\n\tchain c {{\n\t\ttype filter hook {hook} priority filter; policy accept;\n");
        for at in 0..rules {
            let address = format!("172.{}.{}.{}", 16 + at / 62_500, at / 250 % 250, at % 250 + 1);
            let rest = match kind {
                "tcp" => format!("tcp dport {} accept", at % 60_000 + 1),
                "counter" => "counter drop".to_owned(),
                _ => "drop".to_owned(),
            };
            // Writing to a string does not fail.
            let _ = writeln!(text, "\t\tip saddr {address} {rest}");
        }
        text + "\t}\n}\n"
    }

    /// Nanoseconds that the chain costs a packet in the kernel; `None` where that cannot be measured.
    fn linux(&self, kind: &str) -> Result<Option<f64>> {
        let texts = [self.chain(kind, "output", 0), self.chain(kind, "output", self.rules)];
        let (packets, rounds) = (self.packets, self.rounds);
        // The namespace ends with the thread.
        let measured = std::thread::spawn(move || -> Result<Option<f64>> {
            // SAFETY: no pointers are passed; only this thread changes its namespace.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                eprintln!("######## SKIPPED: measuring Linux: it needs root");
                return Ok(None);
            }
            run("ip", &["link", "set", "lo", "up"], "")?;
            let receiver = UdpSocket::bind("127.0.0.1:0")?;
            let sender = UdpSocket::bind("127.0.0.1:0")?;
            sender.connect(receiver.local_addr()?)?;
            let mut costs = Vec::new();
            for _ in 0..rounds {
                let mut times = [0.0; 2];
                for (text, time) in texts.iter().zip(&mut times) {
                    run("nft", &["-f", "-"], &format!("flush ruleset\n{text}"))?;
                    let begin = Clock::now();
                    for _ in 0..packets {
                        sender.send(b"packet")?;
                    }
                    *time = begin.elapsed().as_nanos() as f64 / f64::from(packets);
                }
                costs.push(times[1] - times[0]);
            }
            Ok(median(costs))
        });
        measured.join().ok().context("measuring Linux panicked")?
    }

    /// Nanoseconds that the chain costs a packet here.
    fn ours(&self, kind: &str) -> Result<f64> {
        let mut costs = Vec::new();
        let router = |rules| router(Sysctls::default(), &self.chain(kind, "forward", rules));
        let mut routers = [router(0)?, router(self.rules)?];
        for _ in 0..self.rounds {
            let mut times = [0.0; 2];
            for (router, time) in routers.iter_mut().zip(&mut times) {
                let packet = udp_packet(0, 32);
                let begin = Clock::now();
                for _ in 0..self.packets {
                    router.handle(&packet, 1, Instant(1_000_000_000)).map_err(|loss| anyhow::anyhow!("{loss}"))?;
                    while router.poll_output().is_some() {}
                }
                *time = begin.elapsed().as_nanos() as f64 / f64::from(self.packets);
            }
            costs.push(times[1] - times[0]);
        }
        median(costs).context("no rounds")
    }
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let mut command = Command::new(program);
    let mut child =
        command.args(arguments).stdin(Stdio::piped()).spawn().with_context(|| format!("cannot run {program}"))?;
    child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
    ensure!(child.wait()?.success(), "{program} {arguments:?} failed");
    Ok(())
}
