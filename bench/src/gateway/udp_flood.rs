//! Sends UDP packets as fast as the kernel can, and counts those received.
use super::topology::{BenchHost, BenchTopology};
use crate::flow_order::FlowOrder;
use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::maps::{Array, PerCpuArray};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

static BPF_OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/forward/forward.bpf.o");

/// Number of frames in one run: few, so that it ends in time. The program is attached to an interface, which makes a run cheap to start.
const FRAMES_PER_RUN: u32 = 4096;
/// The same where frames are not to be lost, and the time between two runs.
const FRAMES_PER_GENTLE_RUN: u32 = 64;
const GENTLE_INTERVAL: Duration = Duration::from_micros(300);
/// Length of the shortest Ethernet frame.
const FRAME_LEN: usize = 60;
/// Warm-up time, until all flows are in the tables.
const WARMUP: Duration = Duration::from_millis(1500);
/// A UDP flow that was answered and goes on for longer is a stream (`nf_conntrack_udp_timeout_stream`).
const STREAM_AFTER: Duration = Duration::from_millis(2200);
/// Flows of which question and answer are sent together.
const FLOWS_AT_ONCE: usize = 50_000;
/// Passes over all flows until they are known to the router.
const MAX_PASSES: usize = 20;

/// The configuration of the BPF program.
#[derive(Clone, Copy)]
#[repr(C)]
struct FloodPlan {
    device: u32,
    flows: u32,
    sent: u32,
    step: u32,
    reversed: u32,
    head: [u8; 48],
}

#[allow(unsafe_code, reason = "aya asks that the layout be vouched for")]
// SAFETY: numbers only, without padding, laid out as in the program.
unsafe impl aya::Pod for FloodPlan {}

/// Packets per second: offered, received.
#[derive(Clone, Copy, Debug, Default)]
pub struct FloodRates {
    pub offered: f64,
    pub received: f64,
}

/// Sends with the given number of flows for the given time; `meanwhile` is called before and after the measured time.
pub fn flood(stage: &BenchTopology, flows: u32, time: Duration, mut meanwhile: impl FnMut()) -> Result<FloodRates> {
    let plan = |order| FloodSide::Client.plan(stage, flows, order);
    let (enters, visits) = (plan(FlowOrder::AsEntered)?, plan(FlowOrder::Jumping)?);
    let (entered, has_entered) = channel();
    let generator = stage.spawn_in_netns(BenchHost::Client, Some(0), move || {
        FloodSource::open(FloodSide::Client, enters)?.flood(WARMUP)?;
        let source = FloodSource::open(FloodSide::Client, visits)?;
        entered.send(())?;
        source.flood(time + WARMUP / 3)
    });
    let sink = FloodSink::open(stage, BenchHost::Server, "s0");
    has_entered.recv().context("the generator has failed")?;
    let first = sink.count()?;
    meanwhile();
    let clock = Instant::now();
    std::thread::sleep(time);
    let last = sink.count()?;
    let took = clock.elapsed().as_secs_f64();
    meanwhile();
    let offered = generator.join().map_err(|_| anyhow::anyhow!("the generator has failed"))??;
    sink.close()?;
    Ok(FloodRates { offered, received: (last - first) as f64 / took })
}

/// What the router has of the flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowProgress {
    /// Their first datagrams have passed. An answer before that would be a flow of its own.
    Begun,
    /// They were answered, and are forwarded as flows that are known.
    Known,
}

/// Processor time of a flood of known flows.
#[derive(Clone, Copy, Debug, Default)]
pub struct FloodCost {
    /// Nanoseconds of the generator, in whose time the kernel forwards, and of what runs beside it.
    pub cpu_ns: u64,
    /// What of it is each of those beside.
    pub beside_ns: [u64; 2],
    /// Datagrams sent.
    pub offered: u64,
    /// Datagrams that have come through.
    pub received: u64,
}

/// Sends gently, first from the client alone, until the router knows all flows; then as fast as the kernel can. `has` says whether the router has come so far after so many datagrams of each flow;
/// `beside` is the processor time, in nanoseconds, of what takes part in forwarding beside the generator.
pub fn flood_known(
    stage: &BenchTopology,
    flows: u32,
    time: Duration,
    mut has: impl FnMut(FlowProgress, usize) -> Result<bool>,
    beside: impl Fn() -> [u64; 2],
) -> Result<FloodCost> {
    // Nobody there has a socket for the answers.
    let sinks = [(BenchHost::Client, "c0"), (BenchHost::Server, "s0")]
        .map(|(host, device)| FloodSink::open(stage, host, device));
    for (progress, sides) in [
        (FlowProgress::Begun, &[FloodSide::Client][..]),
        (FlowProgress::Known, &[FloodSide::Client, FloodSide::Server]),
    ] {
        let mut pass = 0;
        while !has(progress, pass)? {
            ensure!(pass < MAX_PASSES, "not all {flows} flows are {progress:?} after {pass} datagrams of each");
            // An answer comes soon after its question.
            for first in (0..flows).step_by(FLOWS_AT_ONCE) {
                let part = first..flows.min(first + FLOWS_AT_ONCE as u32);
                for side in sides {
                    side.send_each(stage, flows, part.clone())?;
                }
            }
            if pass == 0 {
                std::thread::sleep(STREAM_AFTER);
            }
            pass += 1;
        }
    }
    let plan = FloodSide::Client.plan(stage, flows, FlowOrder::Jumping)?;
    let [_, sink] = &sinks;
    let (received, spent) = (sink.count()?, beside());
    let generator = stage.spawn_in_netns(BenchHost::Client, Some(0), move || {
        let source = FloodSource::open(FloodSide::Client, plan)?;
        let before = thread_cpu_time();
        let rate = source.flood(time)?;
        Ok((rate, thread_cpu_time() - before))
    });
    let (rate, spent_sending) = generator.join().map_err(|_| anyhow::anyhow!("the generator has failed"))??;
    let [now, before] = [beside(), spent];
    let beside_ns = [now[0] - before[0], now[1] - before[1]];
    let cost = FloodCost {
        cpu_ns: spent_sending + beside_ns.iter().sum::<u64>(),
        beside_ns,
        offered: (rate * time.as_secs_f64()) as u64,
        received: sink.count()? - received,
    };
    for sink in sinks {
        sink.close()?;
    }
    Ok(cost)
}

/// Nanoseconds of processor time that this thread has had.
fn thread_cpu_time() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Who sends.
#[derive(Clone, Copy, Debug)]
enum FloodSide {
    Client,
    /// It answers.
    Server,
}

impl FloodSide {
    fn host(self) -> BenchHost {
        match self {
            FloodSide::Client => BenchHost::Client,
            FloodSide::Server => BenchHost::Server,
        }
    }

    /// Where its program is attached, and where its frames leave.
    fn devices(self) -> (&'static str, &'static str) {
        match self {
            FloodSide::Client => ("x0", "c0"),
            FloodSide::Server => ("y0", "s0"),
        }
    }

    /// Sends one datagram of each flow of a part, in their order.
    fn send_each(self, stage: &BenchTopology, flows: u32, part: Range<u32>) -> Result<()> {
        let plan = FloodPlan { sent: part.start, ..self.plan(stage, flows, FlowOrder::AsEntered)? };
        let count = part.end - part.start;
        let sent = stage.spawn_in_netns(self.host(), Some(0), move || FloodSource::open(self, plan)?.send_each(count));
        sent.join().map_err(|_| anyhow::anyhow!("the generator has failed"))?
    }

    /// What it sends, but for the index of its interface.
    fn plan(self, stage: &BenchTopology, flows: u32, order: FlowOrder) -> Result<FloodPlan> {
        let (next, from, to) = match self {
            FloodSide::Client => ("r0", [10, 0, 1, 2], [10, 0, 2, 2]),
            // Masqueraded connections keep their ports.
            FloodSide::Server => ("r1", [10, 0, 2, 2], [10, 0, 2, 1]),
        };
        let head = frame_header(&stage.mac(BenchHost::Router, next)?, from, to)?;
        let reversed = matches!(self, FloodSide::Server).into();
        Ok(FloodPlan { device: 0, flows, sent: 0, step: order.step(flows), reversed, head })
    }
}

/// The generator's program, in this thread's network namespace.
struct FloodSource {
    ebpf: Ebpf,
}

impl FloodSource {
    fn open(side: FloodSide, plan: FloodPlan) -> Result<FloodSource> {
        let mut ebpf = Ebpf::load(BPF_OBJECT)?;
        let mut plans: Array<_, FloodPlan> =
            Array::try_from(ebpf.map_mut("plans").context("no map `plans` in the BPF object")?)?;
        let (attached, leaves) = side.devices();
        plans.set(0, FloodPlan { device: ifindex(leaves)?, ..plan }, 0)?;
        load_xdp(&mut ebpf, "generate", attached)?;
        Ok(FloodSource { ebpf })
    }

    fn run(&self, frames: u32) -> Result<()> {
        let xdp: &Xdp = self.ebpf.program("generate").context("no such program in the BPF object")?.try_into()?;
        let template = [0; FRAME_LEN];
        xdp.test_run(TestRunOptions {
            data_in: Some(&template),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(64),
            ..TestRunOptions::new()
        })?;
        Ok(())
    }

    /// One datagram of each of so many flows, with pauses.
    fn send_each(&self, flows: u32) -> Result<()> {
        for _ in 0..flows.div_ceil(FRAMES_PER_GENTLE_RUN) {
            self.run(FRAMES_PER_GENTLE_RUN)?;
            std::thread::sleep(GENTLE_INTERVAL);
        }
        Ok(())
    }

    /// Sends for so long; frames sent per second.
    fn flood(&self, time: Duration) -> Result<f64> {
        let clock = Instant::now();
        let mut runs = 0;
        while clock.elapsed() < time {
            self.run(FRAMES_PER_RUN)?;
            runs += 1;
        }
        Ok(f64::from(runs) * f64::from(FRAMES_PER_RUN) / clock.elapsed().as_secs_f64())
    }
}

/// Takes the datagrams that arrive at an interface, and counts them.
pub struct FloodSink {
    ask: Sender<()>,
    counts: Receiver<u64>,
    thread: std::thread::JoinHandle<Result<()>>,
}

impl FloodSink {
    pub fn open(stage: &BenchTopology, host: BenchHost, device: &'static str) -> FloodSink {
        let (ask, asked) = channel::<()>();
        let (answer, counts) = channel::<u64>();
        let thread = stage.spawn_in_netns(host, None, move || {
            let mut ebpf = Ebpf::load(BPF_OBJECT)?;
            load_xdp(&mut ebpf, "sink", device)?;
            let counts: PerCpuArray<_, u64> =
                PerCpuArray::try_from(ebpf.map("received").context("no map `received` in the BPF object")?)?;
            while asked.recv().is_ok() {
                answer.send(counts.get(&0, 0)?.iter().sum())?;
            }
            Ok(())
        });
        FloodSink { ask, counts, thread }
    }

    pub fn count(&self) -> Result<u64> {
        self.ask.send(()).context("the sink has failed")?;
        self.counts.recv().context("the sink has failed")
    }

    pub fn close(self) -> Result<()> {
        drop(self.ask);
        self.thread.join().map_err(|_| anyhow::anyhow!("the sink has failed"))?
    }
}

fn load_xdp(ebpf: &mut Ebpf, name: &str, device: &str) -> Result<()> {
    let xdp: &mut Xdp = ebpf.program_mut(name).context("no such program in the BPF object")?.try_into()?;
    xdp.load()?;
    xdp.attach(device, XdpMode::Driver).with_context(|| format!("{name} on {device}"))?;
    Ok(())
}

/// The index of an interface in this thread's network namespace.
fn ifindex(device: &str) -> Result<u32> {
    let name = std::ffi::CString::new(device)?;
    #[allow(unsafe_code, reason = "if_nametoindex(3) has no safe wrapper in std")]
    // SAFETY: the name is NUL-terminated and outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    ensure!(index > 0, "no interface {device}");
    Ok(index)
}

/// Ethernet, IPv4 and UDP headers; the ports are the program's.
fn frame_header(to: &str, source: [u8; 4], destination: [u8; 4]) -> Result<[u8; 48]> {
    let mut head = [0; 48];
    let mut ip = [0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0];
    let addresses = [source, destination].concat();
    let words = ip.iter().chain(&addresses).copied().collect::<Vec<u8>>();
    let sum: u32 = words.as_chunks().0.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let [high, low] = (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes();
    (ip[10], ip[11]) = (high, low);
    let mac = to.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<Vec<_>, _>>()?;
    let from = [2, 0, 0, 0, 0, 1];
    let bytes = mac.iter().chain(&from).chain(&[8, 0]).chain(&ip).chain(&addresses).chain(&[0, 0, 0, 0, 0, 26]);
    for (to, from) in head.iter_mut().zip(bytes) {
        *to = *from;
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_their_checksum() {
        let head = frame_header("02:00:00:00:00:07", [10, 0, 1, 2], [10, 0, 2, 2]).unwrap();
        assert_eq!(head[..14], [2, 0, 0, 0, 0, 7, 2, 0, 0, 0, 0, 1, 8, 0]);
        assert_eq!(head[14..34], [0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0x63, 0xbc, 10, 0, 1, 2, 10, 0, 2, 2]);
        assert_eq!(head[38..40], [0, 26]);
    }
}
