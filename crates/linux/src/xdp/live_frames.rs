//! Many frames sent with one call, for devices whose sockets copy.
//!
//! Copying sockets cost the kernel a socket buffer and a doorbell a frame. Here frames are laid out in memory that the program on a device (`bpf/gateway.bpf.c`) reads; one call
//! runs it once a frame. Its life: made [of](Burst::of) a diversion, and used with that; frames are [put](Burst::put), then sent together ([`go`](Burst::go)), or, if they are few, [taken back](Burst::frames), because
//! a call has a price of its own. A device may refuse such frames (a veth whose peer does not poll): then they are lost, and counted.
#![allow(unsafe_code, reason = "a map shared with the kernel is read and written in place")]

use super::XdpRedirect;
use super::ring::MappedMemory;
use super::xdp_program::{PROGRAM_NAME, XdpError, xdp_error};
use aya::Ebpf;
use aya::maps::Map;
use aya::programs::{RawTracePoint, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Frames that one call sends, as the program has it.
const SLOTS: usize = 256;
/// Octets of a slot: device, length, frame.
const SLOT_SIZE: usize = 2048;
const SLOT_HEADER_LEN: usize = 8;
/// Runs without a frame sent, after which something is wrong: signals come one at a time.
const MAX_EMPTY_RUNS: u32 = 4;
/// The longest frame.
const MAX_FRAME_LEN: usize = SLOT_SIZE - SLOT_HEADER_LEN;
/// Frames that the kernel sends to a device together.
const XMIT_BATCH: u32 = 64;
/// A frame of this length is what the kernel begins with each time.
const TEMPLATE_LEN: usize = 1024;

/// Frames waiting to be sent together.
#[derive(Debug)]
pub struct LiveFrames {
    slots: MappedMemory,
    counters: MappedMemory,
    queued: usize,
    template: Vec<u8>,
}

impl LiveFrames {
    /// A burst through the program of this diversion.
    ///
    /// # Errors
    /// The kernel does not have all of it (Linux 5.18), or it may not be done.
    pub fn new(diversion: &mut XdpRedirect) -> Result<LiveFrames, XdpError> {
        let program = diversion.ebpf_mut();
        for (name, event) in [("refused", "xdp_devmap_xmit"), ("failed", "xdp_redirect_err")] {
            let watch: &mut RawTracePoint = program
                .program_mut(name)
                .ok_or("it is not in its object file")
                .map_err(xdp_error("the program cannot be found"))?
                .try_into()
                .map_err(xdp_error("the program is of another kind"))?;
            watch.load().map_err(xdp_error("the kernel does not take the program"))?;
            watch.attach(event).map_err(xdp_error("losses cannot be counted"))?;
        }
        let slots = map_memory(program, "slots", SLOTS * SLOT_SIZE)?;
        let run = map_memory(program, "runs", 16)?;
        Ok(LiveFrames { slots, counters: run, queued: 0, template: vec![0; TEMPLATE_LEN] })
    }

    /// Puts a frame that is to leave by the device with this index. False if there is no room, or if it is too long.
    pub fn push(&mut self, device: u32, header: &[u8], rest: &[u8]) -> bool {
        let length = header.len() + rest.len();
        if self.queued == SLOTS || length > MAX_FRAME_LEN {
            return false;
        }
        let Some(slot) = self.slots.slice_mut(self.queued * SLOT_SIZE, SLOT_HEADER_LEN + length) else { return false };
        let (head, frame) = slot.split_at_mut(SLOT_HEADER_LEN);
        let (front, back) = frame.split_at_mut(header.len());
        head[..4].copy_from_slice(&device.to_ne_bytes());
        head[4..].copy_from_slice(&(length as u32).to_ne_bytes());
        front.copy_from_slice(header);
        back.copy_from_slice(rest);
        self.queued += 1;
        true
    }

    /// How many frames wait.
    pub fn len(&self) -> usize {
        self.queued
    }

    /// Is there no more room?
    pub fn is_full(&self) -> bool {
        self.queued == SLOTS
    }

    /// Takes back what was put: device and octets.
    pub fn drain(&mut self) -> impl Iterator<Item = (u32, &[u8])> {
        let count = std::mem::take(&mut self.queued);
        (0..count).filter_map(|at| {
            let word = |offset| {
                let octets = self.slots.slice(at * SLOT_SIZE + offset, 4)?;
                octets.first_chunk().map(|octets| u32::from_ne_bytes(*octets))
            };
            Some((word(0)?, self.slots.slice(at * SLOT_SIZE + SLOT_HEADER_LEN, word(4)? as usize)?))
        })
    }

    /// Sends what was put, and forgets it; gives how many frames no device has taken.
    ///
    /// # Errors
    /// The kernel does not run the program any more.
    pub fn send(&mut self, through: &XdpRedirect) -> io::Result<u64> {
        if self.queued == 0 {
            return Ok(0);
        }
        let before = self.lost_frames();
        self.counter(0).store(0, Ordering::Relaxed);
        let emit: &Xdp = through
            .ebpf()
            .program(PROGRAM_NAME)
            .ok_or_else(|| io::Error::other("the program is gone"))?
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
            // A signal ends a run early; the next goes on where it ended.
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
        // SAFETY: the map's one value has a number of eight octets at place 8; both sides use it as an atomic.
        unsafe { AtomicU64::from_ptr(self.counters.start().as_ptr().add(8).cast()) }.load(Ordering::Relaxed)
    }

    fn counter(&self, at: usize) -> &AtomicU32 {
        // SAFETY: `at` is 0 or 4, where the map's one value has numbers of four octets; both sides use them as atomics.
        unsafe { AtomicU32::from_ptr(self.counters.start().as_ptr().add(at).cast()) }
    }
}

/// The memory of a map.
fn map_memory(program: &mut Ebpf, name: &str, length: usize) -> Result<MappedMemory, XdpError> {
    let map = program.map(name).ok_or("it is not in its object file").map_err(xdp_error("a map cannot be found"))?;
    let Map::Array(data) = map else {
        return Err(xdp_error("a map cannot be used")("it is of another kind"));
    };
    MappedMemory::shared(data.fd().as_fd().as_raw_fd(), length).map_err(xdp_error("a map's memory cannot be shared"))
}
