//! The steps of a run: outbound NAT, firewall, a balanced port, MQTT sessions by the thousands; and, in [table_full](super::table_full), a table that fills up.
use super::mqtt_load::{BrokerProcesses, MqttLoad, SessionCounts};
use super::peers::{DNS_NAME, PUBLISHED_PORT, Peers};
use super::process::{TIMEOUT, current_exe, run_to_end};
use super::reporter::Reporter;
use super::results::LabResults;
use super::router::{RULESET, RouterKind};
use super::topology::{GATEWAY_ADDR, INSIDE_ADDRS, SERVER_ADDR, Side, Topology};
use anyhow::{Result, bail};
use keepstate_advisor::units::Count;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two polls of the client processes.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Between two lines about the table.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Time limit for a session to open.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Duration of the transfer, in seconds.
const TRANSFER_SECS: u32 = 2;
/// Requests to the published port.
const BALANCED_REQUESTS: u32 = 10;

/// A topology with its servers, clients and results.
pub(super) struct Scenario<'a> {
    pub(super) topology: Topology,
    pub(super) peers: Peers,
    pub(super) brokers: BrokerProcesses,
    /// The client processes, with the sessions that they hold.
    pub(super) loads: Vec<MqttLoad>,
    pub(super) reporter: Reporter,
    pub(super) results: LabResults,
    interrupted: &'a AtomicBool,
}

impl<'a> Scenario<'a> {
    /// Builds the topology and starts the servers, for so many processes of MQTT clients.
    pub(super) fn set_up(kind: RouterKind, processes: u8, interrupted: &'a AtomicBool) -> Result<Scenario<'a>> {
        let mut topology = Topology::build(kind, processes)?;
        let peers = Peers::start(&mut topology)?;
        let brokers = BrokerProcesses::start(&topology, processes)?;
        let (reporter, results) = (Reporter::new(), LabResults::new(kind));
        Ok(Scenario { topology, peers, brokers, loads: Vec::new(), reporter, results, interrupted })
    }

    /// Runs the steps before the full table.
    pub(super) fn run(&mut self, clients: u32) -> Result<()> {
        self.run_outbound_nat()?;
        self.run_firewall()?;
        self.run_balancing()?;
        self.run_sessions(clients)
    }

    /// What `keepstate top` shows of the gateway's table.
    pub(super) fn show_top(&mut self) -> Result<()> {
        self.check_interrupted()?;
        self.reporter.section("keepstate top: who fills the gateway's table");
        let socket = format!("--gateway={}", self.topology.router.socket().display());
        let mut top = Command::new(current_exe()?);
        let ran = run_to_end(top.args(["top", "--once", "--doctor", "0", "--size", "100x20", &socket]), TIMEOUT)?;
        self.reporter.output(if ran.success { &ran.stdout } else { &ran.stderr }, usize::MAX);
        self.reporter.check(ran.success, "one screen of it, taken by top --once");
        Ok(())
    }

    /// Prints the verdict, and keeps it with the results.
    pub(super) fn finish(&mut self) {
        self.results.passed = self.reporter.all_passed();
        self.reporter.finish();
    }

    /// Prints the topology, the servers and the ruleset.
    pub(super) fn print_intro(&self) {
        let reporter = &self.reporter;
        let (name, (left, right)) = (self.results.kind.name(), ("10.1.0.1", "192.0.2.1"));
        reporter.title("Clients, a gateway and servers, each in a network namespace of its own");
        reporter.text("");
        reporter.text(&format!("clients 10.1.0.0/24 ── lan0 [ {name} ] wan0 ── servers 192.0.2.0/24"));
        reporter.text(&format!("                    {left:>8}   {:^width$}   {right}", "", width = name.len() - 3));
        reporter.text("");
        reporter.text(&format!("programs: {}", self.peers.installed.join(", ")));
        for substitute in &self.peers.substitutes {
            reporter.text(&format!("          {substitute}"));
        }
        reporter.text("ruleset of the gateway:");
        reporter.output(RULESET, usize::MAX);
    }

    /// Fails after SIGINT or SIGTERM.
    pub(super) fn check_interrupted(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted; everything has been removed");
        }
        Ok(())
    }

    fn run_outbound_nat(&mut self) -> Result<()> {
        self.check_interrupted()?;
        self.reporter.section("Outbound connections: the gateway translates the source address");
        let (command, ran) = self.peers.fetch(&self.topology, Side::Client, SERVER_ADDR, 80)?;
        self.reporter.command("clients", &command);
        self.reporter.output(&(ran.stdout.clone() + &ran.stderr), 2);
        let is_translated = ran.stdout.contains(&format!("you are {GATEWAY_ADDR}"));
        self.reporter.check(is_translated, &format!("the web server saw {GATEWAY_ADDR}, not {}", INSIDE_ADDRS[0]));
        if let Some((ran, log)) = self.peers.publish_message(&self.topology)? {
            self.reporter
                .command("clients", &format!("mosquitto_pub -h {SERVER_ADDR} -t lab -m hello; mosquitto_sub …"));
            self.reporter.output(&log, 1);
            let message = ran.stdout.trim();
            let passed = message == "hello" && log.contains(&format!("from {GATEWAY_ADDR}"));
            self.reporter.check(passed, &format!("the MQTT broker delivered {message:?} and saw {GATEWAY_ADDR}"));
        }
        if let Some(ran) = self.peers.resolve_name(&self.topology)? {
            self.reporter.command("clients", &format!("dig +short {DNS_NAME} @{SERVER_ADDR}"));
            self.reporter.output(&ran.stdout, 1);
            self.reporter.check(ran.stdout.trim() == SERVER_ADDR.to_string(), "the DNS server answered");
        }
        let (command, throughput) = self.peers.measure_throughput(&self.topology, TRANSFER_SECS)?;
        self.reporter.command("clients", &command);
        let text = throughput
            .map_or_else(|| "no data arrived".to_owned(), |bits| format!("TCP throughput {:.2} Gbit/s", bits / 1e9));
        self.reporter.check(throughput.is_some_and(|bits| bits > 0.0), &text);
        self.results.throughput = throughput;
        self.reporter.text("two connections in the gateway's table, each with its original and its reply direction:");
        self.reporter.output(&self.topology.router.connections()?, 2);
        Ok(())
    }

    fn run_firewall(&mut self) -> Result<()> {
        self.check_interrupted()?;
        self.reporter.section("Firewall: new connections from outside are rejected");
        let (command, ran) = self.peers.fetch(&self.topology, Side::Server, INSIDE_ADDRS[0], PUBLISHED_PORT)?;
        self.reporter.command("servers", &command);
        self.reporter.output(&ran.stderr, 1);
        let rejected = self.topology.router.rejected_packets()?;
        let text = format!("rejected at once; the counter of the last rule: packets {rejected}");
        self.reporter.check(!ran.success && rejected > 0, &text);
        Ok(())
    }

    fn run_balancing(&mut self) -> Result<()> {
        self.check_interrupted()?;
        self.reporter.section("Published port: connections from outside are balanced over two servers inside");
        let (command, counts, others) = self.peers.count_balanced(&self.topology, BALANCED_REQUESTS)?;
        self.reporter.command("servers", &format!("{command}      # {BALANCED_REQUESTS} times"));
        let answers = INSIDE_ADDRS.iter().zip(counts).map(|(inside, count)| format!("{inside} answered {count}"));
        let answers: Vec<String> = answers.collect();
        self.reporter.check(counts == [BALANCED_REQUESTS / 2; 2] && others == 0, &answers.join(", "));
        self.results.balanced = Some(counts);
        Ok(())
    }

    fn run_sessions(&mut self, clients: u32) -> Result<()> {
        self.check_interrupted()?;
        self.reporter.section(&format!("{} clients open and hold MQTT sessions", Count(clients.into())));
        let (counts, duration) = self.add_clients(clients, CONNECT_TIMEOUT, None)?;
        let rate = f64::from(counts.open) / duration.as_secs_f64();
        let (open, all, per_second) = (Count(counts.open.into()), Count(clients.into()), Count(rate as u64));
        let text = format!("{open} of {all} sessions are open, {per_second} opened per second");
        self.reporter.check(counts.open == clients, &text);
        let entries = self.topology.router.count()?;
        let text = format!("the table holds {} connections", Count(entries));
        self.reporter.check(entries >= u64::from(counts.open), &text);
        let addresses = self.brokers.client_addresses();
        let text = format!("the servers saw one client address: {}", addresses.join(", "));
        self.reporter.check(addresses == [GATEWAY_ADDR.to_string()], &text);
        (self.results.sessions, self.results.rate) = (counts.open, Some(rate));
        Ok(())
    }

    /// Starts more clients, and prints the fill level of the table until all their sessions are open or have failed. `during` runs once,
    /// as soon as its condition holds.
    pub(super) fn add_clients(
        &mut self,
        clients: u32,
        timeout: Duration,
        mut during: Option<DuringLoad<'_, 'a>>,
    ) -> Result<(SessionCounts, Duration)> {
        let mut load = MqttLoad::start(&self.topology, clients, timeout)?;
        let start = Instant::now();
        let (mut next_report, mut reported) = (Duration::ZERO, None);
        let counts = loop {
            self.check_interrupted()?;
            if let Some(counts) = load.poll_settled()? {
                break counts;
            }
            if start.elapsed() >= next_report {
                reported = Some(self.report_table(start.elapsed())?);
                next_report += REPORT_INTERVAL;
            }
            if let Some(during) = during.take_if(|during| (during.is_due)(self, start.elapsed())) {
                (during.action)(self)?;
            }
            std::thread::sleep(POLL_INTERVAL);
        };
        let duration = start.elapsed();
        if reported != Some(self.topology.router.count()?) {
            self.report_table(duration)?;
        }
        self.loads.push(load);
        Ok((counts, duration))
    }

    /// Prints the fill level of the table. Returns the number of connections.
    fn report_table(&self, at: Duration) -> Result<u64> {
        let count = self.topology.router.count()?;
        self.reporter.table_bar(at, count, self.topology.router.limit()?);
        Ok(count)
    }

    /// Pings every open session.
    pub(super) fn ping_all(&mut self) -> Result<()> {
        self.check_interrupted()?;
        let mut all = SessionCounts::default();
        for load in &mut self.loads {
            let counts = load.ping()?;
            (all.open, all.lost, all.answered) =
                (all.open + counts.open, all.lost + counts.lost, all.answered + counts.answered);
        }
        let (answered, open) = (Count(all.answered.into()), Count((all.open + all.lost).into()));
        let text = format!("{answered} of {open} sessions answer an MQTT ping: none was lost");
        self.reporter.check(all.lost == 0 && all.answered == all.open, &text);
        self.results.lost = Some(all.lost + all.open - all.answered);
        Ok(())
    }
}

/// An action while clients connect.
pub(super) struct DuringLoad<'b, 'a> {
    /// Whether it is time, so long after the start.
    pub(super) is_due: &'b dyn Fn(&Scenario<'a>, Duration) -> bool,
    pub(super) action: &'b mut dyn FnMut(&mut Scenario<'a>) -> Result<()>,
}
