//! Many frames sent with one call, for devices whose sockets copy.
//!
//! Copying sockets cost the kernel a socket buffer and a doorbell a frame. Here frames are laid out in memory that the program on a device (`bpf/gateway/gateway.bpf.c`) reads; one call
//! runs it once a frame. Its life: made [of](Burst::of) a diversion, and used with that; frames are [put](Burst::put), then sent together ([`go`](Burst::go)), or, if they are few, [taken back](Burst::frames), because
//! a call has a price of its own. A device may refuse such frames (a veth whose peer does not poll): then they are lost, and counted.
#![allow(unsafe_code, reason = "a map shared with the kernel is read and written in place")]

use super::Diversion;
use super::program::{NAME, Refused, refused};
use super::ring::Mapping;
use aya::Ebpf;
use aya::maps::Map;
use aya::programs::{RawTracePoint, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Frames that one call sends, as the program has it.
const SLOTS: usize = 256;
/// Octets of a slot: device, length, frame.
const SLOT: usize = 2048;
const HEADER: usize = 8;
/// Runs without a frame sent, after which something is wrong: signals come one at a time.
const TRIES: u32 = 4;
/// The longest frame.
const LONGEST: usize = SLOT - HEADER;
/// Frames that the kernel sends to a device together.
const BATCH: u32 = 64;
/// A frame of this length is what the kernel begins with each time.
const TEMPLATE: usize = 1024;

/// Frames waiting to be sent together.
#[derive(Debug)]
pub struct Burst {
    slots: Mapping,
    run: Mapping,
    waiting: usize,
    template: Vec<u8>,
}

impl Burst {
    /// A burst through the program of this diversion.
    ///
    /// # Errors
    /// The kernel does not have all of it (Linux 5.18), or it may not be done.
    pub fn of(diversion: &mut Diversion) -> Result<Burst, Refused> {
        let program = diversion.program_mut();
        for (name, event) in [("refused", "xdp_devmap_xmit"), ("failed", "xdp_redirect_err")] {
            let watch: &mut RawTracePoint = program
                .program_mut(name)
                .ok_or("it is not in its object file")
                .map_err(refused("the program cannot be found"))?
                .try_into()
                .map_err(refused("the program is of another kind"))?;
            watch.load().map_err(refused("the kernel does not take the program"))?;
            watch.attach(event).map_err(refused("losses cannot be counted"))?;
        }
        let slots = shared(program, "slots", SLOTS * SLOT)?;
        let run = shared(program, "runs", 16)?;
        Ok(Burst { slots, run, waiting: 0, template: vec![0; TEMPLATE] })
    }

    /// Puts a frame that is to leave by the device with this index. False if there is no room, or if it is too long.
    pub fn put(&mut self, device: u32, header: &[u8], rest: &[u8]) -> bool {
        let length = header.len() + rest.len();
        if self.waiting == SLOTS || length > LONGEST {
            return false;
        }
        let Some(slot) = self.slots.slice_mut(self.waiting * SLOT, HEADER + length) else { return false };
        let (head, frame) = slot.split_at_mut(HEADER);
        let (front, back) = frame.split_at_mut(header.len());
        head[..4].copy_from_slice(&device.to_ne_bytes());
        head[4..].copy_from_slice(&(length as u32).to_ne_bytes());
        front.copy_from_slice(header);
        back.copy_from_slice(rest);
        self.waiting += 1;
        true
    }

    /// How many frames wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Is there no more room?
    pub fn is_full(&self) -> bool {
        self.waiting == SLOTS
    }

    /// Takes back what was put: device and octets.
    pub fn frames(&mut self) -> impl Iterator<Item = (u32, &[u8])> {
        let count = std::mem::take(&mut self.waiting);
        (0..count).filter_map(|at| {
            let word = |offset| {
                let octets = self.slots.slice(at * SLOT + offset, 4)?;
                octets.first_chunk().map(|octets| u32::from_ne_bytes(*octets))
            };
            Some((word(0)?, self.slots.slice(at * SLOT + HEADER, word(4)? as usize)?))
        })
    }

    /// Sends what was put, and forgets it; gives how many frames no device has taken.
    ///
    /// # Errors
    /// The kernel does not run the program any more.
    pub fn go(&mut self, through: &Diversion) -> io::Result<u64> {
        if self.waiting == 0 {
            return Ok(0);
        }
        let before = self.lost();
        self.word(0).store(0, Ordering::Relaxed);
        let emit: &Xdp = through
            .program()
            .program(NAME)
            .ok_or_else(|| io::Error::other("the program is gone"))?
            .try_into()
            .map_err(io::Error::other)?;
        let (mut sent, mut tries) = (0, 0);
        while sent < self.waiting {
            let options = TestRunOptions {
                data_in: Some(&self.template),
                repeat: (self.waiting - sent) as u32,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::new()
            };
            let ran = emit.test_run(options);
            // A signal ends a run early; the next goes on where it ended.
            let done = self.word(0).load(Ordering::Relaxed) as usize;
            match ran {
                Ok(_) => break,
                Err(_) if done > sent || tries < TRIES => (sent, tries) = (done, tries + 1),
                Err(error) => {
                    self.waiting = 0;
                    return Err(io::Error::other(error));
                }
            }
        }
        self.waiting = 0;
        self.word(4).store(0, Ordering::Relaxed);
        Ok(self.lost() - before)
    }

    fn lost(&self) -> u64 {
        // SAFETY: the map's one value has a number of eight octets at place 8; both sides use it as an atomic.
        unsafe { AtomicU64::from_ptr(self.run.start().as_ptr().add(8).cast()) }.load(Ordering::Relaxed)
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        // SAFETY: `at` is 0 or 4, where the map's one value has numbers of four octets; both sides use them as atomics.
        unsafe { AtomicU32::from_ptr(self.run.start().as_ptr().add(at).cast()) }
    }
}

/// The memory of a map.
fn shared(program: &mut Ebpf, name: &str, length: usize) -> Result<Mapping, Refused> {
    let map = program.map(name).ok_or("it is not in its object file").map_err(refused("a map cannot be found"))?;
    let Map::Array(data) = map else {
        return Err(refused("a map cannot be used")("it is of another kind"));
    };
    Mapping::shared(data.fd().as_fd().as_raw_fd(), length).map_err(refused("a map's memory cannot be shared"))
}
