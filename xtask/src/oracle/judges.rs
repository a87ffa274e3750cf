//! The kernel and the engine, side by side: each packet goes to both, and whatever they disagree about is a divergence.
//!
//! A story begins with both tables empty. After a divergence its flow is set aside, because all that follows in it would differ too; the other
//! flows go on.
use super::coverage::Coverage;
use super::craft;
use super::dump::{Dump, statistic};
use super::expected::{self, Expected};
use super::kernel::{HELPED, Kernel, Toward};
use super::row::Row;
use super::step::Flow;
use super::story::Story;
use super::system;
use super::verdict::{Heard, Mark};
use anyhow::{Result, bail};
use keepstate_engine::{Engine, Helper, Instant, Knob, Knobs, Secret, Tuple, Why, Zone};
use keepstate_wire::reassembly::{Limits, Reassembler, Reassembly};
use keepstate_wire::{Family, Fate, Packet, Refusal};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// One disagreement.
#[derive(Clone, Debug)]
pub struct Divergence {
    /// The step at which, or after which, it was seen.
    pub at: usize,
    pub flow: Option<Flow>,
    /// In what they disagree, without the numbers of this one case: equal for divergences of one kind.
    pub kind: String,
    pub kernel: String,
    pub engine: String,
}

/// A story that may not wait must end before the shortest default timeout, the two seconds of a UDP stream, can matter.
const LONGEST: Duration = Duration::from_millis(1700);
/// Steps between two looks at whole tables.
const CHECKPOINT: usize = 2000;
/// About so often tables are compared while a story is made short: after each step, once it is shorter than this.
const OFTEN: usize = 100;
/// How often the engine is asked to remove what has expired.
const POLL: usize = 64;

/// How a story is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// Tables are compared now and then, and all divergences are collected.
    Sweep,
    /// Tables are compared often (in a short story after every step), and the first divergence ends the story.
    EachStep,
}

/// What one playing of a story gave.
#[derive(Debug, Default)]
pub struct Findings {
    pub divergences: Vec<Divergence>,
    /// What each said of each step played.
    pub heard: Vec<[Heard; 2]>,
}

/// Both judges.
pub struct Judges {
    kernel: Kernel,
    dump: Dump,
    engine: Engine,
    reassembler: Reassembler,
    /// Counts playings.
    playing: u16,
    /// Where fragments are put together.
    whole: Vec<u8>,
    /// The kernel's counters when the story began.
    statistics: HashMap<u16, u64>,
    /// Knobs as they stand in the kernel, so that only changes are written.
    written: HashMap<Knob, u64>,
    pub coverage: Coverage,
    /// The engine's reason for what it said last.
    pub why: Option<Why>,
}

impl Judges {
    pub fn new(kernel: Kernel) -> Result<Judges> {
        let engine = Engine::new(Knobs::default(), Secret([0; 16]), Instant(0));
        let coverage = Coverage::default();
        Ok(Judges {
            kernel,
            dump: Dump::open()?,
            engine,
            reassembler: reassembler(),
            whole: Vec::new(),
            playing: 0,
            statistics: HashMap::new(),
            written: HashMap::new(),
            coverage,
            why: None,
        })
    }

    /// Plays a story from its beginning.
    pub fn play(&mut self, story: &Story, care: Care) -> Result<Findings> {
        self.prepare(story)?;
        let began = system::monotonic();
        let mut findings = Findings::default();
        let mut aside = HashSet::new();
        let stride = match care {
            Care::Sweep => CHECKPOINT,
            Care::EachStep => story.steps.len() / OFTEN + 1,
        };
        for (at, step) in story.steps.iter().enumerate() {
            wait_until(began + step.not_before * 1_000_000);
            let now = system::monotonic();
            if !story.slow && now - began > LONGEST.as_nanos() as u64 {
                break;
            }
            let bytes = self.own_identification(&step.bytes);
            let heard = self.pass(step.toward, &bytes, Instant(now))?;
            findings.heard.push(heard);
            let flow = step.flow;
            let [kernel, engine] = heard;
            if kernel != engine && flow.is_none_or(|flow| aside.insert(flow)) {
                let kind = format!("packet: {kernel} / {engine}");
                findings.divergences.push(Divergence {
                    at,
                    flow,
                    kind,
                    kernel: kernel.to_string(),
                    engine: engine.to_string(),
                });
            }
            if at % POLL == 0 {
                self.engine.poll(Instant(now));
            }
            let due = at % stride == stride - 1;
            if due {
                self.compare(at, &mut aside, &mut findings.divergences)?;
                self.compare_expected(at, &mut findings.divergences)?;
                self.compare_statistics(at, &mut findings.divergences)?;
            }
            if care == Care::EachStep && !findings.divergences.is_empty() {
                break;
            }
        }
        let last = findings.heard.len().saturating_sub(1);
        if findings.divergences.is_empty() || care == Care::Sweep {
            self.compare(last, &mut aside, &mut findings.divergences)?;
            self.compare_expected(last, &mut findings.divergences)?;
            self.compare_statistics(last, &mut findings.divergences)?;
        }
        Ok(findings)
    }

    /// Both tables in words: once, where they agree.
    pub fn table(&mut self) -> Result<String> {
        let rows: Vec<String> = self.dump.rows()?.iter().map(Row::to_string).collect();
        let now = Instant(system::monotonic());
        let ours: Vec<String> = self.engine.entries(now).map(|entry| Row::from(&entry).to_string()).collect();
        let (kernel, engine) = (rows.join(", "), ours.join(", "));
        Ok(if kernel == engine { kernel } else { format!("kernel {kernel}; engine {engine}") })
    }

    /// Empties both tables and sets the story's knobs on both sides.
    fn prepare(&mut self, story: &Story) -> Result<()> {
        self.dump.flush()?;
        self.statistics = self.dump.statistics()?;
        for (knob, value) in story.values() {
            if self.written.get(&knob) != Some(&value) {
                self.kernel.set(knob.name(), value)?;
                self.written.insert(knob, value);
            }
        }
        self.playing = self.playing.wrapping_add(1);
        let knobs = story.engine_knobs()?;
        self.engine = Engine::new(knobs, Secret(*b"the oracle's own"), Instant(system::monotonic()));
        self.engine.help(craft::TCP, HELPED, Helper::Ftp);
        Ok(())
    }

    /// What the kernel and what the engine say of one packet.
    fn pass(&mut self, toward: Toward, bytes: &[u8], now: Instant) -> Result<[Heard; 2]> {
        let kernel = self.kernel.pass(toward, bytes)?;
        self.coverage.heard(kernel);
        let engine = match Packet::parse(bytes) {
            Err(refusal) => self.refuse(refusal),
            Ok(packet) if packet.fragment().is_some() => self.collect(&packet, now)?,
            Ok(packet) => self.track(&packet, now)?,
        };
        Ok([kernel, engine])
    }

    /// A fragment with an identification that no recent playing used.
    fn own_identification<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let v6 = bytes.len() > 48 && bytes[0] >> 4 == 6 && bytes[6] == craft::FRAGMENT;
        let v4 = bytes.len() > 20 && bytes[0] == 0x45 && (bytes[6] & 0x3f != 0 || bytes[7] != 0);
        if !v4 && !v6 {
            return Cow::Borrowed(bytes);
        }
        let mut bytes = bytes.to_vec();
        if v6 {
            bytes[44..46].copy_from_slice(&self.playing.to_be_bytes());
        } else {
            // Sixteen bits are few: stories are shifted by an odd number, and what they leave behind is little.
            let id = u16::from_be_bytes([bytes[4], bytes[5]]).wrapping_add(self.playing.wrapping_mul(20_011));
            bytes[4..6].copy_from_slice(&id.to_be_bytes());
            craft::seal(&mut bytes);
        }
        Cow::Owned(bytes)
    }

    /// The engine's way with a fragment: nothing is heard until its datagram is whole.
    fn collect(&mut self, packet: &Packet<'_>, now: Instant) -> Result<Heard> {
        let mut whole = std::mem::take(&mut self.whole);
        let heard = match self.reassembler.push(packet, now.0, &mut whole) {
            Ok(Reassembly::Waiting) => {
                self.why = None;
                Heard::Gone
            }
            Ok(Reassembly::Whole(_)) => match Packet::parse_reassembled(&whole) {
                Ok(packet) => self.track(&packet, now)?,
                Err(refusal) => self.refuse(refusal),
            },
            // Reassembly lets it go on as it is, and so tracking sees the fragment itself.
            Err(refusal) if refusal.fate() == Fate::Passed && packet.family() == Family::V6 => {
                match Packet::parse_reassembled(packet.bytes()) {
                    Ok(packet) => self.track(&packet, now)?,
                    Err(refusal) => self.refuse(refusal),
                }
            }
            Err(refusal) => self.refuse(refusal),
        };
        self.whole = whole;
        Ok(heard)
    }

    fn refuse(&mut self, refusal: Refusal) -> Heard {
        self.engine.refuse(refusal);
        self.why = Some(Why::Refused(refusal));
        match refusal.fate() {
            Fate::Invalid => Heard::Passed(Mark::Invalid),
            Fate::Dropped | Fate::Passed => Heard::Gone,
        }
    }

    fn track(&mut self, packet: &Packet<'_>, now: Instant) -> Result<Heard> {
        let engine = &mut self.engine;
        let outcome = catch_unwind(AssertUnwindSafe(|| engine.handle(packet, Zone::default(), now)));
        let Ok(outcome) = outcome else { bail!("the engine panicked at {:02x?}", packet.bytes()) };
        self.why = outcome.why;
        let after = outcome.connection.and_then(|handle| self.engine.entry(handle, now));
        self.coverage.count(packet, &outcome, after.as_ref());
        Ok(Heard::from(outcome))
    }

    /// Compares the counters of `conntrack -S`, as long as nothing else differs.
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
            let at_start = self.statistics.get(&number).copied().unwrap_or(0);
            let kernel = now.get(&number).copied().unwrap_or(0) - at_start;
            if kernel != engine {
                let kind = format!("statistics: {name}");
                divergences.push(Divergence {
                    at,
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

    /// Compares what is expected, as long as nothing else differs.
    fn compare_expected(&mut self, at: usize, divergences: &mut Vec<Divergence>) -> Result<()> {
        if divergences.is_empty() {
            let kernel = self.dump.expected()?;
            let engine =
                self.engine.expectations(Instant(system::monotonic())).map(|one| Expected::from(&one)).collect();
            divergences.extend(expected::difference(kernel, engine, at));
        }
        Ok(())
    }

    /// The kernel's table. A dump loses entries when somebody resizes the table meanwhile (it is one for the whole machine): if it is shorter than
    /// ours, it is read again.
    fn rows(&mut self) -> Result<Vec<Row>> {
        let rows = self.dump.rows()?;
        let ours = self.engine.entries(Instant(system::monotonic())).count();
        if rows.len() < ours { self.dump.rows() } else { Ok(rows) }
    }

    /// Compares the tables, connection by connection.
    fn compare(&mut self, at: usize, aside: &mut HashSet<Flow>, divergences: &mut Vec<Divergence>) -> Result<()> {
        let rows = self.rows()?;
        let now = Instant(system::monotonic());
        let mut ours: HashMap<Tuple, Row> =
            self.engine.entries(now).map(|entry| (entry.original, Row::from(&entry))).collect();
        self.coverage.rows += rows.len() as u64;
        let mut differ = |tuple: &Tuple, kind: String, kernel: String, engine: String| {
            let flow = Flow::of_tuple(tuple);
            if aside.insert(flow) {
                divergences.push(Divergence { at, flow: Some(flow), kind, kernel, engine });
            }
        };
        for kernel in rows {
            let nothing = || "no such connection".to_string();
            match ours.remove(&kernel.original) {
                None => differ(
                    &kernel.original,
                    format!("table: only the kernel has it, {}", kernel.state()),
                    kernel.to_string(),
                    nothing(),
                ),
                Some(engine) => {
                    if let Some(column) = kernel.difference(&engine) {
                        let states = format!("{} / {}", kernel.state(), engine.state());
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
            let kind = format!("table: only the engine has it, {}", engine.state());
            differ(&tuple, kind, "no such connection".to_string(), engine.to_string());
        }
        Ok(())
    }
}

fn reassembler() -> Reassembler {
    Reassembler::new((1, 2), Limits { memory: 256 << 20, ..Limits::default() })
}

fn wait_until(time: u64) {
    let now = system::monotonic();
    if time > now {
        std::thread::sleep(Duration::from_nanos(time - now));
    }
}
