//! Runs the kernel and the engine side by side: each packet goes to both, and every difference is a divergence.
//!
//! A scenario begins with both tables empty. After a divergence its flow is ignored, because everything after it would differ too; the other
//! flows continue.
use super::coverage::Coverage;
use super::ctnetlink_dump::{CtnetlinkDump, statistic};
use super::ctnetlink_events::CtnetlinkEvents;
use super::divergence::Divergence;
use super::event_row::EventRow;
use super::expectation_row::{self, ExpectationRow};
use super::kernel::{FTP_PORT, KernelNetns, Toward};
use super::packet_builder;
use super::row::ConnRow;
use super::scenario::OracleScenario;
use super::step::FlowHash;
use super::syscalls;
use super::verdict::{CtStateDscp, ObservedVerdict};
use anyhow::{Result, bail};
use keepstate_engine::{Engine, EventKind, EventMask, Helper, Instant, Reason, Secret, Sysctl, Sysctls, Tuple, Zone};
use keepstate_wire::reassembly::{Reassembler, Reassembly, ReassemblyLimits};
use keepstate_wire::{Family, LinuxAction, Packet, ParseError};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// A scenario without waits must end before the shortest default timeout, the two seconds of a UDP stream, can matter.
const MAX_SCENARIO_TIME: Duration = Duration::from_millis(1700);
/// Number of steps between two comparisons of the whole tables.
const COMPARE_INTERVAL: usize = 2000;
/// While shrinking, the tables are compared about this many times per scenario: after each step, once it is shorter than this.
const SHRINK_COMPARE_COUNT: usize = 100;
/// Number of steps between two polls of the engine, which remove expired connections.
const POLL_INTERVAL: usize = 64;

/// A child that has expired, but that nothing has removed yet, is not listed and still counts as a reference of its master; the listing that leaves
/// it out removes it (docs/kernel-facts/ctnetlink.md; story 4246 of seed 77123). Other references come and go while something on the machine looks at an
/// entry. So if nothing but their number differs, the kernel's table is read again, this often; what stays is a divergence.
const REREADS_FOR_USES: usize = 3;

/// A packet can end several connections and begin one.
const MAX_EVENTS_PER_PACKET: usize = 1 << 16;

/// How a scenario is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareMode {
    /// Tables are compared now and then, and all divergences are collected.
    Periodic,
    /// Tables are compared often (after every step of a short scenario), and the first divergence ends the scenario.
    EveryStep,
}

/// The result of one run of a scenario.
#[derive(Debug, Default)]
pub struct ComparisonResult {
    pub divergences: Vec<Divergence>,
    /// Both verdicts on each step.
    pub verdicts: Vec<[ObservedVerdict; 2]>,
}

/// The kernel and the engine.
pub struct Comparator {
    kernel: KernelNetns,
    dump: CtnetlinkDump,
    events: CtnetlinkEvents,
    engine: Engine,
    reassembler: Reassembler,
    /// Number of runs.
    run_number: u16,
    /// Buffer for a reassembled packet.
    reassembled: Vec<u8>,
    /// The kernel's counters at the start of the scenario.
    stats_at_start: HashMap<u16, u64>,
    /// Current sysctls of the kernel, so that only changes are written.
    kernel_sysctls: HashMap<Sysctl, u64>,
    pub coverage: Coverage,
    /// The engine's reason for its last verdict.
    pub last_reason: Option<Reason>,
}

impl Comparator {
    pub fn new(kernel: KernelNetns) -> Result<Comparator> {
        let engine = Engine::new(Sysctls::default(), Secret([0; 16]));
        let coverage = Coverage::default();
        Ok(Comparator {
            kernel,
            dump: CtnetlinkDump::open()?,
            events: CtnetlinkEvents::open()?,
            engine,
            reassembler: new_reassembler(),
            reassembled: Vec::new(),
            run_number: 0,
            stats_at_start: HashMap::new(),
            kernel_sysctls: HashMap::new(),
            coverage,
            last_reason: None,
        })
    }

    /// Runs a scenario from its beginning.
    pub fn run_scenario(&mut self, scenario: &OracleScenario, care: CompareMode) -> Result<ComparisonResult> {
        self.reset_both(scenario)?;
        let began = syscalls::monotonic_ns();
        let mut findings = ComparisonResult::default();
        let mut aside = HashSet::new();
        let stride = match care {
            CompareMode::Periodic => COMPARE_INTERVAL,
            CompareMode::EveryStep => scenario.steps.len() / SHRINK_COMPARE_COUNT + 1,
        };
        for (at, step) in scenario.steps.iter().enumerate() {
            sleep_until(began + step.not_before * 1_000_000);
            let now = syscalls::monotonic_ns();
            if !scenario.slow && now - began > MAX_SCENARIO_TIME.as_nanos() as u64 {
                break;
            }
            let bytes = self.unique_fragment_id(&step.bytes);
            let verdicts = self.send_to_both(step.toward, &bytes, Instant(now))?;
            findings.verdicts.push(verdicts);
            let flow = step.flow;
            let [kernel, engine] = verdicts;
            if kernel != engine && flow.is_none_or(|flow| aside.insert(flow)) {
                let kind = format!("packet: {kernel} / {engine}");
                findings.divergences.push(Divergence {
                    step_index: at,
                    flow,
                    kind,
                    kernel: kernel.to_string(),
                    engine: engine.to_string(),
                });
            }
            self.compare_events(at, flow, scenario.slow, &mut aside, &mut findings.divergences)?;
            if at % POLL_INTERVAL == 0 {
                self.engine.poll(Instant(now));
            }
            let due = at % stride == stride - 1;
            if due {
                self.compare_tables(at, &mut aside, &mut findings.divergences)?;
                self.compare_expectations(at, &mut findings.divergences)?;
                self.compare_statistics(at, &mut findings.divergences)?;
            }
            if care == CompareMode::EveryStep && !findings.divergences.is_empty() {
                break;
            }
        }
        let last = findings.verdicts.len().saturating_sub(1);
        if findings.divergences.is_empty() || care == CompareMode::Periodic {
            self.compare_tables(last, &mut aside, &mut findings.divergences)?;
            self.compare_expectations(last, &mut findings.divergences)?;
            self.compare_statistics(last, &mut findings.divergences)?;
        }
        Ok(findings)
    }

    /// Compares the events of one packet. In a slow scenario connections expire when each side's collector finds them, so that their end is no event of a packet.
    fn compare_events(
        &mut self,
        at: usize,
        flow: Option<FlowHash>,
        slow: bool,
        aside: &mut HashSet<FlowHash>,
        divergences: &mut Vec<Divergence>,
    ) -> Result<()> {
        let mut kernel = self.events.read()?;
        let mut engine: Vec<EventRow> =
            std::iter::from_fn(|| self.engine.poll_event()).map(|event| EventRow::from(&event)).collect();
        if slow {
            kernel.retain(|event| event.kind != EventKind::Destroy);
            engine.retain(|event| event.kind != EventKind::Destroy);
        }
        self.coverage.events_compared += kernel.len() as u64;
        let ignored = |event: &EventRow| aside.contains(&FlowHash::from_tuple(&event.original));
        if kernel == engine || kernel.iter().chain(&engine).all(ignored) {
            return Ok(());
        }
        let text = |events: &[EventRow]| match events {
            [] => "no event".to_string(),
            events => events.iter().map(EventRow::to_string).collect::<Vec<_>>().join("; "),
        };
        let names = |events: &[EventRow]| format!("{:?}", events.iter().map(|event| event.kind).collect::<Vec<_>>());
        aside.extend(flow);
        aside.extend(kernel.iter().chain(&engine).map(|event| FlowHash::from_tuple(&event.original)));
        divergences.push(Divergence {
            step_index: at,
            flow,
            kind: format!("events: {} / {}", names(&kernel), names(&engine)),
            kernel: text(&kernel),
            engine: text(&engine),
        });
        Ok(())
    }

    /// Both tables as text; only once if they are equal.
    pub fn describe_tables(&mut self) -> Result<String> {
        let rows: Vec<String> = self.dump.connections()?.iter().map(ConnRow::to_string).collect();
        let now = Instant(syscalls::monotonic_ns());
        let ours: Vec<String> = self.engine.entries(now).map(|entry| ConnRow::from(&entry).to_string()).collect();
        let (kernel, engine) = (rows.join(", "), ours.join(", "));
        Ok(if kernel == engine { kernel } else { format!("kernel {kernel}; engine {engine}") })
    }

    /// Empties both tables and sets the scenario's sysctls on both sides.
    fn reset_both(&mut self, scenario: &OracleScenario) -> Result<()> {
        self.dump.flush()?;
        self.stats_at_start = self.dump.statistics()?;
        for (sysctl, value) in scenario.sysctl_values() {
            if self.kernel_sysctls.get(&sysctl) != Some(&value) {
                self.kernel.set_sysctl(sysctl.name(), value)?;
                self.kernel_sysctls.insert(sysctl, value);
            }
        }
        self.run_number = self.run_number.wrapping_add(1);
        let sysctls = scenario.engine_sysctls()?;
        self.engine = Engine::new(sysctls, Secret(*b"the oracle's own"));
        self.engine.set_auto_helper(packet_builder::TCP, FTP_PORT, Helper::Ftp);
        self.engine.subscribe(EventMask::ALL, MAX_EVENTS_PER_PACKET);
        // Those of the flush.
        self.events.read()?;
        Ok(())
    }

    /// The verdicts of the kernel and of the engine on one packet.
    fn send_to_both(&mut self, toward: Toward, bytes: &[u8], now: Instant) -> Result<[ObservedVerdict; 2]> {
        let kernel = self.kernel.forward_packet(toward, bytes)?;
        self.coverage.count_verdict(kernel);
        let engine = match Packet::parse(bytes) {
            Err(refusal) => self.record_parse_error(refusal),
            Ok(packet) if packet.fragment().is_some() => self.defrag(&packet, now)?,
            Ok(packet) => self.track(&packet, now)?,
        };
        Ok([kernel, engine])
    }

    /// The fragment with an identification that no recent run used.
    fn unique_fragment_id<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let v6 = bytes.len() > 48 && bytes[0] >> 4 == 6 && bytes[6] == packet_builder::FRAGMENT;
        let v4 = bytes.len() > 20 && bytes[0] == 0x45 && (bytes[6] & 0x3f != 0 || bytes[7] != 0);
        if !v4 && !v6 {
            return Cow::Borrowed(bytes);
        }
        let mut bytes = bytes.to_vec();
        if v6 {
            bytes[44..46].copy_from_slice(&self.run_number.to_be_bytes());
        } else {
            // There are only 2^16 ids: each run shifts them by an odd number, and few fragments are left over from a run.
            let id = u16::from_be_bytes([bytes[4], bytes[5]]).wrapping_add(self.run_number.wrapping_mul(20_011));
            bytes[4..6].copy_from_slice(&id.to_be_bytes());
            packet_builder::update_header_checksum(&mut bytes);
        }
        Cow::Owned(bytes)
    }

    /// A fragment at the engine: there is no verdict until the packet is complete.
    fn defrag(&mut self, packet: &Packet<'_>, now: Instant) -> Result<ObservedVerdict> {
        let mut whole = std::mem::take(&mut self.reassembled);
        let verdicts = match self.reassembler.push(packet, now.0, &mut whole) {
            Ok(Reassembly::Incomplete) => {
                self.last_reason = None;
                ObservedVerdict::NotForwarded
            }
            Ok(Reassembly::Complete(_)) => match Packet::parse_reassembled(&whole) {
                Ok(packet) => self.track(&packet, now)?,
                Err(refusal) => self.record_parse_error(refusal),
            },
            // Linux passes it on without reassembly, so conntrack sees the fragment itself.
            Err(refusal)
                if refusal.linux_action() == LinuxAction::PassedUnassembled && packet.family() == Family::V6 =>
            {
                match Packet::parse_reassembled(packet.bytes()) {
                    Ok(packet) => self.track(&packet, now)?,
                    Err(refusal) => self.record_parse_error(refusal),
                }
            }
            Err(refusal) => self.record_parse_error(refusal),
        };
        self.reassembled = whole;
        Ok(verdicts)
    }

    fn record_parse_error(&mut self, refusal: ParseError) -> ObservedVerdict {
        self.engine.count_parse_error(refusal);
        self.last_reason = Some(Reason::ParseError(refusal));
        match refusal.linux_action() {
            LinuxAction::Invalid => ObservedVerdict::Passed(CtStateDscp::Invalid),
            LinuxAction::Dropped | LinuxAction::PassedUnassembled => ObservedVerdict::NotForwarded,
        }
    }

    fn track(&mut self, packet: &Packet<'_>, now: Instant) -> Result<ObservedVerdict> {
        let engine = &mut self.engine;
        let outcome = catch_unwind(AssertUnwindSafe(|| engine.handle(packet, Zone::default(), now)));
        let Ok(outcome) = outcome else { bail!("the engine panicked at {:02x?}", packet.bytes()) };
        self.last_reason = outcome.reason;
        let after = outcome.connection.and_then(|handle| self.engine.entry(handle, now));
        self.coverage.count_packet(packet, &outcome, after.as_ref());
        Ok(ObservedVerdict::from(outcome))
    }

    /// Compares the counters of `conntrack -S`, unless there is another divergence.
    fn compare_statistics(&mut self, at: usize, divergences: &mut Vec<Divergence>) -> Result<()> {
        if !divergences.is_empty() {
            return Ok(());
        }
        let now = self.dump.statistics()?;
        let ours = self.engine.counters();
        let ours = [
            ours.invalid,
            ours.error,
            ours.insert_failed,
            ours.drop,
            ours.early_drop,
            ours.clash_resolve,
            ours.expect_new,
            ours.expect_create,
            ours.expect_delete,
        ];
        for ((number, name), engine) in statistic::COMPARED.into_iter().zip(ours) {
            let at_start = self.stats_at_start.get(&number).copied().unwrap_or(0);
            let kernel = now.get(&number).copied().unwrap_or(0) - at_start;
            if kernel != engine {
                let kind = format!("statistics: {name}");
                divergences.push(Divergence {
                    step_index: at,
                    flow: None,
                    kind,
                    kernel: kernel.to_string(),
                    engine: engine.to_string(),
                });
                return Ok(());
            }
        }
        Ok(())
    }

    /// Compares the expectations, unless there is another divergence.
    fn compare_expectations(&mut self, at: usize, divergences: &mut Vec<Divergence>) -> Result<()> {
        if divergences.is_empty() {
            let kernel = self.dump.expectations()?;
            let engine = self
                .engine
                .expectations(Instant(syscalls::monotonic_ns()))
                .map(|one| ExpectationRow::from(&one))
                .collect();
            divergences.extend(expectation_row::difference(kernel, engine, at));
        }
        Ok(())
    }

    /// The kernel's table. A dump loses entries if the table, which is machine-wide, is resized meanwhile: if it is shorter than
    /// the engine's, it is read again.
    fn kernel_rows(&mut self) -> Result<Vec<ConnRow>> {
        let rows = self.dump.connections()?;
        let ours = self.engine.entries(Instant(syscalls::monotonic_ns())).count();
        if rows.len() < ours { self.dump.connections() } else { Ok(rows) }
    }

    /// Compares the tables, connection by connection.
    fn compare_tables(
        &mut self,
        at: usize,
        aside: &mut HashSet<FlowHash>,
        divergences: &mut Vec<Divergence>,
    ) -> Result<()> {
        let mut rows = self.kernel_rows()?;
        let now = Instant(syscalls::monotonic_ns());
        let mut ours: HashMap<Tuple, ConnRow> =
            self.engine.entries(now).map(|entry| (entry.original, ConnRow::from(&entry))).collect();
        for _ in 0..REREADS_FOR_USES {
            if !rows.iter().any(|row| ours.get(&row.original).is_some_and(|ours| row.difference(ours) == Some("uses")))
            {
                break;
            }
            rows = self.kernel_rows()?;
        }
        self.coverage.connections_compared += rows.len() as u64;
        let mut differ = |tuple: &Tuple, kind: String, kernel: String, engine: String| {
            let flow = FlowHash::from_tuple(tuple);
            if aside.insert(flow) {
                divergences.push(Divergence { step_index: at, flow: Some(flow), kind, kernel, engine });
            }
        };
        for kernel in rows {
            let nothing = || "no such connection".to_string();
            match ours.remove(&kernel.original) {
                None => differ(
                    &kernel.original,
                    format!("table: only the kernel has it, {}", kernel.state_name()),
                    kernel.to_string(),
                    nothing(),
                ),
                Some(engine) => {
                    if let Some(column) = kernel.difference(&engine) {
                        let states = format!("{} / {}", kernel.state_name(), engine.state_name());
                        differ(
                            &kernel.original,
                            format!("table: {column}, {states}"),
                            kernel.to_string(),
                            engine.to_string(),
                        );
                    }
                }
            }
        }
        for (tuple, engine) in ours {
            let kind = format!("table: only the engine has it, {}", engine.state_name());
            differ(&tuple, kind, "no such connection".to_string(), engine.to_string());
        }
        Ok(())
    }
}

fn new_reassembler() -> Reassembler {
    Reassembler::new((1, 2), ReassemblyLimits { high_thresh: 256 << 20, ..ReassemblyLimits::default() })
}

fn sleep_until(time: u64) {
    let now = syscalls::monotonic_ns();
    if time > now {
        std::thread::sleep(Duration::from_nanos(time - now));
    }
}
