//! Many frames sent with one call (`BPF_PROG_RUN` with live frames), for interfaces whose sockets copy.
//!
//! In copy mode each frame costs the kernel a socket buffer and a doorbell. Here frames are written to memory that the XDP program (`bpf/gateway.bpf.c`) reads; one call
//! runs it once per frame. Its life: made for an [`XdpRedirect`] and used only with that one; frames are [pushed](LiveFrames::push), then [sent](LiveFrames::send) together or, if they
//! are few, [drained](LiveFrames::drain), because each call has a fixed cost. An interface may not accept such frames (a veth whose peer does not poll): then they are lost, and counted.
use super::xdp_program::{PROGRAM_NAME, XdpError, XdpRedirect, xdp_error};
use crate::mapped_memory::MappedMemory;
use aya::Ebpf;
use aya::maps::Map;
use aya::programs::{RawTracePoint, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};

/// Frames of one call: the size of the map `slots`.
const SLOTS: usize = 256;
/// Bytes of a slot: interface index, length, frame.
const SLOT_SIZE: usize = 2048;
const SLOT_HEADER_LEN: usize = 8;
/// Calls in a row that send nothing before it is an error: a signal interrupts one call.
const MAX_EMPTY_RUNS: u32 = 4;
/// The longest frame.
const MAX_FRAME_LEN: usize = SLOT_SIZE - SLOT_HEADER_LEN;
/// Frames that the kernel passes to an interface together.
const XMIT_BATCH: u32 = 64;
/// Length of the frame that the kernel hands to the program each time.
const TEMPLATE_LEN: usize = 1024;

/// Frames queued to be sent together.
#[derive(Debug)]
pub struct LiveFrames {
    slots: MappedMemory,
    counters: MappedMemory,
    queued: usize,
    template: Vec<u8>,
}

impl LiveFrames {
    /// An empty queue that sends through this redirect's program.
    ///
    /// # Errors
    /// The kernel is older than Linux 5.18, or permission is denied.
    pub fn new(redirect: &mut XdpRedirect) -> Result<LiveFrames, XdpError> {
        let program = redirect.ebpf_mut();
        for (name, event) in [("refused", "xdp_devmap_xmit"), ("failed", "xdp_redirect_err")] {
            let watch: &mut RawTracePoint = program
                .program_mut(name)
                .ok_or("not in the object file")
                .map_err(xdp_error("BPF program not found"))?
                .try_into()
                .map_err(xdp_error("BPF program of the wrong type"))?;
            watch.load().map_err(xdp_error("cannot load the BPF program"))?;
            watch.attach(event).map_err(xdp_error("cannot count lost frames"))?;
        }
        let slots = map_memory(program, "slots", SLOTS * SLOT_SIZE)?;
        let counters = map_memory(program, "runs", 16)?;
        Ok(LiveFrames { slots, counters, queued: 0, template: vec![0; TEMPLATE_LEN] })
    }

    /// Queues a frame for the interface with this index. False if the queue is full or the frame too long.
    pub fn push(&mut self, ifindex: u32, header: &[u8], rest: &[u8]) -> bool {
        let length = header.len() + rest.len();
        if self.queued == SLOTS || length > MAX_FRAME_LEN {
            return false;
        }
        let Some(slot) = self.slots.slice_mut(self.queued * SLOT_SIZE, SLOT_HEADER_LEN + length) else { return false };
        let (head, frame) = slot.split_at_mut(SLOT_HEADER_LEN);
        let (front, back) = frame.split_at_mut(header.len());
        head[..4].copy_from_slice(&ifindex.to_ne_bytes());
        head[4..].copy_from_slice(&(length as u32).to_ne_bytes());
        front.copy_from_slice(header);
        back.copy_from_slice(rest);
        self.queued += 1;
        true
    }

    /// Frames queued.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Is the queue full?
    pub fn is_full(&self) -> bool {
        self.queued == SLOTS
    }

    /// Empties the queue: interface index and bytes of each frame.
    pub fn drain(&mut self) -> impl Iterator<Item = (u32, &[u8])> {
        let count = std::mem::take(&mut self.queued);
        (0..count).filter_map(|at| {
            let word = |offset| self.slots.read::<u32>(at * SLOT_SIZE + offset);
            Some((word(0)?, self.slots.slice(at * SLOT_SIZE + SLOT_HEADER_LEN, word(4)? as usize)?))
        })
    }

    /// Sends the queued frames and empties the queue; returns how many frames no interface accepted.
    ///
    /// # Errors
    /// The kernel does not run the program any more.
    pub fn send(&mut self, through: &XdpRedirect) -> io::Result<u64> {
        crate::no_blocking::check("running the XDP program");
        if self.queued == 0 {
            return Ok(0);
        }
        let before = self.lost_frames();
        self.counter(0).store(0, Ordering::Relaxed);
        let emit: &Xdp = through
            .ebpf()
            .program(PROGRAM_NAME)
            .ok_or_else(|| io::Error::other("BPF program not found"))?
            .try_into()
            .map_err(io::Error::other)?;
        let (mut sent, mut tries) = (0, 0);
        while sent < self.queued {
            let options = TestRunOptions {
                data_in: Some(&self.template),
                repeat: (self.queued - sent) as u32,
                attrs: TestRunAttrs::new().xdp_live_frames(XMIT_BATCH),
                ..TestRunOptions::new()
            };
            let ran = emit.test_run(options);
            // A signal ends a call early; the next one continues there.
            let done = self.counter(0).load(Ordering::Relaxed) as usize;
            match ran {
                Ok(_) => break,
                Err(_) if done > sent || tries < MAX_EMPTY_RUNS => (sent, tries) = (done, tries + 1),
                Err(error) => {
                    self.queued = 0;
                    return Err(io::Error::other(error));
                }
            }
        }
        self.queued = 0;
        self.counter(4).store(0, Ordering::Relaxed);
        Ok(self.lost_frames() - before)
    }

    fn lost_frames(&self) -> u64 {
        self.counters.atomic_u64(8).load(Ordering::Relaxed)
    }

    /// A 32-bit counter of the map `runs`: at 0 the frames done, at 4 the CPU that runs, plus one.
    fn counter(&self, at: usize) -> &AtomicU32 {
        self.counters.atomic_u32(at)
    }
}

/// The memory of an array map.
fn map_memory(program: &mut Ebpf, name: &str, length: usize) -> Result<MappedMemory, XdpError> {
    let map = program.map(name).ok_or("not in the object file").map_err(xdp_error("BPF map not found"))?;
    let Map::Array(data) = map else {
        return Err(xdp_error("cannot use the BPF map")("it is not an array"));
    };
    MappedMemory::bpf_map(data.fd().as_fd(), length).map_err(xdp_error("cannot mmap the BPF map"))
}
