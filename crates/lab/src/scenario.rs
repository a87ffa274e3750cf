//! The story: out through the gateway, the firewall, a published port, sessions by the thousands; then the [crisis](super::crisis).
use super::mqtt_load::{BrokerProcesses, MqttLoad, SessionCounts};
use super::peers::{DNS_NAME, PUBLISHED_PORT, Peers};
use super::reporter::Reporter;
use super::results::LabResults;
use super::router::{RULESET, RouterKind};
use super::table_full;
use super::topology::{GATEWAY_ADDR, INSIDE_ADDRS, SERVER_ADDR, Side, Topology};
use anyhow::{Result, bail};
use keepstate_advisor::units::Count;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two looks at a crowd.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Between two lines about the table.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How long a session may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Seconds of the transfer.
const TRANSFER_SECS: u32 = 2;
/// Calls of the published port.
const BALANCE_CALLS: u32 = 10;

/// A stage with everybody on it.
pub(super) struct Scenario<'a> {
    pub(super) topology: Topology,
    pub(super) peers: Peers,
    pub(super) brokers: BrokerProcesses,
    /// Sessions that are held.
    pub(super) loads: Vec<MqttLoad>,
    pub(super) reporter: Reporter,
    pub(super) results: LabResults,
    interrupted: &'a AtomicBool,
}

impl<'a> Scenario<'a> {
    /// Sets it up, with room for so many sessions.
    pub(super) fn set_up(kind: RouterKind, fleets: u8, ended: &'a AtomicBool) -> Result<Scenario<'a>> {
        let mut stage = Topology::build(kind, fleets)?;
        let peers = Peers::start(&mut stage)?;
        let acceptors = BrokerProcesses::start(&stage, fleets)?;
        let (teller, account) = (Reporter::new(), LabResults::new(kind));
        Ok(Scenario {
            topology: stage,
            peers,
            brokers: acceptors,
            loads: Vec::new(),
            reporter: teller,
            results: account,
            interrupted: ended,
        })
    }

    /// Tells it.
    pub(super) fn run(&mut self, clients: u32) -> Result<()> {
        self.run_outbound_nat()?;
        self.run_firewall()?;
        self.run_balancing()?;
        self.run_sessions(clients)?;
        match self.results.kind {
            RouterKind::Keepstate => table_full::run(self, clients)?,
            RouterKind::Linux => {
                self.reporter.section("A table that is made small: not here");
                self.reporter.text(
                    "nf_conntrack_max is one number for all of Linux's namespaces, set in the initial one alone;",
                );
                self.reporter.text("the laboratory changes nothing of the machine. A gateway has its own.");
                self.ping_all()?;
            }
        }
        self.results.passed = self.reporter.all_passed();
        self.reporter.finish();
        Ok(())
    }

    /// Who is here, and the rules.
    pub(super) fn print_intro(&self) {
        let teller = &self.reporter;
        let (name, (left, right)) = (self.results.kind.name(), ("10.1.0.1", "192.0.2.1"));
        teller.title("Clients, a gateway and servers, each in a network namespace of its own");
        teller.text("");
        teller.text(&format!("clients 10.1.0.0/24 ── lan0 [ {name} ] wan0 ── servers 192.0.2.0/24"));
        teller.text(&format!("                    {left:>8}   {:^width$}   {right}", "", width = name.len() - 3));
        teller.text("");
        teller.text(&format!("peers: {}", self.peers.installed.join(", ")));
        for (what, why) in &self.peers.builtin {
            teller.text(&format!("       {what}: built in ({why})"));
        }
        teller.text("the gateway's rules:");
        teller.output(RULESET, usize::MAX);
    }

    /// Has somebody pressed Ctrl-C?
    pub(super) fn check_interrupted(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted; everything was taken away");
        }
        Ok(())
    }

    fn run_outbound_nat(&mut self) -> Result<()> {
        self.check_interrupted()?;
        self.reporter.section("Out through the gateway: sources are translated");
        let (typed, ran) = self.peers.fetch(&self.topology, Side::Client, SERVER_ADDR, 80)?;
        self.reporter.command("clients", &typed);
        self.reporter.output(&(ran.stdout.clone() + &ran.stderr), 2);
        let seen = ran.stdout.contains(&format!("you are {GATEWAY_ADDR}"));
        self.reporter.check(seen, &format!("the web server saw {GATEWAY_ADDR}, not {}", INSIDE_ADDRS[0]));
        if let Some((ran, log)) = self.peers.publish_message(&self.topology)? {
            self.reporter
                .command("clients", &format!("mosquitto_pub -h {SERVER_ADDR} -t lab -m hello; mosquitto_sub …"));
            self.reporter.output(&log, 1);
            let good = ran.stdout.trim() == "hello" && log.contains(&format!("from {GATEWAY_ADDR}"));
            self.reporter
                .check(good, &format!("the broker delivered {:?}, and saw {GATEWAY_ADDR} too", ran.stdout.trim()));
        }
        if let Some(ran) = self.peers.resolve_name(&self.topology)? {
            self.reporter.command("clients", &format!("dig +short {DNS_NAME} @{SERVER_ADDR}"));
            self.reporter.output(&ran.stdout, 1);
            self.reporter.check(ran.stdout.trim() == SERVER_ADDR.to_string(), "the name server answered");
        }
        let (typed, speed) = self.peers.measure_throughput(&self.topology, TRANSFER_SECS)?;
        self.reporter.command("clients", &typed);
        let told = speed.map_or_else(|| "nothing came through".to_owned(), |bits| format!("{:.2} Gbit/s", bits / 1e9));
        self.reporter.check(speed.is_some_and(|bits| bits > 0.0), &told);
        self.results.throughput = speed;
        self.reporter.text("two of its connections: from whom they come, and what the answers are sent to");
        self.reporter.output(&self.topology.router.connections()?, 2);
        Ok(())
    }

    fn run_firewall(&mut self) -> Result<()> {
        self.check_interrupted()?;
        self.reporter.section("The firewall: nobody comes in uninvited");
        let (typed, ran) = self.peers.fetch(&self.topology, Side::Server, INSIDE_ADDRS[0], PUBLISHED_PORT)?;
        self.reporter.command("servers", &typed);
        self.reporter.output(&ran.stderr, 1);
        let refused = self.topology.router.rejected_packets()?;
        let packets = if refused == 1 { "packet" } else { "packets" };
        self.reporter.check(
            !ran.success && refused > 0,
            &format!("refused at once: the last rule has counted {refused} {packets}"),
        );
        Ok(())
    }

    fn run_balancing(&mut self) -> Result<()> {
        self.check_interrupted()?;
        self.reporter.section("A published port, balanced over two servers inside");
        let (typed, counts, others) = self.peers.count_balanced(&self.topology, BALANCE_CALLS)?;
        self.reporter.command("servers", &format!("{typed}      # {BALANCE_CALLS} times"));
        let told = INSIDE_ADDRS.iter().zip(counts).map(|(inside, count)| format!("{inside} answered {count}"));
        let told: Vec<String> = told.collect();
        self.reporter.check(counts == [BALANCE_CALLS / 2; 2] && others == 0, &told.join(", "));
        self.results.balanced = Some(counts);
        Ok(())
    }

    fn run_sessions(&mut self, clients: u32) -> Result<()> {
        self.check_interrupted()?;
        self.reporter.section(&format!("{} clients hold MQTT sessions", Count(clients.into())));
        let (tally, took) = self.add_clients(clients, CONNECT_TIMEOUT, None)?;
        let rate = f64::from(tally.open) / took.as_secs_f64();
        self.reporter.check(
            tally.open == clients,
            &format!(
                "{} of {} are open, {} a second",
                Count(tally.open.into()),
                Count(clients.into()),
                Count(rate as u64)
            ),
        );
        let count = self.topology.router.count()?;
        self.reporter.check(count >= u64::from(tally.open), &format!("the table holds {} connections", Count(count)));
        let saw = self.brokers.client_addresses();
        self.reporter
            .check(saw == [GATEWAY_ADDR.to_string()], &format!("the servers saw nobody but {}", saw.join(", ")));
        (self.results.sessions, self.results.rate) = (tally.open, Some(rate));
        Ok(())
    }

    /// More clients come; the table is shown until all have settled. `meanwhile` is done once, when the time has come.
    pub(super) fn add_clients(
        &mut self,
        clients: u32,
        patience: Duration,
        mut meanwhile: Option<DuringLoad<'_, 'a>>,
    ) -> Result<(SessionCounts, Duration)> {
        let mut crowd = MqttLoad::start(&self.topology, clients, patience)?;
        let begun = Instant::now();
        let (mut next, mut last) = (Duration::ZERO, None);
        let tally = loop {
            self.check_interrupted()?;
            if let Some(tally) = crowd.poll_settled()? {
                break tally;
            }
            if begun.elapsed() >= next {
                last = Some(self.report_table(begun.elapsed())?);
                next += REPORT_INTERVAL;
            }
            if let Some((_, what)) = meanwhile.take_if(|(at, _)| begun.elapsed() >= *at) {
                what(self)?;
            }
            std::thread::sleep(POLL_INTERVAL);
        };
        let took = begun.elapsed();
        if last != Some(self.topology.router.count()?) {
            self.report_table(took)?;
        }
        self.loads.push(crowd);
        Ok((tally, took))
    }

    /// Gives how many connections it shows.
    fn report_table(&self, at: Duration) -> Result<u64> {
        let count = self.topology.router.count()?;
        self.reporter.table_bar(at, count, self.topology.router.limit()?);
        Ok(count)
    }

    /// Every session that is open is asked.
    pub(super) fn ping_all(&mut self) -> Result<()> {
        self.check_interrupted()?;
        let mut all = SessionCounts::default();
        for crowd in &mut self.loads {
            let tally = crowd.ping()?;
            (all.open, all.lost, all.answered) =
                (all.open + tally.open, all.lost + tally.lost, all.answered + tally.answered);
        }
        let (answered, open) = (Count(all.answered.into()), Count((all.open + all.lost).into()));
        self.reporter.check(
            all.lost == 0 && all.answered == all.open,
            &format!("{answered} of {open} sessions answer their ping: none was lost meanwhile"),
        );
        self.results.lost = Some(all.lost + all.open - all.answered);
        Ok(())
    }
}

/// What is done while clients come, and when.
pub(super) type DuringLoad<'b, 'a> = (Duration, &'b mut dyn FnMut(&mut Scenario<'a>) -> Result<()>);
