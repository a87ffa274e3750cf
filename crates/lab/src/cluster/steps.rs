//! The steps: a planned change, a crash with its NATS server, an outage of NATS, a link that is cut.
use super::address_mover::{AddressMover, SeenGateway};
use super::config::ClusterLabConfig;
use super::loads::{ClientView, Loads};
use super::site::{ClusterSite, LinkState};
use super::step_results::{StepResult, percentile, render_steps, show};
use crate::reporter::Reporter;
use anyhow::{Result, bail, ensure};
use keepstate_advisor::units::Count;
use keepstate_gateway::control_protocol::{ControlRequest, ShowOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time limit for what must happen, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Load before something is done to it.
const WARM_UP: Duration = Duration::from_secs(2);
/// A report may be late by so much on a busy machine: two that say *active* for longer are a fault.
const REPORT_DELAY: Duration = Duration::from_millis(500);

/// A running cluster with its clients.
pub(super) struct ClusterScenario<'a> {
    // Clients end before what they use.
    loads: Loads,
    mover: Arc<AddressMover>,
    mover_thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    site: ClusterSite,
    reporter: Reporter,
    results: Vec<StepResult>,
    config: ClusterLabConfig,
    interrupted: &'a AtomicBool,
}

impl<'a> ClusterScenario<'a> {
    /// Builds it and opens all sessions.
    pub(super) fn set_up(config: &ClusterLabConfig, interrupted: &'a AtomicBool) -> Result<ClusterScenario<'a>> {
        let reporter = Reporter::new();
        reporter.title("Two gateways, three NATS servers, clients and servers, in network namespaces");
        reporter.text("");
        reporter.text("clients 10.1.0.0/24 ─┬─ gw0 + nats0 ─┬─ servers 192.0.2.0/24");
        reporter.text("                     └─ gw1 + nats1 ─┘          nats2 on a third machine");
        reporter.text("");
        let mut site = ClusterSite::build(config.lease_secs)?;
        let (mover, stop) = (Arc::new(AddressMover::default()), Arc::new(AtomicBool::new(false)));
        let sockets = [0, 1].map(|index| site.socket(index));
        let (clients, servers) = (Arc::clone(&site.clients), Arc::clone(&site.servers));
        site.start_gateway(0)?;
        site.start_gateway(1)?;
        let (asking, ending) = (Arc::clone(&mover), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("mover".into());
        let mover_thread = thread.spawn(move || asking.run(&sockets, &clients, &servers, &ending))?;
        let waiting = Waiting { mover: &mover, interrupted };
        waiting.until("a gateway that is active", |mover| mover.with(|state| state.current.is_some()))?;
        let loads = Loads::start(&site, config)?;
        let (config, results, mover_thread) = (*config, Vec::new(), Some(mover_thread));
        let mut scenario =
            ClusterScenario { loads, mover, mover_thread, stop, site, reporter, results, config, interrupted };
        let text = format!(
            "{} MQTT sessions, {} transfers and {} new connections a second go through {}; lease {} s",
            Count(scenario.config.clients.into()),
            scenario.config.transfers,
            Count(scenario.config.rate.into()),
            name(scenario.current()?),
            scenario.config.lease_secs
        );
        scenario.wait_in_step()?;
        scenario.reporter.check(true, &text);
        Ok(scenario)
    }

    /// `demote` before maintenance.
    pub(super) fn change_as_planned(&mut self) -> Result<()> {
        let active = self.begin("A planned change: keepstate control demote")?;
        let trigger = Instant::now();
        self.site.control(active, ControlRequest::Demote { shard: None })?;
        let takeover = self.wait_takeover(active, trigger)?;
        let new_lost = self.end("planned change", Some(takeover), trigger)?.new.counts.failed;
        self.reporter.check(new_lost == 0, &format!("{} new connections failed", Count(new_lost.into())));
        Ok(())
    }

    /// SIGKILL to the active gateway alone.
    pub(super) fn kill_gateway(&mut self) -> Result<()> {
        let active = self.begin("A crash: the active gateway is killed (-9)")?;
        let trigger = Instant::now();
        self.site.kill_gateway(active);
        let takeover = self.wait_takeover(active, trigger)?;
        self.end("gateway killed", Some(takeover), trigger)?;
        self.site.start_gateway(active)?;
        self.show_converged(&format!("{} is back as a standby", name(active)))
    }

    /// SIGKILL to the active gateway and the NATS server beside it.
    pub(super) fn kill_machine(&mut self) -> Result<()> {
        let active = self.begin("A machine dies: the active gateway and its NATS server are killed (-9)")?;
        let trigger = Instant::now();
        self.site.kill_gateway(active);
        self.site.kill_nats(&[active]);
        let takeover = self.wait_takeover(active, trigger)?;
        self.end("machine killed", Some(takeover), trigger)?;
        self.reporter.text("(if that server led the lease's group, NATS elects a new leader first: some seconds)");
        self.site.start_nats(&[active])?;
        self.site.start_gateway(active)?;
        self.show_converged(&format!("{} is back as a standby", name(active)))
    }

    /// All NATS servers are killed and started again.
    pub(super) fn stop_nats(&mut self) -> Result<()> {
        let outage = self.config.outage;
        let active = self.begin(&format!("NATS is away for {}: all three servers are killed", show(outage)))?;
        let trigger = Instant::now();
        self.site.kill_nats(&[0, 1, 2]);
        let is_fenced = |state: &SeenGateway| state.role == "fenced";
        self.waiting().until("a gateway without a lease that creates nothing", |mover| {
            mover.with(|state| state.gateways.get(active).and_then(Option::as_ref).is_some_and(is_fenced))
        })?;
        let text = format!(
            "{} has no lease after {}: it creates nothing and forwards what it knows",
            name(active),
            show(trigger.elapsed())
        );
        self.reporter.check(true, &text);
        self.sleep(outage.saturating_sub(trigger.elapsed()))?;
        // Nobody had to be active for this.
        let waiting = self.loads.waiting_since(trigger)?;
        self.reporter.check(waiting == 0, &format!("{} sessions got no answer meanwhile", Count(waiting as u64)));
        self.site.start_nats(&[0, 1, 2])?;
        self.waiting().until("a gateway that is active again", |mover| mover.with(|state| state.is_any_active()))?;
        self.end("NATS away", None, trigger)?;
        self.show_converged("NATS is back")
    }

    /// The active gateway's machine has no link to the other two.
    pub(super) fn cut_active_off(&mut self) -> Result<()> {
        let active = self.begin("A split: the active gateway's link to the cluster is cut, clients still reach it")?;
        let trigger = Instant::now();
        self.site.set_link(active, LinkState::Down)?;
        let takeover = self.wait_takeover(active, trigger)?;
        self.end("split", Some(takeover), trigger)?;
        self.sleep(self.config.outage.saturating_sub(trigger.elapsed()))?;
        self.site.set_link(active, LinkState::Up)?;
        self.show_converged(&format!("{} is back as a standby", name(active)))
    }

    /// Prints the table and the verdict; true if all checks passed.
    pub(super) fn finish(mut self) -> Result<bool> {
        let (both, mut ages) = self.mover.with(|state| (state.both_active, std::mem::take(&mut state.ages)));
        anstream::println!("\n{}", render_steps(&self.results).trim_end());
        anstream::println!();
        ages.sort_unstable();
        let ages: Vec<Duration> = ages.into_iter().map(Duration::from_millis).collect();
        let window = format!(
            "loss window, under load before each step (what a crash loses): p50 {}, p99 {}",
            show(percentile(&ages, 50)),
            show(percentile(&ages, 99))
        );
        self.reporter.text(&window);
        self.reporter.check(both < REPORT_DELAY, "the two gateways were never active at the same time");
        self.reporter.finish();
        Ok(self.reporter.all_passed())
    }

    /// A new step, under load for a while. Which gateway is active.
    fn begin(&mut self, title: &str) -> Result<usize> {
        self.wait_in_step()?;
        self.reporter.section(title);
        self.mover.with(|state| state.samples = true);
        self.sleep(WARM_UP)?;
        self.mover.with(|state| state.samples = false);
        // What was before is not this step's.
        self.loads.take()?;
        self.current()
    }

    /// Waits until every session was answered anew and every transfer has received something, and tells what clients saw.
    fn end(&mut self, name: &'static str, takeover: Option<Duration>, trigger: Instant) -> Result<ClientView> {
        let since = Instant::now();
        let deadline = since + PATIENCE;
        self.loads.ask_transfers();
        // Also clients that have begun before now come to an end.
        while (!self.all_go_on(since)? || since.elapsed() < WARM_UP) && Instant::now() < deadline {
            self.waiting().check_interrupted()?;
            std::thread::sleep(POLL_INTERVAL);
        }
        let seen = self.loads.take()?;
        if let Some(takeover) = takeover {
            let moved = self.mover.with(|state| state.moved_at).map_or(Duration::ZERO, |moved| moved - trigger);
            self.reporter.text(&format!("takeover after {}, packets go there after {}", show(takeover), show(moved)));
        }
        let sessions = &seen.sessions;
        let all = sessions.open + sessions.lost;
        let text = format!(
            "{} of {} sessions go on, {} had to reconnect",
            Count(sessions.open as u64),
            Count(all as u64),
            sessions.lost
        );
        self.reporter.check(sessions.lost == 0 && all == self.config.clients as usize, &text);
        let text = format!(
            "longest wait of a session for an answer: p50 {}, p99 {}, longest {}",
            show(percentile(&sessions.silences, 50)),
            show(percentile(&sessions.silences, 99)),
            show(sessions.silences.last().copied().unwrap_or_default())
        );
        self.reporter.text(&text);
        let transfers = seen.transfers;
        let text = format!(
            "{} transfers go on, {} broken: {:.1} MB, longest pause {}",
            self.config.transfers,
            transfers.broken,
            transfers.bytes as f64 / 1e6,
            show(transfers.pause)
        );
        self.reporter.check(transfers.broken == 0 && (transfers.bytes > 0 || self.config.transfers == 0), &text);
        let new = seen.new.counts;
        let text = format!(
            "new connections: {} within 1 s, {} later, {} failed, {} still waiting",
            Count(new.prompt.into()),
            Count(new.late.into()),
            Count(new.failed.into()),
            Count(seen.new.pending.into())
        );
        self.reporter.text(&text);
        let result = StepResult { name, takeover, seen: seen.clone() };
        self.results.push(result);
        Ok(seen)
    }

    /// Has every transfer received something, and every session been answered, since then?
    fn all_go_on(&mut self, since: Instant) -> Result<bool> {
        Ok(self.loads.transfers_have_moved(self.config.transfers) && self.loads.waiting_since(since)? == 0)
    }

    /// Waits until the other gateway is active and packets go there.
    fn wait_takeover(&self, active: usize, trigger: Instant) -> Result<Duration> {
        self.waiting().until("a takeover", |mover| mover.with(|state| state.current == Some(1 - active)))?;
        let at = self.mover.with(|state| state.active_at).unwrap_or(trigger);
        Ok(at.saturating_duration_since(trigger))
    }

    /// Without new connections both tables must become the same.
    fn show_converged(&mut self, what: &str) -> Result<()> {
        self.loads.pause_new()?;
        self.wait_in_step()?;
        let deadline = Instant::now() + PATIENCE;
        let mut tables = [self.table(0)?, self.table(1)?];
        while tables[0] != tables[1] && Instant::now() < deadline {
            self.waiting().check_interrupted()?;
            std::thread::sleep(POLL_INTERVAL * 10);
            tables = [self.table(0)?, self.table(1)?];
        }
        self.loads.resume_new()?;
        let [ours, theirs] = &tables;
        let text = if ours == theirs {
            format!("{what}; both tables are the same, entry by entry: {} connections", Count(ours.len() as u64))
        } else {
            let only = |one: &[String], other: &[String]| one.iter().filter(|line| !other.contains(line)).count();
            format!("{what}; the tables differ: {} only on gw0, {} only on gw1", only(ours, theirs), only(theirs, ours))
        };
        self.reporter.check(ours == theirs, &text);
        Ok(())
    }

    /// A gateway's connections without their timeouts, sorted.
    fn table(&self, index: usize) -> Result<Vec<String>> {
        let text = self.site.control(index, ControlRequest::List(ShowOptions::default()))?;
        let without_timeout = |line: &str| {
            let words = line.split_whitespace().enumerate();
            words.filter(|(at, _)| *at != 2).map(|(_, word)| word).collect::<Vec<_>>().join(" ")
        };
        let mut lines: Vec<String> = text.lines().map(without_timeout).collect();
        lines.sort_unstable();
        Ok(lines)
    }

    /// Waits until the standby has followed the whole table.
    fn wait_in_step(&self) -> Result<()> {
        let is_whole = |state: &SeenGateway| state.in_step && state.is_connected;
        self.waiting().until("a standby that has the whole table", |mover| {
            mover.with(|state| {
                let standby = state.gateways.iter().flatten().find(|gateway| gateway.role == "standby");
                state.is_any_active() && standby.is_some_and(is_whole)
            })
        })
    }

    fn current(&self) -> Result<usize> {
        match self.mover.with(|state| state.current) {
            Some(index) => Ok(index),
            None => bail!("no gateway is active"),
        }
    }

    fn waiting(&self) -> Waiting<'_> {
        Waiting { mover: &self.mover, interrupted: self.interrupted }
    }

    fn sleep(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.waiting().check_interrupted()?;
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }
}

impl Drop for ClusterScenario<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.mover_thread.take() {
            // A thread that has panicked has said so.
            let _ = thread.join();
        }
    }
}

struct Waiting<'a> {
    mover: &'a AddressMover,
    interrupted: &'a AtomicBool,
}

impl Waiting<'_> {
    fn check_interrupted(&self) -> Result<()> {
        ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted; everything has been removed");
        Ok(())
    }

    fn until(&self, what: &str, holds: impl Fn(&AddressMover) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self.mover) {
            self.check_interrupted()?;
            if Instant::now() > deadline {
                let error = self.mover.with(|state| state.error.take()).unwrap_or_default();
                bail!("{what} has not come within {} s. {error}", PATIENCE.as_secs());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }
}

fn name(index: usize) -> &'static str {
    if index == 0 { "gw0" } else { "gw1" }
}
