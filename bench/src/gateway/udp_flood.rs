//! Sends UDP packets as fast as the kernel can, and counts those received.
use super::topology::{BenchHost, BenchTopology};
use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::maps::{Array, PerCpuArray};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

static BPF_OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/forward/forward.bpf.o");

/// Number of frames in one run: few, so that it ends in time. The program is attached to an interface, which makes a run cheap to start.
const FRAMES_PER_RUN: u32 = 4096;
/// Length of the shortest Ethernet frame.
const FRAME_LEN: usize = 60;
/// Warm-up time, until all flows are in the tables.
const WARMUP: Duration = Duration::from_millis(1500);

/// The configuration of the BPF program.
#[derive(Clone, Copy)]
#[repr(C)]
struct FloodPlan {
    device: u32,
    flows: u32,
    sent: u32,
    spare: u32,
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
    let to = stage.mac(BenchHost::Router, "r0")?;
    let generator =
        stage.spawn_in_netns(BenchHost::Client, Some(0), move || generate(&to, flows, WARMUP + time + WARMUP / 3));
    let (begin, begun) = channel::<()>();
    let (done, ended) = channel::<u64>();
    let counter = stage.spawn_in_netns(BenchHost::Server, None, move || count_received(&begun, &done));
    std::thread::sleep(WARMUP);
    begin.send(())?;
    let first = ended.recv().context("the sink has failed")?;
    meanwhile();
    let clock = Instant::now();
    std::thread::sleep(time);
    begin.send(())?;
    let last = ended.recv().context("the sink has failed")?;
    let took = clock.elapsed().as_secs_f64();
    meanwhile();
    drop(begin);
    let offered = generator.join().map_err(|_| anyhow::anyhow!("the generator has failed"))??;
    counter.join().map_err(|_| anyhow::anyhow!("the sink has failed"))??;
    Ok(FloodRates { offered, received: (last - first) as f64 / took })
}

fn load_xdp<'a>(ebpf: &'a mut Ebpf, name: &str, device: &str) -> Result<&'a mut Xdp> {
    let xdp: &mut Xdp = ebpf.program_mut(name).context("no such program in the BPF object")?.try_into()?;
    xdp.load()?;
    xdp.attach(device, XdpMode::Driver).with_context(|| format!("{name} on {device}"))?;
    Ok(xdp)
}

/// Frames sent per second.
fn generate(to: &str, flows: u32, time: Duration) -> Result<f64> {
    let mut ebpf = Ebpf::load(BPF_OBJECT)?;
    let mut plans: Array<_, FloodPlan> =
        Array::try_from(ebpf.map_mut("plans").context("no map `plans` in the BPF object")?)?;
    plans.set(0, FloodPlan { device: ifindex("c0")?, flows, sent: 0, spare: 0, head: frame_header(to)? }, 0)?;
    let xdp = load_xdp(&mut ebpf, "generate", "x0")?;
    let (template, clock) = ([0; FRAME_LEN], Instant::now());
    let mut runs = 0;
    while clock.elapsed() < time {
        let options = TestRunOptions {
            data_in: Some(&template),
            repeat: FRAMES_PER_RUN,
            attrs: TestRunAttrs::new().xdp_live_frames(64),
            ..TestRunOptions::new()
        };
        xdp.test_run(options)?;
        runs += 1;
    }
    Ok(f64::from(runs) * f64::from(FRAMES_PER_RUN) / clock.elapsed().as_secs_f64())
}

fn count_received(asked: &std::sync::mpsc::Receiver<()>, answer: &std::sync::mpsc::Sender<u64>) -> Result<()> {
    let mut ebpf = Ebpf::load(BPF_OBJECT)?;
    load_xdp(&mut ebpf, "sink", "s0")?;
    let counts: PerCpuArray<_, u64> =
        PerCpuArray::try_from(ebpf.map("received").context("no map `received` in the BPF object")?)?;
    while asked.recv().is_ok() {
        answer.send(counts.get(&0, 0)?.iter().sum())?;
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
