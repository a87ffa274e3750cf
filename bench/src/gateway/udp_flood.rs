//! Sends UDP packets as fast as the kernel can, and counts those received.
use super::topology::{BenchHost, BenchTopology};
use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::maps::{Array, PerCpuArray};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

static BPF_OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/forward/forward.bpf.o");

/// Number of frames in one run: few, so that it ends in time. The program is attached to an interface, which makes a run cheap to start.
const FRAMES_PER_RUN: u32 = 4096;
/// Length of the shortest Ethernet frame.
const FRAME_LEN: usize = 60;
/// After the flows have been answered, until the measured time begins.
const SETTLING: Duration = Duration::from_millis(500);

/// How long datagrams are answered: a flow of UDP counts as a stream two seconds after its first packet, and each has to be seen before and after.
fn answering(flows: u32) -> Duration {
    Duration::from_millis(3500 + u64::from(flows) / 50)
}

/// The configuration of the BPF program.
#[derive(Clone, Copy)]
#[repr(C)]
struct FloodPlan {
    device: u32,
    flows: u32,
    sent: u32,
    /// Does the sink send datagrams back?
    reflects: u32,
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

/// What the sink is asked for.
enum SinkRequest {
    StopAnswering,
    Count,
}

/// Sends with the given number of flows for the given time, after each has been answered for a while; `meanwhile` is called before and after the measured time.
pub fn flood(stage: &BenchTopology, flows: u32, time: Duration, mut meanwhile: impl FnMut()) -> Result<FloodRates> {
    let to = stage.mac(BenchHost::Router, "r0")?;
    let all = answering(flows) + SETTLING * 2 + time;
    let (begin, begun) = channel::<SinkRequest>();
    let (done, ended) = channel::<u64>();
    let counter = stage.spawn_in_netns(BenchHost::Server, None, move || count_received(&begun, &done));
    let sent = Arc::new(AtomicU64::new(0));
    let sends = Arc::clone(&sent);
    let generator = stage.spawn_in_netns(BenchHost::Client, Some(0), move || generate(&to, flows, all, &sends));
    std::thread::sleep(answering(flows));
    begin.send(SinkRequest::StopAnswering)?;
    std::thread::sleep(SETTLING);
    begin.send(SinkRequest::Count)?;
    let first = ended.recv().context("the sink has failed")?;
    meanwhile();
    let (clock, before) = (Instant::now(), sent.load(Ordering::Relaxed));
    std::thread::sleep(time);
    begin.send(SinkRequest::Count)?;
    let last = ended.recv().context("the sink has failed")?;
    let (took, offered) = (clock.elapsed().as_secs_f64(), sent.load(Ordering::Relaxed) - before);
    meanwhile();
    drop(begin);
    generator.join().map_err(|_| anyhow::anyhow!("the generator has failed"))??;
    counter.join().map_err(|_| anyhow::anyhow!("the sink has failed"))??;
    Ok(FloodRates { offered: offered as f64 / took, received: (last - first) as f64 / took })
}

fn load_xdp<'a>(ebpf: &'a mut Ebpf, name: &str, device: &str) -> Result<&'a mut Xdp> {
    let xdp: &mut Xdp = ebpf.program_mut(name).context("no such program in the BPF object")?.try_into()?;
    xdp.load()?;
    xdp.attach(device, XdpMode::Driver).with_context(|| format!("{name} on {device}"))?;
    Ok(xdp)
}

/// Sends frames, and counts them.
fn generate(to: &str, flows: u32, time: Duration, sent: &AtomicU64) -> Result<()> {
    let mut ebpf = Ebpf::load(BPF_OBJECT)?;
    let mut plans: Array<_, FloodPlan> =
        Array::try_from(ebpf.map_mut("plans").context("no map `plans` in the BPF object")?)?;
    plans.set(0, FloodPlan { device: ifindex("c0")?, flows, sent: 0, reflects: 0, head: frame_header(to)? }, 0)?;
    // Answers end here, before a socket is looked for.
    load_xdp(&mut ebpf, "sink", "c0")?;
    let xdp = load_xdp(&mut ebpf, "generate", "x0")?;
    let (template, clock) = ([0; FRAME_LEN], Instant::now());
    while clock.elapsed() < time {
        let options = TestRunOptions {
            data_in: Some(&template),
            repeat: FRAMES_PER_RUN,
            attrs: TestRunAttrs::new().xdp_live_frames(64),
            ..TestRunOptions::new()
        };
        xdp.test_run(options)?;
        sent.fetch_add(FRAMES_PER_RUN.into(), Ordering::Relaxed);
    }
    Ok(())
}

/// Whether the sink sends datagrams back.
fn set_answering(ebpf: &mut Ebpf, on: bool) -> Result<()> {
    let plans = ebpf.map_mut("plans").context("no map `plans` in the BPF object")?;
    let plan = FloodPlan { device: 0, flows: 1, sent: 0, reflects: u32::from(on), head: [0; 48] };
    Ok(Array::try_from(plans)?.set(0, plan, 0)?)
}

fn count_received(asked: &std::sync::mpsc::Receiver<SinkRequest>, answer: &std::sync::mpsc::Sender<u64>) -> Result<()> {
    let mut ebpf = Ebpf::load(BPF_OBJECT)?;
    set_answering(&mut ebpf, true)?;
    load_xdp(&mut ebpf, "sink", "s0")?;
    while let Ok(request) = asked.recv() {
        match request {
            SinkRequest::StopAnswering => set_answering(&mut ebpf, false)?,
            SinkRequest::Count => {
                let counts: PerCpuArray<_, u64> =
                    PerCpuArray::try_from(ebpf.map("received").context("no map `received` in the BPF object")?)?;
                answer.send(counts.get(&0, 0)?.iter().sum())?;
            }
        }
    }
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

/// Ethernet, IPv4 and UDP headers from 10.0.1.2 to 10.0.2.2.
fn frame_header(to: &str) -> Result<[u8; 48]> {
    let mut head = [0; 48];
    let ip: [u8; 20] = [0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0x63, 0xbc, 10, 0, 1, 2, 10, 0, 2, 2];
    let mac = to.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<Vec<_>, _>>()?;
    let from = [2, 0, 0, 0, 0, 1];
    let bytes = mac.iter().chain(&from).chain(&[8, 0]).chain(&ip).chain(&[0, 0, 0, 0, 0, 26]);
    for (to, from) in head.iter_mut().zip(bytes) {
        *to = *from;
    }
    Ok(head)
}
