//! `bench gateway`: `keepstate gateway` between real interfaces beside Linux's own masquerade, with the same ruleset, in turns in one run.
//!
//! The generator runs on CPU 0, and so do Linux's soft interrupts, which it triggers; our process runs on CPU 1. "Linux, two processors" moves the router's receive path to
//! CPU 1 with threaded NAPI. The rates compared are those received, with a generator that never waits.
mod streams;
mod topology;
mod udp_flood;

use crate::linux_table::LinuxTableSize;
use crate::median::median;
use crate::router::RULESET;
use anyhow::{Context, Result, ensure};
use clap::Args;
use keepstate_linux::tc::FlowTableSize;
use keepstate_test_support::wait_until_it_routes;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use streams::StreamResults;
use topology::{BenchHost, BenchTopology, run};
use udp_flood::{FloodRates, FlowProgress};

/// Measure the gateway beside Linux's masquerade: UDP rates, TCP, connections, round trips
#[derive(Args)]
pub struct GatewayBench {
    /// Connections
    #[arg(long, value_delimiter = ',', default_value = "1000,200000")]
    flows: Vec<u32>,
    /// Rounds, for medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Microseconds the gateway busy-polls before it sleeps
    #[arg(long, default_value_t = 50)]
    spin: u64,
    /// The parts to measure; all of them if not given
    #[arg(long, value_delimiter = ',', value_enum)]
    parts: Vec<BenchPart>,
    /// The routers to measure; all of them if not given
    #[arg(long, value_delimiter = ',', value_enum)]
    routers: Vec<Forwarder>,
}

/// A part of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum BenchPart {
    /// Floods of small datagrams
    Floods,
    /// Floods of small datagrams of flows that were answered, at tc's hooks
    Known,
    /// TCP and round trips, packets of 1,500 bytes
    Streams,
    /// The same with GSO packets and partial checksums
    Gso,
    /// The same with a server on the router itself
    Local,
}

/// The router under test.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Forwarder {
    /// The kernel without rules or tracking
    NoRules,
    /// The kernel drops what arrives
    Door,
    /// A program at XDP drops what arrives
    XdpDoor,
    /// Linux's own tracking
    Linux,
    /// The same, receiving on the other processor
    LinuxThreadedNapi,
    /// keepstate between TUN interfaces
    Tun,
    /// keepstate at tc's hooks
    Tc,
    /// The same, where known flows are sent on at XDP
    TcXdp,
}

/// With GSO packets and partial checksums, as sent by programs on the gateway's own machine.
const GSO_FORWARDERS: [(Forwarder, &str); 3] =
    [(Forwarder::Linux, "Linux, veth"), (Forwarder::Tc, "keepstate, tc"), (Forwarder::Tun, "keepstate, TUN")];

/// Datagrams that nobody answers: all of them come to our process.
const FORWARDERS: [(Forwarder, &str); 3] = [
    (Forwarder::Linux, "Linux, as it falls"),
    (Forwarder::LinuxThreadedNapi, "Linux, two processors"),
    (Forwarder::Tc, "keepstate, tc"),
];

/// Datagrams of flows that were answered.
const KNOWN_FORWARDERS: [(Forwarder, &str); 5] = [
    (Forwarder::Door, "arrives and is dropped"),
    (Forwarder::Linux, "Linux, as it falls"),
    (Forwarder::Tc, "keepstate, tc"),
    (Forwarder::XdpDoor, "dropped at XDP"),
    (Forwarder::TcXdp, "keepstate, XDP"),
];

/// Streams, without GSO packets. Linux on two processors is left out: with threaded NAPI connections stand still now and then, which ends the measurement.
const STREAM_FORWARDERS: [(Forwarder, &str); 3] =
    [(Forwarder::Linux, "Linux, as it falls"), (Forwarder::Tc, "keepstate, tc"), (Forwarder::TcXdp, "keepstate, XDP")];

/// A server on the router itself, behind the usual rules.
const LOCAL_FORWARDERS: [(Forwarder, &str); 3] =
    [(Forwarder::NoRules, "no rules"), (Forwarder::Linux, "Linux"), (Forwarder::Tc, "keepstate, tc")];

const LOCAL_RULESET: &str = "
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop
		ct state established,related accept
		ct state invalid drop
		iifname \"lo\" accept
		meta l4proto { icmp, ipv6-icmp } accept
		iifname \"r0\" tcp dport 5000-5008 ct state new accept
		iifname \"r0\" udp dport 9 ct state new accept
	}
}
";

const DOOR_RULESET: &str =
    "table netdev door { chain in { type filter hook ingress device \"r0\" priority filter; policy drop; }; }";

/// The result of one round with one router.
#[derive(Clone, Copy, Debug, Default)]
struct FloodResult {
    rates: FloodRates,
    /// CPU time of the gateway process in nanoseconds per packet; 0 for Linux.
    cpu_ns: f64,
}

/// Nanoseconds of processor time a packet of known flows.
#[derive(Clone, Copy, Debug, Default)]
struct KnownCost {
    ns: f64,
    /// Of that, those of the gateway's process: 0 for Linux.
    gateway_ns: f64,
}

impl GatewayBench {
    /// Runs the measurements, and prints the results.
    pub fn run(&self) -> Result<()> {
        let built = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
            .args(["build", "--release", "--quiet", "--package", "keepstate"])
            .status()?;
        ensure!(built.success(), "cannot build keepstate");
        for tool in ["ip", "ethtool", "nft", "taskset", "sysctl"] {
            let there = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output()?.status.success();
            ensure!(
                there,
                "{tool} is missing; install with: apt-get install iproute2 ethtool nftables util-linux procps"
            );
        }
        let most = self.flows.iter().copied().max().unwrap_or(0);
        let _size = LinuxTableSize::for_connections(most.saturating_mul(2))?;
        let stage =
            BenchTopology::new().context("cannot create namespaces and veth pairs (the benchmark needs root)")?;
        let rules = tempfile::Builder::new().prefix("keepstate-bench").suffix(".nft").tempfile()?;
        std::fs::write(rules.path(), RULESET)?;
        let tun_rules = tempfile::Builder::new().prefix("keepstate-bench").suffix(".nft").tempfile()?;
        std::fs::write(tun_rules.path(), RULESET.replace("r1", "r3").replace("r0", "r2"))?;
        let local_rules = tempfile::Builder::new().prefix("keepstate-bench").suffix(".nft").tempfile()?;
        std::fs::write(local_rules.path(), LOCAL_RULESET)?;
        let mut bench = GatewayRuns {
            program: std::env::current_exe()?.with_file_name("keepstate"),
            stage,
            rules: rules.path().to_owned(),
            tun_rules: tun_rules.path().to_owned(),
            spin: self.spin,
            time: Duration::from_secs(self.seconds),
        };
        let has = |part| self.parts.is_empty() || self.parts.contains(&part);
        bench.stage.set_offloads(false)?;
        if has(BenchPart::Floods) {
            println!("UDP, 46-byte packets, masqueraded; medians of {} rounds of {} s\n", self.rounds, self.seconds);
            for flows in &self.flows {
                let _size = LinuxTableSize::for_connections(*flows)?;
                let rounds = self.measure_rounds(&FORWARDERS, |way| bench.measure_flood(way, *flows))?;
                print_flood(*flows, &rounds);
            }
        }
        if has(BenchPart::Known) {
            println!(
                "UDP, 46-byte packets of known flows, masqueraded: processor time; medians of {} rounds of {} s\n",
                self.rounds, self.seconds
            );
            for flows in &self.flows {
                let _size = LinuxTableSize::for_connections(*flows)?;
                let rounds = self.measure_rounds(&KNOWN_FORWARDERS, |way| bench.measure_known(way, *flows))?;
                print_known(*flows, &rounds);
            }
        }
        let forwarded = BenchHost::Server;
        if has(BenchPart::Streams) {
            println!("TCP and round trips, packets of 1,500 bytes\n");
            let rounds = self.measure_rounds(&STREAM_FORWARDERS, |way| bench.measure_streams(way, forwarded))?;
            print_streams(&STREAM_FORWARDERS, &rounds);
        }
        bench.stage.set_offloads(true)?;
        if has(BenchPart::Gso) {
            println!("\nThe same with GSO packets and partial checksums\n");
            let rounds = self.measure_rounds(&GSO_FORWARDERS, |way| bench.measure_streams(way, forwarded))?;
            print_streams(&GSO_FORWARDERS, &rounds);
        }
        if has(BenchPart::Local) {
            println!("\nThe same with a server on the router itself\n");
            bench.rules = local_rules.path().to_owned();
            let rounds = self.measure_rounds(&LOCAL_FORWARDERS, |way| bench.measure_streams(way, BenchHost::Router))?;
            print_streams(&LOCAL_FORWARDERS, &rounds);
        }
        Ok(())
    }

    /// The results by router and round; the routers run in turns.
    fn measure_rounds<T>(
        &self,
        ways: &[(Forwarder, &str)],
        mut measure: impl FnMut(Forwarder) -> Result<T>,
    ) -> Result<Vec<Vec<T>>> {
        let mut found: Vec<Vec<T>> = ways.iter().map(|_| Vec::new()).collect();
        let is_wanted = |way| self.routers.is_empty() || self.routers.contains(way);
        for _ in 0..self.rounds {
            for ((way, name), found) in ways.iter().zip(&mut found).filter(|((way, _), _)| is_wanted(way)) {
                found.push(measure(*way).with_context(|| (*name).to_owned())?);
            }
        }
        Ok(found)
    }
}

struct GatewayRuns {
    program: PathBuf,
    stage: BenchTopology,
    rules: PathBuf,
    /// The same router between other interfaces.
    tun_rules: PathBuf,
    spin: u64,
    time: Duration,
}

/// A running router; stopped on drop.
struct RunningForwarder<'a> {
    bench: &'a GatewayRuns,
    gateway: Option<Child>,
    door: Option<udp_flood::FloodSink>,
    way: Forwarder,
}

impl GatewayRuns {
    fn measure_flood(&self, way: Forwarder, flows: u32) -> Result<FloodResult> {
        let running = self.start(way, flows, true)?;
        let id = running.gateway.as_ref().map(Child::id);
        let mut times = Vec::new();
        let rates = udp_flood::flood(&self.stage, flows, self.time, || times.push(id.map_or(0, schedstat_ns)))?;
        let spent = times.last().zip(times.first()).map_or(0, |(last, first)| last - first);
        let packets = rates.received * self.time.as_secs_f64();
        Ok(FloodResult { rates, cpu_ns: spent as f64 / packets.max(1.0) })
    }

    /// Processor time a packet that has come through; where all are dropped, a packet that was sent.
    fn measure_known(&self, way: Forwarder, flows: u32) -> Result<KnownCost> {
        let running = self.start(way, flows, true)?;
        let is_door = matches!(way, Forwarder::Door | Forwarder::XdpDoor);
        let has = |progress, pass| match (way, progress) {
            _ if is_door => Ok(true),
            (Forwarder::Tc | Forwarder::TcXdp, FlowProgress::Begun) => Ok(running.stat("entries")? >= flows),
            (Forwarder::Tc | Forwarder::TcXdp, FlowProgress::Known) => Ok(running.stat("offloaded_flows")? >= flows),
            _ => Ok(pass > 1),
        };
        let softirq = process_named("ksoftirqd/0")?;
        let gateway = || running.gateway.as_ref().map_or(0, |gateway| schedstat_ns(gateway.id()));
        let cost = udp_flood::flood_known(&self.stage, flows, self.time, has, || [schedstat_ns(softirq), gateway()])?;
        let packets = if is_door { cost.offered } else { cost.received }.max(1) as f64;
        let [_, gateway] = cost.beside_ns;
        Ok(KnownCost { ns: cost.cpu_ns as f64 / packets, gateway_ns: gateway as f64 / packets })
    }

    fn measure_streams(&self, way: Forwarder, server: BenchHost) -> Result<StreamResults> {
        let _running = self.start(way, 0, false)?;
        streams::measure(&self.stage, server, self.time)
    }

    /// Starts a router for so many connections.
    fn start(&self, way: Forwarder, flows: u32, pinned: bool) -> Result<RunningForwarder<'_>> {
        let router = self.stage.netns(BenchHost::Router);
        let ours = matches!(way, Forwarder::Tun | Forwarder::Tc | Forwarder::TcXdp);
        let mut running = RunningForwarder { bench: self, gateway: None, door: None, way };
        // At tc's hooks the kernel is asked for routes, and tells them only where it forwards.
        let forwards = !ours || matches!(way, Forwarder::Tc | Forwarder::TcXdp);
        run(&format!("ip netns exec {router} sysctl -qw net.ipv4.ip_forward={}", u8::from(forwards)))?;
        if ours {
            let (spin, socket) = (self.spin.to_string(), self.control_socket());
            let room = FlowTableSize::of_connections(flows.saturating_mul(3).div_ceil(2));
            let size = room.max(FlowTableSize::default()).to_string();
            let devices: &[&str] = match way {
                Forwarder::Tun => &["--device", "r2=10.0.1.1/24", "--device", "r3=10.0.2.1/24"],
                _ => &["--interface", "r0,r1", "--spin", &spin, "--offload-size", &size, "--control", &socket],
            };
            let child = Command::new("ip")
                .args(["netns", "exec", &router, "taskset", "-c", if pinned { "1" } else { "0,1" }])
                .arg(&self.program)
                .arg("gateway")
                .args(devices)
                .args(if way == Forwarder::TcXdp { &["--offload-xdp", "native"][..] } else { &[] })
                .args(["--set", &format!("nf_conntrack_max={}", flows.saturating_mul(2).max(262_144))])
                .arg("--ruleset")
                .arg(if way == Forwarder::Tun { &self.tun_rules } else { &self.rules })
                .stderr(Stdio::piped())
                .spawn()?;
            wait_until_it_routes(running.gateway.insert(child))
                .map_err(|said| anyhow::anyhow!("the gateway did not start:\n{said}"))?;
            if way == Forwarder::Tun {
                self.stage.switch_to_tun(true)?;
            }
        } else if way == Forwarder::XdpDoor {
            let door = udp_flood::FloodSink::open(&self.stage, BenchHost::Router, "r0");
            // It is there once it answers.
            door.count()?;
            running.door = Some(door);
        } else if way == Forwarder::Door {
            let script = format!("echo '{DOOR_RULESET}' | nft -f -");
            let done = Command::new("ip").args(["netns", "exec", &router, "sh", "-c", &script]).status()?;
            ensure!(done.success(), "cannot load the rule that drops");
        } else if way != Forwarder::NoRules {
            run(&format!("ip netns exec {router} nft -f {}", self.rules.display()))?;
            set_threaded_napi(&router, way == Forwarder::LinuxThreadedNapi)?;
        }
        Ok(running)
    }
}

impl GatewayRuns {
    fn control_socket(&self) -> String {
        std::env::temp_dir().join(format!("keepstate-bench{}.sock", std::process::id())).to_string_lossy().into_owned()
    }
}

impl RunningForwarder<'_> {
    /// A number of the gateway's statistics.
    fn stat(&self, name: &str) -> Result<u32> {
        let asked = Command::new(&self.bench.program)
            .args(["control", "--socket", &self.bench.control_socket(), "stats", "--json"])
            .output()?;
        let stats: serde_json::Value = serde_json::from_slice(&asked.stdout)
            .with_context(|| String::from_utf8_lossy(&asked.stderr).into_owned())?;
        let value = stats.get(name).and_then(serde_json::Value::as_u64);
        Ok(u32::try_from(value.with_context(|| format!("no {name} in the statistics"))?)?)
    }
}

/// Receives in a NAPI thread on CPU 1, or as by default.
fn set_threaded_napi(router: &str, on: bool) -> Result<()> {
    let script = format!("echo {} > /sys/class/net/r0/threaded", u8::from(on));
    let done = Command::new("ip").args(["netns", "exec", router, "sh", "-c", &script]).status()?;
    ensure!(done.success(), "cannot switch threaded NAPI");
    let threads = Command::new("pgrep").arg("napi/r0").output()?;
    for id in String::from_utf8_lossy(&threads.stdout).split_whitespace() {
        run(&format!("taskset -pc 1 {id}"))?;
    }
    Ok(())
}

impl Drop for RunningForwarder<'_> {
    fn drop(&mut self) {
        let router = self.bench.stage.netns(BenchHost::Router);
        if let Some(gateway) = &mut self.gateway {
            crate::process::interrupt(gateway);
            // The process has ended, or will end with its namespace.
            let _ = gateway.wait();
            if self.way == Forwarder::Tun {
                let _ = self.bench.stage.switch_to_tun(false);
            }
            if matches!(self.way, Forwarder::Tc | Forwarder::TcXdp) {
                // Else its programs stay at the interfaces.
                let _ = run(&format!("ip netns exec {router} {} gateway --detach", self.bench.program.display()));
            }
        } else if let Some(door) = self.door.take() {
            let _ = door.close();
        } else {
            let _ = run(&format!("ip netns exec {router} nft flush ruleset"));
            let _ = set_threaded_napi(&router, false);
        }
    }
}

/// The id of the process of this name.
fn process_named(name: &str) -> Result<u32> {
    let found = Command::new("pgrep").args(["-x", name]).output().context("cannot run pgrep (package procps)")?;
    let text = String::from_utf8_lossy(&found.stdout).into_owned();
    text.split_whitespace().next().and_then(|id| id.parse().ok()).with_context(|| format!("no process {name}"))
}

/// Processor time of a process and its threads, in nanoseconds.
fn schedstat_ns(id: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let times = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    times.sum()
}

fn print_flood(flows: u32, rounds: &[Vec<FloodResult>]) {
    println!(
        "{:<24} {:>9} {:>10} {:>12} {:>14} {:>7}",
        format!("{flows} flows"),
        "offered",
        "received",
        "ns a packet",
        "of our process",
        "ratio"
    );
    let of = |found: &[FloodResult], part: fn(&FloodResult) -> f64| {
        median(found.iter().map(part).collect()).unwrap_or_default()
    };
    let linux = rounds.first().map_or(0.0, |found| of(found, |found| found.rates.received));
    for ((_, name), found) in FORWARDERS.iter().zip(rounds) {
        let received = of(found, |found| found.rates.received);
        println!(
            "{name:<24} {:>7.3} M {:>8.3} M {:>12.0} {:>14.0} {:>7.2}",
            of(found, |found| found.rates.offered) / 1e6,
            received / 1e6,
            1e9 / received,
            of(found, |found| found.cpu_ns),
            received / linux
        );
    }
    println!();
}

fn print_known(flows: u32, rounds: &[Vec<KnownCost>]) {
    println!("{:<24} {:>12} {:>16} {:>14}", format!("{flows} flows"), "ns a packet", "over arriving", "of our process");
    let of = |part: fn(&KnownCost) -> f64| {
        rounds.iter().map(|found| median(found.iter().map(part).collect())).collect::<Vec<Option<f64>>>()
    };
    let (times, gateways) = (of(|cost| cost.ns), of(|cost| cost.gateway_ns));
    let [door, linux, tc, xdp_door, xdp] = times[..] else { return };
    let doors = [door, door, door, xdp_door, xdp_door];
    for ((((_, name), time), door), gateway) in KNOWN_FORWARDERS.iter().zip(&times).zip(doors).zip(gateways) {
        let Some(time) = time else { continue };
        let over = door.map_or_else(String::new, |door| format!("{:.0}", time - door));
        println!("{name:<24} {time:>12.0} {over:>16} {:>14.0}", gateway.unwrap_or_default());
    }
    if let [Some(door), Some(linux), Some(tc)] = [door, linux, tc] {
        println!(
            "over what arrives and is dropped, Linux costs {:.2} times as much as keepstate at tc's hooks",
            (linux - door) / (tc - door)
        );
    }
    if let [Some(door), Some(linux), Some(xdp)] = [xdp_door, linux, xdp] {
        println!(
            "over what is dropped at XDP, Linux costs {:.2} times as much as keepstate at XDP",
            (linux - door) / (xdp - door)
        );
    }
    println!();
}

fn print_streams(ways: &[(Forwarder, &str)], rounds: &[Vec<StreamResults>]) {
    println!(
        "{:<24} {:>12} {:>15} {:>11} {:>26}",
        "", "TCP, Gbit/s", "connections/s", "64 at once", "round trip p50/99/99.9 µs"
    );
    let of = |found: &[StreamResults], part: &dyn Fn(&StreamResults) -> f64| {
        median(found.iter().map(part).collect()).unwrap_or_default()
    };
    for ((_, name), found) in ways.iter().zip(rounds) {
        let [half, hundred, thousand] =
            [0, 1, 2].map(|at| of(found, &|found| found.latency.get(at).copied().unwrap_or(0.0)));
        let [one, many] =
            [0, 1].map(|at| of(found, &|found| found.connections_per_second.get(at).copied().unwrap_or(0.0)));
        println!(
            "{name:<24} {:>12.2} {one:>15.0} {many:>11.0} {half:>12.0} {hundred:>6.0} {thousand:>6.0}",
            of(found, &|found| found.throughput),
        );
    }
}
